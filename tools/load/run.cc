#include <levada/tools/load/run.h>

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <unistd.h>
#include <cerrno>
#include <csignal>
#include <functional>
#include <memory>
#include <vector>

#include <levada/core/clock.h>
#include <levada/core/fd.h>
#include <levada/tools/load/process.h>
#include <levada/tools/load/worker.h>

namespace levada::load {
namespace {

// The thread that waits for time to pass, for the workers, and for the user.
class Controller {
 public:
  Controller() {
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGTERM);
    pthread_sigmask(SIG_BLOCK, &signals, nullptr);
    signals_ = Fd(signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK));
    events_ = Fd(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  }

  int notify_fd() const { return events_.get(); }
  bool interrupted() const { return interrupted_; }

  // Waits until `done()` holds or `ns` have passed; not at all once the user has interrupted.
  void wait(std::uint64_t ns, const std::function<bool()>& done) {
    const std::uint64_t end = monotonic_ns() + ns;
    while (!interrupted_ && !done()) {
      const std::uint64_t now = monotonic_ns();
      if (now >= end) return;
      const timespec left = {static_cast<time_t>((end - now) / second),
                             static_cast<long>((end - now) % second)};
      pollfd descriptors[] = {{signals_.get(), POLLIN, 0}, {events_.get(), POLLIN, 0}};
      ppoll(descriptors, 2, &left, nullptr);
      std::uint64_t events = 0;
      [[maybe_unused]] const auto taken = read(events_.get(), &events, sizeof events);
      signalfd_siginfo info{};
      if (read(signals_.get(), &info, sizeof info) == sizeof info) interrupt();
    }
  }

 private:
  static constexpr std::uint64_t second = 1'000'000'000;

  // From now on a signal has its ordinary effect.
  void interrupt() {
    interrupted_ = true;
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGTERM);
    pthread_sigmask(SIG_UNBLOCK, &signals, nullptr);
  }

  Fd signals_;
  Fd events_;
  bool interrupted_ = false;
};

using Workers = std::vector<std::unique_ptr<Worker>>;

std::uint32_t open_connections(const Workers& workers) {
  std::uint32_t open = 0;
  for (const auto& worker : workers) open += worker->open();
  return open;
}

Error start(Workers& workers, const Options& options, const net::Address& address, const Payloads& payloads,
            int notify_fd) {
  const auto threads = static_cast<std::uint32_t>(options.threads);
  std::uint32_t first = 0;
  for (std::uint32_t i = 0; i < threads; i++) {
    const std::uint32_t count = options.connections / threads + (i < options.connections % threads ? 1 : 0);
    workers.push_back(std::make_unique<Worker>(options, address, payloads, first, count, notify_fd));
    if (const Error error = workers.back()->start()) return error;
    first += count;
  }
  return {};
}

// From the first message to the last echo.
void load(const Workers& workers, const Options& options, Controller& controller, Process& server,
          Result& result) {
  const auto all_gone = [&] { return open_connections(workers) == 0; };
  for (const auto& worker : workers) worker->load_begin();
  controller.wait(options.warmup_ns, all_gone);
  for (const auto& worker : workers) worker->measure_begin();
  server.begin();
  const std::uint64_t begin = monotonic_ns();
  controller.wait(options.duration_ns, all_gone);
  result.server = server.end(static_cast<double>(monotonic_ns() - begin) / 1e9);
  for (const auto& worker : workers) worker->measure_end();
}

}  // namespace

bool run(const Options& options, Result& result, std::string& why) {
  net::Address address;
  if (!resolve(options.target, address, why)) return false;
  Process server;
  if (options.server_pid != 0 && !server.open(options.server_pid)) {
    why = "there is no process " + std::to_string(options.server_pid);
    return false;
  }
  Controller controller;
  const Payloads payloads(options.bytes, options.connections, options.seed);
  Workers workers;
  const Error error = start(workers, options, address, payloads, controller.notify_fd());
  const auto all_ready = [&] {
    for (const auto& worker : workers) {
      if (!worker->ready()) return false;
    }
    return true;
  };
  if (!error) controller.wait(~std::uint64_t{0} >> 1, all_ready);
  if (!error && !controller.interrupted() && open_connections(workers) > 0) {
    load(workers, options, controller, server, result);
  } else {
    for (const auto& worker : workers) worker->abort();
  }
  for (const auto& worker : workers) {
    worker->join();
    result.add(worker->result());
  }
  result.interrupted = controller.interrupted();
  why = error ? error.message() : "";
  return !error;
}

}  // namespace levada::load
