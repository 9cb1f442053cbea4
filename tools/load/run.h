// Run: the course of one run in one process, from the first connection to the last close frame.
#pragma once

#include <functional>
#include <string>

#include <levada/tools/load/controller.h>
#include <levada/tools/load/options.h>
#include <levada/tools/load/result.h>

namespace levada::load {

// What others have to do with a run. Called on the thread that runs.
struct RunHooks {
  // Connections are still being made, each second.
  std::function<void(std::uint32_t open)> connecting;
  // All connections have been made or have failed: waits for the other processes. False: do not begin.
  std::function<bool(std::uint32_t open)> ready;
  // The measured time begins.
  std::function<void()> begins;
  // A second of the measured time is over for all threads; theirs, added up.
  std::function<void(const Second& second)> second;
  // The measured time has ended.
  std::function<void()> ended;
};

// Runs it on the calling thread, which made the controller before any other thread began. SIGINT and SIGTERM end it
// early, with what was done until then; a second one ends the process at once. On failure before anything was sent
// returns false and says why.
bool run(const Options& options, Controller& controller, Result& result, std::string& why,
         const RunHooks& hooks = {});

}  // namespace levada::load
