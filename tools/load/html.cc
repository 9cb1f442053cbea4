#include <levada/tools/load/html.h>

#include <cmath>

#include <levada/tools/load/machine.h>
#include <levada/tools/load/percentiles.h>
#include <levada/tools/load/plot.h>
#include <levada/tools/load/report.h>
#include <levada/tools/load/units.h>
#include <levada/tools/load/verdict.h>

namespace levada::load {
namespace {

constexpr const char* style = R"(<style>
:root { color-scheme: light dark; --page: #fcfcfb; --panel: #ffffff; --ink: #1d1d1b; --soft: #62625c; --line: #dedcd5;
  --s0: #2a78d6; --s1: #d9822b; --s2: #2f9e6e; --bad: #b3261e; --good: #1b7a4b; }
@media (prefers-color-scheme: dark) { :root { --page: #161614; --panel: #1e1e1b; --ink: #efeee9; --soft: #a5a39a;
  --line: #3a3935; --s0: #6aa8f0; --s1: #f0a35c; --s2: #5cc796; --bad: #f2857d; --good: #6fd3a0; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 20px 16px 40px; max-width: 1340px; background: var(--page); color: var(--ink);
  font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.5rem; line-height: 1.25; margin: 0 0 .25rem; }
h2 { font-size: 1.05rem; margin: 1.6rem 0 .5rem; }
p { margin: .25rem 0; }
.soft { color: var(--soft); overflow-wrap: anywhere; }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 480px), 1fr)); gap: 16px; margin-top: 20px; }
figure { margin: 0; padding: 12px; background: var(--panel); border: 1px solid var(--line); border-radius: 8px; }
figcaption { font-weight: 600; margin-bottom: 6px; }
svg { display: block; width: 100%; height: auto; }
svg text { font: 12px system-ui, sans-serif; fill: var(--soft); }
.grid line { stroke: var(--line); stroke-width: 1; }
.line { fill: none; stroke-width: 2; stroke-linejoin: round; }
.line.s0 { stroke: var(--s0); } .line.s1 { stroke: var(--s1); } .line.s2 { stroke: var(--s2); }
.dots circle { fill: transparent; } .dots.s0 circle:hover { fill: var(--s0); }
.dots.s1 circle:hover { fill: var(--s1); } .dots.s2 circle:hover { fill: var(--s2); }
.legend { display: flex; flex-wrap: wrap; gap: 4px 16px; list-style: none; margin: 6px 0 0; padding: 0; font-size: .85rem; }
.legend li::before { content: ''; display: inline-block; width: 14px; height: 3px; margin-right: 6px; vertical-align: middle; }
.legend .s0::before { background: var(--s0); } .legend .s1::before { background: var(--s1); }
.legend .s2::before { background: var(--s2); }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: 4px 12px 4px 0; text-align: right; white-space: nowrap; border-bottom: 1px solid var(--line); }
th:first-child, td:first-child { text-align: left; }
.bad { color: var(--bad); } .good { color: var(--good); }
@media (max-width: 520px) { svg text { font-size: 18px; } h1 { font-size: 1.25rem; } }
</style>
)";

std::string seconds_text(double value) {
  return fixed(value, value < 10 && value != std::floor(value) ? 1 : 0) + " s";
}
// "1.50 ms", and "10 ms" rather than "10.0 ms".
std::string microseconds_text(double value) {
  std::string text = duration_text(static_cast<std::uint64_t>(std::llround(value * 1e3)));
  const std::size_t point = text.find('.'), unit = text.find(' ');
  if (point != std::string::npos && text.find_first_not_of('0', point + 1) == unit)
    text.erase(point, unit - point);
  return text;
}
std::string bytes_of(double value) {
  return bytes_text(value);
}
std::string cpus_text(double value) {
  return fixed(value, 2);
}
std::string count_text(double value) {
  if (value >= 1e6) return fixed(value / 1e6, value < 1e7 ? 1 : 0) + " M";
  if (value >= 1e4) return fixed(value / 1e3, 0) + " k";
  return fixed(value, value < 10 && value != std::floor(value) ? 1 : 0);
}

// 1 / (1 - share): 1, 2, 10, 100 are p0, p50, p90, p99.
std::string percentile_text(double inverse) {
  const double percent = 100 * (1 - 1 / inverse);
  std::string text = fixed(percent, 4);
  while (text.back() == '0') text.pop_back();
  if (text.back() == '.') text.pop_back();
  return "p" + text;
}

Line percentile_line(const char* name, const Histogram& histogram) {
  Line line{name, {}};
  const auto count = static_cast<double>(histogram.count());
  for (int tenths = 0; std::pow(10, 0.1 * tenths) <= count; tenths++) {
    const double inverse = std::pow(10, 0.1 * tenths);
    line.points.emplace_back(inverse,
                             static_cast<double>(histogram.percentile(100 * (1 - 1 / inverse))) / 1e3);
  }
  return line;
}

Plot percentile_plot(const Result& result) {
  Plot plot{"percentiles",
            "Latency by percentile",
            {"percentile", true, percentile_text, {1, 2, 10, 100, 1000, 10'000, 100'000, 1'000'000}},
            {"latency", true, microseconds_text, {}},
            {}};
  if (result.response.count() == 0) {
    plot.lines = {percentile_line("connect", result.connect), percentile_line("upgrade", result.upgrade),
                  percentile_line("handshake", result.handshake)};
    return plot;
  }
  plot.lines = {percentile_line("response (from the planned time)", result.response),
                percentile_line("service (from the write)", result.service),
                percentile_line("lag (from the plan to the write)", result.lag)};
  return plot;
}

