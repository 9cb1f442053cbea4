#include <levada/tools/load/exports.h>

#include <cmath>
#include <optional>

#include <levada/tools/load/percentiles.h>
#include <levada/tools/load/units.h>

namespace levada::load {
namespace {

std::string microseconds(std::uint64_t ns) {
  return fixed(static_cast<double>(ns) / 1e3, 3);
}

std::string hgrm_line(double ns, double share, std::uint64_t count) {
  std::string line = right(fixed(ns / 1e6, 6), 16) + " " + right(fixed(share, 12), 14) + " " +
                     right(std::to_string(count), 12);
  if (share < 1) line += " " + right(fixed(1 / (1 - share), 2), 14);
  return line + "\n";
}

std::string row(const std::string& name, std::optional<double> a, std::optional<double> b, int decimals) {
  if (!a || !b) return {};
  std::string line = "  " + name;
  line.resize(26, ' ');
  line += right(fixed(*a, decimals), 16) + right(fixed(*b, decimals), 16);
  line += right(*a > 0 ? fixed(*b / *a, 3) : "-", 10);
  return line + "\n";
}

std::optional<double> server_value(const Result& result, const std::string& which) {
  if (!result.server) return std::nullopt;
  if (which == "cpu_s") return result.server->cpu_s;
  if (which == "pss") {
    if (!result.server->pss_bytes) return std::nullopt;
    return static_cast<double>(*result.server->pss_bytes);
  }
  if (result.server->cpu_s <= 0) return std::nullopt;
  return static_cast<double>(result.messages) / result.server->cpu_s;
}

std::string histogram_rows(const char* name, const Histogram& a, const Histogram& b) {
  if (a.count() == 0 || b.count() == 0) return {};
  std::string rows;
  for (const Percentile& percentile : percentiles) {
    rows += row(std::string(name) + " " + percentile.name + ", us",
                static_cast<double>(value_at(a, percentile.percent)) / 1e3,
                static_cast<double>(value_at(b, percentile.percent)) / 1e3, 1);
  }
  return rows;
}

}  // namespace

std::string write_csv(const Result& result) {
  std::string text =
      "second,messages_per_s,p50_us,p90_us,p99_us,p99_9_us,max_us,connections,errors,server_cpu,server_rss_"
      "bytes\n";
  double before = 0;
  for (std::size_t i = 0; i < result.series.size(); i++) {
    const Second& second = result.series[i];
    const double length = second.at_s - before;
    before = second.at_s;
    text += fixed(second.at_s, 3) + "," +
            fixed(length > 0 ? static_cast<double>(second.messages) / length : 0, 1);
    for (const double percent : {50.0, 90.0, 99.0, 99.9})
      text += "," + microseconds(second.response.percentile(percent));
    text += "," + microseconds(second.response.max()) + "," + std::to_string(second.open) + "," +
            std::to_string(second.errors);
    if (result.server && i < result.server->seconds.size()) {
      const ServerSecond& server = result.server->seconds[i];
      text += "," + fixed(server.cpu, 3) + "," + std::to_string(server.rss_bytes) + "\n";
    } else {
      text += ",,\n";
    }
  }
  return text;
}

std::string write_hgrm(const Histogram& histogram) {
  std::string text = "       Value     Percentile TotalCount 1/(1-Percentile)\n\n";
  const std::uint64_t count = histogram.count();
  // Five points for each halving of what is left, as others draw it.
  for (double left = 1; count > 0 && left * static_cast<double>(count) >= 1; left *= std::pow(0.5, 0.2)) {
    const double share = 1 - left;
    const auto below = static_cast<std::uint64_t>(std::ceil(share * static_cast<double>(count)));
    text += hgrm_line(static_cast<double>(histogram.percentile(100 * share)), share, below);
  }
  if (count > 0) text += hgrm_line(static_cast<double>(histogram.max()), 1, count);
  text += "#[Mean    = " + right(fixed(histogram.mean() / 1e6, 6), 12) + "]\n";
  text += "#[Max     = " + right(fixed(static_cast<double>(histogram.max()) / 1e6, 6), 12) +
          ", Total count    = " + right(std::to_string(count), 12) + "]\n";
  return text;
}

std::string compare_capsules(const Capsule& a, const Capsule& b) {
  const Result &one = a.result, &two = b.result;
  std::string text = "  A  " + a.url + "  " + a.mode + ", " + a.verdict + "\n  B  " + b.url + "  " + b.mode +
                     ", " + b.verdict + "\n" + std::string(26, ' ') + right("A", 16) + right("B", 16) +
                     right("B / A", 10) + "\n";
  text += row("messages per second", one.rate(one.messages), two.rate(two.messages), 1);
  if (one.handshakes + two.handshakes > 0)
    text += row("handshakes per second", one.rate(one.handshakes), two.rate(two.handshakes), 1);
  text += row("connections", one.opened, two.opened, 0);
  text += row("errors", static_cast<double>(one.error_count()), static_cast<double>(two.error_count()), 0);
  const auto histograms_a = one.histograms(), histograms_b = two.histograms();
  for (std::size_t i = 0; i < histograms_a.size(); i++)
    text += histogram_rows(histograms_a[i].first, *histograms_a[i].second, *histograms_b[i].second);
  text += row("server CPU seconds", server_value(one, "cpu_s"), server_value(two, "cpu_s"), 2);
  text += row("messages per CPU second", server_value(one, "efficiency"), server_value(two, "efficiency"), 0);
  text += row("server PSS, bytes", server_value(one, "pss"), server_value(two, "pss"), 0);
  return text;
}

}  // namespace levada::load
