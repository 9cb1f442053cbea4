// Backend: how a reactor talks to the kernel (epoll, io_uring) or to a simulation.
//
// The contract is batch-level, since that is what the fastest interfaces want: poll() waits once and reports
// all that happened; flush() takes the queues of all streams that have something to send. Reports go to the
// reactor (Reactor::received and its siblings), which calls the endpoint. A backend never calls an endpoint
// that is closed.
//
// poll() calls Reactor::begin_turn() when its wait is over and before it reports anything.
//
// Memory of the turn: what a backend reports as received stays valid until it calls Reactor::end_turn(),
// which it does after the sends of that turn were handed over; until then it must not reuse a receive buffer
// that it has reported, and after it only those without further references.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include <levada/core/clock.h>
#include <levada/core/error.h>
#include <levada/net/stream.h>

namespace levada::net {

class Reactor;

enum class BackendKind : std::uint8_t { automatic, epoll, io_uring, simulated };

// "auto", "epoll", "io_uring", "simulated". Static storage.
const char* to_string(BackendKind kind);

class Backend {
 public:
  virtual ~Backend() = default;
  virtual BackendKind kind() const = 0;

  // Begins to accept, receive or watch. A stream that is connecting is reported with Reactor::connected()
  // first.
  virtual Error start(Endpoint& endpoint) = 0;

  // Stops all of it for good and closes the descriptor.
  virtual void stop(Endpoint& endpoint) = 0;

  // Forgets a stream whose connection was just made (from on_connected(), before it receives or sends) and returns its
  // descriptor, open.
  virtual Fd release(Stream& stream) = 0;

  // Follow changes of paused_ and direct_.
  virtual void pause(Endpoint& endpoint) = 0;
  virtual void resume(Endpoint& endpoint) = 0;
  virtual void set_direct(Stream& stream) = 0;

  // Hands the queues of all streams in the reactor's dirty list to the kernel.
  virtual void flush() = 0;

  // The loop ends on this thread: hands over what flush() has only prepared.
  virtual void leave() {}

  // Waits until something happens, at most `timeout_ms` (forever if negative), and reports it.
  virtual void poll(int timeout_ms) = 0;

  // Whether one more receive buffer may be kept out of use by somebody's reference.
  virtual bool can_lend() const = 0;

  // Ends the sending side of the stream's descriptor.
  virtual void shut_down(Stream& stream) = 0;

  // Makes a poll() that waits return. Any thread.
  virtual void wake() = 0;

  // Nanoseconds; monotonic. The simulation has its own.
  virtual std::uint64_t now_ns() = 0;

  // Seconds since 1970, UTC; a few milliseconds late, but without a system call. The simulation has its own.
  virtual std::uint64_t unix_seconds() { return clock_ns(CLOCK_REALTIME_COARSE) / nanoseconds_per_second; }

  // What the kernel offers and what had to be done without, for people: "multishot receive, incremental
  // buffers".
  virtual std::string describe() const = 0;
};

}  // namespace levada::net
