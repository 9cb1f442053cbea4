// Processes: one run in several processes, for more connections than one may have descriptors.
//
// Model: the parent forks a child for each share before any thread begins. Each child connects and says so; when all
// have, the parent lets them begin together. Each tells when its measured time begins and ends and what happened in each
// second, and hands its capsule to the parent, which adds them up. Over the channel go lines: a letter and a text.
//
//   k N   N connections are open so far        m   the measured time begins         e   it has ended
//   r N   ready, with N connections            s   a second of it, as JSON          c   the capsule       !   it failed, why
//
// Signals are the parent's affair, whoever sends them: the children have a process group of their own, the parent passes
// the first one on, and should the parent die, they do.
#pragma once

#include <string>

#include <levada/tools/load/controller.h>
#include <levada/tools/load/options.h>
#include <levada/tools/load/result.h>
#include <levada/tools/load/run.h>

namespace levada::load {

// As run(), in options.processes processes. hooks.ready is not called.
bool run_processes(const Options& options, Controller& controller, Result& result, std::string& why,
                   const RunHooks& hooks = {});

}  // namespace levada::load
