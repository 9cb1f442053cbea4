// ping_pong: the round trip of one small message on one connection, by WebSocket or by TCP alone.
//
//   ping_pong --serve 1 [--port N] [--spin 1]                 echoes the bytes of TCP connections, one after another
//   ping_pong --port N [--raw 1] [--bytes B] [--seconds S] [--warmup S] [--cpu K] [--spin 1]
//
// The next message leaves when the last one is back. --raw is for the server above: the same number of bytes as the
// WebSocket frame has, without a handshake; what it takes no server can be below. --spin polls the socket in place of
// sleeping in it. Prints one JSON object, times in nanoseconds.
#include "load.h"

using namespace limit;

namespace {

// Without waiting: the bytes that are there. 0: the connection ended.
std::size_t receive(int fd, std::uint8_t* to, std::size_t size, bool spin) {
  for (;;) {
    ssize_t n = recv(fd, to, size, spin ? MSG_DONTWAIT : 0);
    if (n >= 0) return static_cast<std::size_t>(n);
    if (errno != EAGAIN) return 0;
  }
}

[[noreturn]] void serve(std::uint16_t port, bool spin) {
  int listener = listen_on(port, 0);
  std::vector<std::uint8_t> buffer(1 << 16);
  for (;;) {
    int fd = accept4(listener, nullptr, nullptr, SOCK_CLOEXEC);
    if (fd < 0) die("accept");
    set_nodelay(fd);
    while (std::size_t n = receive(fd, buffer.data(), buffer.size(), spin))
      if (send(fd, buffer.data(), n, MSG_NOSIGNAL) != static_cast<ssize_t>(n)) break;
    close(fd);
  }
}

int connect_raw(std::uint16_t port) {
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) die("connect");
  set_nodelay(fd);
  return fd;
}

struct Exchange {
  int fd;
  bool spin;
  std::vector<std::uint8_t> request, reply;
  std::vector<std::uint8_t> received = std::vector<std::uint8_t>(reply.size());

  void once() {
    if (send(fd, request.data(), request.size(), MSG_NOSIGNAL) != static_cast<ssize_t>(request.size()))
      die("send");
    for (std::size_t at = 0; at != reply.size();) {
      std::size_t n = receive(fd, received.data() + at, reply.size() - at, spin);
      if (n == 0) fail("the server closed the connection");
      at += n;
    }
    if (received != reply) fail("wrong echo");
  }
};

void print(std::vector<double>& times) {
  std::sort(times.begin(), times.end());
  auto at = [&](double share) {
    auto index = static_cast<std::size_t>(share * static_cast<double>(times.size()));
    return 1e9 * times[std::min(index, times.size() - 1)];
  };
  std::printf(
      "{\"count\": %zu, \"p50\": %.0f, \"p99\": %.0f, \"p99.9\": %.0f, \"p99.99\": %.0f, \"max\": %.0f}\n",
      times.size(), at(0.5), at(0.99), at(0.999), at(0.9999), at(1));
}

}  // namespace

int main(int argc, char** argv) {
  auto port = static_cast<std::uint16_t>(option(argc, argv, "--port", 0));
  bool spin = option(argc, argv, "--spin", 0) != 0, raw = option(argc, argv, "--raw", 0) != 0;
  pin(option(argc, argv, "--cpu", -1));
  if (option(argc, argv, "--serve", 0) != 0) serve(port, spin);

  Load frames;
  build(frames, static_cast<std::size_t>(option(argc, argv, "--bytes", 16)), 1);
  int fd = raw ? connect_raw(port) : connect_and_upgrade(port, "/");
  fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) & ~O_NONBLOCK);
  Exchange exchange{fd, spin, frames.frames, raw ? frames.frames : frames.replies};
  std::vector<double> times;
  times.reserve(1 << 22);
  double warm = seconds(CLOCK_MONOTONIC) + decimal_option(argc, argv, "--warmup", 0.2);
  double end = warm + decimal_option(argc, argv, "--seconds", 1);
  for (double before = seconds(CLOCK_MONOTONIC); before < end;) {
    exchange.once();
    double after = seconds(CLOCK_MONOTONIC);
    if (before >= warm) times.push_back(after - before);
    before = after;
  }
  if (times.empty()) fail("nothing measured");
  print(times);
}
