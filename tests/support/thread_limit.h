// A process that may start few further threads.
#pragma once

#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <thread>

#include <doctest/doctest.h>

namespace levada::test {

// Runs `run(lift)` on a thread that can start `most` threads at most, or none where the tests are not root's, until it
// calls lift().
template <class Run>
void with_few_threads(unsigned most, Run&& run) {
  rlimit old{};
  REQUIRE(getrlimit(RLIMIT_NPROC, &old) == 0);
  std::thread([&] {
    // Root has no limit, so it becomes somebody of whom there is nobody else. The system call, unlike the function,
    // changes this thread only.
    const bool is_root = geteuid() == 0;
    const long nobody = 1'000'000'000 + getpid();
    if (is_root) REQUIRE(syscall(SYS_setresuid, nobody, nobody, nobody) == 0);
    const rlimit few{rlim_t{is_root ? 1 + most : 1}, old.rlim_max};
    REQUIRE(setrlimit(RLIMIT_NPROC, &few) == 0);
    const auto lift = [&old] { REQUIRE(setrlimit(RLIMIT_NPROC, &old) == 0); };
    run(lift);
    lift();
  }).join();
}

}  // namespace levada::test
