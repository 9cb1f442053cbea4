// Sources: local addresses that connections come from, so that there can be more than the 64 k ports of one.
//
//   127.0.0.0/8                 addresses of a network, from its second one on, each for 16 000 connections
//   127.0.0.2,127.0.0.3         these, in turn
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include <levada/net/socket.h>

namespace levada::load {

class Sources {
 public:
  // Of a network, how many connections come from one address.
  static constexpr std::uint32_t connections_per_address = 16'000;

  // Reads them. On failure returns false and says why.
  bool parse(std::string_view text, std::string& why);

  bool empty() const { return listed_.empty() && hosts_ == 0; }

  // Where connection `number` comes from; the port is the kernel's choice. Not when empty.
  net::Address address(std::uint32_t number) const;

 private:
  bool parse_network(std::string_view text, std::string& why);

  std::vector<net::Address> listed_;
  std::uint32_t network_ = 0;  // an IPv4 network, host byte order
  std::uint32_t hosts_ = 0;    // addresses of it that can be used
};

}  // namespace levada::load
