#include <levada/tools/load/target.h>

#include <netdb.h>
#include <algorithm>
#include <charconv>
#include <cstring>

namespace levada::load {
namespace {

bool take_prefix(std::string_view& text, std::string_view prefix) {
  if (!text.starts_with(prefix)) return false;
  text.remove_prefix(prefix.size());
  return true;
}

bool has_control_or_space(std::string_view text) {
  return std::any_of(text.begin(), text.end(),
                     [](char c) { return static_cast<unsigned char>(c) <= ' ' || c == 127; });
}

bool parse_port(std::string_view text, std::uint16_t& port) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), port);
  return error == std::errc{} && end == text.data() + text.size() && port != 0;
}

bool parse_unix(std::string_view rest, Target& target, std::string& why) {
  if (rest.starts_with("///")) rest.remove_prefix(2);
  const std::size_t split = rest.find(":/");
  target.unix_path = rest.substr(0, split);
  target.request_target = split == std::string_view::npos ? "/" : rest.substr(split + 1);
  target.host_field = "localhost";
  if (target.unix_path.size() > 1 && (rest.front() == '/' || rest.front() == '@')) return true;
  why = "the URL names no Unix socket: ws+unix:/path";
  return false;
}

// Splits "HOST[:PORT]"; the host keeps its brackets.
bool parse_authority(std::string_view authority, std::string_view& host, std::uint16_t& port,
                     std::string& why) {
  const std::size_t bracket = authority.starts_with('[') ? authority.find(']') : 0;
  const std::size_t colon = bracket == std::string_view::npos ? bracket : authority.find(':', bracket);
  host = authority.substr(0, colon);
  if (authority.find('@') != std::string_view::npos) {
    why = "a user name in the URL is not supported";
  } else if (host.empty() || bracket == std::string_view::npos ||
             (bracket != 0 && host.size() != bracket + 1)) {
    why = "the URL has no host";
  } else if (colon != std::string_view::npos && !parse_port(authority.substr(colon + 1), port)) {
    why = "the URL's port is not a number from 1 to 65535";
  } else {
    return true;
  }
  return false;
}

bool parse_tcp(std::string_view rest, Target& target, std::string& why) {
  const std::size_t slash = rest.find_first_of("/?");
  std::string_view host;
  if (!parse_authority(rest.substr(0, slash), host, target.port, why)) return false;
  target.host_field = host;
  if (target.port != 80) target.host_field += ":" + std::to_string(target.port);
  target.host = host.front() == '[' ? host.substr(1, host.size() - 2) : host;
  if (slash != std::string_view::npos) target.request_target = rest.substr(slash);
  if (!target.request_target.starts_with('/')) target.request_target.insert(0, "/");
  return true;
}

}  // namespace

bool parse_target(std::string_view url, Target& target, std::string& why) {
  target = {};
  target.url = url;
  std::string_view rest = url;
  if (url.find('#') != std::string_view::npos) {
    why = "a WebSocket URL has no #fragment";
  } else if (has_control_or_space(url)) {
    why = "the URL has a space or a control character in it";
  } else if (take_prefix(rest, "ws://")) {
    return parse_tcp(rest, target, why);
  } else if (take_prefix(rest, "ws+unix:")) {
    return parse_unix(rest, target, why);
  } else if (url.starts_with("wss://") || url.starts_with("wss+unix:")) {
    why = "wss is not supported in this build; use ws://";
  } else {
    why = "the URL must begin with ws:// or ws+unix:";
  }
  return false;
}

bool resolve(const Target& target, net::Address& address, std::string& why) {
  auto made = target.unix_path.empty() ? net::Address::ip(target.host, target.port)
                                       : net::Address::unix_path(target.unix_path);
  if (made) {
    address = *made;
    return true;
  }
  if (!target.unix_path.empty()) {
    why = "the Unix socket's path is too long";
    return false;
  }
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  const int status = getaddrinfo(target.host.c_str(), std::to_string(target.port).c_str(), &hints, &found);
  if (status != 0) {
    why = "cannot resolve " + target.host + ": " + gai_strerror(status);
    return false;
  }
  std::memcpy(address.get(), found->ai_addr, found->ai_addrlen);
  address.set_size(found->ai_addrlen);
  freeaddrinfo(found);
  return true;
}

}  // namespace levada::load
