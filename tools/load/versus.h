// Versus: which of two servers is faster, and whether that can be told at all.
//
// Model: short runs in blocks of A B B A, so that whatever drifts meets both alike. Each block gives one ratio B / A;
// the answer is their geometric mean with a 99 % bootstrap interval. The two A's of a block, against each other, show
// what a ratio of 1 looks like in the same run: the A/A floor.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include <levada/tools/load/options.h>
#include <levada/tools/load/result.h>
#include <levada/tools/load/statistics.h>

namespace levada::load {

struct Versus {
  std::string metric;  // what was compared: more of it is better, or less
  bool more_is_better = true;
  std::vector<double> a, b;              // one value for each run; two for each block
  std::vector<double> ratios;            // B / A, of each block
  std::vector<double> a_to_a;            // the second A to the first, of each block
  Interval ratio;                        // of B / A
  double floor_low = 0, floor_high = 0;  // the lowest and the highest A/A
  Result result_a, result_b;             // all runs, added up
};

// Runs it: `run_one` makes one run of `options.duration_ns`; false ends it. False if nothing can be told.
bool compare_servers(const Options& options, const std::function<bool(const Options&, Result&)>& run_one,
                     Versus& versus);

// Fills in the ratios of the values; `seed` is the bootstrap's.
void evaluate(Versus& versus, std::uint64_t seed);

// The first line is the answer.
std::string text_report(const Options& options, const Versus& versus);
std::string json_report(const Options& options, const Versus& versus);

}  // namespace levada::load
