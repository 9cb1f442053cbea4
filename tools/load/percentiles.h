// Which percentiles reports show.
#pragma once

#include <cstdint>

#include <levada/tools/load/histogram.h>

namespace levada::load {

struct Percentile {
  const char* key;   // in JSON
  const char* name;  // in text
  double percent;
};
inline constexpr Percentile percentiles[] = {
    {"p50", "p50", 50},       {"p75", "p75", 75},          {"p90", "p90", 90}, {"p99", "p99", 99},
    {"p99_9", "p99.9", 99.9}, {"p99_99", "p99.99", 99.99}, {"max", "max", 100}};

// Nanoseconds; the maximum is exact.
inline std::uint64_t value_at(const Histogram& histogram, double percent) {
  return percent >= 100 ? histogram.max() : histogram.percentile(percent);
}

}  // namespace levada::load
