// Client: WebSocket connections to servers named by URL, on a reactor.
//
//   struct Handler {
//     void on_open(ws::Connection& conn) { conn.send_text("hello"); }
//     void on_message(ws::Connection& conn, ws::Opcode opcode, Bytes payload) { ... }
//     void on_close(ws::Connection& conn, const ws::CloseInfo& info) { ... }
//     void on_refused(ws::Connection& conn, const ws::Refusal& refusal) { ... }   // the server or a proxy said no
//     void on_unreachable(const ws::Unreachable& unreachable) { ... }             // nobody there
//     bool on_response(ws::Connection& conn, const ws::HttpResponse& response) { ... }  // may refuse the server's 101
//     void on_retry(const ws::Retry& retry) { ... }                               // with ReconnectOptions: not yet
//   } handler;
//   ws::Client client(reactor, handler);
//   client.dial({.url = "ws://example.com/chat"});
//
// Model: a dial goes through steps, all under one deadline:
//
//   resolve -> connect (the first of the addresses that answers) -> proxy -> TLS -> opening handshake -> open
//
// and ends in exactly one of on_open, on_refused, on_unreachable; or, where that was asked for, begins anew at another
// URL (a redirect) or after a while (a reconnect, at the first URL again). It has a number, by which it can be canceled
// at every step, and in every call of the handler.
//
// Client and reactor may end in either order. The client's end cancels its dials and ends its connections (on_close); it
// must not come from its own handler. The reactor's end, and its close_all(), does the same: a dial that has a
// connection ends with on_refused (canceled), one that has none with no call.
//
// All of it is for the reactor's thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>

#include <levada/net/connector.h>
#include <levada/net/reactor.h>
#include <levada/net/resolver.h>
#include <levada/ws/service.h>
#include <levada/ws/url.h>

namespace levada::ws {

class Dial;

// After a connection was lost or could not be made, it is dialled again, until cancel(), or a close() or terminate() of
// our own. The n-th attempt in a row waits min_delay_ms * 2^n, at most max_delay_ms, less a random part of up to a half,
// so that clients of a server that restarts do not come back all at once. on_retry tells of each. What another attempt
// would not change ends the dial with its report: invalid_argument, not_supported, permission_denied and
// certificate_refused.
struct ReconnectOptions {
  bool enabled = false;
  std::uint32_t min_delay_ms = 250;
  std::uint32_t max_delay_ms = 30'000;
  bool after_refusal = false;  // also when the server answered the handshake with a refusal
};

struct ClientOptions {
  ServiceOptions service = {};
  std::uint32_t timeout_ms = 10'000;  // of one dial, from the name to the end of the handshake; 0: no limit
  std::uint32_t attempt_delay_ms = 250;  // before the next address of a host is tried too (RFC 8305)
  unsigned max_redirects = 0;            // followed for 301, 302, 303, 307 and 308; never from wss to ws
  // The proxy's URL (http:// or socks5://) for all but the hosts of `no_proxy`. Empty: what HTTP_PROXY, HTTPS_PROXY,
  // ALL_PROXY and NO_PROXY say (proxy.h), unless `proxy_from_environment` is false. A proxy that is itself reached by
  // TLS, https://, is refused with not_supported.
  std::string proxy_url = {};
  std::string no_proxy = {};
  bool proxy_from_environment = true;
  ReconnectOptions reconnect = {};
  net::TlsOptions tls = {};  // of wss: by default the system's CAs, and the server has to prove its name
  net::ResolverOptions resolver = {};
};

// Views are copied.
struct DialRequest {
  std::string_view url;  // ws://, wss://, ws+unix:; a user in it becomes Basic credentials
  std::string_view origin = {};
  std::span<const HttpField> fields =
      {};  // Cookie, Authorization and others; those two do not go to another host
  const net::Address* source = nullptr;  // local address
  void* user_data = nullptr;             // becomes Connection::user_data()
};

// Why a dial did not come to a connection. Views live until the handler returns.
struct Unreachable {
  std::uint64_t dial = 0;
  std::string_view url;
  void* user_data = nullptr;
  Error
      error;  // not_found (the name), timed_out, connection_refused, unreachable, invalid_argument (the proxy), ...
  std::span<const net::ConnectAttempt> attempts = {};  // what became of each address
};

// An attempt that failed, or a connection that was lost, and when the next attempt begins.
struct Retry {
  std::uint64_t dial = 0;
  std::string_view url;  // that will be dialled; lives until the handler returns
  void* user_data = nullptr;
  Error error;                 // none where there is a status, and where the peer closed the connection
  unsigned status = 0;         // with ReconnectOptions::after_refusal: that of the answer
  unsigned attempt = 0;        // how many have failed in a row, this one included; 0: a connection was lost
  std::uint32_t delay_ms = 0;  // from now
};

class Client final : private DialObserver {
 public:
  // `handler` must outlive the client.
  template <class H>
  Client(net::Reactor& reactor, H& handler, ClientOptions options = {})
      : Client(reactor, &handler, handler_table<H>, std::move(options)) {}
  Client(net::Reactor& reactor, void* handler, const HandlerTable& table, ClientOptions options);
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;
  // Before or after its reactor, as ~Service().
  ~Client();

  // Begins. Returns the dial's number, or invalid_argument when the URL (url_error()) or the request cannot be used: a
  // field with a line end, one that the handshake itself has, ...; or for wss the errors of TlsContext::create().
  // Nothing is called before it returns.
  Result<std::uint64_t> dial(const DialRequest& request);
  // Other certificates, CAs and settings for the dials from now on. Errors: those of TlsContext::create().
  Error set_tls(const net::TlsOptions& options);
  UrlError url_error() const { return url_error_; }

  // Gives a dial up, in whatever step, without another call of the handler; a connection that is open stays, and is not
  // dialled again. Does nothing for a number that is over.
  void cancel(std::uint64_t dial);

  // Dials that have not come to their end, waiting and open ones that would reconnect included.
  std::size_t dials() const;
  Service& service() { return service_; }

 private:
  friend class Dial;

  void connected(Connection& connection) override;
  bool follows(Connection& connection, const HttpResponse& response) override;
  void opened(Connection& connection) override;
  bool refused(Connection& connection, const Refusal& refusal) override;
  void closed(Connection& connection, const CloseInfo& info) override;
  Error need_tls();
  Dial* find(const Connection& connection);
  void forget(Dial& dial);
  void report(const Unreachable& unreachable);

  net::Reactor& reactor_;
  net::ReactorRef reactor_ref_;
  void* handler_;
  const HandlerTable& table_;
  ClientOptions options_;
  Service service_;
  net::Resolver resolver_;
  UrlError url_error_ = UrlError::none;
  std::shared_ptr<net::TlsContext> tls_;  // made when it is first needed
  std::uint64_t last_number_ = 0;
  std::unordered_map<std::uint64_t, std::unique_ptr<Dial>> dials_;
  std::unordered_map<std::uint64_t, Dial*> connections_;  // by SlotId::packed()
  Dial* connecting_ = nullptr;                            // whose connection is being made
};

}  // namespace levada::ws
