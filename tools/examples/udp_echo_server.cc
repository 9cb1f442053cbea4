// A UDP echo server on the reactor: udp_echo_server [port]
#include <cstdio>
#include <cstdlib>

#include <levada/net/datagram.h>
#include <levada/net/signals.h>

using namespace levada;

int fail(const Error& error) {
  std::fprintf(stderr, "%s\n", error.message().c_str());
  return 1;
}

int main(int count, char** arguments) {
  const auto port = static_cast<std::uint16_t>(count > 1 ? std::atoi(arguments[1]) : 0);
  auto reactor = net::Reactor::create();
  if (!reactor) return fail(reactor.error());
  auto echo = [](void*, net::Datagram& socket, MutableBytes bytes, const net::Address& from) {
    if (const Error error = socket.send_to(bytes, from)) fail(error);  // it is lost, as any datagram may be
  };
  auto socket = net::Datagram::bind(**reactor, *net::Address::ip("127.0.0.1", port), echo, nullptr);
  if (!socket) return fail(socket.error());
  auto asked = [](void* self) { static_cast<net::Reactor*>(self)->stop(); };
  if (const Error error = net::watch_signals(**reactor, asked, reactor->get())) return fail(error);
  std::printf("listening %s\n", (*socket)->address()->to_string().c_str());
  std::fflush(stdout);
  (*reactor)->run();
}
