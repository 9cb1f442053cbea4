#include <levada/net/thread.h>

#include <algorithm>

namespace levada::net {

std::vector<int> allowed_cpus() {
  cpu_set_t set;
  std::vector<int> cpus;
  if (sched_getaffinity(0, sizeof set, &set) == 0) {
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
      if (CPU_ISSET(static_cast<std::size_t>(cpu), &set)) cpus.push_back(cpu);
    }
  }
  if (cpus.empty()) cpus.push_back(0);  // a kernel for more CPUs than cpu_set_t has
  return cpus;
}

bool may_use_cpu(int cpu) {
  return std::ranges::count(allowed_cpus(), cpu) != 0;
}

CpuBinding::CpuBinding(int cpu) {
  if (cpu < 0 || cpu >= CPU_SETSIZE || sched_getaffinity(0, sizeof before_, &before_) != 0) return;
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(static_cast<std::size_t>(cpu), &set);
  bound_ = sched_setaffinity(0, sizeof set, &set) == 0;
}

CpuBinding::~CpuBinding() {
  if (bound_) sched_setaffinity(0, sizeof before_, &before_);
}

}  // namespace levada::net
