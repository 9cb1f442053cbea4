// levada as a client: levada_client --connect PORT --connections C --bytes B [--backend epoll|io_uring]
//
// For each line `SECONDS` of the standard input, one message is under way on every connection for so long; then how many
// came back is printed. What bench/peers/clients measures levada with; one thread.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <string_view>
#include <vector>

#include <levada/core/clock.h>
#include <levada/ws/client.h>

using namespace levada;

namespace {

[[noreturn]] void give_up(const char* what) {
  std::fprintf(stderr, "levada_client: %s\n", what);
  std::exit(1);
}

const char* argument(int argc, char** argv, std::string_view name, const char* otherwise) {
  for (int i = 1; i + 1 < argc; i++)
    if (argv[i] == name) return argv[i + 1];
  return otherwise;
}

std::size_t number(int argc, char** argv, std::string_view name) {
  return std::strtoul(argument(argc, argv, name, "1"), nullptr, 10);
}

struct Load {
  void on_open(ws::Connection& connection) { open.push_back(connection.handle()); }
  void on_message(ws::Connection& connection, ws::Opcode opcode, Bytes echo) {
    if (echo.size() != message.size() || (compare && !std::ranges::equal(echo, message)))
      give_up("wrong echo");
    echoes++;
    if (running) {
      connection.send(opcode, message);
    } else {
      outstanding--;
    }
  }
  void on_close(ws::Connection&, const ws::CloseInfo&) { give_up("the server closed a connection"); }
  void on_refused(ws::Connection&, const ws::Refusal& refusal) { give_up(refusal.error.message().c_str()); }
  void on_unreachable(const ws::Unreachable& why) { give_up(why.error.message().c_str()); }

  // One message under way on each connection for `seconds`, and until all have come back.
  void turn(net::Reactor& reactor, double seconds) {
    echoes = 0;
    outstanding = open.size();
    running = true;
    for (const ws::Handle& handle : open) handle.get()->send(ws::Opcode::binary, message);
    const std::uint64_t end = monotonic_ns() + static_cast<std::uint64_t>(seconds * 1e9);
    while (monotonic_ns() < end) reactor.run_once(1);
    running = false;
    while (outstanding != 0) reactor.run_once(10);
    compare = false;
  }

  std::vector<std::uint8_t> message;
  std::vector<ws::Handle> open;
  std::uint64_t echoes = 0;
  std::size_t outstanding = 0;
  bool running = false, compare = true;  // compare: in the first turn
};

}  // namespace

int main(int argc, char** argv) {
  const bool uring = std::string_view(argument(argc, argv, "--backend", "epoll")) == "io_uring";
  Load load;
  for (std::size_t i = 0; i < number(argc, argv, "--bytes"); i++)
    load.message.push_back(static_cast<std::uint8_t>(i * 7 + i / 256));
  auto reactor =
      net::Reactor::create({.backend = uring ? net::BackendKind::io_uring : net::BackendKind::epoll});
  if (!reactor) give_up(reactor.error().message().c_str());
  ws::Client client(**reactor, load, {.proxy_from_environment = false});
  const std::size_t connections = number(argc, argv, "--connections");
  const std::string url = std::string("ws://127.0.0.1:") + argument(argc, argv, "--connect", "0") + "/";
  for (std::size_t i = 0; i < connections; i++)
    if (!client.dial({.url = url})) give_up("no such port");
  while (load.open.size() < connections) (*reactor)->run_once(10);
  std::puts("ready");
  std::fflush(stdout);
  for (char line[64]; std::fgets(line, sizeof line, stdin) != nullptr;) {
    load.turn(**reactor, std::atof(line));
    std::printf("%llu\n", static_cast<unsigned long long>(load.echoes));
    std::fflush(stdout);
  }
  std::_Exit(0);  // the connections need no close handshake
}
