// A TCP echo server on the reactor: tcp_echo_server [port]
#include <cstdio>
#include <cstdlib>

#include <levada/net/reactor.h>
#include <levada/net/signals.h>
#include <levada/net/socket.h>

using namespace levada;

struct Echo : net::Stream {
  explicit Echo(Fd fd) : Stream(std::move(fd)) {}
  void on_receive(MutableBytes bytes, Owner*) override { send_turn_memory(bytes); }
};

// Nobody is accepted any more, and what is queued still leaves; after five seconds it ends.
void end(void* self) {
  auto& reactor = *static_cast<net::Reactor*>(self);
  reactor.for_each([](net::Endpoint& endpoint) {
    if (endpoint.kind() == net::EndpointKind::listener) endpoint.close();
    if (endpoint.kind() == net::EndpointKind::stream) static_cast<Echo&>(endpoint).finish();
  });
  struct Look {  // whether all have ended, now and every ten milliseconds
    void operator()() const {
      std::size_t streams = 0;
      reactor.for_each(
          [&](net::Endpoint& each) { streams += each.kind() == net::EndpointKind::stream ? 1 : 0; });
      if (streams == 0) return reactor.stop();
      reactor.after(10, *this);
    }
    net::Reactor& reactor;
  };
  Look{reactor}();
  reactor.after(5'000, [&reactor] { reactor.stop(); });
}

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
  if (const Error error = net::watch_signals(**reactor, end, reactor->get())) return fail(error);
  std::printf("listening %s\n", net::Address::of_socket(fd->get())->to_string().c_str());
  std::fflush(stdout);
  auto accept = [](void*, net::Listener& listener, Fd client) {
    listener.reactor().add<Echo>(std::move(client));
  };
  (*reactor)->add<net::Listener>(std::move(*fd), accept, nullptr);
  (*reactor)->run();
}
