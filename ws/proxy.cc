#include <levada/ws/proxy.h>

#include <arpa/inet.h>
#include <algorithm>
#include <array>
#include <charconv>
#include <cstdlib>

#include <levada/core/base64.h>
#include <levada/ws/handshake.h>
#include <levada/ws/writer.h>

namespace levada::ws {
namespace {

constexpr std::uint16_t default_socks_port = 1080;

// ---- Addresses and networks ----

// An IPv4 address is kept as the IPv6 address that it maps to, so that both spellings are the same.
using IpAddress = std::array<std::uint8_t, 16>;
constexpr unsigned mapped_bits = 96;

// The address, and the bits that its family puts in front; false when `text` is none.
bool parse_ip(std::string_view text, IpAddress& address, unsigned& prefix) {
  char terminated[INET6_ADDRSTRLEN] = "";
  if (text.size() >= sizeof terminated || text.find('\0') != text.npos) return false;
  std::copy(text.begin(), text.end(), terminated);
  address = {};
  address[10] = address[11] = 0xFF;
  prefix = mapped_bits;
  if (inet_pton(AF_INET, terminated, address.data() + mapped_bits / 8) == 1) return true;
  prefix = 0;
  return inet_pton(AF_INET6, terminated, address.data()) == 1;
}

bool same_network(const IpAddress& a, const IpAddress& b, unsigned bits) {
  for (unsigned i = 0; i < bits; i += 8) {
    const unsigned mask = bits - i >= 8 ? 0xFFu : 0xFFu << (8 - (bits - i)) & 0xFFu;
    if (((a[i / 8] ^ b[i / 8]) & mask) != 0) return false;
  }
  return true;
}

template <class Number>
bool parse_number(std::string_view text, Number& number) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  return error == std::errc{} && end == text.data() + text.size();
}

// Whether `item` is an address or network; `matches` tells then whether `host` is (in) it.
bool match_network(std::string_view item, std::string_view host, bool& matches) {
  const std::size_t slash = item.find('/');
  IpAddress network, address;
  unsigned front = 0, bits = 128, host_front = 0;
  if (!parse_ip(item.substr(0, slash), network, front)) return false;
  if (slash != item.npos) {
    if (!parse_number(item.substr(slash + 1), bits) || bits > 128 - front) return false;
    bits += front;
  }
  matches = parse_ip(host, address, host_front) && same_network(network, address, bits);
  return true;
}

// ---- NO_PROXY ----

bool ends_with_ignore_case(std::string_view text, std::string_view end) {
  return text.size() >= end.size() && equals_ignore_case(text.substr(text.size() - end.size()), end);
}

bool match_name(std::string_view item, std::string_view host) {
  if (item.starts_with("*.")) item.remove_prefix(1);
  if (item.starts_with('.'))
    return item.size() > 1 && host.size() > item.size() && ends_with_ignore_case(host, item);
  if (equals_ignore_case(host, item)) return true;
  return host.size() > item.size() && host[host.size() - item.size() - 1] == '.' &&
         ends_with_ignore_case(host, item);
}

// Takes ":PORT" off the end of an item. A bare IPv6 address has none.
bool take_port(std::string_view& item, std::uint16_t& port) {
  const std::size_t colon = item.rfind(':');
  const bool bare = item.front() != '[' && std::count(item.begin(), item.end(), ':') > 1;
  if (colon == item.npos || bare || item.back() == ']') return true;
  if (!parse_number(item.substr(colon + 1), port) || port == 0) return false;
  item = item.substr(0, colon);
  return true;
}

bool match_item(std::string_view item, std::string_view host, std::uint16_t port) {
  if (item == "*") return true;
  std::uint16_t wanted = 0;
  if (!take_port(item, wanted) || item.empty()) return false;
  if (wanted != 0 && wanted != port) return false;
  if (item.size() > 2 && item.front() == '[' && item.back() == ']') item = item.substr(1, item.size() - 2);
  bool matches = false;
  if (match_network(item, host, matches)) return matches;
  return match_name(item, host);
}

// ---- The environment ----

struct Environment {
  EnvironmentLookup lookup;
  void* context;

  std::string_view get(const char* name) const {
    const char* value = lookup(context, name);
    return value == nullptr ? std::string_view() : std::string_view(value);
  }
  std::string_view first(const char* lower, const char* upper) const {
    const std::string_view value = get(lower);
    return value.empty() ? get(upper) : value;
  }
};

std::string_view proxy_of(const Environment& environment, UrlScheme scheme) {
  std::string_view value;
  if (scheme == UrlScheme::wss) {
    value = environment.first("https_proxy", "HTTPS_PROXY");
  } else if (environment.lookup(environment.context, "REQUEST_METHOD") != nullptr) {
    value = environment.get("http_proxy");
  } else {
    value = environment.first("http_proxy", "HTTP_PROXY");
  }
  return value.empty() ? environment.first("all_proxy", "ALL_PROXY") : value;
}

}  // namespace

