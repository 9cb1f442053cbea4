// Report: a result for people and for programs.
#pragma once

#include <string>

#include <levada/tools/load/options.h>
#include <levada/tools/load/result.h>

namespace levada::load {

// What kept the number from being higher, as far as it was seen:
//   client-bound   a load thread always had something to do: the server might do more
//   server-bound   a thread of the server always had (only known with --server-pid)
//   both-bound     both
//   unknown        neither: one message waits for the other, or the network, or a server that was not looked
//   at
// A thread always has something to do if it ran, or waited for others to leave it a CPU, for 90 % of the
// time.
struct Verdict {
  std::string name;
  std::string reason;
};
Verdict verdict(const Result& result);

// The first line is the answer, the rest a short table. Ends with a newline.
std::string text_report(const Options& options, const Result& result);

// One JSON object.
std::string json_report(const Options& options, const Result& result);

}  // namespace levada::load
