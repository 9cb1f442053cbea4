// Search: the highest rate at which a server keeps every expectation.
//
// Model: one run at the lowest rate, one at the highest; then bisection of their ratio until the answer is known to
// 5 %. A rate counts as kept if no message was lost or left unsent, and all expectations hold: the load's own lateness is
// part of the response time, so it can only hide a rate, never flatter one. Where it may have, the answer says so.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include <levada/tools/load/options.h>
#include <levada/tools/load/result.h>

namespace levada::load {

struct Trial {
  double rate = 0;
  bool kept = false;
  bool limited = false;  // not kept, and the load itself was late
  Result result;
};

struct Search {
  std::vector<Trial> trials;
  double best = 0;       // the highest rate that was kept; 0: none was
  bool limited = false;  // the next higher trial failed by the load itself
};

// `run_one` makes one run; false ends the search with what it has.
Search search_rate(const Options& options, const std::function<bool(const Options&, Result&)>& run_one);

// The first line is the answer.
std::string text_report(const Options& options, const Search& search);
std::string json_report(const Options& options, const Search& search);

}  // namespace levada::load
