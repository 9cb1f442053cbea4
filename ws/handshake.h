// The opening handshake (RFC 6455 section 4), both sides, without I/O.
//
// Model: a parsed head is checked by one function that tells everything about it; an answer is written by one
// function into the caller's bytes. Upgrader joins the two for servers that want bytes in and bytes out.
//
// Nothing here allocates, except ConstantFields when it is built. All functions are pure, so any thread may
// call them. Writers return the bytes written, or 0 when `out` is too small; the *_size functions tell how
// many they need.
//
// What a writer is given may come from a peer (a decoded query parameter, a forwarded name), so a field whose
// name is no token or whose value has a control byte is left out: nobody can inject a line. Fields that the
// writers themselves write (Connection, Upgrade, Content-Length and their like) are left out as well.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include <levada/core/bytes.h>
#include <levada/ws/accept_key.h>
#include <levada/ws/http.h>

namespace levada::ws {

// ---- Server side: what is this request? ----

// An answer that refuses a request; the connection is closed after it. All members are views: whatever they
// point to must live until the answer is written.
struct Rejection {
  std::uint16_t status = 400;
  std::string_view reason = {};            // the reason phrase; empty: the standard one for the status
  std::span<const HttpField> fields = {};  // besides Content-Length, Connection and, for 426, Upgrade
  std::string_view body = {};
};

enum class RequestKind : std::uint8_t {
  websocket,  // everything that RFC 6455 section 4.2.1 asks for holds
  plain,      // an ordinary request that does not ask for a WebSocket
  rejected,   // must not be served
};

struct UpgradeCheck {
  RequestKind kind = RequestKind::plain;
  const Rejection* rejection = nullptr;  // when rejected; static storage
};

// Checks a complete request. Rejections, in the order of the checks:
//   400  Host missing (from HTTP/1.1 on), repeated, or no host[:port]      RFC 9112 section 3.2
//   (a request without "Upgrade: websocket" is plain from here on, and so is one of HTTP/1.0: RFC 9110 section 7.8)
//   405  method is not GET; with "Allow: GET"
//   400  target in a form that names no resource; no host                  RFC 6455 section 4.2.1 point 1, 2
//   400  Connection has no "upgrade"                                       point 4
//   426  Sec-WebSocket-Version missing or not 13; with the version         point 6, section 4.4
//   400  Sec-WebSocket-Version or Sec-WebSocket-Key repeated               sections 11.3.1, 11.3.5
//   400  Sec-WebSocket-Key missing or not base64 of 16 bytes               point 5
//   400  Sec-WebSocket-Protocol is no list of tokens, all different        section 4.1 point 10; at most 100
//   400  Sec-WebSocket-Extensions is not by the grammar                    section 9.1
//   400  the request has content: what follows must be frames
UpgradeCheck check_upgrade(const HttpRequest& request);

// The answer to a plain request on an endpoint that serves nothing else: 426, static storage.
const Rejection& upgrade_required();

// The first of the server's subprotocols, in its order of preference, that the client offers; empty when
// there is none (the handshake then goes on without one, RFC 6455 section 4.2.2 point 5.5). Names compare
// exactly. The view is the server's own.
std::string_view select_subprotocol(const HttpRequest& request,
                                    std::span<const std::string_view> server_preference);

// Whether the client offers that subprotocol.
bool offers_subprotocol(const HttpRequest& request, std::string_view name);

enum class OriginPolicy : std::uint8_t {
  any,        // no check: for endpoints that use no cookies or other ambient credentials
  same_host,  // the Origin's host and port are the request's own; the safe default
  allow_list  // the Origin is in a list
};

// Whether a page of the request's Origin may open a WebSocket here (RFC 6455 section 10.2). Browsers always
// send the field and scripts cannot change it; so a request without it comes from no browser and is allowed
// by every policy. A repeated or opaque ("null") Origin is refused by all but `any`. Hosts compare without
// regard to case; a port left out is the default of the Origin's scheme. same_host does not compare the
// scheme, which the server behind a TLS proxy does not know, and leaves it to check_upgrade() whether the request's
// host is a good one. `allow_list` has origins as browsers write them:
// "https://example.com", "http://localhost:8080".
bool origin_allowed(const HttpRequest& request, OriginPolicy policy,
                    std::span<const std::string_view> allow_list = {});

// ---- Server side: answers ----

// The standard reason phrase of a status (RFC 9110 section 15); "Unknown" where there is none. Static
// storage.
std::string_view reason_phrase(unsigned status);

// Whether a field can be written as it stands: a token as name and no control bytes in the value.
bool is_writable(const HttpField& field);

// Response fields that are the same for every answer, formatted once at start-up and written by one copy.
// Allocates when built, never again. Immutable, so threads may share it.
class ConstantFields {
 public:
  ConstantFields() = default;
  explicit ConstantFields(std::span<const HttpField> fields);

