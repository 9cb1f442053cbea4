// Handler: what a user writes; HandlerTable: the same as the engine calls it.
//
// A handler is any class with some of these members; those that are not there are not called:
//
//   void on_upgrade(Upgrade& upgrade);                                  // server: accept, reject or hold a handshake
//   void on_http(HttpExchange& exchange);                               // server: a request that asks for no WebSocket
//   void on_connected(Connection& connection);                          // client: TCP is there, to the server or a proxy
//   void on_secured(Connection& connection);                            // TLS is there; the opening handshake follows
//   bool on_response(Connection& connection, const HttpResponse& response);  // client: the 101, before on_open; false
//                                                                       // refuses it: on_refused, Errc::canceled
//   void on_open(Connection& connection);                               // the handshake is done
//   void on_message(Connection& connection, Opcode opcode, Bytes payload);
//   void on_fragment(Connection& connection, Opcode opcode, Bytes piece, bool last);  // instead of on_message: pieces
//                                                                       // as they arrive, nothing is assembled
//   void on_ping(Connection& connection, Bytes payload);                // before the pong is sent
//   void on_pong(Connection& connection, Bytes payload);
//   void on_drain(Connection& connection);                              // everything queued has left, after a stall
//   void on_close(Connection& connection, const CloseInfo& info);       // once for every on_open
//   void on_gone(Connection& connection);                               // server: ended without on_open, and has user_data()
//                                                                       // (of on_upgrade or adopt()), to be freed here
//   void on_refused(Connection& connection, const Refusal& refusal);    // client: the handshake failed, instead of on_open
//   void on_unreachable(const Unreachable& unreachable);                // Client: it did not even come to a connection
//   void on_retry(const Retry& retry);                                  // Client: why and when it dials again
//   void on_trace(Connection& connection, const TraceEvent& event);     // every event, if the engine traces: trace.h
//
// All are called on the reactor's thread, never one inside another but on_trace. Views live until the call returns; a payload may
// be kept longer with Connection::keep(). Payloads are `Bytes`; a handler that takes `MutableBytes` may change them.
//
// The engine has no exceptions: one that leaves a handler ends the process (std::terminate).
#pragma once

#include <levada/core/bytes.h>
#include <levada/ws/frame.h>
#include <levada/ws/trace.h>

