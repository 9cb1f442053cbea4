// The Date field of HTTP answers (RFC 9110 section 6.6.1), formatted when the second changes.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

namespace levada::ws {

// Allocates nothing and asks no clock. One per thread that answers.
class DateField {
 public:
  // "Date: Sun, 06 Nov 1994 08:49:37 GMT" and the line's end, for a time in seconds since 1970 (UTC), before the year
  // 10000. The view is into this object and always the same: another call changes the text under it.
  std::string_view line(std::uint64_t unix_seconds);

 private:
  std::array<char, 37> text_{};
  std::uint64_t seconds_ = ~std::uint64_t{0};
};

}  // namespace levada::ws
