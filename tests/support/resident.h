// How much of the process is in memory.
#pragma once

#include <cstddef>
#include <cstdio>

#include <doctest/doctest.h>

namespace levada::test {

#if defined(__has_feature)
#define LEVADA_HAS_FEATURE(name) __has_feature(name)
#else
#define LEVADA_HAS_FEATURE(name) 0
#endif

// A sanitizer keeps books on all memory, which is resident, too: bounds cannot be checked then.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || \
    LEVADA_HAS_FEATURE(address_sanitizer) || LEVADA_HAS_FEATURE(thread_sanitizer)
inline constexpr bool resident_is_exact = false;
#else
inline constexpr bool resident_is_exact = true;
#endif

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
