#include <levada/tools/load/report.h>

#include <cmath>

#include <levada/tools/load/percentiles.h>
#include <levada/tools/load/units.h>
#include <levada/tools/load/verdict.h>

namespace levada::load {
namespace {

std::string per_second(double rate) {
  return rate < 10 ? fixed(rate, 2) : grouped(static_cast<std::uint64_t>(std::llround(rate)));
}

std::string what_was_sent(const Options& options) {
  switch (options.mode) {
    case Mode::ping:
      return "pings";
    case Mode::broadcast:
      return "broadcasts";
    case Mode::churn:
      return options.messages_per_connection == 0
                 ? "handshakes"
                 : plural(options.messages_per_connection, "message") + " per connection";
    case Mode::hold:
      return "pings on quiet connections, then an echo on each";
    case Mode::echo:
      break;
  }
  return options.shape == Shape::whole ? "echoes" : std::string("echoes, shape ") + to_string(options.shape);
}

std::string schedule(const Options& options) {
  if (!options.open_loop()) return "closed loop, depth " + std::to_string(options.depth);
  return "open loop, " + per_second(options.rate) + "/s " + to_string(options.pace);
}

std::string population(const Options& options) {
  std::string text;
  if (options.slow_share > 0) text += ", " + fixed(100 * options.slow_share, 1) + " % slow readers";
  if (options.churn_share > 0) text += ", " + fixed(100 * options.churn_share, 1) + " % churners";
  return text;
}

std::string latency_row(const char* name, const Histogram& histogram) {
  if (histogram.count() == 0) return {};
  std::string row = "  " + std::string(name);
  row.resize(13, ' ');
  for (const Percentile& percentile : percentiles)
    row += " " + right(duration_text(value_at(histogram, percentile.percent)), 9);
  return row + "\n";
}

std::string latency_table(const Result& result) {
  std::string rows;
  for (const auto& [name, histogram] : result.histograms()) rows += latency_row(name, *histogram);
  if (rows.empty()) return {};
  std::string names = "  latency    ";
  for (const Percentile& percentile : percentiles) names += " " + right(percentile.name, 9);
  return names + "\n" + rows;
}

std::string error_list(const Result& result) {
  std::string text;
  for (const auto& [kind, times] : result.errors) {
    text += "  error     " + kind + ": " + grouped(times);
    const auto example = result.examples.find(kind);
    if (example != result.examples.end()) text += "  (" + example->second + ")";
    text += "\n";
  }
  return text;
}

std::string server_line(const Result& result) {
  const ServerSample& server = *result.server;
  std::string line = "  server    " + fixed(server.cpu_s, 2) + " s CPU";
  if (server.cpu_s > 0) {
    line += ", " + grouped(static_cast<std::uint64_t>(static_cast<double>(result.messages) / server.cpu_s)) +
            " messages per CPU second";
  }
  if (server.pss_bytes) line += ", " + bytes_text(static_cast<double>(*server.pss_bytes)) + " PSS";
  if (const auto bytes = result.bytes_per_connection())
    line += ", grown by " + fixed(*bytes, 0) + " B per connection";
  return line + "\n";
}

std::string deflate_line(const Result& result) {
  std::string line = "  deflate   ";
  if (result.compressed == 0) return line + "declined: no connection has permessage-deflate\n";
  line += "agreed on by " + grouped(result.compressed) + " of " + plural(result.connected, "connection");
  const auto from = static_cast<double>(result.deflated_from_bytes),
             to = static_cast<double>(result.deflated_to_bytes);
  if (to > 0)
    line += "; " + bytes_text(from) + " sent as " + bytes_text(to) + ", ratio " + fixed(from / to, 2);
  return line + "; on the wire " + bytes_text(static_cast<double>(result.wire_sent_bytes)) + " out, " +
         bytes_text(static_cast<double>(result.wire_received_bytes)) + " in\n";
}

std::string special_lines(const Options& options, const Result& result) {
  std::string text;
  if (options.mode == Mode::broadcast) {
    const BroadcastResult& found = result.broadcast;
    text += "  broadcast " + plural(found.published, "broadcast") + ", " + grouped(found.delivered) + " of " +
            grouped(found.expected) + " deliveries, reach " + fixed(100 * found.reach(), 3) + " %\n";
  }
  if (options.mode == Mode::hold) {
    text += "  held      " + grouped(result.held) + " of " + plural(options.connections, "connection") +
            " echoed at the end\n";
  }
  if (options.deflate.enabled) text += deflate_line(result);
  if (result.targets.size() > 1) {
    for (const TargetResult& target : result.targets) {
      text += "  target    " + target.url + ": " + plural(target.connections, "connection") + ", " +
              grouped(target.verified) + " echoes, " + plural(target.errors, "error") + "\n";
    }
  }
  if (result.tls_resumed > 0)
    text += "  tls       " + grouped(result.tls_resumed) + " of " + plural(result.connected, "session") +
            " resumed\n";
  if (result.handshakes > 0) text += "  handshakes " + per_second(result.rate(result.handshakes)) + "/s\n";
  if (result.censored > 0) {
    text += "  censored  " + plural(result.censored, "message") +
            " never answered: in the response time with the age at the end\n";
  }
  if (result.response.overflow() > 0) text += "  beyond 1 h: " + grouped(result.response.overflow()) + "\n";
  return text;
}

}  // namespace

std::string headline(const Options& options, const Result& result) {
  const bool handshakes = options.mode == Mode::churn && options.messages_per_connection == 0;
  std::string line = handshakes ? per_second(result.rate(result.handshakes)) + " handshakes/s, "
                                : per_second(result.rate(result.messages)) + " msg/s, ";
  const Histogram& main = handshakes ? result.handshake : result.response;
  if (main.count() > 0) line += "p99 " + duration_text(main.percentile(99)) + ", ";
  line += plural(result.error_count(), "error") + ", " + plural(result.opened, "connection");
  return line + (result.interrupted ? ", interrupted" : "");
}

std::string run_line(const Options& options, const Result& result) {
  return options.target.url + (options.targets.size() > 1 ? " and others" : "") + "  " +
         what_was_sent(options) + ", " + schedule(options) + ", " + options.sizes_text +
         (options.text ? " B text, " : " B binary, ") +
         plural(static_cast<std::uint64_t>(options.threads), "thread") +
         (options.processes > 1 ? " in each of " + std::to_string(options.processes) + " processes" : "") +
         " on " + result.backend + population(options);
}

std::string text_report(const Options& options, const Result& result) {
  std::string text = headline(options, result) + "\n  " + run_line(options, result) + "\n";
  text += "  measured  " + plural(result.messages, "message") + " in " + fixed(result.seconds, 2) + " s, " +
          bytes_text(result.rate(result.bytes)) + "/s payload each way\n";
  text += latency_table(result) + special_lines(options, result);
  if (result.server) text += server_line(result);
  text += error_list(result);
  const Verdict found = verdict(result);
  text += "  verdict   " + found.name + ": " + found.reason + "\n";
  for (const Expectation& expectation : options.expectations) {
    text += std::string("  expected  ") + (holds(expectation, result) ? "kept    " : "MISSED  ") +
            explain(expectation, result) + "\n";
  }
  return text;
}

}  // namespace levada::load
