// tests/simulate: many seeds, many steps each.
//
//   tests/simulate --seeds 1000 --steps 1000 [--seed FIRST]
//
// Prints what was run and what was done to the engine. When a rule is broken, or the engine crashes or hangs, it says
// with which seed, in which step, and what had happened before; `--seed S --seeds 1` does it again. Exit status: 0; 1: a
// rule was broken; 2: wrong usage.
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>
#include <charconv>
#include <csignal>
#include <cstdio>
#include <ctime>
#include <string_view>

#include <levada/core/clock.h>
#include <levada/tests/simulation/run.h>

namespace {

using namespace levada;
using namespace levada::ws::test;

struct Options {
  std::uint64_t seeds = 1000, steps = 1000, first = 1;
};

// Where the run is, for the process that watches it.
struct Progress {
  volatile std::uint64_t seed, step;
};

bool parse(int argc, char** argv, Options& options) {
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string_view name = argv[i], value = argv[i + 1];
    std::uint64_t* const target = name == "--seeds"   ? &options.seeds
                                  : name == "--steps" ? &options.steps
                                  : name == "--seed"  ? &options.first
                                                      : nullptr;
    if (target == nullptr) return false;
    const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), *target);
    if (error != std::errc{} || end != value.data() + value.size()) return false;
  }
  return argc % 2 == 1;
}

unsigned long long number(std::uint64_t value) {
  return value;
}

int run(const Options& options, Progress& progress) {
  const std::uint64_t began = monotonic_ns();
  Counts sum;
  std::uint64_t steps = 0, hash = 0;
  for (std::uint64_t seed = options.first; seed < options.first + options.seeds; seed++) {
    progress.seed = seed;
    const Outcome outcome = simulate(seed, options.steps, [&](std::uint64_t step) { progress.step = step; });
    steps += outcome.steps;
    hash = hash * 31 + outcome.hash;
    for (const auto& [name, times] : outcome.counts) sum[name] += times;
    if (outcome.problem.empty()) continue;
    std::printf("seed %llu, step %llu of %llu: broken: %s\nbefore that:\n%s", number(seed),
                number(outcome.steps), number(options.steps), outcome.problem.c_str(),
                outcome.last_events.c_str());
    return 1;
  }
  std::printf("%llu seeds, %llu steps, no rule broken (%.1f s, journals' hash %016llx)\n",
              number(options.seeds), number(steps), static_cast<double>(monotonic_ns() - began) / 1e9,
              number(hash));
  for (const auto& [name, times] : sum) std::printf("  %-36s %llu\n", name.c_str(), number(times));
  return 0;
}

// Waits for `child` as long as it gets on; how it ended, or -1 when it hung and was killed.
int watch(pid_t child, const Progress& progress, const sigset_t& signals) {
  constexpr timespec patience{20, 0};  // for one step
  for (;;) {
    const std::uint64_t seed = progress.seed, step = progress.step;
    const int signal = sigtimedwait(&signals, nullptr, &patience);
    int status = 0;
    if (waitpid(child, &status, WNOHANG) == child) return status;
    if (signal >= 0 || seed != progress.seed || step != progress.step) continue;
    kill(child, SIGKILL);
    waitpid(child, &status, 0);
    return -1;
  }
}

}  // namespace

int main(int argc, char** argv) {
  Options options;
  if (!parse(argc, argv, options)) {
    std::fprintf(stderr, "usage: simulate [--seeds N] [--steps M] [--seed FIRST]\n");
    return 2;
  }
  void* const memory =
      mmap(nullptr, sizeof(Progress), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) return 1;
  auto& progress = *static_cast<Progress*>(memory);
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGCHLD);
  sigprocmask(SIG_BLOCK, &signals, nullptr);
  const pid_t child = fork();
  if (child < 0) return 1;
  if (child == 0) return run(options, progress);
  const int status = watch(child, progress, signals);
  if (status != -1 && WIFEXITED(status) && WEXITSTATUS(status) == 0) return 0;
  std::printf("%s in seed %llu, step %llu\n", status == -1 ? "it hung" : "it ended", number(progress.seed),
              number(progress.step));
  return 1;
}
