// Report: a result for people.
#pragma once

#include <string>

#include <levada/tools/load/options.h>
#include <levada/tools/load/result.h>

namespace levada::load {

// The answer in one line, without a newline: "12,345 msg/s, p99 1.20 ms, 0 errors, 50 connections".
std::string headline(const Options& options, const Result& result);

// What was done, in one line: server, messages, schedule, population.
std::string run_line(const Options& options, const Result& result);

// The first line is the answer, the rest a short table. Ends with a newline.
std::string text_report(const Options& options, const Result& result);

}  // namespace levada::load
