// How much of the process is in memory.
#pragma once

#include <cstddef>
#include <cstdio>

#include <doctest/doctest.h>

#include <levada/tests/support/sanitizer.h>

namespace levada::test {

// A sanitizer's books are resident, too: bounds cannot be checked then.
inline constexpr bool resident_is_exact = !sanitized;

inline std::size_t resident_bytes() {
  std::FILE* file = std::fopen("/proc/self/smaps_rollup", "re");
  REQUIRE(file != nullptr);
  char line[256];
  unsigned long kilobytes = 0;
  while (std::fgets(line, sizeof line, file) != nullptr) {
    if (std::sscanf(line, "Rss: %lu kB", &kilobytes) == 1) break;
  }
  std::fclose(file);
  REQUIRE(kilobytes > 0);
  return kilobytes * 1024;
}

}  // namespace levada::test
