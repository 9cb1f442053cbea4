#include <levada/tools/load/histogram.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include <doctest/doctest.h>

#include <levada/core/random.h>

namespace levada::load {
namespace {

constexpr std::uint64_t hour_ns = 3'600'000'000'000;

TEST_CASE("a histogram keeps three significant digits from 100 ns to an hour") {
  for (double value = 100; value < 3.6e12; value *= 1.37) {
    const auto ns = static_cast<std::uint64_t>(value);
    Histogram histogram;
    histogram.record(ns);
    histogram.record(hour_ns);  // so that the maximum does not make it exact
    const auto read = static_cast<double>(histogram.percentile(50));
    CHECK(read >= static_cast<double>(ns));
    CHECK(read <= static_cast<double>(ns) * 1.001);
  }
}

TEST_CASE("values below 2048 ns are exact") {
  Histogram histogram;
  for (std::uint64_t ns = 0; ns < 2048; ns++) histogram.record(ns);
  for (std::uint64_t ns = 0; ns < 2048; ns++) {
    CHECK(histogram.percentile(100.0 * (static_cast<double>(ns) + 0.5) / 2048) == ns);
  }
}

TEST_CASE("each value at a border of the histogram's slots is told from its neighbour") {
  for (std::uint64_t border = 2048; border < hour_ns; border *= 2) {
    Histogram histogram;
    histogram.record(border - 1);
    histogram.record(border);
    histogram.record(hour_ns);
    CHECK(histogram.percentile(33) == border - 1);
    CHECK(histogram.percentile(66) >= border);
    CHECK(static_cast<double>(histogram.percentile(66)) < static_cast<double>(border) * 1.001);
  }
}

TEST_CASE("percentiles of random values agree with the sorted values") {
  SeededRandom random(7);
  Histogram histogram;
  std::vector<std::uint64_t> values;
  for (int i = 0; i < 100'000; i++) {
    values.push_back(100 + (random.next() >> (24 + random.below(38))));
    histogram.record(values.back());
  }
  std::sort(values.begin(), values.end());
  for (const double percent : {0.0, 50.0, 75.0, 90.0, 99.0, 99.9, 99.99, 100.0}) {
    const double rank = std::max(1.0, std::ceil(percent / 100 * static_cast<double>(values.size())));
    const std::uint64_t exact = values[static_cast<std::size_t>(rank) - 1];
    CHECK(histogram.percentile(percent) >= exact);
    CHECK(static_cast<double>(histogram.percentile(percent)) <= static_cast<double>(exact) * 1.001);
  }
  CHECK(histogram.min() == values.front());
  CHECK(histogram.max() == values.back());
}

TEST_CASE("values beyond an hour are counted as overflow and still rank above all others") {
  Histogram histogram;
  histogram.record(hour_ns);
  CHECK(histogram.overflow() == 0);
  for (int i = 0; i < 9; i++) histogram.record(hour_ns + 1);
  histogram.record(5 * hour_ns);
  CHECK(histogram.count() == 11);
  CHECK(histogram.overflow() == 10);
  CHECK(histogram.percentile(1) == hour_ns);
  CHECK(histogram.percentile(50) == 5 * hour_ns);
  CHECK(histogram.max() == 5 * hour_ns);
}

TEST_CASE("the sum of histograms is the histogram of all values") {
  Histogram all, first, second;
  SeededRandom random(3);
  for (int i = 0; i < 10'000; i++) {
    const std::uint64_t ns = random.next() >> (20 + random.below(40));
    all.record(ns);
    (i % 3 == 0 ? first : second).record(ns);
  }
  first.add(second);
  CHECK(first.count() == all.count());
  CHECK(first.overflow() == all.overflow());
  CHECK(first.min() == all.min());
  CHECK(first.max() == all.max());
  for (double percent = 0; percent <= 100; percent += 0.5)
    CHECK(first.percentile(percent) == all.percentile(percent));
}

TEST_CASE("an empty histogram reads zero") {
  const Histogram histogram;
  CHECK(histogram.percentile(99) == 0);
  CHECK(histogram.min() == 0);
  CHECK(histogram.max() == 0);
}

TEST_CASE("a histogram that was taken apart and put together is the same") {
  SeededRandom random(11);
  Histogram histogram, copy;
  for (int i = 0; i < 10'000; i++) histogram.record(random.next() >> random.below(60));
  histogram.each([&](std::uint64_t ns, std::uint64_t times) { copy.restore(ns, times); });
  CHECK_FALSE(copy == histogram);
  copy.restore(histogram.overflow(), histogram.min(), histogram.max());
  CHECK(copy == histogram);
  Histogram empty;
  empty.restore(0, 0, 0);
  CHECK(empty == Histogram());
}

TEST_CASE("a cleared histogram is empty, and counts from the beginning") {
  Histogram histogram;
  histogram.record(5);
  histogram.record(5'000'000);
  histogram.record(hour_ns + 1);
  histogram.clear();
  CHECK(histogram == Histogram());
  CHECK(histogram.max() == 0);
  histogram.record(77);
  CHECK(histogram.percentile(1) == 77);
  CHECK(histogram.percentile(100) == 77);
  CHECK(histogram.mean() == 77);
}

}  // namespace
}  // namespace levada::load
