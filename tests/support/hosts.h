// Hosts on loopback for who dials: one that answers, one that refuses, one that is silent; and one that is not there.
#pragma once

#include <poll.h>
#include <sys/socket.h>
#include <string_view>
#include <utility>
#include <vector>

#include <doctest/doctest.h>

#include <levada/core/fd.h>
#include <levada/net/socket.h>

namespace levada::test {

inline net::Address any_port() {
  return *net::Address::ip("127.0.0.1", 0);
}

// A listening socket that accepts nobody but lets the kernel finish handshakes.
struct Good {
  Fd fd = std::move(*net::listen_stream(any_port()));
  net::Address address = *net::Address::of_socket(fd.get());
};

// A port that was free a moment ago and stays bound, but does not listen.
struct Refusing {
  Refusing() : fd(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    const net::Address local = any_port();
    REQUIRE(bind(fd.get(), local.get(), local.size()) == 0);
    address = *net::Address::of_socket(fd.get());
  }
  Fd fd;
  net::Address address;
};

// A listening socket whose queue is full: the kernel drops what else comes.
struct Silent {
  Silent() {
    fd = std::move(*net::listen_stream(any_port(), {.backlog = 0}));
    address = *net::Address::of_socket(fd.get());
    for (int i = 0; i < 8; i++) {
      Fd filler = std::move(*net::connect_stream(address));
      pollfd writable{filler.get(), POLLOUT, 0};
      const bool connected = poll(&writable, 1, 100) == 1;
      fillers.push_back(std::move(filler));
      if (!connected) return;
    }
    FAIL("the kernel takes every connection");
  }
  Fd fd;
  net::Address address;
  std::vector<Fd> fillers;
};

// No route leads there, on any machine: TCP knows no broadcast.
inline constexpr std::string_view unreachable_host = "255.255.255.255";

}  // namespace levada::test
