// An echo server with uWebSockets: `uwebsockets [--port N]`. A message on /broadcast is published to all connections of
// that path.
#include <cstdio>
#include <string_view>

#include <App.h>

#include "peer.h"

namespace {

struct Nothing {};

uWS::App::WebSocketBehavior<Nothing> behavior() {
  uWS::App::WebSocketBehavior<Nothing> result;
  result.compression = uWS::DISABLED;
  result.maxPayloadLength = peer::max_message;
  result.maxBackpressure = peer::max_message;
  result.idleTimeout = 120;
  return result;
}

}  // namespace

int main(int argc, char** argv) {
  uWS::App app;
  auto echo = behavior();
  echo.message = [](auto* socket, std::string_view message, uWS::OpCode opcode) {
    socket->send(message, opcode);
  };
  auto broadcast = behavior();
  broadcast.open = [](auto* socket) { socket->subscribe("all"); };
  broadcast.message = [&app](auto*, std::string_view message, uWS::OpCode opcode) {
    app.publish("all", message, opcode);
  };
  app.ws<Nothing>("/broadcast", std::move(broadcast)).ws<Nothing>("/*", std::move(echo));
  app.listen("127.0.0.1", peer::port(argc, argv), [](us_listen_socket_t* socket) {
    if (socket == nullptr) std::exit(1);
    peer::announce(us_socket_local_port(0, reinterpret_cast<us_socket_t*>(socket)));
  });
  app.run();
}
