// Threads: starting one, with an error that is a value, and the CPUs that it may run on.
#pragma once

#include <sched.h>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include <levada/core/error.h>

namespace levada::net {

// Runs `run` on a thread of its own. Errors: no_memory when the system allows no further one.
template <class Run>
Error start_thread(std::thread& thread, Run&& run) {
  try {
    thread = std::thread(std::forward<Run>(run));
  } catch (const std::system_error& failure) {
    return {Errc::no_memory, "pthread_create", failure.code().value()};
  }
  return {};
}

// The numbers of the CPUs that the calling thread may use, ascending; at least one. Threads that it starts may use the
// same.
std::vector<int> allowed_cpus();
// Whether that is one of them.
bool may_use_cpu(int cpu);

// Binds the calling thread to one CPU for as long as this lives, if it may use that; less than 0: to none.
class CpuBinding {
 public:
  explicit CpuBinding(int cpu);
  CpuBinding(const CpuBinding&) = delete;
  ~CpuBinding();

 private:
  cpu_set_t before_;
  bool bound_ = false;
};

}  // namespace levada::net
