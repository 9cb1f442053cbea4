#include <levada/tools/load/expect.h>

#include <algorithm>
#include <array>
#include <charconv>

#include <levada/tools/load/units.h>

namespace levada::load {
namespace {

constexpr std::array<const char*, 6> plain_metrics = {"errors", "rate",        "handshakes",
                                                      "reach",  "connections", "lost"};

// The percentile that a name means: "p99.9", "max" (100); "mean" is -1.
std::optional<double> percent_of(std::string_view name) {
  if (name == "max") return 100;
  if (name == "mean") return -1;
  double percent = 0;
  if (!name.starts_with('p')) return std::nullopt;
  const auto [end, error] = std::from_chars(name.data() + 1, name.data() + name.size(), percent);
  if (error != std::errc{} || end != name.data() + name.size() || percent < 0 || percent > 100)
    return std::nullopt;
  return percent;
}

struct Split {
  std::string_view histogram, percentile;
};
// "service.p99" is the service time's p99, "p99.9" the response's p99.9.
Split split(std::string_view metric) {
  if (percent_of(metric)) return {"response", metric};
  const std::size_t dot = metric.find('.');
  if (dot == std::string_view::npos) return {metric, {}};
  return {metric.substr(0, dot), metric.substr(dot + 1)};
}

bool is_plain(std::string_view metric) {
  return std::find(plain_metrics.begin(), plain_metrics.end(), metric) != plain_metrics.end();
}

double plain_value(std::string_view metric, const Result& result) {
  if (metric == "errors") return static_cast<double>(result.error_count());
  if (metric == "rate") return result.rate(result.messages);
  if (metric == "handshakes") return result.rate(result.handshakes);
  if (metric == "reach") return result.broadcast.reach();
  if (metric == "connections") return result.opened;
  const auto lost = result.errors.find("lost");
  return lost == result.errors.end() ? 0 : static_cast<double>(lost->second);
}

}  // namespace

std::optional<Expectation> parse_expectation(std::string_view text, std::string& why) {
  const std::size_t at = text.find_first_of("<>=");
  Expectation found{std::string(text), {}, {}, 0};
  if (at == std::string_view::npos) {
    why = "'" + found.text + "' has none of < <= > >= =";
    return std::nullopt;
  }
  found.metric = text.substr(0, at);
  const std::size_t after = text.find_first_not_of("<>=", at);
  found.op = text.substr(at, after - at);
  const std::string_view value = after == std::string_view::npos ? "" : text.substr(after);
  const Split parts = split(found.metric);
  const bool is_time = Result().histogram(parts.histogram) != nullptr && percent_of(parts.percentile);
  if (!is_time && !is_plain(found.metric)) {
    why = "'" + found.metric + "' is nothing that is measured; see the manual";
    return std::nullopt;
  }
  const auto number = is_time ? parse_duration(value) : parse_size(value);
  double share = 0;
  const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), share);
  if (number) {
    found.value = static_cast<double>(*number);
  }
  if (!is_time && error == std::errc{} && end == value.data() + value.size()) {
    found.value = share;
  } else if (!number) {
    why = "'" + std::string(value) + "' is no " + (is_time ? "time" : "number");
    return std::nullopt;
  }
  if (found.op != "<" && found.op != "<=" && found.op != ">" && found.op != ">=" && found.op != "=") {
    why = "'" + found.op + "' is none of < <= > >= =";
    return std::nullopt;
  }
  return found;
}

std::optional<double> value_of(const std::string& metric, const Result& result) {
  if (is_plain(metric)) return plain_value(metric, result);
  const Split parts = split(metric);
  const Histogram* histogram = result.histogram(parts.histogram);
  const auto percent = percent_of(parts.percentile);
  if (histogram == nullptr || !percent || histogram->count() == 0) return std::nullopt;
  if (*percent < 0) return histogram->mean();
  return static_cast<double>(*percent >= 100 ? histogram->max() : histogram->percentile(*percent));
}

bool holds(const Expectation& expectation, const Result& result) {
  const auto value = value_of(expectation.metric, result);
  if (!value) return false;
  if (expectation.op == "<") return *value < expectation.value;
  if (expectation.op == "<=") return *value <= expectation.value;
  if (expectation.op == ">") return *value > expectation.value;
  if (expectation.op == ">=") return *value >= expectation.value;
  return *value == expectation.value;
}

std::string explain(const Expectation& expectation, const Result& result) {
  const auto value = value_of(expectation.metric, result);
  std::string text = expectation.text + ": ";
  if (!value) return text + "nothing was measured";
  if (!is_plain(expectation.metric)) return text + duration_text(static_cast<std::uint64_t>(*value));
  return text +
         (expectation.metric == "reach" ? fixed(*value, 4) : grouped(static_cast<std::uint64_t>(*value)));
}

}  // namespace levada::load
