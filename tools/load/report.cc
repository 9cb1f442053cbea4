#include <levada/tools/load/report.h>

#include <cmath>
#include <cstdio>
#include <utility>

#include <nlohmann/json.hpp>

namespace levada::load {
namespace {

struct Percentile {
  const char* key;   // in JSON
  const char* name;  // in text
  double percent;
};
constexpr Percentile percentiles[] = {
    {"p50", "p50", 50},       {"p75", "p75", 75},          {"p90", "p90", 90}, {"p99", "p99", 99},
    {"p99_9", "p99.9", 99.9}, {"p99_99", "p99.99", 99.99}, {"max", "max", 100}};

template <class... Values>
std::string format(const char* pattern, Values... values) {
  char text[256];
  std::snprintf(text, sizeof text, pattern, values...);
  return text;
}

// "1,234,567"
std::string grouped(std::uint64_t number) {
  std::string digits = std::to_string(number);
  for (std::size_t at = digits.size(); at > 3; at -= 3) digits.insert(at - 3, 1, ',');
  return digits;
}

std::string plural(std::uint64_t count, const char* noun) {
  return grouped(count) + " " + noun + (count == 1 ? "" : "s");
}

// Three digits and a unit: "1.23 ms".
std::string duration(std::uint64_t ns) {
  constexpr std::pair<double, const char*> units[] = {{1e9, "s"}, {1e6, "ms"}, {1e3, "us"}};
  for (const auto& [size, unit] : units) {
    const double value = static_cast<double>(ns) / size;
    if (value >= 1) return format(value < 10 ? "%.2f %s" : value < 100 ? "%.1f %s" : "%.0f %s", value, unit);
  }
  return std::to_string(ns) + " ns";
}

std::string bytes(double count) {
  constexpr std::pair<double, const char*> units[] = {{1e9, "GB"}, {1e6, "MB"}, {1e3, "kB"}};
  for (const auto& [size, unit] : units) {
    if (count >= size) return format("%.1f %s", count / size, unit);
  }
  return format("%.0f B", count);
}

double rate(std::uint64_t count, const Result& result) {
  return result.seconds > 0 ? static_cast<double>(count) / result.seconds : 0;
}

std::uint64_t at(const Histogram& histogram, double percent) {
  return percent >= 100 ? histogram.max() : histogram.percentile(percent);
}

std::string headline(const Result& result) {
  std::string line =
      grouped(static_cast<std::uint64_t>(std::llround(rate(result.messages, result)))) + " msg/s, ";
  if (result.response.count() > 0) line += "p99 " + duration(result.response.percentile(99)) + ", ";
  line += plural(result.error_count(), "error") + ", " + plural(result.opened, "connection");
  return line + (result.interrupted ? ", interrupted\n" : "\n");
}

std::string latency_table(const Histogram& histogram) {
  std::string names = "  latency ", values = "  response";
  for (const Percentile& percentile : percentiles) {
    names += format(" %9s", percentile.name);
    values += format(" %9s", duration(at(histogram, percentile.percent)).c_str());
  }
  return names + "\n" + values + "\n";
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
  std::string line = format("  server    %.2f s CPU", server.cpu_s);
  if (server.cpu_s > 0) {
    line += ", " + grouped(static_cast<std::uint64_t>(static_cast<double>(result.messages) / server.cpu_s)) +
            " messages per CPU second";
  }
  if (server.pss_bytes) line += ", " + bytes(static_cast<double>(*server.pss_bytes)) + " PSS";
  return line + "\n";
}

std::string words(const ThreadUse& use) {
  return format("ran %.0f %% and waited %.0f %% of the time for a CPU", 100 * use.ran, 100 * use.waited);
}

}  // namespace

Verdict verdict(const Result& result) {
  constexpr double always = 0.9;
  const bool client = result.busiest.wanted() >= always;
  const bool server = result.server && result.server->busiest.wanted() >= always;
  std::string reason = "the busiest load thread " + words(result.busiest);
  reason += result.server ? ", the server's busiest " + words(result.server->busiest)
                          : std::string("; the server was not looked at (--server-pid)");
  const char* name = client && server ? "both-bound"
                     : client         ? "client-bound"
                     : server         ? "server-bound"
                                      : "unknown";
  return {name, reason};
}

std::string text_report(const Options& options, const Result& result) {
  std::string text = headline(result);
  text += "  " + options.target.url + "  closed loop, depth " + std::to_string(options.depth) + ", " +
          grouped(options.bytes) + (options.text ? " B text, " : " B binary, ") +
          plural(static_cast<std::uint64_t>(options.threads), "thread") + " on " + result.backend + "\n";
  text += "  measured  " + plural(result.messages, "message") + format(" in %.2f s, ", result.seconds) +
          bytes(rate(result.bytes, result)) + "/s payload each way\n";
  if (result.response.count() > 0) text += latency_table(result.response);
  if (result.response.overflow() > 0) text += "  beyond 1 h: " + grouped(result.response.overflow()) + "\n";
  if (result.server) text += server_line(result);
  text += error_list(result);
  const Verdict found = verdict(result);
  return text + "  verdict   " + found.name + ": " + found.reason + "\n";
}

std::string json_report(const Options& options, const Result& result) {
  using Json = nlohmann::ordered_json;
  Json response = Json::object();
  for (const Percentile& percentile : percentiles) {
    response[percentile.key] = static_cast<double>(at(result.response, percentile.percent)) / 1e3;
  }
  Json server = Json::object();
  if (result.server) {
    const ServerSample& sample = *result.server;
    server["cpu_s"] = sample.cpu_s;
    server["messages_per_cpu_s"] =
        sample.cpu_s > 0 ? Json(static_cast<double>(result.messages) / sample.cpu_s) : Json();
    server["pss_bytes"] = sample.pss_bytes ? Json(*sample.pss_bytes) : Json();
    server["busiest_thread"] = {{"ran", sample.busiest.ran}, {"waited", sample.busiest.waited}};
  }
  const Verdict found = verdict(result);
  const Json report = {
      {"url", options.target.url},
      {"mode", "closed"},
      {"connections", result.opened},
      {"seconds", result.seconds},
      {"messages", result.messages},
      {"messages_per_s", rate(result.messages, result)},
      {"bytes_per_s", rate(result.bytes, result)},
      {"errors", result.errors.empty() ? Json::object() : Json(result.errors)},
      {"latency_us", {{"response", response}}},
      {"server", server},
      {"verdict", found.name},
      {"verdict_reason", found.reason},
      {"connections_wanted", options.connections},
      {"depth", options.depth},
      {"threads", options.threads},
      {"message_bytes", options.bytes},
      {"opcode", options.text ? "text" : "binary"},
      {"seed", options.seed},
      {"backend", result.backend},
      {"busiest_thread", {{"ran", result.busiest.ran}, {"waited", result.busiest.waited}}},
      {"warmup_s", static_cast<double>(options.warmup_ns) / 1e9},
      {"sent", result.sent},
      {"verified", result.verified},
      {"samples",
       {{"count", result.response.count()},
        {"censored", result.censored},
        {"overflow", result.response.overflow()}}},
      {"examples", result.examples.empty() ? Json::object() : Json(result.examples)},
      {"interrupted", result.interrupted},
  };
  return report.dump(2) + "\n";
}

}  // namespace levada::load
