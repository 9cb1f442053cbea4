// Statistics of few numbers: what blocks of a comparison say together.
#pragma once

#include <cstdint>
#include <vector>

namespace levada::load {

struct Interval {
  double low = 0, middle = 0, high = 0;
};

// 0 if there is none.
double median(std::vector<double> values);

// The geometric mean of ratios, and the interval in which it lies with `confidence` (0.99) by bootstrap: as many
// ratios drawn from them, 10 000 times, with replacement. Few ratios make bootstraps too narrow, so the interval is
// widened by sqrt(n / (n - 1)). The same seed gives the same interval. At least two ratios, all above 0.
Interval bootstrap(const std::vector<double>& ratios, double confidence, std::uint64_t seed);

}  // namespace levada::load
