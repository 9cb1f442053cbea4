// Sockets: addresses, listening, connecting, options. Thin names over the system calls; any thread.
#pragma once

#include <sys/socket.h>
#include <cstdint>
#include <string>
#include <string_view>

#include <levada/core/error.h>
#include <levada/core/fd.h>

namespace levada::net {

// An IPv4, IPv6 or Unix-domain address.
class Address {
 public:
  // A numeric IPv4 or IPv6 address and a port, "localhost" (127.0.0.1), or "" and "*" (every IPv4 address).
  // Errors: invalid_argument. Names are not resolved here.
  static Result<Address> ip(std::string_view host, std::uint16_t port);
  // A path of at most 107 bytes; a first '@' stands for the abstract namespace. Errors: invalid_argument.
  static Result<Address> unix_path(std::string_view path);
  // The local address of a socket.
  static Result<Address> of_socket(int fd);
  // The address of who is connected to it.
  static Result<Address> of_peer(int fd);

  const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&storage_); }
  sockaddr* get() { return reinterpret_cast<sockaddr*>(&storage_); }
  socklen_t size() const { return size_; }
  void set_size(socklen_t size) { size_ = size; }
  int family() const { return storage_.ss_family; }
  std::uint16_t port() const;
  // "127.0.0.1", "::1", or "unix".
  std::string host() const;
  // "127.0.0.1:9001", "[::1]:9001" or "unix:/path".
  std::string to_string() const;

 private:
  sockaddr_storage storage_{};
  socklen_t size_ = sizeof storage_;
};

struct ListenOptions {
  int backlog = 4096;
  // Let several sockets listen on the same address, so that each reactor has its own (not for Unix sockets).
  bool reuse_port = false;
};

// A listening, non-blocking socket. A Unix socket's path that nobody listens on any more is taken over.
// Errors: address_in_use, address_not_available, permission_denied, descriptor_limit, ...
Result<Fd> listen_stream(const Address& address, const ListenOptions& options = {});

// A non-blocking socket whose connection to `address` is made or under way. With `source`, from that address.
Result<Fd> connect_stream(const Address& address, const Address* source = nullptr);

// A bound, non-blocking UDP socket.
Result<Fd> bind_datagram(const Address& address, bool reuse_port = false);

// Turns off Nagle's algorithm on a TCP socket; does nothing on others. A WebSocket message is complete when
// it is sent: there is nothing to wait for.
void set_no_delay(int fd);

// Sets TCP_NOTSENT_LOWAT, in bytes; does nothing on others than TCP sockets.
void set_notsent_lowat(int fd, std::uint32_t bytes);

// Whether an accept() that failed with this errno says that no other will succeed for now: a lack of
// descriptors or memory, or a descriptor that does not listen. Anything else concerns the one connection that
// was to be accepted.
bool accepting_is_impossible(int os_number);

// What the kernel knows went wrong with the socket; reading it clears it.
Error take_socket_error(int fd, const char* operation);

}  // namespace levada::net
