// Exports: results as tables for other programs.
#pragma once

#include <string>

#include <levada/tools/load/capsule.h>
#include <levada/tools/load/result.h>

namespace levada::load {

// One line for each second, under a line of names: time, rate, latency, connections, errors, server.
std::string write_csv(const Result& result);

// The response time's percentile spectrum in the text format of HdrHistogram's tools; values in milliseconds.
std::string write_hgrm(const Histogram& histogram);

// What two runs have in common, side by side, with the ratio of the second to the first.
std::string compare_capsules(const Capsule& a, const Capsule& b);

}  // namespace levada::load
