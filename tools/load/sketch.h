// Sketch: a small histogram, to two significant digits, of which there can be one for each second of a run.
//
// Model: values are cut to their eight highest bits (0.8 %), and only those that occur are kept, in order.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <utility>
#include <vector>

#include <levada/tools/load/histogram.h>

namespace levada::load {

class Sketch {
 public:
  using Entry = std::pair<std::uint64_t, std::uint64_t>;  // the least value, and how often

  Sketch() = default;
  explicit Sketch(const Histogram& histogram) : max_(histogram.max()) {
    histogram.each([this](std::uint64_t ns, std::uint64_t times) {
      const std::uint64_t cut = cut_off(ns);
      if (entries_.empty() || entries_.back().first != cut) entries_.emplace_back(cut, 0);
      entries_.back().second += times;
    });
  }
  Sketch(std::vector<Entry> entries, std::uint64_t max) : entries_(std::move(entries)), max_(max) {}

  void add(const Sketch& other) {
    std::vector<Entry> sum;
    auto a = entries_.begin();
    auto b = other.entries_.begin();
    while (a != entries_.end() || b != other.entries_.end()) {
      if (b == other.entries_.end() || (a != entries_.end() && a->first < b->first)) {
        sum.push_back(*a++);
      } else if (a == entries_.end() || b->first < a->first) {
        sum.push_back(*b++);
      } else {
        sum.emplace_back(a->first, a->second + b->second);
        ++a, ++b;
      }
    }
    entries_ = std::move(sum);
    max_ = std::max(max_, other.max_);
  }

  std::uint64_t count() const {
    std::uint64_t sum = 0;
    for (const Entry& entry : entries_) sum += entry.second;
    return sum;
  }

  // As Histogram::percentile().
  std::uint64_t percentile(double percent) const {
    const std::uint64_t all = count();
    if (all == 0) return 0;
    const auto wanted = static_cast<std::uint64_t>(std::ceil(percent / 100.0 * static_cast<double>(all)));
    std::uint64_t seen = 0;
    for (const Entry& entry : entries_) {
      seen += entry.second;
      if (seen >= std::max<std::uint64_t>(wanted, 1)) return std::min(top_of(entry.first), max_);
    }
    return max_;
  }

  std::uint64_t max() const { return max_; }
  const std::vector<Entry>& entries() const { return entries_; }

 private:
  static constexpr unsigned shift_of(std::uint64_t ns) {
    const auto width = static_cast<unsigned>(std::bit_width(ns));
    return width <= 8 ? 0 : width - 8;
  }
  static constexpr std::uint64_t cut_off(std::uint64_t ns) { return ns >> shift_of(ns) << shift_of(ns); }
  static constexpr std::uint64_t top_of(std::uint64_t cut) {
    return cut + (std::uint64_t{1} << shift_of(cut)) - 1;
  }

  std::vector<Entry> entries_;
  std::uint64_t max_ = 0;
};

}  // namespace levada::load
