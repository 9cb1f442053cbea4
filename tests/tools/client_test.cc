#include <levada/tools/load/client.h>

#include <map>

#include <doctest/doctest.h>

namespace levada::load {
namespace {

TEST_CASE("shares of the population are what was asked for, and evenly spread") {
  constexpr std::pair<double, double> shares[] = {{0, 0},       {0.5, 0.3},   {0.3, 0.5},
                                                  {0, 0.5},     {0.25, 0.25}, {0.29, 0.07},
                                                  {0.01, 0.98}, {1.0 / 3, 0}, {0.1, 0}};
  for (const auto& each : shares) {
    const double slow = each.first, churners = each.second;
    CAPTURE(slow);
    CAPTURE(churners);
    std::map<Character, double> found;
    for (std::uint32_t number = 0; number < 1000; number++) {
      found[character_of(number, slow, churners)]++;
      CHECK(std::abs(found[Character::slow] - slow * (number + 1)) < 1 + 1e-3);
      CHECK(std::abs(found[Character::churner] - churners * (number + 1)) < 2 + 1e-3);
    }
    CHECK(std::abs(found[Character::slow] - slow * 1000) < 1);
    CHECK(std::abs(found[Character::churner] - churners * 1000) < 1);
  }
}

}  // namespace
}  // namespace levada::load
