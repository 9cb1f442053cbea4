// An echo server with uWebSockets: `uwebsockets [--port N]`, and built with -DPEER_TLS `uwebsockets [--port N] --cert FILE
// --key FILE`. A message on /broadcast is published to all connections of that path.
#include <cstdio>
#include <string_view>

#include <App.h>

#include "peer.h"

namespace {

struct Nothing {};

#ifdef PEER_TLS
using App = uWS::SSLApp;
constexpr int secure = 1;
App make_app(int argc, char** argv) {
  uWS::SocketContextOptions options;
  options.cert_file_name = peer::argument(argc, argv, "--cert");
  options.key_file_name = peer::argument(argc, argv, "--key");
  return App(options);
}
#else
using App = uWS::App;
constexpr int secure = 0;
App make_app(int, char**) {
  return {};
}
#endif

App::WebSocketBehavior<Nothing> behavior() {
  App::WebSocketBehavior<Nothing> result;
  result.compression = uWS::DISABLED;
  result.maxPayloadLength = peer::max_message;
  result.maxBackpressure = peer::max_message;
  result.idleTimeout = 120;
  return result;
}

}  // namespace

int main(int argc, char** argv) {
  App app = make_app(argc, argv);
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
    peer::announce(us_socket_local_port(secure, reinterpret_cast<us_socket_t*>(socket)));
  });
  app.run();
}
