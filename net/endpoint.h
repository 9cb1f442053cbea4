// Endpoint: one thing on a reactor that owns a descriptor or a deadline; and the two small kinds, Listener
// and Watch.
//
// Model: every endpoint lives in one slot of 128 bytes (two cache lines) of its reactor's slab and is named
// by a SlotId, which other threads and the kernel's completions may keep: it goes dead with the endpoint. An
// endpoint closes once; from then on it gets no event but on_closed(), at the end of the turn, and then its
// slot is released. So a reference to an endpoint is good until the handler that it was given to returns,
// even if that handler closes it.
#pragma once

#include <cstddef>
#include <cstdint>

#include <levada/core/error.h>
#include <levada/core/fd.h>
#include <levada/core/slab.h>
#include <levada/core/task.h>
#include <levada/net/timer_wheel.h>

namespace levada::net {

class Reactor;

inline constexpr std::size_t endpoint_slot_bytes = 128;

// The longest that an endpoint's timer can wait: six days.
inline constexpr std::uint32_t max_timer_ms = TimerWheel::max_delay_ms / 2;

enum class EndpointKind : std::uint8_t { alarm, listener, stream, watch };

class Endpoint : private Timer {
 public:
  Endpoint(const Endpoint&) = delete;
  Endpoint& operator=(const Endpoint&) = delete;

  Reactor& reactor() const { return *reactor_; }
  SlotId id() const { return id_; }
  EndpointKind kind() const { return kind_; }

  // Whether it is a ws::Connection: those are looked for among all others.
  bool carries_messages() const { return messages_; }

  // The descriptor, for socket options; it stays the endpoint's. -1 if there is none.
  int native_fd() const { return fd_; }

  // Stops all events, drops what is queued and closes the descriptor. Calling it again does nothing.
  void close();
  bool closed() const { return closed_; }

  // Calls on_timer() once, `delay_ms` milliseconds from now (0 counts as 1, and more than max_timer_ms as that); a
  // deadline set before is replaced.
  void set_timer(std::uint32_t delay_ms);
  // The same, unless on_timer() is to be called before that anyway.
  void set_timer_no_later(std::uint32_t delay_ms);
  void cancel_timer();
  bool timer_armed() const { return armed(); }

 protected:
  Endpoint(EndpointKind kind, int fd) : fd_(fd), kind_(kind) {}
  virtual ~Endpoint() = default;

  virtual void on_timer() {}
  // The last call: the endpoint is destroyed when it returns.
  virtual void on_closed() {}

 private:
  friend class Reactor;

  Reactor* reactor_ = nullptr;
  SlotId id_;

 protected:
  int fd_;

 private:
  EndpointKind kind_;

 protected:
  // State that the reactor and its backend keep for each endpoint.
  friend class Backend;
  friend class EpollBackend;
  friend class IoUringBackend;
  friend class SharedBuffer;
  friend class SimulatedBackend;
  friend class TlsLayer;
  bool closed_ : 1 = false;
  bool armed_receive_ : 1 = false;   // the backend is receiving, accepting or watching
  bool armed_writable_ : 1 = false;  // the backend waits for room in the socket's buffer
  bool paused_ : 1 = false;          // reading is stopped by the user, or accepting by a lack of descriptors
  bool starved_ : 1 = false;         // io_uring: waits for a receive buffer
  bool connecting_ : 1 = false;
  bool blocked_ : 1 = false;    // the kernel took less than was queued
  bool dirty_ : 1 = false;      // in the reactor's dirty list
  bool spilled_ : 1 = false;    // what is queued has been refused once
  bool in_flight_ : 1 = false;  // io_uring: the first segments are in a submission
  bool finishing_ : 1 = false;  // shut down the sending side when the queue is empty
  bool finished_ : 1 = false;   // that was done
  bool ended_ : 1 = false;      // on_end() was called
  bool direct_ : 1 = false;     // receive into receive_target()
  bool large_ : 1 = false;      // io_uring: large messages come, received by system calls
  bool little_ : 1 = false;     // receive_little() was called
  bool secured_ : 1 = false;    // a stream with a TlsLayer
  bool ktls_ : 1 = false;       // for which the kernel makes the records
  bool held_ : 1 = false;       // a listener that its owner paused
  bool messages_ : 1 = false;   // a ws::Connection
};

// Accepts connections on a listening descriptor. When the process or the system is out of descriptors it
// pauses and tries again after `retry_ms` or when an endpoint of the same reactor closes, whichever comes
// first.
class Listener : public Endpoint {
 public:
  static constexpr std::uint32_t retry_ms = 100;

  // Gets an accepted, non-blocking, close-on-exec descriptor, on the reactor's thread.
  using Accept = void (*)(void* context, Listener& listener, Fd fd);

  // Takes over `fd`, which is listening already. Built with Reactor::add.
  Listener(Fd fd, Accept accept, void* context)
      : Endpoint(EndpointKind::listener, fd.release()), accept_(accept), context_(context) {}

  // What it was built with.
  void* context() const { return context_; }

  // Stops and resumes accepting; meanwhile connections wait in the kernel. Those that it has handed over already still
  // come.
  void pause();
  void resume();

  // Calls for connections that the kernel could not hand over, by reason; the last one is kept for reports.
  std::uint64_t failures() const { return failures_; }
  const Error& last_error() const { return last_error_; }

 private:
  friend class Reactor;
  void on_timer() override;

  Accept accept_;
  void* context_;
  std::uint64_t failures_ = 0;
  Error last_error_;
};

// Calls back when a descriptor that is not a stream is readable: UDP sockets, event descriptors, signal
// descriptors. Level-triggered: the callback reads until nothing is left or is called again.
class Watch : public Endpoint {
 public:
  using Readable = void (*)(void* context, Watch& watch);

  // Takes over `fd`. Built with Reactor::add.
  Watch(Fd fd, Readable readable, void* context)
      : Endpoint(EndpointKind::watch, fd.release()), readable_(readable), context_(context) {}

 private:
  friend class Reactor;

  Readable readable_;
  void* context_;
};

// Runs a task once after a delay, which may be longer than a timer's. Built by Reactor::after.
class Alarm : public Endpoint {
 public:
  explicit Alarm(Task task) : Endpoint(EndpointKind::alarm, -1), task_(std::move(task)) {}

  void wait(std::uint32_t delay_ms) {
    const std::uint32_t step = delay_ms < max_timer_ms ? delay_ms : max_timer_ms;
    left_ms_ = delay_ms - step;
    set_timer(step);
  }

 private:
  void on_timer() override {
    if (left_ms_ != 0) return wait(left_ms_);
    task_();
    close();
  }

  std::uint32_t left_ms_ = 0;  // behind the timer that is set
  Task task_;
};

}  // namespace levada::net
