#include <levada/ws/url.h>

#include <algorithm>

#include <levada/ws/http.h>

namespace levada::ws {
namespace {

constexpr std::uint16_t default_ws_port = 80;
constexpr std::uint16_t default_wss_port = 443;

constexpr bool is_letter(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

// RFC 3986 appendix A.
constexpr std::string_view marks = "-._~!$&'()*+,;=";  // of unreserved and sub-delims
constexpr std::string_view host_more = "";
constexpr std::string_view user_info_more = ":";
constexpr std::string_view path_more = ":@/";
constexpr std::string_view query_more = ":@/?";

int hex_value(char c) {
  if (is_digit(c)) return c - '0';
  const char lower = static_cast<char>(c | 0x20);
  return lower >= 'a' && lower <= 'f' ? lower - 'a' + 10 : -1;
}

// The byte of the escape at the front of `text`, or -1.
int escaped_byte(std::string_view text) {
  if (text.size() < 3 || text[0] != '%') return -1;
  const int high = hex_value(text[1]), low = hex_value(text[2]);
  return high < 0 || low < 0 ? -1 : high * 16 + low;
}

enum class ZeroByte : std::uint8_t { allowed, refused };

// Whether `text` is made of unreserved characters, sub-delims, escapes and the characters of `more`.
UrlError check(std::string_view text, std::string_view more, ZeroByte zero = ZeroByte::allowed) {
  for (std::size_t i = 0; i < text.size(); i++) {
    const char c = text[i];
    if (c == '%') {
      const int byte = escaped_byte(text.substr(i));
      if (byte < 0 || (byte == 0 && zero == ZeroByte::refused)) return UrlError::bad_escape;
    } else if (!is_letter(c) && !is_digit(c) && marks.find(c) == marks.npos && more.find(c) == more.npos) {
      return UrlError::bad_character;
    }
  }
  return UrlError::none;
}

// An empty port is the default one (RFC 3986 section 3.2.3).
UrlError parse_port(std::string_view text, std::uint16_t& port) {
  unsigned number = 0;
  for (const char c : text) {
    if (!is_digit(c)) return UrlError::bad_port;
    number = number * 10 + static_cast<unsigned>(c - '0');
    if (number > 0xFFFF) return UrlError::bad_port;
  }
  port = static_cast<std::uint16_t>(number);
  return number == 0 && !text.empty() ? UrlError::bad_port : UrlError::none;
}

UrlError parse_user_info(std::string_view text, Authority& authority) {
  authority.has_user_info = true;
  const std::size_t colon = text.find(':');
  authority.user = text.substr(0, colon);
  if (colon != text.npos) authority.password = text.substr(colon + 1);
  return check(text, user_info_more);
}

UrlError parse_host(std::string_view host, Authority& authority) {
  authority.is_ipv6 = !host.empty() && host.front() == '[';
  if (authority.is_ipv6) {
    if (host.size() < 2 || host.back() != ']') return UrlError::bad_host;
    authority.host = host.substr(1, host.size() - 2);
    return is_ipv6_address(authority.host) ? UrlError::none : UrlError::bad_host;
  }
  authority.host = host;
  if (host.empty()) return UrlError::no_host;
  if (host.size() > max_host_bytes) return UrlError::bad_host;
  return check(host, host_more, ZeroByte::refused);
}

UrlError parse_path_and_query(std::string_view text, Url& url) {
  const std::size_t question = text.find('?');
  if (question != 0 && !text.empty()) url.path = text.substr(0, question);
  if (question != text.npos) {
    url.has_query = true;
    url.query = text.substr(question + 1);
  }
  if (const UrlError error = check(url.path, path_more); error != UrlError::none) return error;
  return check(url.query, query_more);
}

UrlError parse_network(std::string_view rest, Url& url, UserInfo user_info) {
  if (!rest.starts_with("//")) return UrlError::no_host;
  rest.remove_prefix(2);
  const std::string_view authority = rest.substr(0, rest.find_first_of("/?"));
  if (const UrlError error = parse_authority(authority, url.authority); error != UrlError::none) return error;
  if (url.authority.has_user_info && user_info == UserInfo::refuse) return UrlError::user_info;
  return parse_path_and_query(rest.substr(authority.size()), url);
}

UrlError parse_unix(std::string_view rest, Url& url) {
  if (rest.starts_with("///")) rest.remove_prefix(2);
  const std::string_view socket = rest.substr(0, rest.find('?'));
  url.socket_path = socket.substr(0, socket.find(":/"));
  if (url.socket_path.size() < 2 || (rest.front() != '/' && rest.front() != '@')) return UrlError::no_socket;
  const UrlError error = check(url.socket_path, path_more, ZeroByte::refused);
  if (error != UrlError::none) return error;
  rest.remove_prefix(url.socket_path.size());
  if (rest.starts_with(':')) rest.remove_prefix(1);
  return parse_path_and_query(rest, url);
}

// RFC 3986 section 5.2.4, on a path that begins with a slash.
std::string remove_dot_segments(std::string_view path) {
  std::string out;
  while (!path.empty()) {
    const std::size_t end = std::min(path.find('/', 1), path.size());
    const std::string_view segment = path.substr(0, end);
    path.remove_prefix(end);
    const bool dot = segment == "/.", dots = segment == "/..";
    if (dots) out.erase(std::min(out.rfind('/'), out.size()));
    if (!dot && !dots) out += segment;
    if ((dot || dots) && path.empty()) out += '/';
  }
  return out;
}

}  // namespace

const char* to_string(UrlError error) {
  switch (error) {
    case UrlError::none:
      return "nothing is wrong with the URL";
    case UrlError::bad_scheme:
      return "the URL must begin with ws://, wss:// or ws+unix:";
    case UrlError::bad_character:
      return "the URL has a space, a control character or another one that has to be percent-encoded";
    case UrlError::bad_escape:
      return "a % in the URL is not followed by two hexadecimal digits that may stand there";
    case UrlError::fragment:
      return "a WebSocket URL has no #fragment";
    case UrlError::user_info:
      return "a user name in the URL is not supported";
    case UrlError::no_host:
      return "the URL has no host";
    case UrlError::bad_host:
      return "the URL's host is no name and no address; an IPv6 address stands in brackets";
    case UrlError::bad_port:
      return "the URL's port is not a number from 1 to 65535";
    case UrlError::no_socket:
      return "the URL names no Unix socket: ws+unix:/path";
  }
  return "";
}

UrlError parse_authority(std::string_view text, Authority& authority) {
  authority = {};
  const std::size_t at = text.rfind('@');
  if (at != text.npos) {
    const UrlError error = parse_user_info(text.substr(0, at), authority);
    if (error != UrlError::none) return error;
    text.remove_prefix(at + 1);
  }
  authority.host_port = text;
  const std::size_t bracket = text.starts_with('[') ? text.find(']') : 0;
  if (bracket == text.npos) return UrlError::bad_host;
  const std::size_t colon = text.find(':', bracket);
  const UrlError error = parse_host(text.substr(0, colon), authority);
  if (error != UrlError::none || colon == text.npos) return error;
  return parse_port(text.substr(colon + 1), authority.port);
}

std::uint16_t Url::port() const {
  if (scheme == UrlScheme::ws_unix || authority.port != 0) return authority.port;
  return scheme == UrlScheme::wss ? default_wss_port : default_ws_port;
}

std::string_view Url::host_field() const {
  if (scheme == UrlScheme::ws_unix) return "localhost";
  const bool is_default = authority.port == 0 ||
                          authority.port == (scheme == UrlScheme::wss ? default_wss_port : default_ws_port);
  if (!is_default) return authority.host_port;
  return authority.host_port.substr(0, authority.host.size() + (authority.is_ipv6 ? 2 : 0));
}

std::string Url::request_target() const {
  std::string target(path);
  if (has_query) target.append("?").append(query);
  return target;
}

bool split_scheme(std::string_view text, std::string_view& scheme, std::string_view& rest) {
  std::size_t size = 0;
  while (size < text.size() &&
         (is_letter(text[size]) || (size > 0 && (is_digit(text[size]) || text[size] == '+' ||
                                                 text[size] == '-' || text[size] == '.')))) {
    size++;
  }
  if (size == 0 || size == text.size() || text[size] != ':') return false;
  scheme = text.substr(0, size);
  rest = text.substr(size + 1);
  return true;
}

UrlError parse_url(std::string_view text, Url& url, UserInfo user_info) {
  url = {};
  std::string_view scheme, rest;
  if (!split_scheme(text, scheme, rest)) return UrlError::bad_scheme;
  const bool tls = equals_ignore_case(scheme, "wss");
  const bool is_unix = equals_ignore_case(scheme, "ws+unix");
  if (!tls && !is_unix && !equals_ignore_case(scheme, "ws")) return UrlError::bad_scheme;
  if (text.find('#') != text.npos) return UrlError::fragment;
  url.scheme = tls ? UrlScheme::wss : is_unix ? UrlScheme::ws_unix : UrlScheme::ws;
  return is_unix ? parse_unix(rest, url) : parse_network(rest, url, user_info);
}

std::string resolve_reference(const Url& base, std::string_view reference) {
  if (base.scheme == UrlScheme::ws_unix) return {};
  const std::string scheme = base.scheme == UrlScheme::wss ? "wss:" : "ws:";
  if (reference.starts_with("//")) return scheme + std::string(reference);
  const std::string_view path = reference.substr(0, reference.find('?'));
  std::string_view query = reference.substr(path.size());
  std::string whole(base.path);
  if (path.starts_with('/')) {
    whole = path;
  } else if (!path.empty()) {
    whole.erase(whole.rfind('/') + 1).append(path);
  }
  std::string url = scheme + "//" + std::string(base.authority.host_port) + remove_dot_segments(whole);
  if (path.empty() && query.empty() && base.has_query) return url.append("?").append(base.query);
  return url.append(query);
}

std::string decode_percent(std::string_view text) {
  std::string bytes;
  bytes.reserve(text.size());
  for (std::size_t i = 0; i < text.size(); i++) {
    const int byte = escaped_byte(text.substr(i));
    bytes += byte < 0 ? text[i] : static_cast<char>(byte);
    if (byte >= 0) i += 2;
  }
  return bytes;
}

}  // namespace levada::ws
