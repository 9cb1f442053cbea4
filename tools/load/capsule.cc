#include <levada/tools/load/capsule.h>

#include <charconv>
#include <utility>

#include <levada/tools/load/capsule_json.h>
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

Json second_to_json(const Second& second) {
  Json json = {{"at_s", second.at_s},
               {"messages", second.messages},
               {"errors", second.errors},
               {"open", second.open},
               {"p50_us", us(second.response.percentile(50))},
               {"p99_us", us(second.response.percentile(99))},
               {"max_us", us(second.response.max())}};
  json["max_ns"] = second.response.max();
  json["slots"] = write_slots([&](const auto& visit) {
    for (const auto& [ns, times] : second.response.entries()) visit(ns, times);
  });
  return json;
}

Json write_series(const Result& result) {
  Json series = Json::array();
  for (const Second& second : result.series) series.push_back(second_to_json(second));
  return series;
}

Json write_expectations(const Options& options, const Result& result) {
  Json json = Json::array();
  for (const Expectation& expectation : options.expectations)
    json.push_back({{"text", expectation.text}, {"holds", holds(expectation, result)}});
  return json;
}

Json write_deflate(const Options& options, const Result& result) {
  const auto from = static_cast<double>(result.deflated_from_bytes),
             to = static_cast<double>(result.deflated_to_bytes);
  return {{"offered", options.deflate.enabled},
          {"agreed", result.compressed},
          {"from_bytes", result.deflated_from_bytes},
          {"to_bytes", result.deflated_to_bytes},
          {"ratio", to > 0 ? Json(from / to) : Json()}};
}

void write_details(Json& json, const Options& options, const Result& result) {
  json["handshakes_in_all"] = result.connected;
  json["tls_resumed"] = result.tls_resumed;
  json["deflate"] = write_deflate(options, result);
  json["wire"] = {{"sent_bytes", result.wire_sent_bytes}, {"received_bytes", result.wire_received_bytes}};
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
  json["targets"] = Json::array();
  for (const TargetResult& target : result.targets) {
    json["targets"].push_back({{"url", target.url},
                               {"connections", target.connections},
                               {"verified", target.verified},
                               {"errors", target.errors}});
  }
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
  const auto add = [&](std::uint64_t ns, std::uint64_t times) { entries.emplace_back(ns, times); };
  if (!read_slots(json["slots"].get<std::string>(), add)) throw std::runtime_error("a second is damaged");
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
  json.at("handshakes_in_all").get_to(result.connected);
  json.at("tls_resumed").get_to(result.tls_resumed);
  json.at("deflate").at("agreed").get_to(result.compressed);
  json.at("deflate").at("from_bytes").get_to(result.deflated_from_bytes);
  json.at("deflate").at("to_bytes").get_to(result.deflated_to_bytes);
  json.at("wire").at("sent_bytes").get_to(result.wire_sent_bytes);
  json.at("wire").at("received_bytes").get_to(result.wire_received_bytes);
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

// What reports say of a run, as far as its options tell.
void read_options(const Json& json, const Json& options_json, Options& options) {
  options.target.url = json.at("url").get<std::string>();
  for (const Json& url : options_json.at("urls")) {
    options.targets.emplace_back().url = url.get<std::string>();
  }
  const auto choose = [&](const char* key, auto& value, auto last) {
    const auto name = options_json.at(key).get<std::string>();
    for (int i = 0; i <= static_cast<int>(last); i++) {
      const auto each = static_cast<std::remove_reference_t<decltype(value)>>(i);
      if (name == to_string(each)) value = each;
    }
  };
  choose("mode", options.mode, Mode::hold);
  choose("pace", options.pace, Pace::poisson);
  choose("shape", options.shape, Shape::mix);
  options_json.at("connections").get_to(options.connections);
  options_json.at("threads").get_to(options.threads);
  options_json.at("processes").get_to(options.processes);
  options_json.at("depth").get_to(options.depth);
  options_json.at("rate").get_to(options.rate);
  options_json.at("message_bytes").get_to(options.bytes);
  options_json.at("sizes").get_to(options.sizes_text);
  options_json.at("messages_per_connection").get_to(options.messages_per_connection);
  options_json.at("slow_share").get_to(options.slow_share);
  options_json.at("churn_share").get_to(options.churn_share);
  options_json.at("seed").get_to(options.seed);
  options_json.at("deflate").at("offered").get_to(options.deflate.enabled);
  options.text = options_json.at("opcode") == "text";
}

void read_targets(const Json& json, Result& result) {
  for (const Json& target : json) {
    result.targets.push_back(
        {target.at("url").get<std::string>(), target.at("connections").get<std::uint64_t>(),
         target.at("verified").get<std::uint64_t>(), target.at("errors").get<std::uint64_t>()});
  }
}

}  // namespace

