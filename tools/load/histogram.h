// Histogram: how many times took how long, log-linear, to three significant digits.
//
// Model: a value below 2048 ns has a slot of its own; from there on each doubling of the value is divided
// into 1024 slots, so a slot is at most 0.1 % of the values in it. It reaches from 1 ns (the clock) over 100
// ns to one hour. Invariants: recording allocates nothing; a value beyond an hour is counted as overflow,
// never moved into the range; minimum and maximum are exact; histograms add up without loss, in any order.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace levada::load {

class Histogram {
 public:
  static constexpr std::uint64_t highest_ns = 3'600'000'000'000;

  void record(std::uint64_t ns) {
    if (ns <= highest_ns) {
      counts_[slot_of(ns)]++;
    } else {
      overflow_++;
    }
    count_++;
    min_ = std::min(min_, ns);
    max_ = std::max(max_, ns);
  }

  void add(const Histogram& other) {
    for (std::size_t i = 0; i < slots; i++) counts_[i] += other.counts_[i];
    count_ += other.count_;
    overflow_ += other.overflow_;
    min_ = std::min(min_, other.min_);
    max_ = std::max(max_, other.max_);
  }

  // The value, in nanoseconds, that `percent` of all values do not exceed: the top of its slot, and at most
  // the maximum. Where that is a value beyond the range, the maximum. 0 while the histogram is empty.
  std::uint64_t percentile(double percent) const {
    if (count_ == 0) return 0;
    const auto wanted = static_cast<std::uint64_t>(std::ceil(percent / 100.0 * static_cast<double>(count_)));
    std::uint64_t seen = 0;
    for (std::size_t i = 0; i < slots; i++) {
      seen += counts_[i];
      if (seen >= std::max<std::uint64_t>(wanted, 1)) return std::min({top_of(i), highest_ns, max_});
    }
    return max_;
  }

  std::uint64_t count() const { return count_; }        // of all values, with those beyond the range
  std::uint64_t overflow() const { return overflow_; }  // of the values beyond the range
  std::uint64_t min() const { return count_ == 0 ? 0 : min_; }
  std::uint64_t max() const { return max_; }

 private:
  static constexpr unsigned linear_bits =
      11;  // 2048 slots hold three digits, as 1024 to 2047 differ by 0.1 %
  static constexpr std::size_t half = std::size_t{1} << (linear_bits - 1);

  static constexpr std::size_t slot_of(std::uint64_t ns) {
    const unsigned width = static_cast<unsigned>(std::bit_width(ns));
    const unsigned shift = width <= linear_bits ? 0 : width - linear_bits;
    return shift * half + static_cast<std::size_t>(ns >> shift);
  }

  // The highest value that belongs to a slot.
  static constexpr std::uint64_t top_of(std::size_t slot) {
    const std::size_t shift = slot < 2 * half ? 0 : slot / half - 1;
    const std::uint64_t step = slot - shift * half;
    return ((step + 1) << shift) - 1;
  }

  static constexpr unsigned highest_shift = std::bit_width(highest_ns) - linear_bits;
  static constexpr std::size_t slots = highest_shift * half + (highest_ns >> highest_shift) + 1;

  std::vector<std::uint64_t> counts_ = std::vector<std::uint64_t>(slots);
  std::uint64_t count_ = 0;
  std::uint64_t overflow_ = 0;
  std::uint64_t min_ = ~std::uint64_t{0};
  std::uint64_t max_ = 0;
};

}  // namespace levada::load