bool is_listed(std::string_view list, std::string_view host, std::uint16_t port) {
  if (host.ends_with('.')) host.remove_suffix(1);  // the same name, said to be a whole one
  while (!list.empty()) {
    const std::size_t end = list.find_first_of(", \t");
    const std::string_view item = list.substr(0, end);
    if (!item.empty() && match_item(item, host, port)) return true;
    list.remove_prefix(end == list.npos ? list.size() : end + 1);
  }
  return false;
}

UrlError parse_proxy(std::string_view text, Proxy& proxy) {
  proxy = {};
  proxy.kind = ProxyKind::http;
  proxy.port = 80;
  if (const std::size_t slashes = text.find("://"); slashes != text.npos) {
    const std::string_view scheme = text.substr(0, slashes);
    const auto is = [scheme](std::string_view known) { return equals_ignore_case(scheme, known); };
    if (is("https")) {
      proxy.kind = ProxyKind::https;
      proxy.port = 443;
    } else if (is("socks5") || is("socks5h")) {
      proxy.kind = ProxyKind::socks5;
      proxy.port = default_socks_port;
    } else if (!is("http")) {
      return UrlError::bad_scheme;
    }
    text.remove_prefix(slashes + 3);
  }
  if (text.ends_with('/')) text.remove_suffix(1);
  const UrlError error = parse_authority(text, proxy.authority);
  if (proxy.authority.port != 0) proxy.port = proxy.authority.port;
  return error;
}

const char* process_environment(void*, const char* name) {
  return std::getenv(name);
}

Error ProxyChoice::why_not() const {
  if (error != UrlError::none)
    return {.code = Errc::invalid_argument, .operation = "proxy", .detail = "its URL"};
  if (proxy.kind != ProxyKind::https) return {};
  return {.code = Errc::not_supported, .operation = "proxy", .detail = "https://, TLS to the proxy itself"};
}

ProxyChoice choose_proxy(const Url& url, const ProxyOptions& options, EnvironmentLookup lookup,
                         void* context) {
  ProxyChoice choice;
  if (url.scheme == UrlScheme::ws_unix) return choice;
  const Environment environment{lookup, context};
  std::string_view text = options.url, no_proxy = options.no_proxy;
  if (text.empty() && options.use_environment) text = proxy_of(environment, url.scheme);
  if (text.empty()) return choice;
  if (no_proxy.empty() && options.use_environment) no_proxy = environment.first("no_proxy", "NO_PROXY");
  if (is_listed(no_proxy, url.authority.host, url.port())) return choice;
  choice.error = parse_proxy(text, choice.proxy);
  return choice;
}

std::string basic_credentials(std::string_view user, std::string_view password) {
  std::string pair = decode_percent(user);
  if (pair.find(':') != pair.npos) return {};
  pair.append(":").append(decode_percent(password));
  const auto is_control = [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7F; };
  if (std::any_of(pair.begin(), pair.end(), is_control)) return {};
  std::string text = "Basic ";
  const std::size_t prefix = text.size();
  text.resize(prefix + base64_size(pair.size()));
  encode_base64(to_bytes(pair), text.data() + prefix);
  return text;
}

// ---- HTTP CONNECT ----

namespace {

void put_authority(detail::Writer& writer, const ConnectRequest& request) {
  const bool brackets = request.host.find(':') != request.host.npos;
  if (brackets) writer.put("[");
  writer.put(request.host);
  writer.put(brackets ? "]:" : ":");
  writer.put_number(request.port);
}

void put_connect_request(detail::Writer& writer, const ConnectRequest& request) {
  writer.put("CONNECT ");
  put_authority(writer, request);
  writer.put(" HTTP/1.1\r\nHost: ");
  put_authority(writer, request);
  writer.put("\r\n");
  if (!request.authorization.empty()) writer.put_field("Proxy-Authorization", request.authorization);
  for (const HttpField& field : request.fields) {
    if (is_writable(field) && identify(field.name) == FieldId::other)
      writer.put_field(field.name, field.value);
  }
  writer.put("\r\n");
}

bool is_writable(const ConnectRequest& request) {
  const bool is_ipv6 = request.host.find(':') != request.host.npos;
  if (!(is_ipv6 ? is_ipv6_address(request.host) : is_authority(request.host))) return false;
  return request.port != 0 && is_field_value(request.authorization);
}

}  // namespace

std::size_t connect_request_size(const ConnectRequest& request) {
  detail::Writer writer({});
  if (is_writable(request)) put_connect_request(writer, request);
  return writer.size();
}

std::size_t write_connect_request(MutableBytes out, const ConnectRequest& request) {
  detail::Writer writer(out);
  if (is_writable(request)) put_connect_request(writer, request);
  return writer.written();
}

ConnectAnswer check_connect_response(const HttpResponse& response) {
  const unsigned status = response.status();
  if (status < 200) return ConnectAnswer::interim;
  if (status < 300) return ConnectAnswer::tunnel;
  return status == 407 ? ConnectAnswer::authentication_required : ConnectAnswer::refused;
}

}  // namespace levada::ws
