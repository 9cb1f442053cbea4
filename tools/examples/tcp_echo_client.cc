// Sends standard input to a TCP echo server and prints what comes back: tcp_echo_client HOST PORT
#include <unistd.h>
#include <cstdio>
#include <cstdlib>
#include <string>

#include <levada/net/reactor.h>
#include <levada/net/socket.h>

using namespace levada;

struct Client : net::Stream {
  Client(Fd fd, bool& flag) : Stream(std::move(fd)), failed(flag) {}

  void on_connected() override {
    char text[4096];
    while (const std::size_t size = std::fread(text, 1, sizeof text, stdin)) send(to_bytes({text, size}));
    finish();
  }
  void on_receive(MutableBytes bytes, Owner*) override { std::fwrite(bytes.data(), 1, bytes.size(), stdout); }
  void on_end(const Error& error) override {
    failed = error.code != Errc::end_of_stream;
    if (failed) std::fprintf(stderr, "%s\n", error.message().c_str());
    close();
  }
  void on_closed() override { reactor().stop(); }

  bool& failed;
};

int main(int count, char** arguments) {
  if (count != 3) return std::fprintf(stderr, "usage: tcp_echo_client HOST PORT\n"), 2;
  auto reactor = net::Reactor::create();
  auto address = net::Address::ip(arguments[1], static_cast<std::uint16_t>(std::atoi(arguments[2])));
  auto fd = address ? net::connect_stream(*address) : address.error();
  if (!reactor || !fd) return std::fprintf(stderr, "cannot connect\n"), 1;
  bool failed = false;
  (*reactor)->add_connecting<Client>(std::move(*fd), failed);
  (*reactor)->run();
  return failed ? 1 : 0;
}
