// Trace: every event of every connection, for who wants to see what the engine did.
//
// Model: an engine that is built with -Dtracing=enabled calls a handler's
//
//   void on_trace(Connection& connection, const TraceEvent& event);
//
// if the handler has that member. An engine built without it has no trace of tracing: no code, no branch, and no byte
// in a connection, which is the same in both. So that nobody waits for events that never come, a program whose handler
// has on_trace does not link with such an engine (tracing_is_built_in is what it misses).
//
// on_trace is called on the reactor's thread, in the middle of what it tells, also inside of other handlers: it may read
// the connection (id, buffered(), user_data(), ...) and must not send, close, pause or terminate. The event lives until
// it returns. Until on_upgrade has been called the handler is that of the service that listens, for the route is not
// known yet.
#pragma once

#include <cstdint>

#include <levada/ws/frame.h>

namespace levada::ws {

enum class TraceKind : std::uint8_t {
  // ---- The connection ----
  began,     // accepted, adopted or dialled; for one that is dialled TCP may not be there yet
  secured,   // the TLS handshake is done
  opened,    // the opening handshake is done (RFC 6455 section 4)
  rejected,  // it is refused; value: the HTTP status, and for a client 0 when there was no answer
  closed,    // on_close is due; value: the close code it reports
  gone,      // the connection does not exist any more: once for each that began

  // ---- Receiving ----
  frame_received,  // its header was read and is allowed; opcode; value: the payload length it declares
  delivered,  // a message is shown to the handler, or a piece of one; opcode; value: its payload in bytes, inflated
  close_received,  // value: the peer's close code; 1005 if it sent none (section 7.1.5)
  round_trip,      // the pong of a ping that measured it came; value: microseconds
  paused,          // reading stops: by pause(), or because the peer does not take what is queued
  resumed,         // reading goes on

  // ---- Sending ----
  frame_queued,  // opcode; value: its payload in bytes, before compression
  would_exceed,  // a message was refused with SendStatus::full; value: its frame in bytes
  dropped,       // value: how many messages, pings or pongs were dropped to keep the bound
  close_sent,    // a close frame was queued; value: its code (1005: none)
  blocked,       // the kernel has no room for what is queued; value: buffered()
  drained,       // it has taken everything

  // ---- Limits ----
  timed_out,  // value: a TraceLimit
  failed,     // the peer broke a rule or a bound (section 7.1.7); value: the close code it is told
  shed,       // the memory budget ended it
};

// What took too long.
enum class TraceLimit : std::uint8_t { handshake, close, idle, write, lifetime, message, rate };

struct TraceEvent {
  TraceKind kind;
  Opcode opcode = Opcode::continuation;  // where the kind says so
  std::uint64_t value = 0;               // what the kind says; else 0
};

namespace detail {
// Defined by an engine that traces.
extern const bool tracing_is_built_in;
}  // namespace detail

}  // namespace levada::ws
