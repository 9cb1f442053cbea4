// A TCP echo server on the reactor: tcp_echo_server [port]
#include <cstdio>
#include <cstdlib>

#include <levada/net/reactor.h>
#include <levada/net/socket.h>

using namespace levada;

struct Echo : net::Stream {
  explicit Echo(Fd fd) : Stream(std::move(fd)) {}
  void on_receive(MutableBytes bytes, Owner*) override { send_turn_memory(bytes); }
};

int fail(const Error& error) {
  std::fprintf(stderr, "%s\n", error.message().c_str());
  return 1;
}

int main(int count, char** arguments) {
  const auto port = static_cast<std::uint16_t>(count > 1 ? std::atoi(arguments[1]) : 0);
  auto reactor = net::Reactor::create();
  if (!reactor) return fail(reactor.error());
  auto fd = net::listen_stream(*net::Address::ip("127.0.0.1", port));
  if (!fd) return fail(fd.error());
  std::printf("listening %s\n", net::Address::of_socket(fd->get())->to_string().c_str());
  std::fflush(stdout);
  auto accept = [](void*, net::Listener& listener, Fd client) {
    listener.reactor().add<Echo>(std::move(client));
  };
  (*reactor)->add<net::Listener>(std::move(*fd), accept, nullptr);
  (*reactor)->run();
}
