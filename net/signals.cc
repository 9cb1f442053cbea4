#include <levada/net/signals.h>

#include <pthread.h>
#include <sys/signalfd.h>
#include <unistd.h>
#include <cerrno>
#include <csignal>

namespace levada::net {
namespace {

class Signals : public Watch {
 public:
  Signals(Fd fd, void (*asked)(void*), void* context)
      : Watch(std::move(fd), &Signals::readable, this), asked_(asked), asked_context_(context) {}

 private:
  static void readable(void* self, Watch& watch) {
    const Signals& signals = *static_cast<Signals*>(self);
    signalfd_siginfo info;
    while (read(watch.native_fd(), &info, sizeof info) == sizeof info) signals.asked_(signals.asked_context_);
  }

  void (*asked_)(void*);
  void* asked_context_;
};

}  // namespace

Error watch_signals(Reactor& reactor, void (*asked)(void* context), void* context) {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGINT);
  sigaddset(&signals, SIGTERM);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  Fd fd(signalfd(-1, &signals, SFD_NONBLOCK | SFD_CLOEXEC));
  if (!fd) return Error::from_os("signalfd", errno);
  return reactor.add<Signals>(std::move(fd), asked, context) == nullptr ? reactor.last_error() : Error{};
}

}  // namespace levada::net
