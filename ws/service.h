// Service: a handler on one reactor; what the connections of one route, or of one client, have in common.
//
// Model: a Server makes one Service per reactor and route. Someone who has a reactor of his own makes one directly and
// gives it listening, accepted or connecting sockets. Everything belongs to the reactor's thread.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include <levada/core/task.h>
#include <levada/net/proxy_protocol.h>
#include <levada/net/reactor.h>
#include <levada/net/socket.h>
#include <levada/ws/compression.h>
#include <levada/ws/connection.h>
#include <levada/ws/counters.h>
#include <levada/ws/date_field.h>
#include <levada/ws/decoder.h>
#include <levada/ws/handshake.h>
#include <levada/ws/http.h>
#include <levada/ws/proxy_tunnel.h>
#include <levada/ws/router.h>

namespace levada::ws {

// Header fields by name and value.
using FieldList = std::vector<std::pair<std::string, std::string>>;

struct ServiceOptions {
  // ---- Receiving ----
  std::uint64_t max_message_bytes = std::uint64_t{16} << 20;  // beyond it the connection is closed with 1009
  std::uint32_t max_fragments = 131072;                       // of one message; beyond it 1008
  // From the first byte of a message that is being assembled to its last, not counting the time in which reading is
  // paused; beyond it 1008. In milliseconds; 0: no limit.
  std::uint32_t message_timeout_ms = 300'000;
  // Inside an unfinished message or frame at least this many bytes a second have to arrive, on average over each
  // `rate_window_ms`; else 1008. 0: no limit.
  std::uint32_t min_bytes_per_s = 0;
  std::uint32_t rate_window_ms = 5'000;  // at least 1 (asserted)
  std::uint16_t max_controls_per_s = 0;  // pings and pongs; beyond it 1008. 0: no limit
  bool check_utf8 = true;                // of text; 1007
  bool auto_pong = true;                 // answer pings

  // ---- Sending ----
  // What may be queued on a connection, in bytes, and what becomes of a message beyond it. Pings, pongs and the close
  // frame may use `control_reserve_bytes` more; that sum is never exceeded. What TLS adds does not count. At most 4 GiB
  // less that reserve and a byte: more is taken for that.
  std::size_t max_buffered_bytes = std::size_t{64} << 20;
  OutputPolicy output_policy = OutputPolicy::report;
  // While the peer does not take what is queued, and that is more than this, reading from it pauses, so that a peer
  // that only sends cannot fill the memory of one that answers. In bytes.
  std::size_t pause_above_bytes = std::size_t{1} << 20;
  // TCP_NOTSENT_LOWAT: the kernel takes new bytes only while it holds fewer unsent ones than this, so that a peer that
  // does not read shows early in buffered() and on_drain. In bytes; 0: the system's default.
  std::uint32_t notsent_lowat_bytes = 0;

  // ---- Connections ----
  // Server, of the service that listens: when it and its routes have so many, in whatever phase, accepting pauses until
  // one is gone; meanwhile connections wait in the kernel. What is adopted counts and is not refused. 0: no limit.
  std::size_t max_connections = 0;

  // ---- Time, in milliseconds ----
  std::uint32_t handshake_timeout_ms = 10'000;  // from TCP's connection to the end of the opening handshake
  std::uint32_t close_timeout_ms =
      5'000;  // for the peer's part of the close handshake, and for the end of TCP
  // 0 turns each of these off.
  std::uint32_t ping_interval_ms = 60'000;  // ping when nothing was received for this long; at most an hour
  std::uint32_t idle_timeout_ms =
      180'000;  // close with 1001 when nothing was received for this long, no pong either
  std::uint32_t write_timeout_ms =
      60'000;  // cut when the peer has taken nothing for this long of what is queued; a little is enough to go on
  std::uint32_t max_lifetime_ms = 0;  // close with 1001 so long after the handshake

