#include <levada/tools/load/process.h>

#include <unistd.h>
#include <algorithm>
#include <filesystem>
#include <fstream>
#include <set>

#include <levada/core/clock.h>

namespace levada::load {

ThreadTime read_thread_time(const std::string& folder) {
  ThreadTime time;
  std::ifstream(folder + "/schedstat") >> time.run_ns >> time.wait_ns;
  return time;
}

ThreadTime own_thread_time() {
  return read_thread_time("/proc/thread-self");
}

ThreadUse use_between(const ThreadTime& begin, const ThreadTime& end, double seconds) {
  const double ns = seconds * static_cast<double>(nanoseconds_per_second);
  if (ns <= 0) return {};
  return {static_cast<double>(end.run_ns - begin.run_ns) / ns,
          static_cast<double>(end.wait_ns - begin.wait_ns) / ns};
}

bool Process::open(int pid) {
  pid_ = pid;
  if (clock_getcpuclockid(pid, &clock_) != 0) return false;
  pss_before_bytes_ = pss_bytes();
  return true;
}

void Process::begin() {
  begin_ns_ = cpu_ns();
  begin_threads_ = thread_times();
  last_ns_ = begin_ns_.value_or(0);
}

void Process::second(double at_s) {
  const auto now_ns = begin_ns_ ? cpu_ns() : std::nullopt;
  if (!now_ns || at_s < last_at_s_ + 0.1) return;
  seconds_.push_back(
      {at_s, static_cast<double>(*now_ns - last_ns_) / 1e9 / (at_s - last_at_s_), rss_bytes()});
  last_ns_ = *now_ns;
  last_at_s_ = at_s;
}

std::optional<ServerSample> Process::end(double seconds) const {
  const auto end_ns = begin_ns_ ? cpu_ns() : std::nullopt;
  if (!end_ns || seconds <= 0) return std::nullopt;
  ServerSample sample;
  sample.cpu_s = static_cast<double>(*end_ns - *begin_ns_) / 1e9;
  sample.busiest = busiest(seconds);
  sample.pss_bytes = pss_bytes();
  sample.pss_before_bytes = pss_before_bytes_;
  sample.seconds = seconds_;
  return sample;
}

std::optional<std::uint64_t> Process::cpu_ns() const {
  timespec time{};
  if (clock_gettime(clock_, &time) != 0) return std::nullopt;
  return static_cast<std::uint64_t>(time.tv_sec) * nanoseconds_per_second +
         static_cast<std::uint64_t>(time.tv_nsec);
}

std::map<std::string, ThreadTime> Process::thread_times() const {
  std::map<std::string, ThreadTime> threads;
  std::error_code error;
  for (const auto& task :
       std::filesystem::directory_iterator("/proc/" + std::to_string(pid_) + "/task", error)) {
    threads[task.path().filename()] = read_thread_time(task.path());
  }
  return threads;
}

ThreadUse Process::busiest(double seconds) const {
  ThreadUse most;
  for (const auto& [thread, time] : thread_times()) {
    const auto before = begin_threads_.find(thread);
    most = busier(most,
                  use_between(before == begin_threads_.end() ? ThreadTime{} : before->second, time, seconds));
  }
  return most;
}

std::optional<std::uint64_t> Process::pss_bytes() const {
  std::ifstream file("/proc/" + std::to_string(pid_) + "/smaps_rollup");
  for (std::string word; file >> word;) {
    std::uint64_t kibibytes = 0;
    if (word == "Pss:" && file >> kibibytes) return kibibytes * 1024;
  }
  return std::nullopt;
}

std::uint64_t Process::rss_bytes() const {
  std::uint64_t size = 0, resident = 0;
  std::ifstream("/proc/" + std::to_string(pid_) + "/statm") >> size >> resident;
  return resident * static_cast<std::uint64_t>(sysconf(_SC_PAGESIZE));
}

// ---- All of a server's ----

namespace {

// A process and its descendants, each once.
void gather(int pid, std::set<int>& pids) {
  if (pid == getpid() || !pids.insert(pid).second) return;
  std::error_code error;
  for (const auto& task :
       std::filesystem::directory_iterator("/proc/" + std::to_string(pid) + "/task", error)) {
    std::ifstream children(task.path() / "children");
    for (int child = 0; children >> child;) gather(child, pids);
  }
}

}  // namespace

bool ServerProcesses::open(const std::vector<int>& pids, std::string& why) {
  std::set<int> all;
  for (const int pid : pids) {
    if (!Process{}.open(pid)) {
      why = "there is no process " + std::to_string(pid);
      return false;
    }
    gather(pid, all);
  }
  for (const int pid : all) {
    Process process;
    if (process.open(pid)) processes_.push_back(std::move(process));
  }
  return true;
}

void ServerProcesses::begin() {
  for (Process& process : processes_) process.begin();
}

void ServerProcesses::second(double at_s) {
  for (Process& process : processes_) process.second(at_s);
}

std::optional<ServerSample> ServerProcesses::end(double seconds) const {
  std::optional<ServerSample> sum;
  for (const Process& process : processes_) {
    const auto sample = process.end(seconds);
    if (!sample) continue;
    if (sum) {
      sum->add(*sample);
    } else {
      sum = sample;
    }
  }
  return sum;
}

}  // namespace levada::load
