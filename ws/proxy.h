// Proxies for clients, without I/O: which one to take, and HTTP CONNECT (RFC 9110 section 9.3.6). SOCKS5 itself is
// net/socks5.h.
//
// Model: the choice is a pure function of a destination, the caller's options and an environment that is passed in. The
// tunnel is one request and one response; behind a 2xx the connection is the destination's.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include <levada/core/bytes.h>
#include <levada/core/error.h>
#include <levada/ws/http.h>
#include <levada/ws/url.h>

namespace levada::ws {

// ---- Which proxy ----

enum class ProxyKind : std::uint8_t {
  none,
  http,    // http://: CONNECT
  https,   // https://: CONNECT inside TLS to the proxy
  socks5,  // socks5:// and socks5h://: the proxy resolves names in both
};

// A proxy; views into the text that it was read from.
struct Proxy {
  ProxyKind kind = ProxyKind::none;
  Authority authority = {};  // user and password percent-encoded
  std::uint16_t port = 0;    // the authority's, or the default: 80, 443, 1080
};

// Reads "[scheme://][user[:password]@]host[:port][/]"; without a scheme it is HTTP. Errors: bad_scheme for other
// schemes; those of parse_authority(); bad_character when a path or more follows.
UrlError parse_proxy(std::string_view text, Proxy& proxy);

// The value of an environment variable, nullptr when it is not set; what it points to must live until the choice was
// used.
using EnvironmentLookup = const char* (*)(void* context, const char* name);
// That of the process's own environment; the context is not used.
const char* process_environment(void* context, const char* name);

struct ProxyOptions {
  std::string_view url =
      {};  // this proxy for every destination but those of `no_proxy`; empty: the environment's
  std::string_view no_proxy = {};  // as NO_PROXY, instead of it when it is not empty
  bool use_environment = true;     // false: without `url` no proxy at all
};

struct ProxyChoice {
  UrlError error = UrlError::none;  // of the proxy's URL; the dial has to fail then
  Proxy proxy = {};

  // Why a dial has to fail: invalid_argument for a URL that is none, not_supported for https://, TLS to the proxy.
  Error why_not() const;
};

// The proxy for a URL. From the environment: HTTP_PROXY for ws and HTTPS_PROXY for wss, else ALL_PROXY; each in lower
// case first; an empty one counts as not set. HTTP_PROXY in upper case is ignored where REQUEST_METHOD is set: there a
// web server made it from a request's "Proxy" field. Unix sockets never go through a proxy.
ProxyChoice choose_proxy(const Url& url, const ProxyOptions& options, EnvironmentLookup lookup,
                         void* context);

// Whether a list as in NO_PROXY names the destination. `host` has no brackets. Items stand between commas or spaces:
//   *                     everything
//   example.com           that host and those below it
//   .example.com          only those below it; so does *.example.com
//   192.0.2.1, ::1, [::1] that address, however it is written
//   10.0.0.0/8, fd00::/8  the addresses of a network
// and each but the last may end in :PORT, for that port only (an IPv6 address needs its brackets then).
bool is_listed(std::string_view list, std::string_view host, std::uint16_t port);

// ---- HTTP CONNECT ----

// "Basic dXNlcjpwYXNz" (RFC 7617), for Proxy-Authorization or Authorization. The arguments are percent-encoded, as in
// an Authority. Empty when they cannot be sent so: a user with a colon, or control characters. Allocates.
std::string basic_credentials(std::string_view user, std::string_view password);

// Views live until it is written.
struct ConnectRequest {
  std::string_view host = {};              // the destination, without brackets
  std::uint16_t port = 0;                  // the destination's
  std::string_view authorization = {};     // the value of Proxy-Authorization, or empty
  std::span<const HttpField> fields = {};  // more, for the proxy
};

// Bytes written, or 0 when `out` is too small; bytes needed. 0 from both when the request cannot be written: a host
// that is none, or an authorization with control characters. Fields that cannot be written are left out.
std::size_t connect_request_size(const ConnectRequest& request);
std::size_t write_connect_request(MutableBytes out, const ConnectRequest& request);

enum class ConnectAnswer : std::uint8_t {
  tunnel,   // 2xx: what follows the head is the destination's, whatever the head says about content
  interim,  // 1xx: another response follows
  authentication_required,  // 407
  refused,                  // anything else: the status tells more
};

// What a complete response to a ConnectRequest means.
ConnectAnswer check_connect_response(const HttpResponse& response);

}  // namespace levada::ws