  // Whole lines with their ends; lives as long as this object.
  std::string_view block() const { return block_; }

 private:
  std::string block_;
};

// A positive answer to an opening handshake. Views live until it is written.
struct Acceptance {
  std::string_view key = {};               // the request's Sec-WebSocket-Key
  std::string_view subprotocol = {};       // one that the client offered; empty: none
  std::string_view extensions = {};        // the value of Sec-WebSocket-Extensions; empty: none
  std::span<const HttpField> fields = {};  // more fields
  std::string_view constant_block = {};    // ConstantFields::block(), written as it stands
};

// The Acceptance for a request that check_upgrade() calls a websocket: its key, and no more. Its views are
// the request's.
Acceptance accept_request(const HttpRequest& request);

// The 101 answer (RFC 6455 section 4.2.2 point 5).
std::size_t accept_size(const Acceptance& acceptance);
std::size_t write_accept(MutableBytes out, const Acceptance& acceptance);

// A refusal with "Connection: close"; a 426 also says what to upgrade to (RFC 9110 section 15.5.22).
std::size_t rejection_size(const Rejection& rejection, std::string_view constant_block = {});
std::size_t write_rejection(MutableBytes out, const Rejection& rejection,
                            std::string_view constant_block = {});

// An ordinary answer to a plain request, with Content-Length. 1xx, 204, 205 and 304 have no content: `body` is
// left out.
struct Response {
  std::uint16_t status = 200;
  std::string_view reason = {};            // empty: the standard one
  std::span<const HttpField> fields = {};  // Content-Type and others
  std::string_view body = {};
  bool keep_alive = true;  // false: "Connection: close"
  bool omit_body = false;  // the answer to HEAD: the length of `body`, but not `body`
  bool http_1_0 = false;   // the request's version: only there keeping alive is something to say
  std::string_view constant_block = {};
  std::string_view date_line = {};  // DateField::line(); left out where `fields` have a Date
};
std::size_t response_size(const Response& response);
std::size_t write_response(MutableBytes out, const Response& response);

// What write_rejection() writes, to be completed.
Response make_response(const Rejection& rejection, std::string_view constant_block = {});

// ---- Server side: bytes in, bytes out ----

// What an Upgrader asks its owner while a request comes in. A hook that is null is not called. Each may end
// the handshake by returning a Rejection, which must live until feed() returns; null goes on. All views that
// a hook is given live until it returns. The hooks for the request line and the fields run as soon as their
// lines are complete, in the order of the request, so they also see the good part of a request that turns out
// to be malformed. on_upgrade runs last, when everything was checked and the subprotocol chosen, and may
// change the acceptance; what its views point to must live until feed() returns. A subprotocol that the client did not
// offer is not written.
struct UpgradeHooks {
  void* context = nullptr;
  const Rejection* (*on_request_line)(void* context, std::string_view method,
                                      std::string_view target) = nullptr;
  const Rejection* (*on_host)(void* context, std::string_view host) = nullptr;
  const Rejection* (*on_field)(void* context, std::string_view name,
                               std::string_view value) = nullptr;  // but Host
  const Rejection* (*on_upgrade)(void* context, const HttpRequest& request, Acceptance& acceptance) = nullptr;
};

// Views live as long as the Upgrader.
struct UpgraderOptions {
  HttpLimits limits = {};
  OriginPolicy origin_policy = OriginPolicy::same_host;
  std::span<const std::string_view> allowed_origins = {};  // for OriginPolicy::allow_list
  std::span<const std::string_view> subprotocols = {};     // in order of preference
  std::string_view constant_block = {};                    // written into every answer
  // Written into rejections: DateField::line(), called before feed(), for an Upgrader has no clock. Empty: none.
  std::string_view date_line = {};
  UpgradeHooks hooks = {};
};

// The server's side of the handshake as a function from bytes to bytes, for owners of their own sockets:
//
//   for (;;) {
//     size += read(fd, buffer + size, ...);
//     const auto outcome = upgrader.feed({buffer, size}, out);
//     if (outcome.state == Upgrader::State::incomplete) continue;
//     write(fd, out, outcome.written);
//     if (accepted) the frames begin at buffer + outcome.consumed; else close(fd);
//   }
//
// An Upgrader is about 5 KB. One per thread is enough: the state of a handshake that is under way is a
// Progress, of which every connection has its own. Not thread-safe.
class Upgrader {
 public:
  enum class State : std::uint8_t { incomplete, accepted, rejected };

