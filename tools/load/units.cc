#include <levada/tools/load/units.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <utility>

namespace levada::load {
namespace {

using Unit = std::pair<std::string_view, double>;

constexpr Unit size_units[] = {{"", 1},        {"k", 1e3},        {"M", 1e6},          {"G", 1e9},
                               {"Ki", 1024.0}, {"Mi", 1048576.0}, {"Gi", 1073741824.0}};
constexpr Unit time_units[] = {{"", 1e9},  {"ns", 1},   {"us", 1e3},  {"ms", 1e6},
                               {"s", 1e9}, {"m", 60e9}, {"h", 3600e9}};
constexpr Unit share_units[] = {{"", 1e9}, {"%", 1e7}};

// A number and one of the units.
template <std::size_t Count>
std::optional<double> parse_exact(std::string_view text, const Unit (&units)[Count]) {
  double number = 0;
  const char* const end = text.data() + text.size();
  const auto [at, error] = std::from_chars(text.data(), end, number, std::chars_format::fixed);
  if (error != std::errc{} || number < 0) return std::nullopt;
  const std::string_view unit(at, static_cast<std::size_t>(end - at));
  const auto* found =
      std::find_if(std::begin(units), std::end(units), [&](const Unit& u) { return u.first == unit; });
  if (found == std::end(units)) return std::nullopt;
  return number * found->second;
}

// The same, a whole number and at most `limit`.
template <std::size_t Count>
std::optional<std::uint64_t> parse_number(std::string_view text, const Unit (&units)[Count], double limit) {
  const auto exact = parse_exact(text, units);
  if (!exact || !(std::round(*exact) <= limit)) return std::nullopt;
  return static_cast<std::uint64_t>(std::round(*exact));
}

}  // namespace

std::optional<std::uint64_t> parse_size(std::string_view text) {
  if (text.ends_with('B')) text.remove_suffix(1);
  return parse_number(text, size_units, 9.2e18);
}

std::optional<std::uint64_t> parse_duration(std::string_view text) {
  return parse_number(text, time_units, 1000 * 3600e9);
}

std::optional<double> parse_rate(std::string_view text) {
  const auto rate = parse_exact(text, size_units);
  return rate && *rate > 0 && *rate <= 1e9 ? rate : std::nullopt;
}

std::optional<double> parse_share(std::string_view text) {
  const auto parts = parse_number(text, share_units, 1e9);
  if (!parts) return std::nullopt;
  return static_cast<double>(*parts) / 1e9;
}

std::string grouped(std::uint64_t number) {
  std::string digits = std::to_string(number);
  for (std::size_t at = digits.size(); at > 3; at -= 3) digits.insert(at - 3, 1, ',');
  return digits;
}

std::string plural(std::uint64_t count, const char* noun) {
  return grouped(count) + " " + noun + (count == 1 ? "" : "s");
}

std::string duration_text(std::uint64_t ns) {
  constexpr std::pair<double, const char*> units[] = {{1e9, " s"}, {1e6, " ms"}, {1e3, " us"}};
  for (const auto& [size, unit] : units) {
    const double value = static_cast<double>(ns) / size;
    if (value >= 1) return fixed(value, value < 10 ? 2 : value < 100 ? 1 : 0) + unit;
  }
  return std::to_string(ns) + " ns";
}

std::string bytes_text(double count) {
  constexpr std::pair<double, const char*> units[] = {{1e9, " GB"}, {1e6, " MB"}, {1e3, " kB"}};
  for (const auto& [size, unit] : units) {
    if (count >= size) return fixed(count / size, 1) + unit;
  }
  return fixed(count, 0) + " B";
}

std::string fixed(double value, int decimals) {
  char text[64];
  std::snprintf(text, sizeof text, "%.*f", decimals, value);
  return text;
}

std::string right(std::string_view text, std::size_t width) {
  std::string padded(width > text.size() ? width - text.size() : 0, ' ');
  return padded.append(text);
}

}  // namespace levada::load
