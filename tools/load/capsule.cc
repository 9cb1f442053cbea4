#include <levada/tools/load/capsule.h>

#include <charconv>
#include <utility>

#include <nlohmann/json.hpp>

#include <levada/tools/load/machine.h>
#include <levada/tools/load/percentiles.h>
#include <levada/tools/load/verdict.h>

namespace levada::load {
namespace {

using Json = nlohmann::ordered_json;

// ---- Histograms as text ----

template <class Each>
std::string write_slots(const Each& each) {
  std::string text;
  each([&](std::uint64_t ns, std::uint64_t times) {
    if (!text.empty()) text += ' ';
    text += std::to_string(ns) + 'x' + std::to_string(times);
  });
  return text;
}

// Calls `visit(ns, times)`; false if it is no such text.
template <class Visit>
bool read_slots(const std::string& text, const Visit& visit) {
  const char* at = text.data();
  const char* const end = at + text.size();
  while (at != end) {
    std::uint64_t ns = 0, times = 0;
    const auto first = std::from_chars(at, end, ns);
    if (first.ec != std::errc{} || first.ptr == end || *first.ptr != 'x') return false;
    const auto second = std::from_chars(first.ptr + 1, end, times);
    if (second.ec != std::errc{}) return false;
    visit(ns, times);
    at = second.ptr == end ? end : second.ptr + 1;
  }
  return true;
}

Json write_histogram(const Histogram& histogram) {
  return {{"count", histogram.count()},
          {"overflow", histogram.overflow()},
          {"min_ns", histogram.min()},
          {"max_ns", histogram.max()},
          {"slots", write_slots([&](const auto& visit) { histogram.each(visit); })}};
}

void read_histogram(const Json& json, Histogram& histogram) {
  if (!read_slots(json.at("slots").get<std::string>(),
                  [&](std::uint64_t ns, std::uint64_t times) { histogram.restore(ns, times); })) {
    throw std::runtime_error("a histogram is damaged");
  }
  histogram.restore(json.at("overflow").get<std::uint64_t>(), json.at("min_ns").get<std::uint64_t>(),
                    json.at("max_ns").get<std::uint64_t>());
}

// ---- Writing ----

double us(std::uint64_t ns) {
  return static_cast<double>(ns) / 1e3;
}

template <class Key>
Json write_counts(const std::map<Key, std::uint64_t>& counts) {
  Json json = Json::object();
  for (const auto& [key, times] : counts) {
    if constexpr (std::is_integral_v<Key>) {
      json[std::to_string(key)] = times;
    } else {
      json[key] = times;
    }
  }
  return json;
}

Json write_latency(const Result& result) {
  Json json = Json::object();
  for (const auto& [name, histogram] : result.histograms()) {
    const std::string_view key = name;
    const bool always = key == "response" || key == "service" || key == "lag";
    if (!always && histogram->count() == 0) continue;
    Json& values = json[name] = {{"mean", histogram->mean() / 1e3}};
    for (const Percentile& percentile : percentiles)
      values[percentile.key] = us(value_at(*histogram, percentile.percent));
  }
  return json;
}

Json write_use(const ThreadUse& use) {
  return {{"ran", use.ran}, {"waited", use.waited}};
}

Json write_server(const Result& result) {
  if (!result.server) return Json::object();
  const ServerSample& sample = *result.server;
  Json seconds = Json::array();
  for (const ServerSecond& second : sample.seconds)
    seconds.push_back({{"at_s", second.at_s}, {"cpu", second.cpu}, {"rss_bytes", second.rss_bytes}});
  Json json = {{"cpu_s", sample.cpu_s},
               {"messages_per_cpu_s",
                sample.cpu_s > 0 ? Json(static_cast<double>(result.messages) / sample.cpu_s) : Json()},
               {"pss_bytes", sample.pss_bytes ? Json(*sample.pss_bytes) : Json()},
               {"pss_before_bytes", sample.pss_before_bytes ? Json(*sample.pss_before_bytes) : Json()},
               {"bytes_per_connection", Json()},
               {"busiest_thread", write_use(sample.busiest)},
               {"seconds", seconds}};
  if (const auto bytes = result.bytes_per_connection()) json["bytes_per_connection"] = *bytes;
  return json;
}

Json second_to_json(const Second& second, bool with_sketch) {
  Json json = {{"at_s", second.at_s},
               {"messages", second.messages},
               {"errors", second.errors},
               {"open", second.open},
               {"p50_us", us(second.response.percentile(50))},
               {"p99_us", us(second.response.percentile(99))},
               {"max_us", us(second.response.max())}};
  if (!with_sketch) return json;
  json["max_ns"] = second.response.max();
  json["slots"] = write_slots([&](const auto& visit) {
    for (const auto& [ns, times] : second.response.entries()) visit(ns, times);
  });
  return json;
}

Json write_series(const Result& result, bool with_sketches) {
  Json series = Json::array();
  for (const Second& second : result.series) series.push_back(second_to_json(second, with_sketches));
  return series;
}

Json write_options(const Options& options) {
  Json json = {{"connections", options.connections},
               {"threads", options.threads},
               {"processes", options.processes},
               {"pace", to_string(options.pace)},
               {"depth", options.depth},
               {"rate", options.rate},
               {"count", options.count ? Json(*options.count) : Json()},
               {"connect_rate", options.connect_rate},
               {"message_bytes", options.bytes},
               {"literal", options.literal.has_value()},
               {"opcode", options.text ? "text" : "binary"},
               {"shape", to_string(options.shape)},
               {"messages_per_connection", options.messages_per_connection},
               {"slow_share", options.slow_share},
               {"churn_share", options.churn_share},
               {"duration_s", static_cast<double>(options.duration_ns) / 1e9},
               {"warmup_s", static_cast<double>(options.warmup_ns) / 1e9},
               {"drain_s", static_cast<double>(options.drain_ns) / 1e9},
               {"timeout_ms", options.timeout_ms},
               {"pin", options.pin},
               {"seed", options.seed},
               {"subprotocols", options.subprotocols},
               {"origin", options.origin}};
  for (const auto& [name, value] : options.fields)
    json["fields"].push_back(std::string(name).append(": ").append(value));
  return json;
}

Json write_machine() {
  const Machine machine = this_machine();
  return {{"time", machine.time},
          {"kernel", machine.kernel},
          {"cpu", machine.cpu},
          {"cpus", machine.cpus},
          {"sysctls", machine.sysctls}};
}

Json write_expectations(const Options& options, const Result& result) {
  Json json = Json::array();
  for (const Expectation& expectation : options.expectations)
    json.push_back({{"text", expectation.text}, {"holds", holds(expectation, result)}});
  return json;
}

void write_details(Json& json, const Options& options, const Result& result) {
  json["connections_wanted"] = options.connections;
  json["handshakes"] = result.handshakes;
  json["close_codes"] = write_counts(result.close_codes);
  json["http_status"] = write_counts(result.http_status);
  json["depth"] = options.depth;
  json["threads"] = options.threads;
  json["message_bytes"] = options.bytes;
  json["opcode"] = options.text ? "text" : "binary";
  json["seed"] = options.seed;
  json["backend"] = result.backend;
  json["busiest_thread"] = write_use(result.busiest);
  json["cpu_s"] = result.cpu_s;
  json["warmup_s"] = static_cast<double>(options.warmup_ns) / 1e9;
  json["sent"] = result.sent;
  json["verified"] = result.verified;
  json["held"] = result.held;
  json["samples"] = {{"count", result.response.count()},
                     {"censored", result.censored},
                     {"unsent", result.unsent},
                     {"overflow", result.response.overflow()}};
  json["broadcast"] = {{"published", result.broadcast.published},
                       {"expected", result.broadcast.expected},
                       {"delivered", result.broadcast.delivered},
                       {"reach", result.broadcast.reach()}};
  json["examples"] = result.examples.empty() ? Json::object() : Json(result.examples);
  json["interrupted"] = result.interrupted;
  json["open_loop"] = result.open_loop;
  json["expectations"] = write_expectations(options, result);
}

// ---- Reading ----

void read_server(const Json& json, Result& result) {
  if (json.empty()) return;
  ServerSample sample;
  sample.cpu_s = json.at("cpu_s").get<double>();
  sample.busiest = {json.at("busiest_thread").at("ran").get<double>(),
                    json.at("busiest_thread").at("waited").get<double>()};
  if (json.at("pss_bytes").is_number()) sample.pss_bytes = json["pss_bytes"].get<std::uint64_t>();
  if (json.at("pss_before_bytes").is_number())
    sample.pss_before_bytes = json["pss_before_bytes"].get<std::uint64_t>();
  for (const Json& second : json.at("seconds")) {
    sample.seconds.push_back({second.at("at_s").get<double>(), second.at("cpu").get<double>(),
                              second.at("rss_bytes").get<std::uint64_t>()});
  }
  result.server = sample;
}

Second second_from_json(const Json& json) {
  Second second;
  second.at_s = json.at("at_s").get<double>();
  second.messages = json.at("messages").get<std::uint64_t>();
  second.errors = json.at("errors").get<std::uint64_t>();
  second.open = json.at("open").get<std::uint64_t>();
  if (!json.contains("slots")) return second;
  std::vector<Sketch::Entry> entries;
  read_slots(json["slots"].get<std::string>(),
             [&](std::uint64_t ns, std::uint64_t times) { entries.emplace_back(ns, times); });
  second.response = Sketch(std::move(entries), json.at("max_ns").get<std::uint64_t>());
  return second;
}

void read_series(const Json& json, Result& result) {
  for (const Json& second : json) result.series.push_back(second_from_json(second));
}

template <class Key>
void read_counts(const Json& json, std::map<Key, std::uint64_t>& counts) {
  for (const auto& item : json.items()) {
    if constexpr (std::is_integral_v<Key>) {
      counts[static_cast<Key>(std::stoul(item.key()))] = item.value().template get<std::uint64_t>();
    } else {
      counts[item.key()] = item.value().template get<std::uint64_t>();
    }
  }
}

void read_numbers(const Json& json, Result& result) {
  json.at("connections").get_to(result.opened);
  json.at("handshakes").get_to(result.handshakes);
  json.at("messages").get_to(result.messages);
  json.at("seconds").get_to(result.seconds);
  json.at("bytes").get_to(result.bytes);
  json.at("sent").get_to(result.sent);
  json.at("verified").get_to(result.verified);
  json.at("held").get_to(result.held);
  json.at("cpu_s").get_to(result.cpu_s);
  json.at("backend").get_to(result.backend);
  json.at("interrupted").get_to(result.interrupted);
  json.at("open_loop").get_to(result.open_loop);
  json.at("samples").at("censored").get_to(result.censored);
  json.at("samples").at("unsent").get_to(result.unsent);
  json.at("broadcast").at("published").get_to(result.broadcast.published);
  json.at("broadcast").at("expected").get_to(result.broadcast.expected);
  json.at("broadcast").at("delivered").get_to(result.broadcast.delivered);
  json.at("busiest_thread").at("ran").get_to(result.busiest.ran);
  json.at("busiest_thread").at("waited").get_to(result.busiest.waited);
}

}  // namespace

std::string write_capsule(const Options& options, const Result& result, bool with_sketches) {
  const Verdict found = verdict(result);
  std::string mode = to_string(options.mode);
  if (options.mode == Mode::echo) mode = options.open_loop() ? "open" : "closed";
  if (options.mode == Mode::churn && options.messages_per_connection == 0) mode = "handshake";
  Json json = {{"url", options.target.url},
               {"mode", mode},
               {"connections", result.opened},
               {"seconds", result.seconds},
               {"messages", result.messages},
               {"messages_per_s", result.rate(result.messages)},
               {"bytes", result.bytes},
               {"bytes_per_s", result.rate(result.bytes)},
               {"handshakes_per_s", result.rate(result.handshakes)},
               {"errors", write_counts(result.errors)},
               {"latency_us", write_latency(result)},
               {"server", write_server(result)},
               {"verdict", found.name},
               {"verdict_reason", found.reason}};
  write_details(json, options, result);
  json["options"] = write_options(options);
  json["machine"] = write_machine();
  json["series"] = write_series(result, with_sketches);
  for (const auto& [name, histogram] : result.histograms()) {
    if (histogram->count() > 0) json["histograms"][name] = write_histogram(*histogram);
  }
  return json.dump(with_sketches ? -1 : 2, ' ', false, Json::error_handler_t::replace) + "\n";
}

std::string write_second(const Second& second) {
  return second_to_json(second, true).dump();
}

Second read_second(const std::string& json) {
  return second_from_json(Json::parse(json));
}

std::optional<Capsule> read_capsule(const std::string& text, std::string& why) {
  try {
    const Json json = Json::parse(text);
    Capsule capsule;
    json.at("url").get_to(capsule.url);
    json.at("mode").get_to(capsule.mode);
    json.at("verdict").get_to(capsule.verdict);
    Result& result = capsule.result;
    read_numbers(json, result);
    read_counts(json.at("errors"), result.errors);
    read_counts(json.at("close_codes"), result.close_codes);
    read_counts(json.at("http_status"), result.http_status);
    for (const auto& item : json.at("examples").items())
      result.examples[item.key()] = item.value().get<std::string>();
    read_server(json.at("server"), result);
    read_series(json.at("series"), result);
    if (!json.contains("histograms")) return capsule;
    for (const auto& [name, histogram] : result.histograms()) {
      if (json["histograms"].contains(name)) read_histogram(json["histograms"][name], *histogram);
    }
    return capsule;
  } catch (const std::exception& error) {
    why = error.what();
    return std::nullopt;
  }
}

}  // namespace levada::load