  struct Outcome {
    State state = State::incomplete;
    std::uint16_t status = 0;      // what was answered: 101 or the rejection's status; 0 while incomplete
    std::size_t consumed = 0;      // accepted: bytes of the request; those behind it are frames. Otherwise 0
    std::size_t written = 0;       // bytes of the answer in `out`
    std::string_view subprotocol;  // accepted: the one chosen; lives as long as its source does
  };

  struct Progress {
    std::size_t seen = 0;          // bytes that feed() has parsed
    std::size_t fields_shown = 0;  // fields that hooks have seen
    bool line_shown = false;
  };

  explicit Upgrader(const UpgraderOptions& options) : options_(options) {}

  // Looks at all bytes of the connection so far: `in` grows from call to call and may have moved. The answer
  // goes to `out`, which must not overlap `in`; 1 KiB is enough unless the options or hooks add more. Where
  // it is too small, the handshake ends as rejected with 500 and as much of an answer as fits: that or
  // nothing.
  Outcome feed(Bytes in, MutableBytes out) { return feed(progress_, in, out); }

  // The same for one of many connections.
  Outcome feed(Progress& progress, Bytes in, MutableBytes out);

  // Forgets the connection that feed(in, out) served.
  void reset() { progress_ = {}; }

  // The request that feed() parsed last; its views live as long as the bytes given to feed().
  const HttpRequest& request() const { return request_; }

 private:
  const Rejection* show_lines(Progress& progress) const;
  Outcome decide(std::size_t consumed, MutableBytes out);
  Outcome reject(const Rejection& rejection, MutableBytes out) const;

  UpgraderOptions options_;
  HttpRequest request_;
  Progress progress_;
};

// ---- Client side ----

// A client's opening handshake (RFC 6455 section 4.1). Views live until it is written.
struct UpgradeRequest {
  std::string_view host = {};     // host[:port], the port left out where it is the scheme's default
  std::string_view target = "/";  // path and query, percent-encoded
  std::string_view key = {};      // make_key(random bytes)
  std::span<const std::string_view> subprotocols = {};  // in order of preference
  std::string_view origin = {};                         // empty: none
  std::string_view extensions = {};                     // the value of Sec-WebSocket-Extensions; empty: none
  std::span<const HttpField> fields = {};               // cookies, authorization and others
};

// Whether the request can be written as it is: host and target are such, the key is a key, subprotocols are tokens, none
// twice, the other texts have no control bytes, and `fields` has none of those that the writer writes itself. The writer
// and the size answer 0 where it is not so.
bool is_writable(const UpgradeRequest& request);
std::size_t upgrade_request_size(const UpgradeRequest& request);
std::size_t write_upgrade_request(MutableBytes out, const UpgradeRequest& request);

// Why a client must not use the connection (RFC 6455 section 4.1, what to do with the server's response).
enum class UpgradeFailure : std::uint8_t {
  none,
  status_not_101,        // an HTTP answer: a redirect, a refusal; the response tells more
  http_1_0,              // the answer is one of HTTP/1.0, which knows no upgrade (RFC 9110 section 7.8)
  upgrade_missing,       // not one Upgrade field, or not "websocket"
  connection_missing,    // Connection without "upgrade"
  accept_missing,        // no Sec-WebSocket-Accept, or more than one
  accept_wrong,          // it answers another key
  subprotocol_unasked,   // a subprotocol that was not offered
  subprotocol_repeated,  // more than one subprotocol
  extension_unasked,     // an extension that was not offered
  extension_malformed,   // no list of extensions (section 9.1)
};

// "upgrade_missing"; static storage.
const char* to_string(UpgradeFailure failure);

struct UpgradeResult {
  UpgradeFailure failure = UpgradeFailure::none;
  std::string_view subprotocol = {};  // the server's choice, a view into the response; empty: none
};

// Checks a complete response against the request that it answers. The parameters of accepted extensions are
// for the code of the extension to check (response.find(FieldId::sec_websocket_extensions)).
UpgradeResult check_upgrade_response(const HttpResponse& response, const UpgradeRequest& request);

}  // namespace levada::ws
