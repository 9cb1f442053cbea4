// Target: the server that a URL names.
//
//   ws://HOST[:PORT][/PATH][?QUERY]      HOST: a name, an IPv4 address, or an IPv6 address in brackets; port 80
//   wss://...                            the same over TLS; port 443
//   ws+unix:/SOCKET[:/PATH]              a Unix socket; ws+unix:@NAME for the abstract namespace
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include <levada/net/socket.h>

namespace levada::load {

struct Target {
  std::string url;   // as it was given
  std::string host;  // without brackets; empty for a Unix socket
  std::uint16_t port = 80;
  bool secure = false;
  std::string unix_path;
  std::string host_field;      // the value of the request's Host
  std::string request_target;  // path and query
};

// Reads a URL. On failure returns false and says in `why` what is wrong with it, in words for the user.
bool parse_target(std::string_view url, Target& target, std::string& why);

// Finds the addresses, to be tried in this order; asks the resolver (and waits for it) if the host is a name. On
// failure returns false and says why.
bool resolve(const Target& target, std::vector<net::Address>& addresses, std::string& why);

}  // namespace levada::load
