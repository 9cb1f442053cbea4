// Passes messages between the clients that connect to it and a server: relay HOST PORT [PORT_OF_ITS_OWN]
//
// For every client (front) it dials the server (back). A message that comes before the back is open is kept;
// large ones towards the client are never copied. An end that does not take what is queued holds up the other
// one.
#include <cstdio>
#include <cstdlib>
#include <string>
#include <utility>
#include <vector>

#include <levada/net/signals.h>
#include <levada/ws/service.h>

using namespace levada;

// Both ends' user data, until one of them ends.
struct Pair {
  ws::Handle front, back;
  std::vector<std::pair<ws::Opcode, ws::PayloadRef>> early;
};

struct Relay {
  void on_open(ws::Connection& conn) {
    if (conn.role() == ws::Role::client) return back_is_open(conn);
    conn.pause();  // what has been received by now still comes
    auto* pair = new Pair{.front = conn.handle(), .back = {}, .early = {}};
    conn.set_user_data(pair);
    ws::Connection* back = client->dial(server, {.host = host, .user_data = pair});
    if (back == nullptr)
      return part(conn, ws::CloseCode::bad_gateway), conn.close(ws::CloseCode::bad_gateway);
    pair->back = back->handle();
  }
  void on_message(ws::Connection& conn, ws::Opcode opcode, Bytes payload) {
    auto* pair = static_cast<Pair*>(conn.user_data());
    if (pair == nullptr) return;
    ws::Connection* to = other(conn, *pair);
    if (to == nullptr || !to->is_open()) return pair->early.emplace_back(opcode, conn.keep(payload)), void();
    const ws::SendStatus status = to->send(opcode, conn.keep(payload));
    if (status == ws::SendStatus::full) return conn.close(ws::CloseCode::try_again_later);
    if (to->blocked()) conn.pause();
  }
  void on_drain(ws::Connection& conn) {
    auto* pair = static_cast<Pair*>(conn.user_data());
    ws::Connection* from = pair == nullptr ? nullptr : other(conn, *pair);
    if (from != nullptr) from->resume();
  }
  void on_close(ws::Connection& conn, const ws::CloseInfo& info) {
    const bool can_pass = is_valid_on_wire(info.code) || info.code == ws::CloseCode::no_status;
    part(conn, can_pass ? info.code : ws::CloseCode::going_away);
  }
  void on_refused(ws::Connection& conn, const ws::Refusal&) { part(conn, ws::CloseCode::bad_gateway); }

  static void back_is_open(ws::Connection& conn) {
    auto* pair = static_cast<Pair*>(conn.user_data());
    for (auto& [opcode, payload] : std::exchange(pair->early, {})) conn.send(opcode, std::move(payload));
    if (ws::Connection* front = pair->front.get()) front->resume();
  }
  static ws::Connection* other(ws::Connection& conn, const Pair& pair) {
    return (conn.role() == ws::Role::server ? pair.back : pair.front).get();
  }
  // One end is gone: so will be the other.
  static void part(ws::Connection& conn, ws::CloseCode code) {
    auto* pair = static_cast<Pair*>(conn.user_data());
    if (pair == nullptr) return;
    conn.set_user_data(nullptr);
    if (ws::Connection* rest = other(conn, *pair)) {
      rest->set_user_data(nullptr);
      rest->close(code);  // a back that is still being dialled is given up
    }
    delete pair;
  }

  net::Address server;
  std::string host;
  ws::Service* client = nullptr;
};

// Ends both services in good order on a signal, within five seconds.
struct Ending {
  void begin() {
    const auto stop_when_empty = [this] {
      if (front.connections() + client.connections() == 0) front.reactor().stop();
    };
    front.shut_down(stop_when_empty);
    client.shut_down(stop_when_empty);
    stop_when_empty();
    front.reactor().after(5'000, [this] { front.reactor().stop(); });
  }

  ws::Service& front;
  ws::Service& client;
};

int main(int count, char** arguments) {
  if (count < 3) return std::fprintf(stderr, "usage: relay HOST PORT [PORT_OF_ITS_OWN]\n"), 2;
  auto server = net::Address::ip(arguments[1], static_cast<std::uint16_t>(std::atoi(arguments[2])));
  auto own =
      net::Address::ip("127.0.0.1", static_cast<std::uint16_t>(count > 3 ? std::atoi(arguments[3]) : 0));
  auto fd = net::listen_stream(*own);
  auto reactor = net::Reactor::create();
  if (!server || !fd || !reactor) return std::fprintf(stderr, "cannot start\n"), 1;
  Relay relay{*server, server->to_string()};
  ws::Service client(**reactor, ws::Role::client, relay);
  ws::Service front(**reactor, ws::Role::server, relay);
  relay.client = &client;
  Ending ending{front, client};
  auto asked = [](void* self) { static_cast<Ending*>(self)->begin(); };
  if (const Error error = net::watch_signals(**reactor, asked, &ending))
    return std::fprintf(stderr, "%s\n", error.message().c_str()), 1;
  std::printf("listening ws://%s\n", net::Address::of_socket(fd->get())->to_string().c_str());
  std::fflush(stdout);
  if (const Error error = front.listen(std::move(*fd)))
    return std::fprintf(stderr, "%s\n", error.message().c_str()), 1;
  (*reactor)->run();
  reactor->reset();  // closes the connections while their services are there
}
