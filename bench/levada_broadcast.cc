// levada_broadcast [--port N] [--backend epoll|io_uring]: a message on /broadcast goes to all connections of that path,
// encoded once. What bench/peers/compare measures broadcasts of levada with; one thread.
#include <cstdio>
#include <cstdlib>
#include <string_view>

#include <levada/ws/server.h>

using namespace levada;

namespace {

struct Hub {
  void on_message(ws::Connection& conn, ws::Opcode opcode, Bytes payload) {
    const ws::PreparedMessage message(opcode, payload);
    conn.service().for_each([&](ws::Connection& each) { each.send(message); });
  }
};

std::string_view argument(int argc, char** argv, std::string_view name, std::string_view otherwise) {
  for (int i = 1; i + 1 < argc; i++)
    if (argv[i] == name) return argv[i + 1];
  return otherwise;
}

}  // namespace

int main(int argc, char** argv) {
  ws::ServerOptions options;
  options.port = static_cast<std::uint16_t>(std::atoi(argument(argc, argv, "--port", "0").data()));
  const bool uring = argument(argc, argv, "--backend", "epoll") == "io_uring";
  options.reactor.backend = uring ? net::BackendKind::io_uring : net::BackendKind::epoll;
  ws::Server server(options);
  server.route("/broadcast", [](int) { return Hub{}; });
  server.stop_on_signals(1'000);
  if (const Error error = server.listen()) return ws::report_failure(error);
  std::printf("listening %s\n", server.url().c_str());
  std::fflush(stdout);
  if (const Error error = server.run()) return ws::report_failure(error);
}