Plot latency_plot(const Result& result) {
  Plot plot{"latency",
            "Response time by second",
            {"time", false, seconds_text, {}},
            {"latency", true, microseconds_text, {}},
            {{"p50", {}}, {"p99", {}}, {"max", {}}}};
  for (const Second& second : result.series) {
    if (second.response.count() == 0) continue;
    plot.lines[0].points.emplace_back(second.at_s, static_cast<double>(second.response.percentile(50)) / 1e3);
    plot.lines[1].points.emplace_back(second.at_s, static_cast<double>(second.response.percentile(99)) / 1e3);
    plot.lines[2].points.emplace_back(second.at_s, static_cast<double>(second.response.max()) / 1e3);
  }
  return plot;
}

Plot throughput_plot(const Result& result) {
  Plot plot{"throughput",
            "Messages per second",
            {"time", false, seconds_text, {}},
            {"messages", false, count_text, {}},
            {{"messages per second", {}}}};
  double before = 0;
  for (const Second& second : result.series) {
    const double length = second.at_s - before;
    before = second.at_s;
    if (length > 0)
      plot.lines[0].points.emplace_back(second.at_s, static_cast<double>(second.messages) / length);
  }
  return plot;
}

Plot server_plot(const Result& result, bool cpu) {
  Plot plot{cpu ? "server-cpu" : "server-memory",
            cpu ? "CPUs that the server used" : "Server memory (RSS)",
            {"time", false, seconds_text, {}},
            {cpu ? "CPUs" : "bytes", false, cpu ? cpus_text : bytes_of, {}},
            {{cpu ? "CPUs" : "RSS", {}}}};
  for (const ServerSecond& second : result.server->seconds)
    plot.lines[0].points.emplace_back(second.at_s, cpu ? second.cpu : static_cast<double>(second.rss_bytes));
  return plot;
}

std::string latency_table(const Result& result) {
  std::string html = "<h2>Latency</h2><div class='scroll'><table id='table'><tr><th></th>";
  for (const Percentile& percentile : percentiles) html += std::string("<th>") + percentile.name + "</th>";
  html += "</tr>";
  for (const auto& [name, histogram] : result.histograms()) {
    if (histogram->count() == 0) continue;
    html += std::string("<tr><td>") + name + "</td>";
    for (const Percentile& percentile : percentiles)
      html += "<td>" + duration_text(value_at(*histogram, percentile.percent)) + "</td>";
    html += "</tr>";
  }
  return html + "</table></div>";
}

std::string outcome(const Options& options, const Result& result) {
  std::string html;
  if (!options.expectations.empty()) html += "<h2>Expectations</h2>";
  for (const Expectation& expectation : options.expectations) {
    const bool kept = holds(expectation, result);
    html += std::string("<p class='") + (kept ? "good'>kept: " : "bad'>missed: ") +
            escape_html(explain(expectation, result)) + "</p>";
  }
  if (result.errors.empty()) return html;
  html += "<h2>Errors</h2><div class='scroll'><table id='errors'>";
  for (const auto& [kind, times] : result.errors) {
    const auto example = result.examples.find(kind);
    html += "<tr><td class='bad'>" + escape_html(kind) + "</td><td>" + grouped(times) + "</td><td>" +
            escape_html(example == result.examples.end() ? "" : example->second) + "</td></tr>";
  }
  return html + "</table></div>";
}

// JSON inside of a script element: no "</script>" in it.
std::string embedded(std::string capsule) {
  for (std::size_t at = 0; (at = capsule.find('<', at)) != std::string::npos;)
    capsule.replace(at, 1, "\\u003c");
  return "<script type='application/json' id='capsule'>" + capsule + "</script>\n";
}

}  // namespace

std::string html_report(const Options& options, const Result& result, const std::string& capsule) {
  const Machine machine = this_machine();
  const Verdict found = verdict(result);
  std::string html =
      "<!doctype html>\n<html lang='en'><head><meta charset='utf-8'>"
      "<meta name='viewport' content='width=device-width, initial-scale=1'><link rel='icon' href='data:,'>"
      "<title>levada-load: " +
      escape_html(options.target.url) + "</title>\n" + style + "</head><body>\n<h1 id='answer'>" +
      escape_html(headline(options, result)) + "</h1>\n";
  html += "<p class='soft'>" + escape_html(run_line(options, result)) + "</p>";
  html +=
      "<p id='verdict'><b>" + found.name + "</b>: " + escape_html(found.reason) + "</p>\n<div class='plots'>";
  html += draw(percentile_plot(result)) + draw(latency_plot(result)) + draw(throughput_plot(result));
  if (result.server) html += draw(server_plot(result, true)) + draw(server_plot(result, false));
  html += "</div>\n" + latency_table(result) + outcome(options, result);
  html += "<h2>Run</h2><pre class='scroll soft'>" + escape_html(text_report(options, result)) + "</pre>";
  html += "<p class='soft'>" +
          escape_html(machine.time + ", " + machine.kernel + ", " + machine.cpu + ", " +
                      plural(static_cast<std::uint64_t>(machine.cpus), "CPU") + ", seed " +
                      std::to_string(options.seed)) +
          "</p>\n";
  return html + embedded(capsule) + "</body></html>\n";
}

}  // namespace levada::load
