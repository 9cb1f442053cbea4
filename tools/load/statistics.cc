#include <levada/tools/load/statistics.h>

#include <algorithm>
#include <cmath>

#include <levada/core/random.h>

namespace levada::load {

double median(std::vector<double> values) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  const std::size_t half = values.size() / 2;
  return values.size() % 2 == 1 ? values[half] : (values[half - 1] + values[half]) / 2;
}

Interval bootstrap(const std::vector<double>& ratios, double confidence, std::uint64_t seed) {
  constexpr std::size_t draws = 10'000;
  const std::size_t count = ratios.size();
  std::vector<double> logs;
  double mean = 0;
  for (const double ratio : ratios) {
    logs.push_back(std::log(ratio));
    mean += logs.back() / static_cast<double>(count);
  }
  SeededRandom random(seed);
  std::vector<double> means(draws);
  for (double& each : means) {
    for (std::size_t i = 0; i < count; i++) each += logs[random.below(count)] / static_cast<double>(count);
  }
  std::sort(means.begin(), means.end());
  const double widening = std::sqrt(static_cast<double>(count) / static_cast<double>(count - 1));
  const auto at = [&](double share) {
    const double drawn = means[static_cast<std::size_t>(share * (draws - 1))];
    return std::exp(mean + (drawn - mean) * widening);
  };
  return {at((1 - confidence) / 2), std::exp(mean), at((1 + confidence) / 2)};
}

}  // namespace levada::load
