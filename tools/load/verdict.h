// Verdict: what kept the number from being higher, or the latency from being known better.
#pragma once

#include <string>

#include <levada/tools/load/result.h>

namespace levada::load {

//   generator-limited   open loop: the load did not keep its timetable, so part of the latency is its own: messages left
//                       99.9 % of the time later than 200 us and a tenth of the response time, or did not leave at all
//   client-bound        a load thread always had something to do: the server might do more
//   server-bound        a thread of the server always had (only known with --server-pid)
//   both-bound          both
//   schedule-bound      open loop: neither had, and the timetable was kept
//   unknown             neither had: one message waits for the other, or the network, or a server that was not looked at
//
// A thread always has something to do if it ran, or waited for others to leave it a CPU, for 90 % of the time.
struct Verdict {
  std::string name;
  std::string reason;
};
Verdict verdict(const Result& result);

}  // namespace levada::load
