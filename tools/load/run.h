// Run: the course of a run, from the first connection to the last close frame, on the calling thread.
#pragma once

#include <string>

#include <levada/tools/load/options.h>
#include <levada/tools/load/result.h>

namespace levada::load {

// Runs it. SIGINT and SIGTERM end it early, with what was done until then; a second one ends the process at
// once. On failure before anything was sent returns false and says why.
bool run(const Options& options, Result& result, std::string& why);

}  // namespace levada::load
