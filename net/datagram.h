// Datagram: a UDP socket on a reactor, on any backend.
//
// Model: a Watch tells that the socket is readable; then up to `batch` datagrams are received with one system
// call into buffers that the object owns, and handed out one by one. Sending is a system call at once: a
// datagram that the kernel has no room for is lost, as any other may be.
#pragma once

#include <memory>

#include <levada/core/bytes.h>
#include <levada/net/reactor.h>
#include <levada/net/socket.h>

namespace levada::net {

// Reactor's thread only. Destroying it closes the socket; the reactor outlives it.
class Datagram {
 public:
  static constexpr unsigned batch = 32;
  static constexpr std::size_t max_bytes = 65535;

  // A datagram's bytes, which may be changed in place, and where it came from. Both live until the handler
  // returns. The handler may send, but must not destroy the Datagram; close() is allowed.
  using Received = void (*)(void* context, Datagram& datagram, MutableBytes bytes, const Address& from);

  // Binds to `address`; port 0 lets the kernel choose. Longer datagrams than `buffer_bytes` are cut off.
  // Errors: address_in_use, permission_denied, descriptor_limit, ...
  static Result<std::unique_ptr<Datagram>> bind(Reactor& reactor, const Address& address, Received received,
                                                void* context, std::size_t buffer_bytes = 2048);
  Datagram(const Datagram&) = delete;
  Datagram& operator=(const Datagram&) = delete;
  ~Datagram() { close(); }

  // Sends one datagram. Errors: would_block (the socket's buffer is full), connection_refused (an earlier
  // datagram found nobody), unreachable, other (too long), ...
  Error send_to(Bytes bytes, const Address& to);

  void close();
  // The bound address. Errors: invalid_argument after close().
  Result<Address> address() const { return Address::of_socket(fd_); }
  Reactor& reactor() const { return reactor_; }

 private:
  Datagram(Reactor& reactor, Received received, void* context, std::size_t buffer_bytes);
  void receive();

  Reactor& reactor_;
  Received received_;
  void* context_;
  std::size_t buffer_bytes_;
  SlotId watch_;
  int fd_ = -1;  // the watch's
  std::unique_ptr<std::uint8_t[]> memory_;
  std::unique_ptr<mmsghdr[]> messages_;
  std::unique_ptr<iovec[]> vectors_;
  std::unique_ptr<Address[]> senders_;
};

}  // namespace levada::net
