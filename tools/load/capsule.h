// Capsule: a whole run as one JSON object: what was asked for, on which machine, what came out, without loss.
//
// Model: the first part is for people and scripts (rates, percentiles, verdict); "histograms" has every histogram as
// "NSxTIMES NSxTIMES ...", where NS is the least value of a slot, so that capsules can be compared, and results of
// several processes added up, as exactly as within one run.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include <levada/tools/load/options.h>
#include <levada/tools/load/result.h>

namespace levada::load {

// Ends with a newline.
std::string write_capsule(const Options& options, const Result& result, bool one_line = false);

// One second of the series, with its sketch, in one line without a newline.
std::string write_second(const Second& second);
Second read_second(const std::string& json);

// What reports show of a capsule that was read.
struct Capsule {
  std::string url, mode, verdict;
  Options options;  // what reports say of them
  Result result;
};

// As if they had been one run in several processes; at least one.
Capsule merge_capsules(const std::vector<Capsule>& capsules);

// On failure returns nothing and says why.
std::optional<Capsule> read_capsule(const std::string& json, std::string& why);

}  // namespace levada::load
