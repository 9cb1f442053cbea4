#include <levada/tools/load/controller.h>

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <unistd.h>
#include <algorithm>
#include <csignal>

#include <levada/core/clock.h>

namespace levada::load {
namespace {

sigset_t ending_signals() {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGINT);
  sigaddset(&signals, SIGTERM);
  return signals;
}

}  // namespace

Controller::Controller() {
  const sigset_t signals = ending_signals();
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  signals_ = Fd(signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK));
  events_ = Fd(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
}

Controller::~Controller() {
  const sigset_t signals = ending_signals();
  pthread_sigmask(SIG_UNBLOCK, &signals, nullptr);
}

void Controller::wait(std::uint64_t ns, const std::function<bool()>& done,
                      const std::function<void(double at_s)>& second) {
  const std::uint64_t begin = monotonic_ns();
  std::uint64_t next_second = begin + nanoseconds_per_second;
  while (!done() && !stopped_) {
    const std::uint64_t now = monotonic_ns();
    if (now - begin >= ns) return;
    if (second && now >= next_second) {
      second(static_cast<double>(now - begin) / 1e9);
      next_second += nanoseconds_per_second;
      continue;
    }
    const std::uint64_t left = ns - (now - begin);
    poll(second ? std::min(left, next_second - now) : left);
  }
}

bool Controller::wait_for(int fd) {
  watch({fd});
  const auto readable = [fd] {
    pollfd descriptor = {fd, POLLIN, 0};
    return ::poll(&descriptor, 1, 0) > 0;
  };
  wait(~std::uint64_t{0} >> 1, readable);
  return !stopped_;
}

// Waits for signals, events, and what is watched. After the first signal a second one ends the process.
void Controller::poll(std::uint64_t ns) {
  const timespec left = {static_cast<time_t>(ns / nanoseconds_per_second),
                         static_cast<long>(ns % nanoseconds_per_second)};
  std::vector<pollfd> descriptors = {{signals_.get(), POLLIN, 0}, {events_.get(), POLLIN, 0}};
  for (const int fd : watched_) descriptors.push_back({fd, POLLIN, 0});
  ppoll(descriptors.data(), descriptors.size(), &left, nullptr);
  std::uint64_t events = 0;
  [[maybe_unused]] const auto taken = read(events_.get(), &events, sizeof events);
  signalfd_siginfo info{};
  if (read(signals_.get(), &info, sizeof info) != sizeof info) return;
  interrupted_ = stopped_ = true;
  const sigset_t signals = ending_signals();
  pthread_sigmask(SIG_UNBLOCK, &signals, nullptr);
}

}  // namespace levada::load
