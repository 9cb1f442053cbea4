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
  while (!interrupted_ && !done()) {
    const std::uint64_t now = monotonic_ns();
    if (now - begin >= ns) return;
    if (second && now >= next_second) {
      second(static_cast<double>(now - begin) / 1e9);
      next_second += nanoseconds_per_second;
      continue;
    }
    const std::uint64_t left = ns - (now - begin);
    poll(second ? std::min(left, next_second - now) : left, -1);
  }
}

bool Controller::wait_for(int fd) {
  while (!interrupted_) {
    pollfd descriptor = {fd, POLLIN, 0};
    if (::poll(&descriptor, 1, 0) > 0) return true;
    poll(3600 * nanoseconds_per_second, fd);
  }
  return false;
}

// Waits for signals, events, and perhaps another descriptor. After the first signal a second one ends the process.
void Controller::poll(std::uint64_t ns, int more_fd) {
  const timespec left = {static_cast<time_t>(ns / nanoseconds_per_second),
                         static_cast<long>(ns % nanoseconds_per_second)};
  pollfd descriptors[] = {{signals_.get(), POLLIN, 0}, {events_.get(), POLLIN, 0}, {more_fd, POLLIN, 0}};
  ppoll(descriptors, 3, &left, nullptr);
  std::uint64_t events = 0;
  [[maybe_unused]] const auto taken = read(events_.get(), &events, sizeof events);
  signalfd_siginfo info{};
  if (read(signals_.get(), &info, sizeof info) != sizeof info) return;
  interrupted_ = true;
  const sigset_t signals = ending_signals();
  pthread_sigmask(SIG_UNBLOCK, &signals, nullptr);
}

}  // namespace levada::load
