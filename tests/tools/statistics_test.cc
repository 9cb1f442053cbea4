#include <levada/tools/load/statistics.h>

#include <cmath>

#include <doctest/doctest.h>

#include <levada/core/random.h>
#include <levada/tools/load/versus.h>

namespace levada::load {
namespace {

// About normal, around 0, with a standard deviation of 1.
double noise(SeededRandom& random) {
  double sum = -6;
  for (int i = 0; i < 12; i++) sum += static_cast<double>(random.next() >> 11) / 9007199254740992.0;
  return sum;
}

TEST_CASE("the median is the middle, or between the two of the middle") {
  CHECK(median({}) == 0);
  CHECK(median({3}) == 3);
  CHECK(median({3, 1, 2}) == 2);
  CHECK(median({4, 1, 2, 3}) == 2.5);
}

TEST_CASE("the interval of ratios contains the true one about as often as it says") {
  SeededRandom random(1);
  int missed = 0;
  for (std::uint64_t run = 0; run < 200; run++) {
    std::vector<double> ratios;
    for (int i = 0; i < 8; i++) ratios.push_back(1.1 * std::exp(0.05 * noise(random)));
    const Interval found = bootstrap(ratios, 0.99, run);
    CHECK(found.low <= found.middle);
    CHECK(found.middle <= found.high);
    missed += found.low > 1.1 || found.high < 1.1;
  }
  CHECK(missed <= 14);
}

TEST_CASE("the same seed gives the same interval, and equal ratios one without width") {
  const std::vector<double> ratios = {1.0, 1.2, 0.9, 1.1};
  CHECK(bootstrap(ratios, 0.99, 5).low == bootstrap(ratios, 0.99, 5).low);
  const Interval same = bootstrap({1.5, 1.5, 1.5}, 0.99, 1);
  CHECK(same.low == doctest::Approx(1.5));
  CHECK(same.high == doctest::Approx(1.5));
}

TEST_CASE("blocks of A B B A take out what drifts") {
  Versus versus;
  double drift = 1000;
  for (int block = 0; block < 4; block++) {
    for (const bool second : {false, true, true, false}) {
      (second ? versus.b : versus.a).push_back(second ? 1.2 * drift : drift);
      drift *= 1.03;
    }
  }
  evaluate(versus, 1);
  CHECK(versus.ratio.low == doctest::Approx(1.2));
  CHECK(versus.ratio.high == doctest::Approx(1.2));
  CHECK(versus.floor_low == doctest::Approx(1.03 * 1.03 * 1.03));
}

}  // namespace
}  // namespace levada::load
