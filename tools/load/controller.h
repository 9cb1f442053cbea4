// Controller: the main thread of a run waits for time to pass, for the workers, and for the user.
#pragma once

#include <cstdint>
#include <functional>

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

  // Waits until `done()` holds or `ns` have passed; not at all once the user has interrupted. Calls `second(at_s)`
  // whenever a second more has passed.
  void wait(std::uint64_t ns, const std::function<bool()>& done,
            const std::function<void(double at_s)>& second = {});

  // Waits until `fd` can be read or the user interrupts; whether it can.
  bool wait_for(int fd);

 private:
  void poll(std::uint64_t ns, int more_fd);

  Fd signals_;
  Fd events_;
  bool interrupted_ = false;
};

}  // namespace levada::load
