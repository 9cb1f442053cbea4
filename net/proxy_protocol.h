// The PROXY protocol, versions 1 and 2, receiving side: what a proxy says in front of a connection about who made it
// (haproxy's proxy-protocol.txt, sections 2.1 and 2.2).
//
//   1   PROXY TCP4 192.0.2.1 198.51.100.2 56324 443\r\n            one line of at most 107 bytes
//   2   12 bytes signature | version, command | family, transport | length | addresses | more (TLVs)
//
// Model: a parser that eats the header from the front of what a connection receives, in pieces of any size, and keeps
// no more of it than the addresses: version 2's additions are passed over by their length and never looked into. So a
// header of 64 KiB costs no memory, and every byte behind the header is left to the caller.
//
// It must only be used for connections from trusted proxies: anybody else could claim any address. And for those it
// must not be left out: the protocol forbids to guess whether a header is there.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include <levada/core/bytes.h>
#include <levada/net/socket.h>

namespace levada::net {

// One connection's header. One thread.
class ProxyProtocolParser {
 public:
  enum class State : std::uint8_t {
    incomplete,  // all of the input was taken
    complete,    // what is left of the input is the connection's own
    invalid,     // the connection has to be closed; nothing about the input is said
  };

  // Takes bytes off the front of `in` until the header is whole. A header is refused with the first byte that cannot
  // be part of one (version 1: its addresses, when the line has ended). Once it is complete or invalid, feed() takes
  // nothing and says the same again.
  State feed(Bytes& in);

  State state() const { return state_; }

  // When complete: 1 or 2.
  int version() const { return version_; }

  // When complete: whether the addresses of the connection that the proxy forwards are known. They are not, and those
  // of the socket are to be used, when the proxy made the connection itself (LOCAL: health checks), or does not know
  // (UNKNOWN, UNSPEC).
  bool has_addresses() const { return has_addresses_; }
  // The client's address, and the one that it connected to. IPv4, IPv6 or, in version 2, Unix.
  const Address& source() const { return source_; }
  const Address& destination() const { return destination_; }

 private:
  static constexpr std::size_t max_line_bytes = 107;
  static constexpr std::size_t fixed_bytes = 16;
  static constexpr std::size_t max_address_bytes = 216;  // two Unix paths

  State take_signature(Bytes& in);
  State take_line(Bytes& in);
  State take_binary(Bytes& in);
  State read_line(std::string_view line);
  State read_fixed();
  void read_addresses();
  bool collect(Bytes& in, std::size_t size);

  State state_ = State::incomplete;
  int version_ = 0;  // once the first bytes tell
  bool has_addresses_ = false;
  bool fixed_read_ = false;
  std::uint16_t wanted_ = 0;  // version 2: address bytes to be kept
  std::uint32_t skip_ = 0;    // version 2: bytes behind them, still to come
  std::size_t have_ = 0;      // bytes in head_
  std::array<std::uint8_t, fixed_bytes + max_address_bytes> head_;
  Address source_;
  Address destination_;
};

}  // namespace levada::net
