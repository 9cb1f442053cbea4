// HTML report: one page that needs nothing else, light or dark as its reader has it, on a screen or a phone.
#pragma once

#include <string>

#include <levada/tools/load/options.h>
#include <levada/tools/load/result.h>

namespace levada::load {

// `capsule` is the same result as write_capsule() has it: it is carried along.
std::string html_report(const Options& options, const Result& result, const std::string& capsule);

}  // namespace levada::load
