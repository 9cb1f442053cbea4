// Plot: one diagram as inline SVG, with colours from the page's style.
//
// Model: lines of (x, y) in the units of the data, axes linear or logarithmic with ticks at round numbers. Each line
// is a polyline that carries its data as well (data-name, data-points), so that it can be read back; hovering over a
// point shows it.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace levada::load {

struct Line {
  std::string name;
  std::vector<std::pair<double, double>> points;
};

struct Axis {
  std::string title;
  bool logarithmic = false;
  std::string (*format)(double value) = nullptr;
  std::vector<double> ticks = {};  // empty: round numbers
};

struct Plot {
  std::string id;
  std::string title;
  Axis x, y;
  std::vector<Line> lines;
};

// A <figure>. Without points it says so. On a logarithmic axis, values that are not above 0 are left out.
std::string draw(const Plot& plot);

// For text in HTML and its attributes.
std::string escape_html(std::string_view text);

}  // namespace levada::load