  // ---- Opening handshake, server ----
  HttpLimits http = {};                                  // 16 KiB and 100 fields; 431 beyond
  OriginPolicy origin_policy = OriginPolicy::same_host;  // pages of other hosts are refused with 403
  std::vector<std::string> allowed_origins = {};         // for OriginPolicy::allow_list
  // In order of preference, at most 255, more are left out: a server chooses the first that is offered, a client offers them.
  std::vector<std::string> subprotocols = {};
  FieldList response_fields =
      {};  // written into every answer; a Date here takes the place of the engine's own
  // Addresses and networks, as in is_listed(): "10.0.0.0/8, ::1". Connections from them must begin with a PROXY protocol
  // header, version 1 or 2, and Connection::remote_address() is what that says; "unix" names those that come over a Unix
  // socket. Empty: nobody's.
  std::string trusted_proxies = {};

  // ---- Compression ----
  DeflateOptions deflate = {};  // permessage-deflate; off by default

  // ---- TLS ----
  // A server's connections speak it (wss); of the service that listens, its routes need none. A client's are those that
  // are dialled with DialOptions::tls. nullptr: none.
  std::shared_ptr<net::TlsContext> tls = nullptr;
};

// What pings, pongs and the close frame may use beyond ServiceOptions::max_buffered_bytes; the last part is the close
// frame's alone.
inline constexpr std::size_t control_reserve_bytes = 1024;
inline constexpr std::size_t close_reserve_bytes = max_control_bytes + max_header_bytes;

// A payload shorter than this is copied rather than framed in place: that costs less than one more segment.
inline constexpr std::size_t copy_below_bytes = 512;

// Of the content of an answer that refuses, a client waits for so much, within the deadline of the handshake.
inline constexpr std::size_t max_refusal_body_bytes = 16 * 1024;

// What a client learns about a handshake that failed.
struct Refusal {
  Error error = {};  // of the transport: refused, reset, timed out; none if there is a response
  UpgradeFailure failure = UpgradeFailure::none;
  const HttpResponse* response = nullptr;  // the answer, if one came
  Bytes body = {};  // the first bytes of its content, at most max_refusal_body_bytes: those that came in time
  unsigned proxy_status = 0;  // the HTTP status with which a proxy refused, or 0
};

// A handshake that on_upgrade decides about. Without a decision it is accepted.
class UpgradeTicket;

class Upgrade {
 public:
  const HttpRequest& request() const { return request_; }
  const Params& params() const { return params_; }

  // Decides on a subprotocol other than the one that negotiation found, or on none (""). False, and nothing changes, if
  // the client did not offer it: it would have to fail the connection (RFC 6455 section 4.1).
  bool set_subprotocol(std::string_view name);
  std::string_view subprotocol() const { return subprotocol_; }

  // Adds a field to the answer, whether it accepts or rejects. Copied. At most 16: then returns false and adds nothing.
  bool add_field(std::string_view name, std::string_view value);

  // Becomes Connection::user_data(). on_open or on_gone follows, however the handshake ends.
  void set_user_data(void* data);

  // Refuses with an HTTP status, an optional body and reason phrase. Copied.
  void reject(std::uint16_t status, std::string_view body = {}, std::string_view reason = {});

  // Leaves the decision for later: the ticket accepts or rejects from any thread. The handshake timeout goes on; fields
  // that were added here are not sent, the ticket has its own.
  UpgradeTicket hold();

 private:
  friend class Connection;
  Upgrade(Connection& connection, const HttpRequest& request, const Params& params)
      : connection_(connection), request_(request), params_(params) {}

  std::string_view copy(std::string_view text);
  std::span<const HttpField> fields() const { return {fields_.data(), field_count_}; }

  Connection& connection_;
  const HttpRequest& request_;
  const Params& params_;
  std::string_view subprotocol_;
  std::array<HttpField, 16> fields_;
  std::size_t field_count_ = 0;
  std::uint16_t reject_status_ = 0;
  std::string_view reject_body_;
  std::string_view reject_reason_;
  bool held_ = false;
};

// Decides a held handshake, once, from any thread; later decisions, and those on a connection that is gone, do nothing.
class UpgradeTicket {
 public:
  explicit UpgradeTicket(Handle handle) : handle_(handle) {}

