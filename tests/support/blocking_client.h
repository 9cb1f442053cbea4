// A blocking client on a socket of its own, with timeouts: for tests whose server runs on threads of its own.
#pragma once

#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <cerrno>
#include <string>
#include <string_view>

#include <doctest/doctest.h>

#include <levada/net/socket.h>
#include <levada/tests/support/frames.h>

namespace levada::ws::test {

class BlockingClient {
 public:
  explicit BlockingClient(const net::Address& address)
      : BlockingClient(Fd(socket(address.family(), SOCK_STREAM | SOCK_CLOEXEC, 0))) {
    if (connect(fd_.get(), address.get(), address.size()) != 0) {
      REQUIRE(errno == EINTR);
      pollfd connected{fd_.get(), POLLOUT, 0};
      while (poll(&connected, 1, 10'000) < 0 && errno == EINTR) {
      }
      REQUIRE(net::take_socket_error(fd_.get(), "connect").code == Errc::none);
    }
    net::set_no_delay(fd_.get());
  }
  explicit BlockingClient(Fd fd) : fd_(std::move(fd)) {
    const timeval limit{10, 0};
    setsockopt(fd_.get(), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    setsockopt(fd_.get(), SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
  }

  void write(std::string_view bytes) {
    while (!bytes.empty()) {
      const ssize_t sent = ::send(fd_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (sent < 0 && errno == EINTR) continue;
      REQUIRE(sent > 0);
      bytes.remove_prefix(static_cast<std::size_t>(sent));
    }
  }
  void send(Opcode opcode, std::string_view payload) { write(client_frame(opcode, payload)); }

  // False at the end of the connection, or after ten seconds without a byte.
  bool receive() {
    char buffer[1 << 16];
    ssize_t got;
    do got = recv(fd_.get(), buffer, sizeof buffer, 0);
    while (got < 0 && errno == EINTR);
    if (got > 0) in_.append(buffer, static_cast<std::size_t>(got));
    ended_ = got == 0;
    return got > 0;
  }

  Frame frame() {
    for (;;) {
      if (std::optional<Frame> found = take_frame(in_)) return *found;
      REQUIRE(receive());
    }
  }

  // The answer's head; what follows it stays.
  std::string head() {
    while (in_.find("\r\n\r\n") == std::string::npos) REQUIRE(receive());
    const std::size_t size = in_.find("\r\n\r\n") + 4;
    std::string head = in_.substr(0, size);
    in_.erase(0, size);
    return head;
  }

  void upgrade(std::string_view target = "/") {
    write("GET " + std::string(target) +
          " HTTP/1.1\r\nHost: example.com\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
          "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n");
    REQUIRE(head().starts_with("HTTP/1.1 101"));
  }

  bool reaches_end() {
    while (receive()) {
    }
    return ended_;
  }

  Fd take_fd() { return std::move(fd_); }

 private:
  Fd fd_;
  std::string in_;
  bool ended_ = false;
};

}  // namespace levada::ws::test
