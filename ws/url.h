// URLs of WebSocket servers (RFC 6455 section 3, RFC 3986), read without allocation.
//
//   ws://HOST[:PORT][/PATH][?QUERY]      HOST: a name, an IPv4 address, or an IPv6 address in brackets; port 80
//   wss://...                            the same over TLS; port 443
//   ws+unix:/SOCKET[:/PATH][?QUERY]      a Unix socket; ws+unix:///SOCKET means the same, ws+unix:@NAME the
//                                        abstract namespace
//
// Model: one pass that splits and checks; every part is a view into the text and lives as long as it does. Nothing is
// decoded: a percent sign is checked to begin an escape and left as it stands (decode_percent() is for who needs more).
// Only what RFC 3986 allows is taken: what two programs would read differently is refused, and so is an escaped zero
// byte where a C string would end. Pure functions; any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace levada::ws {

enum class UrlError : std::uint8_t {
  none,
  bad_scheme,     // none of ws:, wss:, ws+unix:
  bad_character,  // a space, a control or other character that has to be percent-encoded
  bad_escape,     // a '%' without two hexadecimal digits, or an escaped zero byte in a host or socket path
  fragment,       // "#..." (RFC 6455 section 3)
  user_info,      // "user@" where the caller takes none
  no_host,        // the host is missing, or "//" is
  bad_host,       // a bracket without its other one, no IPv6 address in them, or more than 255 bytes
  bad_port,       // not a number from 1 to 65535
  no_socket,      // ws+unix: without an absolute path or a name
};

// What is wrong, in words for a user: "the URL has no host". Static storage.
const char* to_string(UrlError error);

enum class UrlScheme : std::uint8_t { ws, wss, ws_unix };

inline constexpr std::size_t max_host_bytes = 255;

// [user[:password]@]host[:port] (RFC 3986 section 3.2). Views are percent-encoded.
struct Authority {
  bool has_user_info = false;  // there is a '@'
  std::string_view user = {};
  std::string_view password = {};
  std::string_view host = {};       // without brackets; as written, so compare without regard to case
  std::string_view host_port = {};  // host[:port] as written, brackets included
  bool is_ipv6 = false;             // the host stood in brackets
  std::uint16_t port = 0;           // 0: left out
};

// Reads an authority, which must not be empty. Errors: all but those of schemes and fragments; user_info never.
UrlError parse_authority(std::string_view text, Authority& authority);

struct Url {
  UrlScheme scheme = UrlScheme::ws;
  Authority authority = {};           // of ws and wss
  std::string_view socket_path = {};  // of ws_unix: "/run/x.sock" or "@name", percent-encoded
  std::string_view path = "/";        // percent-encoded; "/" where it is left out
  std::string_view query = {};        // behind the '?'
  bool has_query = false;             // "?" with nothing behind it is a query too

  // The authority's, or the default of the scheme; 0 for a Unix socket.
  std::uint16_t port() const;

  // The value of the request's Host field (RFC 6455 section 4.1 point 4): host[:port] without a port that is the
  // default; "localhost" for a Unix socket.
  std::string_view host_field() const;

  // Path and query, for the request line (RFC 6455 section 3, "resource-name"). Allocates.
  std::string request_target() const;
};

enum class UserInfo : std::uint8_t {
  refuse,  // UrlError::user_info
  take,    // for Basic authentication: basic_credentials() in ws/proxy.h
};

// Reads a whole URL. When it fails, `url` holds what was read until then.
UrlError parse_url(std::string_view text, Url& url, UserInfo user_info = UserInfo::refuse);

// A reference without a scheme or fragment ("/b", "chat?x", "//host/c") as an absolute URL (RFC 3986 section 5.2), as seen
// from `base`. Empty where there is no such URL: from a Unix socket. Allocates.
std::string resolve_reference(const Url& base, std::string_view reference);

// Splits "scheme:rest" (RFC 3986 section 3.1); false when `text` does not begin with a scheme and a colon.
bool split_scheme(std::string_view text, std::string_view& scheme, std::string_view& rest);

// The bytes that a percent-encoded text stands for; a '%' that begins no escape stays. Allocates.
std::string decode_percent(std::string_view text);

}  // namespace levada::ws
