// Proxies for clients under test, and the environment that names them.
#pragma once

#include <poll.h>
#include <sys/socket.h>
#include <cstdlib>
#include <functional>
#include <string>
#include <string_view>
#include <thread>
#include <utility>

#include <levada/core/fd.h>
#include <levada/tests/support/hosts.h>

namespace levada::test {

// A proxy for one connection, on a thread of its own: has the client ask, answers, and hands the socket on to `serve`,
// who is the destination from there on. SOCKS5 as far as a client without a login needs it.
class HandingProxy {
 public:
  static constexpr std::string_view granted = "HTTP/1.1 200 OK\r\n\r\n";

  // `answer` is CONNECT's, or for SOCKS5 the code in its reply; without `serve` the socket is closed after it.
  static HandingProxy connect(std::function<void(Fd)> serve, std::string_view answer = granted) {
    return HandingProxy("http", std::move(serve), std::string(answer));
  }
  static HandingProxy socks5(std::function<void(Fd)> serve, char reply = 0) {
    return HandingProxy("socks5", std::move(serve), std::string(1, reply));
  }
  ~HandingProxy() { asked(); }

  // "http://user:pass@127.0.0.1:1234"
  std::string url(std::string_view user = "") const {
    return scheme_ + "://" + std::string(user) + (user.empty() ? "" : "@") + address_.to_string();
  }
  // What the client asked for: waits for the end. The head of the CONNECT, or SOCKS5's "host:port".
  const std::string& asked() {
    if (thread_.joinable()) thread_.join();
    return asked_;
  }

 private:
  HandingProxy(std::string scheme, std::function<void(Fd)> serve, std::string answer)
      : scheme_(std::move(scheme)),
        listening_(std::move(*net::listen_stream(any_port()))),
        address_(*net::Address::of_socket(listening_.get())),
        thread_([this, serve = std::move(serve), answer = std::move(answer)] { run(serve, answer); }) {}

  void run(const std::function<void(Fd)>& serve, const std::string& answer) {
    pollfd readable{listening_.get(), POLLIN, 0};
    if (poll(&readable, 1, 10'000) != 1) return;
    Fd peer(accept4(listening_.get(), nullptr, nullptr, SOCK_CLOEXEC));
    scheme_ == "http" ? talk_http(peer, answer) : talk_socks(peer, answer);
    if (serve) serve(std::move(peer));
  }
  void talk_http(const Fd& peer, const std::string& answer) {
    while (!asked_.ends_with("\r\n\r\n")) {
      const std::string byte = read(peer, 1);
      if (byte.empty()) return;
      asked_ += byte;
    }
    write(peer, answer);
  }
  void talk_socks(const Fd& peer, const std::string& reply) {
    read(peer, 3);  // version, one method: no login
    write(peer, std::string("\x05\x00", 2));
    const std::string head = read(peer, 5);  // version, CONNECT, 0, "a name follows", its size
    if (head.size() < 5) return;
    const std::string name = read(peer, static_cast<unsigned char>(head[4])), port = read(peer, 2);
    if (port.size() < 2) return;
    const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(port[i]); };
    asked_ = name + ":" + std::to_string(byte(0) * 256 + byte(1));
    write(peer, "\x05" + reply + std::string("\x00\x01\x00\x00\x00\x00\x00\x00", 8));
  }

  static std::string read(const Fd& peer, std::size_t size) {
    std::string bytes(size, '\0');
    const ssize_t got = recv(peer.get(), bytes.data(), size, MSG_WAITALL);
    bytes.resize(got < 0 ? 0 : static_cast<std::size_t>(got));
    return bytes;
  }
  static void write(const Fd& peer, std::string_view bytes) {
    static_cast<void>(send(peer.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL));
  }

  std::string scheme_;
  Fd listening_;
  net::Address address_;
  std::string asked_;
  std::thread thread_;  // last: it uses the others
};

// A variable of the process's environment, while this lives and no other thread looks.
class EnvironmentVariable {
 public:
  EnvironmentVariable(const char* name, const std::string& value) : name_(name) {
    setenv(name, value.c_str(), 1);
  }
  EnvironmentVariable(const EnvironmentVariable&) = delete;
  EnvironmentVariable& operator=(const EnvironmentVariable&) = delete;
  ~EnvironmentVariable() { unsetenv(name_); }

 private:
  const char* name_;
};

}  // namespace levada::test
