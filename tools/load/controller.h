// Controller: the main thread of a run waits for time to pass, for the workers, and for the user.
#pragma once

#include <cstdint>
#include <functional>
#include <utility>
#include <vector>

#include <levada/core/fd.h>

namespace levada::load {

class Controller {
 public:
  // From now on SIGINT and SIGTERM end waiting instead of the process; of all threads that begin later, too.
  Controller();
  // Gives them their ordinary effect again.
  ~Controller();
  Controller(const Controller&) = delete;

  // The event descriptor that workers write to.
  int notify_fd() const { return events_.get(); }
  bool interrupted() const { return interrupted_; }

  // Waits until `done()` holds or `ns` have passed; not at all once the user has interrupted. Asks `done()` whenever
  // something has happened. Calls `second(at_s)` whenever a second more has passed.
  void wait(std::uint64_t ns, const std::function<bool()>& done,
            const std::function<void(double at_s)>& second = {});

  // The interrupt was seen: waits again. A second one ends the process.
  void keep_waiting() { stopped_ = false; }

  // That one of these can be read is something that happens, too, from now on.
  void watch(std::vector<int> fds) { watched_ = std::move(fds); }

  // Waits until `fd` can be read or the user interrupts; whether it can. Watches it.
  bool wait_for(int fd);

 private:
  void poll(std::uint64_t ns);

  Fd signals_;
  Fd events_;
  std::vector<int> watched_;
  bool interrupted_ = false;
  bool stopped_ = false;
};

}  // namespace levada::load