  // `subprotocol` replaces the negotiated one when it is not empty and the client offered it.
  void accept(std::string subprotocol = {}, FieldList fields = {}) const;
  void reject(std::uint16_t status, std::string body = {}) const;

 private:
  Handle handle_;
};

// A request that asks for no WebSocket, to be answered in on_http. Without an answer it gets 404.
class HttpExchange {
 public:
  // Until on_http returns.
  const HttpRequest& request() const { return request_; }

  // Answers, once (asserted). Copied. The connection stays open for another request when the client wants that. A
  // request's content is not read, and no 100 asks for it: the answer ends the connection. Returns whether all fields
  // fitted: at most 16 are sent.
  bool respond(std::uint16_t status, std::string_view content_type, std::string_view body,
               std::span<const HttpField> fields = {});

 private:
  friend class Connection;
  HttpExchange(Connection& connection, const HttpRequest& request)
      : connection_(connection), request_(request) {}

  Connection& connection_;
  const HttpRequest& request_;
  bool answered_ = false;
  bool ends_ = false;  // the answer is the connection's last
};

// State of a handshake or a message that is under way; an idle connection has none.
struct Pending {
  Pending(const DecoderOptions& options, BlockPool& blocks) : decoder(options, blocks) {}

  Decoder decoder;
  // Handshake: the head so far, or what followed a held one; for a client the request to be sent, and then the response.
  Block* input = nullptr;
  std::size_t input_bytes = 0;
  std::size_t parsed_bytes = 0;
  std::size_t awaited_bytes =
      0;  // client: of the input, when the answer refuses and its content is on its way
  // Server: the request's key, for a held handshake. Client: the request's key.
  WebSocketKey key{};
  std::string subprotocol;               // negotiated, of a held handshake
  std::string offered_subprotocols;      // in that one's request
  std::unique_ptr<ProxyTunnel> tunnel;   // client: until the proxy has let it through
  std::shared_ptr<net::TlsContext> tls;  // client: with whom TLS begins behind that
  std::string tls_host;
  std::uint16_t tls_port = 0;
  std::unique_ptr<net::ProxyProtocolParser> proxied;  // server: until the header is whole
  // What the handshake agreed on: of a held one, with the text that says so.
  DeflateNegotiation deflate;
  // A compressed message that is under way: its inflater, and the check of its text so far.
  Inflater* inflater = nullptr;
  Utf8Validator utf8;
  // A message of which a slice was inflated and more is to come in the next turn: `inflating` bytes of `input` behind
  // `parsed_bytes`; what follows them are frames.
  bool in_slices = false;
  bool last_piece = false;
  Opcode opcode = Opcode::binary;
  std::size_t inflating = 0;
  std::size_t inflated = 0;  // bytes, since this connection's turn began
  // The transport ended in the meantime, and how.
  bool ended = false;
  Error end = {};
  // The clock of an unfinished message, in the reactor's milliseconds, if there is one.
  bool clock_runs = false;
  std::uint32_t began_ms = 0;
  std::uint32_t window_began_ms = 0;
  std::uint32_t paused_ms = 0;     // when reading was paused
  std::uint64_t window_bytes = 0;  // received in this window
  Service* home = nullptr;         // whose free list it belongs to
  Pending* next_free = nullptr;
};

// Appends to the input of a Pending, in a block that grows.
void append_input(Pending& pending, BlockPool& blocks, Bytes bytes);

// Where to dial, and what to ask for. Views are copied.
struct DialOptions {
  std::string_view host;  // for the Host field
  std::string_view target = "/";
  std::string_view origin = {};
  std::span<const HttpField> fields = {};
  const net::Address* source = nullptr;  // local address; nullptr: the kernel's choice
  void* user_data = nullptr;
  // Speak TLS with a server that can prove to be `tls_host`, a name or an address without brackets.
  std::shared_ptr<net::TlsContext> tls = nullptr;
  std::string_view tls_host = {};
  std::uint16_t tls_port = 0;    // only tells sessions to resume apart
  std::uint32_t timeout_ms = 0;  // for all of the handshake; 0: ServiceOptions::handshake_timeout_ms
  static constexpr std::uint32_t no_timeout = ~std::uint32_t{0};
};

// Who wants to know how dialled connections fare, before the handler does.
class DialObserver {
 public:
  virtual void connected(Connection& connection) = 0;
  // Returns whether it goes elsewhere because of this answer: then its content is not waited for.
  virtual bool follows(Connection& connection, const HttpResponse& response) = 0;
  virtual void opened(Connection& connection) = 0;
  // Returns whether that is the end of it: then on_refused is called.
  virtual bool refused(Connection& connection, const Refusal& refusal) = 0;
  virtual void closed(Connection& connection, const CloseInfo& info) = 0;