nlohmann::ordered_json options_to_json(const Options& options) {
  const ws::DeflateOptions& deflate = options.deflate;
  Json json = {{"connections", options.connections},
               {"threads", options.threads},
               {"processes", options.processes},
               {"pin", options.pin},
               {"backend", net::to_string(options.backend)},
               {"mode", to_string(options.mode)},
               {"pace", to_string(options.pace)},
               {"depth", options.depth},
               {"rate", options.rate},
               {"count", options.count ? Json(*options.count) : Json()},
               {"connect_rate", options.connect_rate},
               {"message_bytes", options.bytes},
               {"sizes", options.sizes_text},
               {"payload", options.payload_text == PayloadText::json ? "json" : "random"},
               {"literal", options.literal.has_value()},
               {"opcode", options.text ? "text" : "binary"},
               {"shape", to_string(options.shape)},
               {"frames", options.frames},
               {"messages_per_connection", options.messages_per_connection},
               {"slow_share", options.slow_share},
               {"churn_share", options.churn_share},
               {"duration_s", static_cast<double>(options.duration_ns) / 1e9},
               {"warmup_s", static_cast<double>(options.warmup_ns) / 1e9},
               {"drain_s", static_cast<double>(options.drain_ns) / 1e9},
               {"timeout_ms", options.timeout_ms},
               {"seed", options.seed},
               {"sources", options.sources_text},
               {"host", options.host},
               {"origin", options.origin},
               {"subprotocols", options.subprotocols},
               {"fields", Json::array()},
               {"tls",
                {{"ca", options.tls.ca.file},
                 {"insecure", options.tls.insecure_no_verification},
                 {"resumption", options.tls.resumption},
                 {"sni", options.sni}}},
               {"deflate",
                {{"offered", deflate.enabled},
                 {"takeover", deflate.deflater == ws::DeflateContext::dedicated},
                 {"window_bits", deflate.window_bits},
                 {"peer_window_bits", deflate.peer_window_bits},
                 {"level", deflate.level},
                 {"memory_level", deflate.memory_level},
                 {"min_bytes", deflate.min_bytes},
                 {"final_blocks", deflate.final_blocks},
                 {"max_ratio", deflate.max_ratio}}},
               {"server_pids", options.server_pids},
               {"expectations", Json::array()},
               {"urls", Json::array()}};
  for (const auto& [name, value] : options.fields)
    json["fields"].push_back(std::string(name).append(": ").append(value));
  for (const Expectation& expectation : options.expectations)
    json["expectations"].push_back(expectation.text);
  for (const Target& target : options.targets) json["urls"].push_back(target.url);
  if (options.against) json["against"] = {{"url", options.against->url}, {"blocks", options.blocks}};
  if (options.search_to > 0) json["search"] = {options.search_from, options.search_to};
  return json;
}

nlohmann::ordered_json machine_to_json() {
  const Machine machine = this_machine();
  return {{"time", machine.time}, {"kernel", machine.kernel},   {"cpu", machine.cpu},
          {"cpus", machine.cpus}, {"sysctls", machine.sysctls}, {"levada", LEVADA_VERSION}};
}

nlohmann::ordered_json histograms_to_json(const Result& result) {
  Json json = Json::object();
  for (const auto& [name, histogram] : result.histograms()) {
    if (histogram->count() > 0) json[name] = write_histogram(*histogram);
  }
  return json;
}

std::string write_capsule(const Options& options, const Result& result, bool one_line) {
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
  json["options"] = options_to_json(options);
  json["machine"] = machine_to_json();
  json["series"] = write_series(result);
  json["histograms"] = histograms_to_json(result);
  return json.dump(one_line ? -1 : 2, ' ', false, Json::error_handler_t::replace) + "\n";
}

std::string write_second(const Second& second) {
  return second_to_json(second).dump();
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
    read_targets(json.at("targets"), result);
    read_options(json, json.at("options"), capsule.options);
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

Capsule merge_capsules(const std::vector<Capsule>& capsules) {
  Capsule sum = capsules.front();
  for (std::size_t i = 1; i < capsules.size(); i++) {
    const Options& options = capsules[i].options;
    sum.options.connections += options.connections;
    sum.options.processes += options.processes;
    sum.options.rate += options.rate;
    sum.result.add(capsules[i].result);
  }
  sum.verdict = verdict(sum.result).name;
  return sum;
}

}  // namespace levada::load
