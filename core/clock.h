// Time: monotonic nanoseconds, and the thread's and the process's CPU time. Any thread may call.
#pragma once

#include <cstdint>
#include <ctime>

namespace levada {

inline constexpr std::uint64_t nanoseconds_per_millisecond = 1'000'000;
inline constexpr std::uint64_t nanoseconds_per_second = 1'000'000'000;

// Nanoseconds by the given clock.
inline std::uint64_t clock_ns(clockid_t clock) {
  timespec time{};
  clock_gettime(clock, &time);
  return static_cast<std::uint64_t>(time.tv_sec) * nanoseconds_per_second +
         static_cast<std::uint64_t>(time.tv_nsec);
}

// Nanoseconds since an arbitrary start; never goes back.
inline std::uint64_t monotonic_ns() {
  return clock_ns(CLOCK_MONOTONIC);
}

}  // namespace levada