 protected:
  ~DialObserver() = default;
};

class Service {
 public:
  // `handler` and `table` must outlive the service.
  Service(net::Reactor& reactor, Role role, void* handler, const HandlerTable& table,
          ServiceOptions options = {});
  template <class H>
  Service(net::Reactor& reactor, Role role, H& handler, ServiceOptions options = {})
      : Service(reactor, role, &handler, handler_table<H>, std::move(options)) {}
  Service(const Service&) = delete;
  Service& operator=(const Service&) = delete;
  // Before or after its reactor. Before: on the reactor's thread, but not from one of its own handlers. Closes its
  // listeners, and ends its connections at once as terminate() does, with on_close, which must not begin others.
  ~Service();

  // What is wrong with the options, if anything: then the service neither listens nor adopts nor dials.
  Error check_options() const;

  // ---- Server ----

  // Serves every connection accepted on this listening socket.
  Error listen(Fd fd);

  // Serves a path with another service of the same reactor, which must outlive this one, has options that are right and no
  // connections yet, and is no other's (asserted): exact, ":param" and "*" as in RouteTable. Once there is a route, other
  // paths are this service's
  // own if its handler has on_open, on_message or on_fragment, and else get 404.
  void add_route(std::string_view pattern, Service& service);

  // Takes over an accepted socket before its handshake. `received` are bytes already read from it; they are handled
  // now, so on_upgrade and on_http must not adopt a connection with some. nullptr when that failed (last_error()), and then
  // `user_data` stays the caller's; otherwise on_open or on_gone has it.
  Connection* adopt(Fd fd, Bytes received = {}, void* user_data = nullptr);

  // Takes over a socket after the 101 was sent by somebody else. `received` are bytes read after the request's head.
  // on_open, and on_message for what was received, are called before it returns.
  // A service with TLS refuses it (not_supported): the keys are not in the socket.
  Connection* adopt_upgraded(Fd fd, Bytes received = {}, void* user_data = nullptr);

  // ---- Client ----

  // Connects and shakes hands: exactly one of on_open and on_refused tells. nullptr when that could not even begin
  // (last_error()): invalid_argument for a request that cannot be written as asked, ...
  Connection* dial(const net::Address& address, const DialOptions& options);

  // The same on a socket that is connected already, to the server or, with `tunnel`, to a proxy.
  Connection* dial_on(Fd fd, const DialOptions& options, std::unique_ptr<ProxyTunnel> tunnel = nullptr);

  // Asks `observer`, which must outlive the connections, about those that are dialled from now on. nullptr: nobody.
  void observe_dials(DialObserver* observer) { dial_observer_ = observer; }

  // invalid_argument when that request cannot be written as asked: a field with a line end, a target with a space, ...
  Error check(const DialOptions& options) const;

  // ---- Ending ----

  // Stops listening, answers unfinished handshakes with 503 (a client's own end at once, by on_refused with canceled) and
  // closes every connection with 1001. Calls `empty`, if given, each time a connection is gone and none is left. What is
  // adopted from now on is treated alike.
  void shut_down(Task empty = {});

  // Connections that would lose something if they were closed now: all but those whose close handshake is done and
  // everything sent. Walks all endpoints of the reactor.
  std::size_t unfinished();
  // Connections that shut_down() found, and that were adopted since.
  std::size_t found_by_shut_down() const { return found_by_shut_down_; }
  // Those of them that ended because their peer did not do its part in time.
  std::size_t cut_by_shut_down() const { return cut_by_shut_down_; }