namespace levada::ws {

class Connection;
class HttpExchange;
class HttpResponse;
class Upgrade;
struct CloseInfo;
struct Refusal;
struct Retry;
struct Unreachable;

struct HandlerTable {
  void (*upgrade)(void* self, Upgrade& upgrade) = nullptr;
  void (*http)(void* self, HttpExchange& exchange) = nullptr;
  void (*connected)(void* self, Connection& connection) = nullptr;
  void (*secured)(void* self, Connection& connection) = nullptr;
  bool (*response)(void* self, Connection& connection, const HttpResponse& response) = nullptr;
  void (*open)(void* self, Connection& connection) = nullptr;
  void (*message)(void* self, Connection& connection, Opcode opcode, MutableBytes payload) = nullptr;
  void (*fragment)(void* self, Connection& connection, Opcode opcode, MutableBytes piece,
                   bool last) = nullptr;
  void (*ping)(void* self, Connection& connection, Bytes payload) = nullptr;
  void (*pong)(void* self, Connection& connection, Bytes payload) = nullptr;
  void (*drain)(void* self, Connection& connection) = nullptr;
  void (*close)(void* self, Connection& connection, const CloseInfo& info) = nullptr;
  void (*gone)(void* self, Connection& connection) = nullptr;
  void (*refused)(void* self, Connection& connection, const Refusal& refusal) = nullptr;
  void (*unreachable)(void* self, const Unreachable& unreachable) = nullptr;
  void (*retry)(void* self, const Retry& retry) = nullptr;
  void (*trace)(void* self, Connection& connection, const TraceEvent& event) = nullptr;
  const bool* needs_tracing = nullptr;  // with `trace`: what only an engine that traces has
};

namespace detail {

template <class H>
constexpr HandlerTable make_handler_table() {
  HandlerTable table;
  if constexpr (requires { &H::on_upgrade; })
    table.upgrade = [](void* self, Upgrade& upgrade) noexcept { static_cast<H*>(self)->on_upgrade(upgrade); };
  if constexpr (requires { &H::on_http; })
    table.http = [](void* self, HttpExchange& exchange) noexcept {
      static_cast<H*>(self)->on_http(exchange);
    };
  if constexpr (requires { &H::on_connected; })
    table.connected = [](void* self, Connection& connection) noexcept {
      static_cast<H*>(self)->on_connected(connection);
    };
  if constexpr (requires { &H::on_secured; })
    table.secured = [](void* self, Connection& connection) noexcept {
      static_cast<H*>(self)->on_secured(connection);
    };
  if constexpr (requires { &H::on_response; })
    table.response = [](void* self, Connection& connection, const HttpResponse& response) noexcept {
      return static_cast<H*>(self)->on_response(connection, response);
    };
  if constexpr (requires { &H::on_open; })
    table.open = [](void* self, Connection& connection) noexcept {
      static_cast<H*>(self)->on_open(connection);
    };
  if constexpr (requires { &H::on_message; })
    table.message = [](void* self, Connection& connection, Opcode opcode, MutableBytes payload) noexcept {
      static_cast<H*>(self)->on_message(connection, opcode, payload);
    };
  if constexpr (requires { &H::on_fragment; })
    table.fragment = [](void* self, Connection& connection, Opcode opcode, MutableBytes piece,
                        bool last) noexcept {
      static_cast<H*>(self)->on_fragment(connection, opcode, piece, last);
    };
  if constexpr (requires { &H::on_ping; })
    table.ping = [](void* self, Connection& connection, Bytes payload) noexcept {
      static_cast<H*>(self)->on_ping(connection, payload);
    };
  if constexpr (requires { &H::on_pong; })
    table.pong = [](void* self, Connection& connection, Bytes payload) noexcept {
      static_cast<H*>(self)->on_pong(connection, payload);
    };
  if constexpr (requires { &H::on_drain; })
    table.drain = [](void* self, Connection& connection) noexcept {
      static_cast<H*>(self)->on_drain(connection);
    };
  if constexpr (requires { &H::on_close; })
    table.close = [](void* self, Connection& connection, const CloseInfo& info) noexcept {
      static_cast<H*>(self)->on_close(connection, info);
    };
  if constexpr (requires { &H::on_gone; })
    table.gone = [](void* self, Connection& connection) noexcept {
      static_cast<H*>(self)->on_gone(connection);
    };
  if constexpr (requires { &H::on_refused; })
    table.refused = [](void* self, Connection& connection, const Refusal& refusal) noexcept {
      static_cast<H*>(self)->on_refused(connection, refusal);
    };
  if constexpr (requires { &H::on_unreachable; })
    table.unreachable = [](void* self, const Unreachable& unreachable) noexcept {
      static_cast<H*>(self)->on_unreachable(unreachable);
    };
  if constexpr (requires { &H::on_retry; })
    table.retry = [](void* self, const Retry& retry) noexcept { static_cast<H*>(self)->on_retry(retry); };
  if constexpr (requires { &H::on_trace; }) {
    table.trace = [](void* self, Connection& connection, const TraceEvent& event) noexcept {
      static_cast<H*>(self)->on_trace(connection, event);
    };
    table.needs_tracing = &tracing_is_built_in;
  }
  static_assert(!(
                    requires { &H::on_message; } && requires { &H::on_fragment; }),
                "on_fragment takes the place of on_message");
  return table;
}

}  // namespace detail

// The table of a handler class.
template <class H>
inline constexpr HandlerTable handler_table = detail::make_handler_table<H>();

}  // namespace levada::ws
