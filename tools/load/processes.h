// Processes: one run in several processes, for more connections than one may have descriptors.
//
// Model: the parent forks a child for each share before any thread begins. Each child connects and says so; when all
// have, the parent lets them begin together. Each hands its capsule to the parent, which adds them up.
#pragma once

#include <string>

#include <levada/tools/load/options.h>
#include <levada/tools/load/result.h>

namespace levada::load {

// Runs it. Ctrl-C reaches the children too, which end with what they have. On failure returns false and says why.
bool run_processes(const Options& options, Result& result, std::string& why);

}  // namespace levada::load
