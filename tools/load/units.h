// Units: numbers as people write and read them. No state; any thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace levada::load {

// "10k" is 10 000 and "16Ki" 16 384; also M, Mi, G, Gi, and a B behind. nullopt: it is not a size, or beyond
// 2^63.
std::optional<std::uint64_t> parse_size(std::string_view text);

// "30s", "100ms", "1.5m": ns, us, ms, s, m, h; without a unit seconds. Returns nanoseconds, at most 1000
// hours.
std::optional<std::uint64_t> parse_duration(std::string_view text);

// "10k", "0.5": a number per second, above 0 and at most 10^9.
std::optional<double> parse_rate(std::string_view text);

// "10%" or "0.1": a share from 0 to 1.
std::optional<double> parse_share(std::string_view text);

// "1,234,567"
std::string grouped(std::uint64_t number);

// "1 error", "2 errors"
std::string plural(std::uint64_t count, const char* noun);

// Three digits and a unit: "1.23 ms". Takes nanoseconds.
std::string duration_text(std::uint64_t ns);

// "1.5 MB"
std::string bytes_text(double count);

// A number with `decimals` digits behind the point.
std::string fixed(double value, int decimals);

// At the right side of `width` characters.
std::string right(std::string_view text, std::size_t width);

}  // namespace levada::load
