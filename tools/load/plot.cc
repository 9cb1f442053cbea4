#include <levada/tools/load/plot.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include <levada/tools/load/units.h>

namespace levada::load {
namespace {

constexpr double width = 640, height = 300, left = 84, right_margin = 16, top = 20, bottom = 46;

// From the data's units to the picture's.
struct Scale {
  double low, high, from, to;
  bool logarithmic;

  double at(double value) const {
    const double share =
        logarithmic ? std::log(value / low) / std::log(high / low) : (value - low) / (high - low);
    return from + share * (to - from);
  }
};

Scale scale_of(const Axis& axis, const std::vector<Line>& lines, bool is_x, double from, double to) {
  double low = std::numeric_limits<double>::max(), high = 0;
  for (const Line& line : lines) {
    for (const auto& [x, y] : line.points) {
      const double value = is_x ? x : y;
      if (axis.logarithmic && value <= 0) continue;
      low = std::min(low, value);
      high = std::max(high, value);
    }
  }
  if (high == 0) return {0, 1, from, to, false};
  if (!axis.logarithmic) return {0, high * (is_x ? 1 : 1.08), from, to, false};
  if (!is_x) {
    low = std::pow(10, std::floor(std::log10(low)));
    high = std::pow(10, std::ceil(std::log10(high)));
  }
  return {low, high > low ? high : low * 10, from, to, true};
}

std::vector<double> ticks_of(const Axis& axis, const Scale& scale) {
  std::vector<double> ticks;
  if (!axis.ticks.empty()) {
    for (const double tick : axis.ticks) {
      if (tick >= scale.low && tick <= scale.high) ticks.push_back(tick);
    }
    return ticks;
  }
  if (scale.logarithmic) {
    const int first = static_cast<int>(std::ceil(std::log10(scale.low) - 1e-9));
    for (int power = first; std::pow(10, power) <= scale.high * 1.0001; power++) {
      ticks.push_back(std::pow(10, power));
    }
    return ticks;
  }
  const double raw = (scale.high - scale.low) / 5, power = std::pow(10, std::floor(std::log10(raw)));
  const double step = power * (raw / power > 5 ? 10 : raw / power > 2 ? 5 : raw / power > 1 ? 2 : 1);
  for (int i = 0; i * step <= scale.high * 1.0001; i++) ticks.push_back(i * step);
  return ticks;
}

std::string text_at(double x, double y, const char* anchor, const std::string& text) {
  return "<text x='" + fixed(x, 1) + "' y='" + fixed(y, 1) + "' text-anchor='" + anchor + "'>" +
         escape_html(text) + "</text>";
}

std::string rule(double x1, double y1, double x2, double y2) {
  return "<line x1='" + fixed(x1, 1) + "' y1='" + fixed(y1, 1) + "' x2='" + fixed(x2, 1) + "' y2='" +
         fixed(y2, 1) + "'/>";
}

std::string axes(const Plot& plot, const Scale& x, const Scale& y) {
  std::string svg = "<g class='grid'>";
  for (const double tick : ticks_of(plot.y, y)) {
    svg += rule(left, y.at(tick), width - right_margin, y.at(tick));
    svg += text_at(left - 8, y.at(tick) + 4, "end", plot.y.format(tick));
  }
  for (const double tick : ticks_of(plot.x, x)) {
    svg += rule(x.at(tick), height - bottom, x.at(tick), height - bottom + 5);
    const bool at_edge = x.at(tick) > width - 40;
    svg += text_at(at_edge ? width - 4 : x.at(tick), height - bottom + 19, at_edge ? "end" : "middle",
                   plot.x.format(tick));
  }
  return svg + text_at((left + width - right_margin) / 2, height - 6, "middle", plot.x.title) + "</g>";
}

std::string line_svg(const Line& line, std::size_t number, const Plot& plot, const Scale& x, const Scale& y) {
  std::string points, data, dots;
  for (const auto& [px, py] : line.points) {
    if ((x.logarithmic && px <= 0) || (y.logarithmic && py <= 0)) continue;
    const std::string at_x = fixed(x.at(px), 2), at_y = fixed(y.at(py), 2);
    points.append(points.empty() ? "" : " ").append(at_x).append(",").append(at_y);
    data.append(data.empty() ? "" : " ").append(fixed(px, 6)).append(",").append(fixed(py, 3));
    dots.append("<circle cx='").append(at_x).append("' cy='").append(at_y).append("' r='6'><title>");
    dots.append(escape_html(line.name + "  " + plot.x.format(px) + ": " + plot.y.format(py)));
    dots.append("</title></circle>");
  }
  const std::string number_class = "s" + std::to_string(number);
  return "<polyline class='line " + number_class + "' data-name='" + escape_html(line.name) +
         "' data-points='" + data + "' points='" + points + "'/><g class='dots " + number_class + "'>" +
         dots + "</g>";
}

}  // namespace

std::string escape_html(std::string_view text) {
  std::string escaped;
  for (const char c : text) {
    if (c == '<') {
      escaped += "&lt;";
    } else if (c == '>') {
      escaped += "&gt;";
    } else if (c == '&') {
      escaped += "&amp;";
    } else if (c == '\'') {
      escaped += "&#39;";
    } else if (c == '"') {
      escaped += "&quot;";
    } else {
      escaped += c;
    }
  }
  return escaped;
}

std::string draw(const Plot& plot) {
  std::string html = "<figure id='" + plot.id + "'><figcaption>" + escape_html(plot.title) + "</figcaption>";
  const bool empty =
      std::all_of(plot.lines.begin(), plot.lines.end(), [](const Line& line) { return line.points.empty(); });
  if (empty) return html + "<p>nothing was measured</p></figure>";
  const Scale x = scale_of(plot.x, plot.lines, true, left, width - right_margin);
  const Scale y = scale_of(plot.y, plot.lines, false, height - bottom, top);
  html += "<svg viewBox='0 0 640 300' role='img' aria-label='" + escape_html(plot.title) + "'>" +
          axes(plot, x, y);
  std::string legend;
  for (std::size_t i = 0; i < plot.lines.size(); i++) {
    html += line_svg(plot.lines[i], i, plot, x, y);
    legend += "<li class='s" + std::to_string(i) + "'>" + escape_html(plot.lines[i].name) + "</li>";
  }
  html += "</svg>";
  if (plot.lines.size() > 1) html += "<ul class='legend'>" + legend + "</ul>";
  return html + "</figure>";
}

}  // namespace levada::load
