// Sends each line of standard input to a UDP echo server and prints the answers: udp_echo_client HOST PORT
// Gives up when not all answers have come within a second.
#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <string>

#include <levada/net/datagram.h>

using namespace levada;

struct Client {
  net::Address server;
  bool failed = false;

  // The next line on its way, or the end.
  void ask(net::Datagram& socket) {
    std::string line;
    if (!std::getline(std::cin, line)) return socket.reactor().stop();
    if (const Error error = socket.send_to(to_bytes(line), server)) {
      std::cerr << error.message() << '\n';
      give_up(socket.reactor());
    }
  }
  void give_up(net::Reactor& reactor) {
    failed = true;
    reactor.stop();
  }
};

int main(int count, char** arguments) {
  if (count != 3) return std::fprintf(stderr, "usage: udp_echo_client HOST PORT\n"), 2;
  auto reactor = net::Reactor::create();
  auto address = net::Address::ip(arguments[1], static_cast<std::uint16_t>(std::atoi(arguments[2])));
  if (!reactor || !address) return std::fprintf(stderr, "cannot start\n"), 1;
  Client client{*address};
  auto answered = [](void* self, net::Datagram& socket, MutableBytes bytes, const net::Address&) {
    std::cout << to_text(bytes) << std::endl;
    static_cast<Client*>(self)->ask(socket);
  };
  auto socket = net::Datagram::bind(**reactor, *net::Address::ip("", 0), answered, &client);
  if (!socket) return std::fprintf(stderr, "%s\n", socket.error().message().c_str()), 1;
  (*reactor)->after(1000, [&] { client.give_up(**reactor); });
  client.ask(**socket);
  (*reactor)->run();
  return client.failed ? 1 : 0;
}
