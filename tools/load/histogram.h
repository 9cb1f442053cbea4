// Histogram: how many times took how long, log-linear, to three significant digits.
//
// Model: a value below 2048 ns has a slot of its own; from there on each doubling of the value is divided
// into 1024 slots, so a slot is at most 0.1 % of the values in it. It reaches from 1 ns (the clock) over 100
// ns to one hour. Invariants: recording allocates nothing but the first time; a value beyond an hour is counted as overflow,
// never moved into the range; minimum and maximum are exact; histograms add up without loss, in any order, and
// can be taken apart into (value, times) and put together again. The memory comes with the first value.
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

  void record(std::uint64_t ns, std::uint64_t times = 1) {
    if (counts_.empty()) [[unlikely]]
      counts_.resize(slots);
    if (ns <= highest_ns) {
      counts_[slot_of(ns)] += times;
    } else {
      overflow_ += times;
    }
    count_ += times;
    min_ = std::min(min_, ns);
    max_ = std::max(max_, ns);
  }

  void add(const Histogram& other) {
    if (other.count_ == 0) return;
    if (counts_.empty()) counts_.resize(slots);
    other.each_slot([this](std::size_t slot, std::uint64_t times) { counts_[slot] += times; });
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
    for (std::size_t i = first_slot(); i < end_slot(); i++) {
      seen += counts_[i];
      if (seen >= std::max<std::uint64_t>(wanted, 1)) return std::min({top_of(i), highest_ns, max_});
    }
    return max_;
  }

  // The sum of all values within the range, as far as slots tell it, over their count; 0 while empty.
  double mean() const {
    double sum = 0, within = 0;
    each([&](std::uint64_t ns, std::uint64_t times) {
      sum += static_cast<double>(ns) * static_cast<double>(times);
      within += static_cast<double>(times);
    });
    return within > 0 ? sum / within : 0;
  }

  // Calls `visit(ns, times)` from the smallest value up; `ns` is the least value of its slot.
  template <class Visit>
  void each(Visit&& visit) const {
    each_slot([&](std::size_t slot, std::uint64_t times) { visit(bottom_of(slot), times); });
  }

  // What each() has shown of another histogram, together with that one's state.
  void restore(std::uint64_t ns, std::uint64_t times) {
    if (counts_.empty()) counts_.resize(slots);
    counts_[slot_of(std::min(ns, highest_ns))] += times;
    count_ += times;
  }
  void restore(std::uint64_t overflow, std::uint64_t min, std::uint64_t max) {
    overflow_ = overflow;
    count_ += overflow;
    min_ = count_ == 0 ? ~std::uint64_t{0} : min;
    max_ = max;
  }

  // Empty again; keeps the memory.
  void clear() {
    if (count_ == 0) return;
    std::fill(counts_.begin() + static_cast<std::ptrdiff_t>(first_slot()),
              counts_.begin() + static_cast<std::ptrdiff_t>(end_slot()), 0);
    count_ = overflow_ = max_ = 0;
    min_ = ~std::uint64_t{0};
  }

  bool operator==(const Histogram& other) const {
    if (count_ != other.count_ || overflow_ != other.overflow_) return false;
    if (count_ == 0) return true;
    return min_ == other.min_ && max_ == other.max_ && counts_ == other.counts_;
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
    return ((step + 1) << (shift & 63)) - 1;
  }

  // The lowest one.
  static constexpr std::uint64_t bottom_of(std::size_t slot) { return slot == 0 ? 0 : top_of(slot - 1) + 1; }

  // All values lie in [first_slot(), end_slot()).
  std::size_t first_slot() const { return count_ == 0 ? 0 : slot_of(std::min(min_, highest_ns)); }
  std::size_t end_slot() const { return count_ == 0 ? 0 : slot_of(std::min(max_, highest_ns)) + 1; }

  template <class Visit>
  void each_slot(Visit&& visit) const {
    for (std::size_t i = first_slot(); i < end_slot(); i++) {
      if (counts_[i] != 0) visit(i, counts_[i]);
    }
  }

  static constexpr unsigned highest_shift = std::bit_width(highest_ns) - linear_bits;
  static constexpr std::size_t slots = highest_shift * half + (highest_ns >> highest_shift) + 1;

  std::vector<std::uint64_t> counts_;  // empty, or one for each slot
  std::uint64_t count_ = 0;
  std::uint64_t overflow_ = 0;
  std::uint64_t min_ = ~std::uint64_t{0};
  std::uint64_t max_ = 0;
};

}  // namespace levada::load
