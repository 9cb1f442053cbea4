// Result: what a run found out; the threads' add up to the run's, the processes' to the whole.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <levada/tools/load/histogram.h>
#include <levada/tools/load/sketch.h>

namespace levada::load {

// How a thread spent the measured time, as shares of it. What is left, it had nothing to do.
struct ThreadUse {
  double ran = 0;
  double waited = 0;  // was ready to run, and others had the CPU
  double wanted() const { return ran + waited; }
};

inline ThreadUse busier(const ThreadUse& a, const ThreadUse& b) {
  return a.wanted() < b.wanted() ? b : a;
}

// One second of the server's process.
struct ServerSecond {
  double at_s = 0;  // its end, after the beginning of the measured time
  double cpu = 0;   // CPUs it used
  std::uint64_t rss_bytes = 0;
};

// What was measured of the server's process, or of all of them.
struct ServerSample {
  double cpu_s = 0;                               // CPU time of all its threads
  ThreadUse busiest;                              // of its threads
  std::optional<std::uint64_t> pss_bytes;         // at the end; none where the kernel does not let us look
  std::optional<std::uint64_t> pss_before_bytes;  // before the first connection
  std::vector<ServerSecond> seconds;

  // Another process of the same server, at the same times.
  void add(const ServerSample& other) {
    cpu_s += other.cpu_s;
    busiest = busier(busiest, other.busiest);
    if (other.pss_bytes) pss_bytes = pss_bytes.value_or(0) + *other.pss_bytes;
    if (other.pss_before_bytes) pss_before_bytes = pss_before_bytes.value_or(0) + *other.pss_before_bytes;
    if (seconds.size() < other.seconds.size()) seconds.resize(other.seconds.size());
    for (std::size_t i = 0; i < other.seconds.size(); i++) {
      seconds[i].at_s = other.seconds[i].at_s;
      seconds[i].cpu += other.seconds[i].cpu;
      seconds[i].rss_bytes += other.seconds[i].rss_bytes;
    }
  }
};

// One second of the load.
struct Second {
  double at_s = 0;             // its end, after the beginning of the measured time
  std::uint64_t messages = 0;  // right echoes that came in it
  std::uint64_t errors = 0;
  std::uint64_t open = 0;  // connections at its end
  Sketch response;         // of the echoes that came in it

  void add(const Second& other) {
    at_s = std::max(at_s, other.at_s);
    messages += other.messages;
    errors += other.errors;
    open += other.open;
    response.add(other.response);
  }
};

// Broadcasts: how long until the first, half, 99 % and the last of those who should have heard it.
struct BroadcastResult {
  std::uint64_t published = 0;
  std::uint64_t expected = 0;   // deliveries
  std::uint64_t delivered = 0;  // of these
  Histogram first, median, p99, last;

  double reach() const {
    return expected == 0 ? 0 : static_cast<double>(delivered) / static_cast<double>(expected);
  }
  void add(const BroadcastResult& other) {
    published += other.published;
    expected += other.expected;
    delivered += other.delivered;
    first.add(other.first);
    median.add(other.median);
    p99.add(other.p99);
    last.add(other.last);
  }
};

// One of several servers, over the whole run.
struct TargetResult {
  std::string url;
  std::uint64_t connections = 0;
  std::uint64_t verified = 0;  // right echoes
  std::uint64_t errors = 0;
};

struct Result {
  // How often each kind of error happened:
  //   connect.<error>      TCP or the Unix socket: connect.connection_refused, connect.timed_out, ...
  //   handshake.<reason>   an HTTP status (handshake.404), a rule that the answer broke, or the transport's error
  //   closed.<code>        the server ended the connection during the run
  //   reordered, duplicated, foreign, corrupt, wrong_size, unexpected      wrong echoes
  //   lost                 messages that were never answered
  //   pong_missing         pings between fragments that neither their own nor a later pong answered
  //   overrun              messages that were due and not sent, since too many were unanswered
  std::map<std::string, std::uint64_t> errors;
  // The first error of each kind, in words.
  std::map<std::string, std::string> examples;
  std::map<unsigned, std::uint64_t> close_codes;  // of all connections that were open
  std::map<unsigned, std::uint64_t> http_status;  // of all answers to handshakes

