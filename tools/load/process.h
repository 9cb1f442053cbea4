// Process: CPU time and memory of another process, as the kernel shows them; ServerProcesses: of all of a server's.
//
// Model: open() before the first connection looks at its memory; begin() and end() mark the measured time, and second()
// in between makes a series.
#pragma once

#include <cstdint>
#include <ctime>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include <levada/tools/load/result.h>

namespace levada::load {

// What a thread has used so far, from its schedstat file. All 0 where the kernel has none.
struct ThreadTime {
  std::uint64_t run_ns = 0;
  std::uint64_t wait_ns = 0;
};
ThreadTime read_thread_time(const std::string& folder);
ThreadTime own_thread_time();
ThreadUse use_between(const ThreadTime& begin, const ThreadTime& end, double seconds);

class Process {
 public:
  // Whether there is such a process.
  bool open(int pid);

  // Both ends of the measured time, `seconds` long, and `at_s` seconds after its beginning (nothing if that is less than
  // 0.1 s after the last call).
  void begin();
  void second(double at_s);
  std::optional<ServerSample> end(double seconds) const;

 private:
  // Nanoseconds; none when the process is gone.
  std::optional<std::uint64_t> cpu_ns() const;
  std::map<std::string, ThreadTime> thread_times() const;
  ThreadUse busiest(double seconds) const;
  std::optional<std::uint64_t> pss_bytes() const;
  std::uint64_t rss_bytes() const;

  int pid_ = 0;
  clockid_t clock_ = 0;
  std::optional<std::uint64_t> begin_ns_;
  std::optional<std::uint64_t> pss_before_bytes_;
  std::vector<ServerSecond> seconds_;
  std::uint64_t last_ns_ = 0;
  double last_at_s_ = 0;
  std::map<std::string, ThreadTime> begin_threads_;
};

class ServerProcesses {
 public:
  // These and their descendants, as there are now, but not this process and its own. On failure returns false and says
  // why.
  bool open(const std::vector<int>& pids, std::string& why);

  // As of one process; nothing if there is none.
  void begin();
  void second(double at_s);
  std::optional<ServerSample> end(double seconds) const;

 private:
  std::vector<Process> processes_;
};

}  // namespace levada::load