  // ---- State ----

  // Any thread.
  const Counters& counters() const { return counters_; }

  net::Reactor& reactor() const { return reactor_; }
  const ServiceOptions& options() const { return options_; }
  Role role() const { return decoder_options_.role; }
  // Connections that are not destroyed yet, in whatever phase.
  std::size_t connections() const { return connections_; }
  const Error& last_error() const { return last_error_; }

  // Calls `visit(Connection&)` for each open connection of this service. Walks all endpoints of the reactor.
  template <class Visit>
  void for_each(Visit&& visit);

 private:
  friend class Connection;
  friend class Upgrade;
  friend class UpgradeTicket;
  friend class HttpExchange;

  template <class Visit>
  void for_each_endpoint(Visit&& visit);
  std::size_t weigh();
  void relieve();
  void close_listeners();
  void leave_reactor();
  static void accepted(void* context, net::Listener& listener, Fd fd);
  bool is_full() const {
    return options_.max_connections != 0 && all_connections_ >= options_.max_connections;
  }
  void came();
  void went();
  void accept_waiting();
  Connection* add(Fd fd, Bytes received, void* user_data, bool upgraded);
  void set_options(int fd) const;
  Service* route(std::string_view path, Params& params);
  bool is_trusted_proxy(int fd) const;
  Connection* begin_handshake(Connection* connection, const DialOptions& options);
  std::string_view date_line();
  Pending& take_pending();
  static void give_pending(Pending& pending);

  net::Reactor& reactor_;
  net::ReactorRef reactor_ref_;
  void* handler_;
  const HandlerTable& table_;
  ServiceOptions options_;
  DecoderOptions decoder_options_;
  DecoderOptions deflate_decoder_options_;  // of connections that agreed on compression
  std::size_t short_frames_until_bytes_;    // buffered for a connection, Connection::send_short() sends them
  CompressionOptions compression_options_;
  Compression& compression_;  // of the reactor
  ConstantFields constant_fields_;
  DateField date_;
  bool has_own_date_;  // in constant_fields_
  std::vector<std::string_view> subprotocols_;
  std::vector<std::string_view> allowed_origins_;
  RouteTable route_table_;
  std::vector<Service*> routes_;

  Decoder decoder_;                // for all connections that are between messages
  Decoder deflate_decoder_;        // for those that agreed on compression
  Decoded* shown_ = nullptr;       // what the handler is being shown; headroom 0 when it was framed in place
  Owner* shown_memory_ = nullptr;  // of the receive buffer that it may lie in
  HttpRequest request_;
  HttpResponse response_;
  std::vector<std::unique_ptr<Pending>> pendings_;
  Pending* free_pending_ = nullptr;
  std::size_t connections_ = 0;
  Service* root_ = this;             // whose route it is
  std::size_t all_connections_ = 0;  // with those of its routes
  std::vector<SlotId> listeners_;
  std::vector<Fd> waiting_;  // accepted by the kernel when it was full already
  DialObserver* dial_observer_ = nullptr;
  std::unordered_map<std::uint64_t, net::Address> proxied_addresses_;  // by SlotId::packed()
  bool shutting_down_ = false;
  std::size_t found_by_shut_down_ = 0;
  std::size_t cut_by_shut_down_ = 0;
  Task on_empty_;
  std::shared_ptr<net::Reactor::Relief> relief_;
  SlotId heaviest_;  // that weigh() has found
  Counters counters_;
  Error last_error_;
};

// Every connection of this service, in whatever phase, that is not closed.
template <class Visit>
void Service::for_each_endpoint(Visit&& visit) {
  reactor_.for_each([&](net::Endpoint& endpoint) {
    if (!endpoint.carries_messages()) return;
    auto& connection = static_cast<Connection&>(endpoint);
    if (&connection.service() == this) visit(connection);
  });
}

template <class Visit>
void Service::for_each(Visit&& visit) {
  for_each_endpoint([&](Connection& connection) {
    if (connection.is_open()) visit(connection);
  });
}

}  // namespace levada::ws