  // Of all connections in the whole run that got through their handshake: how many, with permessage-deflate agreed
  // on, with a TLS session resumed.
  std::uint64_t connected = 0, compressed = 0, tls_resumed = 0;
  // Payloads sent compressed, before and after; what the kernel took and gave, in the whole run.
  std::uint64_t deflated_from_bytes = 0, deflated_to_bytes = 0;
  std::uint64_t wire_sent_bytes = 0, wire_received_bytes = 0;
  std::uint32_t opened = 0;      // connections that got through their handshake before the load began
  std::uint64_t handshakes = 0;  // made in the measured time
  std::uint64_t messages = 0;    // right echoes that came in the measured time
  std::uint64_t bytes = 0;       // their payload
  double seconds = 0;            // measured
  std::uint64_t sent = 0;        // messages in the whole run, warm-up and end included
  std::uint64_t verified = 0;    // right echoes of these
  std::uint64_t held = 0;        // hold: connections with a right echo at the end
  std::uint64_t censored = 0;    // values in the response histogram that are the age of a lost message
  std::uint64_t unsent = 0;      // open loop: messages that were due and that the load itself did not get to
  Histogram response;  // from the planned time to the echo, of messages planned in the measured time
  Histogram service;   // from the write to the echo, of the same
  Histogram lag;       // from the planned time to the write
  // Of handshakes begun in the measured time, or before the load: TCP, TLS, HTTP, and all of it.
  Histogram connect, tls, upgrade, handshake;
  BroadcastResult broadcast;
  ThreadUse busiest;  // of the load's own threads
  double cpu_s = 0;   // CPU time of them all, measured
  std::vector<TargetResult> targets;
  std::vector<Second> series;
  std::optional<ServerSample> server;
  std::string backend;
  bool open_loop = false;
  bool interrupted = false;

  void count(const std::string& kind, std::uint64_t times, std::string example = {}) {
    if (times == 0) return;
    errors[kind] += times;
    if (!example.empty()) examples.emplace(kind, std::move(example));
  }

  std::uint64_t error_count() const {
    std::uint64_t sum = 0;
    for (const auto& [kind, times] : errors) sum += times;
    return sum;
  }

  // Per measured second.
  double rate(std::uint64_t number) const { return seconds > 0 ? static_cast<double>(number) / seconds : 0; }

  // How much the server's memory has grown for each connection; none if it was not looked at.
  std::optional<double> bytes_per_connection() const {
    if (!server || !server->pss_bytes || !server->pss_before_bytes || opened == 0) return std::nullopt;
    return (static_cast<double>(*server->pss_bytes) - static_cast<double>(*server->pss_before_bytes)) /
           opened;
  }

  // The histograms and their names, in the order of reports.
  static constexpr std::size_t histogram_count = 11;
  std::array<std::pair<const char*, Histogram*>, histogram_count> histograms() {
    return {{{"response", &response},
             {"service", &service},
             {"lag", &lag},
             {"connect", &connect},
             {"tls", &tls},
             {"upgrade", &upgrade},
             {"handshake", &handshake},
             {"first", &broadcast.first},
             {"median", &broadcast.median},
             {"broadcast_p99", &broadcast.p99},
             {"last", &broadcast.last}}};
  }
  std::array<std::pair<const char*, const Histogram*>, histogram_count> histograms() const {
    std::array<std::pair<const char*, const Histogram*>, histogram_count> all;
    const auto found = const_cast<Result*>(this)->histograms();
    std::copy(found.begin(), found.end(), all.begin());
    return all;
  }
  // nullptr: there is none of that name.
  const Histogram* histogram(std::string_view name) const {
    for (const auto& [known, histogram] : histograms()) {
      if (name == known) return histogram;
    }
    return nullptr;
  }

  void add(const Result& other) {
    for (const auto& [kind, times] : other.errors) errors[kind] += times;
    examples.insert(other.examples.begin(), other.examples.end());
    for (const auto& [code, times] : other.close_codes) close_codes[code] += times;
    for (const auto& [status, times] : other.http_status) http_status[status] += times;
    connected += other.connected;
    compressed += other.compressed;
    tls_resumed += other.tls_resumed;
    deflated_from_bytes += other.deflated_from_bytes;
    deflated_to_bytes += other.deflated_to_bytes;
    wire_sent_bytes += other.wire_sent_bytes;
    wire_received_bytes += other.wire_received_bytes;
    opened += other.opened;
    handshakes += other.handshakes;
    messages += other.messages;
    bytes += other.bytes;
    seconds = std::max(seconds, other.seconds);
    sent += other.sent;
    verified += other.verified;
    held += other.held;
    censored += other.censored;
    unsent += other.unsent;
    response.add(other.response);
    service.add(other.service);
    lag.add(other.lag);
    connect.add(other.connect);
    tls.add(other.tls);
    upgrade.add(other.upgrade);
    handshake.add(other.handshake);
    broadcast.add(other.broadcast);
    busiest = busier(busiest, other.busiest);
    cpu_s += other.cpu_s;
    if (targets.empty()) targets.resize(other.targets.size());
    for (std::size_t i = 0; i < std::min(targets.size(), other.targets.size()); i++) {
      targets[i].url = other.targets[i].url;
      targets[i].connections += other.targets[i].connections;
      targets[i].verified += other.targets[i].verified;
      targets[i].errors += other.targets[i].errors;
    }
    if (series.size() < other.series.size()) series.resize(other.series.size());
    for (std::size_t i = 0; i < other.series.size(); i++) series[i].add(other.series[i]);
    if (!server) server = other.server;
    if (backend.empty()) backend = other.backend;
    open_loop = open_loop || other.open_loop;
    interrupted = interrupted || other.interrupted;
  }
};

}  // namespace levada::load
