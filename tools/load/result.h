// Result: what a run found out; the threads' add up to the run's.
#pragma once

#include <algorithm>
#include <cstdint>
#include <map>
#include <optional>
#include <string>

#include <levada/tools/load/histogram.h>

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

// What was measured of the server's process.
struct ServerSample {
  double cpu_s = 0;                        // CPU time of all its threads
  ThreadUse busiest;                       // of its threads
  std::optional<std::uint64_t> pss_bytes;  // at the end; none where the kernel does not let us look
};

struct Result {
  // How often each kind of error happened:
  //   connect.<error>      TCP or the Unix socket: connect.connection_refused, connect.timed_out, ...
  //   handshake.<reason>   an HTTP status (handshake.404), a rule that the answer broke, or the transport's
  //   error closed.<code>        the server ended the connection during the run wrong echoes reordered,
  //   duplicated, foreign, corrupt, wrong_size, unexpected lost                 messages that were never
  //   answered
  std::map<std::string, std::uint64_t> errors;
  // The first error of each kind, in words.
  std::map<std::string, std::string> examples;

  std::uint32_t opened = 0;    // connections that got through their handshake
  std::uint64_t messages = 0;  // right echoes that came in the measured time
  std::uint64_t bytes = 0;     // their payload
  double seconds = 0;          // measured
  std::uint64_t sent = 0;      // messages in the whole run, warm-up and end included
  std::uint64_t verified = 0;  // right echoes of these
  std::uint64_t censored = 0;  // values in the histogram that are the age of a lost message
  Histogram response;          // from the planned time to the echo, of messages planned in the measured time
  ThreadUse busiest;           // of the load's own threads
  std::optional<ServerSample> server;
  std::string backend;
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

  void add(const Result& other) {
    for (const auto& [kind, times] : other.errors) errors[kind] += times;
    examples.insert(other.examples.begin(), other.examples.end());
    opened += other.opened;
    messages += other.messages;
    bytes += other.bytes;
    seconds = std::max(seconds, other.seconds);
    sent += other.sent;
    verified += other.verified;
    censored += other.censored;
    response.add(other.response);
    busiest = busier(busiest, other.busiest);
    if (backend.empty()) backend = other.backend;
  }
};

}  // namespace levada::load
