// Runs of the simulator by seed, for the test and for the program.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include <levada/tests/simulation/simulator.h>

namespace levada::ws::test {

struct Outcome {
  std::uint64_t seed = 0;
  std::uint64_t steps = 0;  // that were made
  std::uint64_t hash = 0;   // of all that happened
  std::string problem;      // the rule that was broken; empty if none was
  std::string last_events;  // before that
  Counts counts;
};

// `progress` is called with the number of each step before it is made; from `faulty_from` on a rule gets broken.
inline constexpr std::uint64_t never_faulty = ~std::uint64_t{0};
template <class Progress>
Outcome simulate(std::uint64_t seed, std::uint64_t steps, Progress&& progress,
                 std::uint64_t faulty_from = never_faulty) {
  Outcome outcome;
  outcome.seed = seed;
  auto simulator = std::make_unique<Simulator>(Choices(seed));
  bool good = true;
  while (good && outcome.steps < steps) {
    if (outcome.steps == faulty_from) simulator->plant_fault();
    progress(outcome.steps++);
    good = simulator->step();
  }
  simulator->finish();
  outcome.hash = simulator->journal().hash();
  outcome.problem = simulator->journal().problem();
  if (!outcome.problem.empty()) outcome.last_events = simulator->journal().text();
  outcome.counts = simulator->counts();
  // What a broken engine leaves may not be fit to be destroyed, and the report is worth more.
  if (!outcome.problem.empty() && faulty_from == never_faulty) (void)simulator.release();
  return outcome;
}

inline Outcome simulate(std::uint64_t seed, std::uint64_t steps) {
  return simulate(seed, steps, [](std::uint64_t) {});
}

}  // namespace levada::ws::test
