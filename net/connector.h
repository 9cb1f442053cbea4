// Connector: a connection to the first of several addresses that answers (RFC 8305 section 5, "Happy Eyeballs").
//
// Model: attempts begin in the order of the list, each when the one before it has failed or `attempt_delay_ms` has
// passed; the first that succeeds wins, the others are closed. It is an endpoint of the reactor, named by its SlotId: one
// timer for the next attempt and for the deadline. The winner's descriptor leaves the reactor open, for the caller to
// make a connection of it.
//
// Invariants: `done` is called exactly once, unless the connector is canceled or the reactor ends; never inside
// connect_first(). Every attempt that did not win is closed when it is called.
#pragma once

#include <cstdint>
#include <span>

#include <levada/core/error.h>
#include <levada/core/fd.h>
#include <levada/core/slab.h>
#include <levada/net/reactor.h>
#include <levada/net/socket.h>

namespace levada::net {

struct ConnectOptions {
  std::uint32_t attempt_delay_ms = 250;  // RFC 8305 section 8; less than 10 counts as 10
  std::uint32_t timeout_ms = 10'000;     // for all of it; 0: no limit of its own
  const Address* source = nullptr;       // local address of every attempt of its family; copied. nullptr: any
  // Makes a socket whose connection is under way; connect_stream() but in tests.
  Result<Fd> (*open)(void* context, const Address& address, const Address* source) = nullptr;
  void* open_context = nullptr;
};

// One address, and what became of it: none for the one that won, canceled where an attempt was not begun or was closed
// because another one won; timed_out where the deadline came first.
struct ConnectAttempt {
  Address address;
  Error error = {};
};

// Lives until the callback returns, but for the descriptor, which is the callback's to move away.
struct ConnectOutcome {
  Fd fd = {};  // connected and non-blocking, or empty
  Error error =
      {};  // without a connection: timed_out at the deadline, else the most telling of the attempts' errors
  std::span<const ConnectAttempt> attempts = {};  // in the order of the list
  std::size_t winner = 0;                         // with a connection: index of its attempt
};

// The error that says most about why there is no connection: what is wrong on this machine (descriptors, memory,
// rights) before what a host answered (refused, reset), before silence, before a network that is not there. none if
// there is no error among them.
Error most_telling(std::span<const ConnectAttempt> attempts);

// Connects to one of `addresses`, which are copied, at most 255. Calls `done` in a later turn of the reactor, on its
// thread; invalid_argument when the list is empty. Returns a name for cancel_connecting().
using ConnectDone = void (*)(void* context, ConnectOutcome& outcome);
SlotId connect_first(Reactor& reactor, std::span<const Address> addresses, const ConnectOptions& options,
                     ConnectDone done, void* context);

// Closes all attempts; `done` is not called any more. Does nothing when it was called. The reactor's thread.
void cancel_connecting(Reactor& reactor, SlotId connector);

}  // namespace levada::net
