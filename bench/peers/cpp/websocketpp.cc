// An echo server with WebSocket++ on Boost.Asio: `websocketpp [--port N]`.
//
// Its echo_server with what its manual has for one thread: no logging, no locks. A message on /broadcast goes to all
// connections of that path.
#include <cstdio>
#include <functional>
#include <set>

#include <websocketpp/concurrency/none.hpp>
#include <websocketpp/config/asio_no_tls.hpp>
#include <websocketpp/logger/stub.hpp>
#include <websocketpp/server.hpp>
#include <websocketpp/version.hpp>

#include "peer.h"

namespace {

struct Config : websocketpp::config::asio {
  using type = Config;
  using base = websocketpp::config::asio;
  using concurrency_type = websocketpp::concurrency::none;
  using alog_type = websocketpp::log::stub;
  using elog_type = websocketpp::log::stub;
  using request_type = base::request_type;
  using response_type = base::response_type;
  using message_type = base::message_type;
  using con_msg_manager_type = base::con_msg_manager_type;
  using endpoint_msg_manager_type = base::endpoint_msg_manager_type;
  using rng_type = base::rng_type;
  struct transport_config : base::transport_config {
    using concurrency_type = Config::concurrency_type;
    using alog_type = Config::alog_type;
    using elog_type = Config::elog_type;
    using request_type = Config::request_type;
    using response_type = Config::response_type;
    using socket_type = websocketpp::transport::asio::basic_socket::endpoint;
    static const bool enable_multithreading = false;
  };
  using transport_type = websocketpp::transport::asio::endpoint<transport_config>;
  static const bool enable_multithreading = false;
};

using Server = websocketpp::server<Config>;
using Handle = websocketpp::connection_hdl;

Server server;
std::set<Handle, std::owner_less<Handle>> members;

bool broadcasts(const Handle& handle) {
  return server.get_con_from_hdl(handle)->get_resource() == "/broadcast";
}

void on_open(Handle handle) {
  if (!broadcasts(handle)) return;
  members.insert(handle);
  server.get_con_from_hdl(handle)->set_message_handler([](Handle, Server::message_ptr message) {
    websocketpp::lib::error_code ignored;
    for (const Handle& member : members)
      server.send(member, message->get_payload(), message->get_opcode(), ignored);
  });
}

}  // namespace

int main(int argc, char** argv) {
  if (peer::asked_version(argc, argv)) return std::printf("%s\n", websocketpp::user_agent) < 0;
  server.init_asio();
  server.set_max_message_size(peer::max_message);
  server.set_reuse_addr(true);
  server.set_socket_init_handler([](Handle, auto& socket) {
    websocketpp::lib::asio::error_code ignored;
    socket.set_option(websocketpp::lib::asio::ip::tcp::no_delay(true), ignored);
  });
  server.set_open_handler(on_open);
  server.set_close_handler([](Handle handle) { members.erase(handle); });
  server.set_fail_handler([](Handle handle) { members.erase(handle); });
  server.set_message_handler([](Handle handle, Server::message_ptr message) {
    websocketpp::lib::error_code ignored;
    server.send(handle, message->get_payload(), message->get_opcode(), ignored);
  });
  server.listen(websocketpp::lib::asio::ip::tcp::endpoint(websocketpp::lib::asio::ip::address_v4::loopback(),
                                                          peer::port(argc, argv)));
  websocketpp::lib::asio::error_code error;
  peer::announce(server.get_local_endpoint(error).port());
  server.start_accept();
  server.run();
}
