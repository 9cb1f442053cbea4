// Machine: where a run took place, for its capsule.
#pragma once

#include <map>
#include <string>

namespace levada::load {

struct Machine {
  std::string time;                            // "2026-11-22T16:00:00Z"
  std::string kernel;                          // "Linux 6.18.5"
  std::string cpu;                             // the processor's name
  int cpus = 0;                                // that the process may use
  std::map<std::string, std::string> sysctls;  // those that decide about connections
};

// Reads it now. What cannot be read is empty.
Machine this_machine();

}  // namespace levada::load
