// The opening handshake on a connection, both sides, on every backend: what a server answers, routes, holds
// and refuses, and what a client accepts.
#include <levada/ws/service.h>

#include <netinet/in.h>
#include <algorithm>
#include <string>
#include <thread>
#include <vector>

#include <doctest/doctest.h>

#include <levada/tests/support/world.h>
#include <levada/ws/accept_key.h>

using namespace levada;
using namespace levada::ws;
using namespace levada::ws::test;

namespace {

constexpr auto text = static_cast<unsigned>(Opcode::text);

// An Echo that also answers plain requests.
struct Site : Echo {
  void on_http(HttpExchange& exchange) {
    paths.emplace_back(exchange.request().path());
    const HttpField extra[] = {{"X-Extra", "yes"}, {dated ? "Date" : "X-Date", "then"}};
    if (exchange.request().path() == "/page") exchange.respond(200, "text/html", "<p>hello</p>", extra);
  }
  bool dated = false;
  std::vector<std::string> paths;
};

// A client's handler.
struct Dialer : Recorder {
  void on_connected(Connection& connection) {
    connected += connection.is_open() ? 100 : 1;
    if (connecting) connecting(connection);
  }
  bool on_response(Connection& connection, const HttpResponse& response) {
    responses.push_back(std::to_string(response.status()) + " " + std::string(response.find("X-Realm")));
    CHECK(!connection.is_open());
    return !judging || judging(connection);
  }
  void on_refused(Connection&, const Refusal& refusal) {
    refusals.push_back({refusal.error.code, refusal.failure,
                        refusal.response == nullptr ? 0 : refusal.response->status(),
                        std::string(to_text(refusal.body))});
  }
  struct Refused {
    Errc error;
    UpgradeFailure failure;
    unsigned status;
    std::string body;
    bool operator==(const Refused&) const = default;
  };
  std::vector<Refused> refusals;
  int connected = 0;  // TCP's connections
  std::vector<std::string> responses;
  std::function<void(Connection&)> connecting;
  std::function<bool(Connection&)> judging;
};

std::string get(std::string_view path, std::string_view fields = {}) {
  return "GET " + std::string(path) + " HTTP/1.1\r\nHost: example.com\r\n" + std::string(fields) + "\r\n";
}

}  // namespace

// ---- Answers ----

TEST_CASE("an upgrade is answered as the RFC says, however the request is cut") {
  in_every_world([](World& world) {
    world.serve<Echo>();
    const std::string request = Client::request("/chat?room=1");
    for (std::size_t cut = 0; cut < request.size(); cut += 11) {
      Client& client = world.connect();
      client.write(request.substr(0, cut));
      world.turn(0);
      client.write(request.substr(cut));
      const Answer answer = client.answer();
      CHECK(answer.status == 101);
      CHECK(answer.has("Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
      CHECK(answer.has("Upgrade: websocket"));
      CHECK(answer.has("Connection: Upgrade"));
      client.send(Opcode::text, "hi");
      CHECK(client.frame() == Frame{text, "hi"});
    }
    Client& slow = world.connect();
    for (const char byte : request) {
      slow.write({&byte, 1});
      world.turn(0);
    }
    CHECK(slow.answer().status == 101);
  });
}

TEST_CASE("frames glued to the request are handled in order, wherever the bytes are cut") {
  in_every_world([](World& world) {
    Echo& handler = world.serve<Echo>();
    const std::string large = random_letters(40'000);
    const std::string wire = Client::request() + client_frame(Opcode::text, "one") +
                             client_frame(Opcode::ping, "p") + client_frame(Opcode::text, large) +
                             client_frame(Opcode::text, "three");
    const std::size_t head = Client::request().size();
    for (const std::size_t cut :
         {std::size_t{0}, std::size_t{50}, head - 1, head, head + 1, head + 7, head + 30, head + 5000}) {
      CAPTURE(cut);
      handler.messages.clear();
      Client& client = world.connect();
      client.write(wire.substr(0, cut));
      world.turn(0);
      client.write(wire.substr(cut));
      CHECK(client.answer().status == 101);
      CHECK(client.frame() == Frame{text, "one"});
      CHECK(client.frame() == Frame{10, "p"});
      CHECK(client.frame() == Frame{text, large});
      CHECK(client.frame() == Frame{text, "three"});
      CHECK(handler.messages.size() == 3);
    }
  });
}

TEST_CASE("a close and a broken rule glued to the request are answered") {
  in_every_world([](World& world) {
    Echo& handler = world.serve<Echo>();
    Client& closes = world.connect();
    closes.write(Client::request() + client_frame(Opcode::close, close_payload(1000)));
    CHECK(closes.answer().status == 101);
    CHECK(closes.is_closed_with(close_payload(1000)));
    Client& breaks = world.connect();
    breaks.write(Client::request() + raw_frame(3, "", true));
    CHECK(breaks.answer().status == 101);
    CHECK(breaks.is_closed_with(close_payload(1002)));
    closes.close();
    breaks.close();
    CHECK(world.is_empty());
    CHECK(handler.closes.size() == 2);
  });
}

TEST_CASE("plain requests are answered on the same port, one after the other, and then an upgrade") {
  in_every_world([](World& world) {
    Site& site = world.serve<Site>({.response_fields = {{"Server", "test"}}});
    Client& client = world.connect();
    client.write(get("/page") + get("/missing") + get("/page").replace(0, 3, "HEAD"));
    Answer answer = client.answer();
    CHECK(answer.status == 200);
    CHECK(answer.body == "<p>hello</p>");
    CHECK(answer.has("Content-Type: text/html"));
    CHECK(answer.has("X-Extra: yes"));
    CHECK(answer.has("Server: test"));
    answer = client.answer();
    CHECK(answer.status == 404);
    CHECK(!answer.body.empty());
    REQUIRE(world.until([&] { return client.in.find("\r\n\r\n") != std::string::npos; }));
    CHECK(client.in.starts_with("HTTP/1.1 200"));
    CHECK(client.in.ends_with("\r\n\r\n"));  // no body to HEAD
    client.in.clear();
    client.write(Client::request() + client_frame(Opcode::text, "now a message"));
    CHECK(client.answer().status == 101);
    CHECK(client.frame() == Frame{text, "now a message"});
    CHECK(site.paths == std::vector<std::string>{"/page", "/missing", "/page"});
  });
}

TEST_CASE("plain requests cut anywhere get all their answers") {
  in_every_world([](World& world) {
    world.serve<Site>();
    const std::string wire =
        get("/page") + get("/missing") + Client::request() + client_frame(Opcode::text, "hi");
    for (std::size_t cut = 1; cut < wire.size(); cut += 9) {
      Client& client = world.connect();
      client.write(wire.substr(0, cut));
      world.turn(0);
      client.write(wire.substr(cut));
      CHECK(client.answer().status == 200);
      CHECK(client.answer().status == 404);
      CHECK(client.answer().status == 101);
      CHECK(client.frame() == Frame{text, "hi"});
    }
  });
}

TEST_CASE("a plain request that asks for it gets the connection's end") {
  in_every_world([](World& world) {
    world.serve<Site>();
    Client& client = world.connect();
    client.write(get("/page", "Connection: close\r\n") + get("/page"));
    const Answer answer = client.answer();
    CHECK(answer.status == 200);
    CHECK(answer.has("Connection: close"));
    CHECK(client.reaches_end());
    client.close();
    CHECK(world.is_empty());
  });
}

TEST_CASE("a plain request may be read until on_http returns, also when its answer is the last one") {
  struct Reader {
    void on_http(HttpExchange& exchange) {
      const std::string before(exchange.request().target());
      exchange.respond(200, "text/plain", "ok");
      intact = exchange.request().target() == before && exchange.request().has_token("Connection", "close");
    }
    bool intact = false;
  };
  const auto test = [](World& world) {
    Reader& reader = world.serve<Reader>();
    const std::string wire = get("/a/path/that/is/read/again?and=a-query", "Connection: close\r\n");
    for (std::size_t cut = 1; cut < wire.size(); cut++) {
      reader.intact = false;
      Client& client = world.connect();
      client.write(wire.substr(0, cut));
      world.turn(0);
      client.write(wire.substr(cut));
      CHECK(client.answer().status == 200);
      CHECK(reader.intact);
      CHECK(client.reaches_end());
      client.close();
    }
  };
  in_every_world(test, all_kinds(), {.retain_bytes = 0});
}

TEST_CASE("the content of a plain request is not taken for the next request") {
  in_every_world([](World& world) {
    Site& site = world.serve<Site>();
    const std::string smuggled = get("/smuggled");
    const std::string length = "Content-Length: " + std::to_string(smuggled.size()) + "\r\n";
    const std::string wire = get("/page", length) + smuggled + get("/next");
    for (std::size_t cut = 1; cut <= wire.size(); cut += 7) {
      site.paths.clear();
      Client& client = world.connect();
      client.write(wire.substr(0, cut));
      world.turn(0);
      client.write(wire.substr(cut));
      CHECK(client.answer().status == 200);
      world.settle(4);
      client.close();
      CHECK(world.is_empty());
      CHECK(std::count(site.paths.begin(), site.paths.end(), "/smuggled") == 0);
    }
  });
}

TEST_CASE("without on_http a plain request gets 426") {
  in_every_world([](World& world) {
    world.serve<Echo>();
    Client& client = world.connect();
    client.write(get("/"));
    const Answer answer = client.answer();
    CHECK(answer.status == 426);
    CHECK(answer.has("Upgrade: websocket"));
    CHECK(client.reaches_end());
  });
}

namespace {

// The Date of an answer; empty if there is none or more than one.
std::string date_of(const Answer& answer) {
  const std::size_t at = answer.head.find("\r\nDate: ");
  if (at == std::string::npos || answer.head.find("\r\nDate: ", at + 1) != std::string::npos) return {};
  return answer.head.substr(at + 8, answer.head.find("\r\n", at + 8) - at - 8);
}

}  // namespace

TEST_CASE("every answer but the 101 has a date, of the handler or of the service where they give one") {
  in_every_world([](World& world) {
    Site& site = world.serve<Site>();
    Client& client = world.connect();
    client.write(get("/page") + get("/missing") + Client::request("/", "Sec-WebSocket-Version: 13\r\n"));
    for (const unsigned status : {200u, 404u, 400u}) {
      const Answer answer = client.answer();
      CHECK(answer.status == status);
      const std::string date = date_of(answer);
      CHECK(date.size() == 29);
      CHECK(date.ends_with(" GMT"));
    }
    Client& upgrades = world.connect();
    upgrades.upgrade();
    CHECK(date_of(upgrades.answer()).empty());
    site.dated = true;
    Client& dated = world.connect();
    dated.write(get("/page"));
    CHECK(date_of(dated.answer()) == "then");
    world.serve<Site>({.response_fields = {{"Date", "never"}}});
    Client& constant = world.connect();
    constant.write(get("/page"));
    CHECK(date_of(constant.answer()) == "never");
  });
}

TEST_CASE("a refusal of HEAD tells the length of its content and has none") {
  in_every_world([](World& world) {
    world.serve<Echo>();
    const auto head = [](std::string request) { return request.replace(0, 3, "HEAD"); };
    std::string bad_host = head(get("/"));
    bad_host.replace(bad_host.find("example.com"), 11, "a b");
    for (const std::string& request : {head(Client::request()), head(get("/")), bad_host}) {
      CAPTURE(request);
      Client& client = world.connect();
      client.write(request);
      REQUIRE(world.until([&] { return client.ended; }));
      CHECK(client.in.find("\r\nContent-Length: ") != std::string::npos);
      CHECK(client.in.find("\r\nContent-Length: 0") == std::string::npos);
      CHECK(client.in.find("\r\n\r\n") == client.in.size() - 4);
    }
  });
}

TEST_CASE("a handshake in HTTP/1.0 is a plain request") {
  in_every_world([](World& world) {
    const auto old = [](std::string request) { return request.replace(request.find("1.1"), 3, "1.0"); };
    world.serve<Echo>();
    Client& refused = world.connect();
    refused.write(old(Client::request()));
    CHECK(refused.answer().status == 426);
    Site& site = world.serve<Site>();
    Client& served = world.connect();
    served.write(old(Client::request("/page")));
    const Answer answer = served.answer();
    CHECK(answer.status == 200);
    CHECK(answer.has("Connection: close"));
    CHECK(served.reaches_end());
    CHECK(site.opened == 0);
    Client& stays = world.connect();
    for (int i = 0; i < 2; i++) {
      stays.write(old(get("/page", "Connection: keep-alive\r\n")));
      CHECK(stays.answer().has("Connection: keep-alive"));
    }
  });
}

TEST_CASE("CONNECT is not implemented, and the handler is not asked") {
  in_every_world([](World& world) {
    Site& site = world.serve<Site>();
    Client& client = world.connect();
    client.write("CONNECT example.com:80 HTTP/1.1\r\nHost: example.com:80\r\n\r\n");
    CHECK(client.answer().status == 501);
    CHECK(client.reaches_end());
    CHECK(site.paths.empty());
  });
}

TEST_CASE("a handshake that is not by the grammar is refused before the handler is asked") {
  in_every_world([](World& world) {
    Echo& handler = world.serve<Echo>();
    int asked = 0;
    handler.upgrading = [&asked](Upgrade&) { asked++; };
    for (const char* field : {"Sec-WebSocket-Extensions: x;", "Sec-WebSocket-Protocol: a b",
                              "Sec-WebSocket-Protocol:", "Transfer-Encoding: gzip"}) {
      CAPTURE(field);
      Client& client = world.connect();
      client.upgrade("/", std::string(field) + "\r\n");
      CHECK(client.answer().status == 400);
      CHECK(client.reaches_end());
    }
    CHECK(asked == 0);
  });
}

TEST_CASE("bad requests get their status and the end of TCP") {
  struct Case {
    std::string request;
    unsigned status;
  };
  const std::string good = Client::request();
  const auto without = [&](std::string_view line) {
    std::string request = good;
    const std::size_t at = request.find(line);
    return request.erase(at, request.find("\r\n", at) + 2 - at);
  };
  const std::vector<Case> cases = {
      {"garbage\r\n\r\n", 400},
      {std::string("\x16\x03\x01\x02\x00\x01\x00\x01\xfc", 9), 400},
      {without("Host"), 400},
      {without("Connection"), 400},
      {without("Sec-WebSocket-Key"), 400},
      {without("Sec-WebSocket-Version"), 426},
      {"POST" + good.substr(3), 405},
      {good.substr(0, good.size() - 2) + "X: " + std::string(17'000, 'x') + "\r\n\r\n", 431},
      {"GET /" + std::string(20'000, 'x'), 414},
  };
  in_every_world([&](World& world) {
    Echo& handler = world.serve<Echo>();
    for (const Case& bad : cases) {
      CAPTURE(bad.request.substr(0, 40));
      Client& client = world.connect();
      client.write(bad.request);
      const Answer answer = client.answer();
      CHECK((answer.status == bad.status || (bad.status == 414 && answer.status == 431)));
      CHECK((answer.has("Connection: close") || answer.has("Connection: Upgrade, close") ||
             answer.has("Connection: close, Upgrade")));
      CHECK(client.reaches_end());
      client.close();
      CHECK(world.is_empty());
    }
    CHECK(handler.opened == 0);
    CHECK(handler.closes.empty());
  });
}

TEST_CASE("more fields than the limit get 431") {
  in_every_world([](World& world) {
    world.serve<Echo>({.http = {.max_bytes = 2000, .max_fields = 10}});
    std::string fields;
    for (int i = 0; i < 6; i++) fields += "X-" + std::to_string(i) + ": y\r\n";
    Client& many = world.connect();
    many.upgrade("/", fields);
    CHECK(many.answer().status == 431);
    Client& some = world.connect();
    some.upgrade("/", "X: y\r\n");
    CHECK(some.answer().status == 101);
    Client& large = world.connect();
    for (int i = 0; i < 30; i++) large.write(i == 0 ? "GET / HTTP/1.1\r\nX: " : std::string(100, 'x'));
    CHECK(large.answer().status == 431);
    CHECK(large.reaches_end());
  });
}

// ---- Time ----

TEST_CASE("a handshake that takes too long is dropped, an open connection is not") {
  in_every_world([](World& world) {
    Site& handler = world.serve<Site>({.handshake_timeout_ms = 40});
    Client& open = world.open();
    Client& silent = world.connect();
    Client& half = world.connect();
    half.write(Client::request().substr(0, 60));
    Client& plain = world.connect();
    plain.write(get("/page"));
    CHECK(plain.answer().status == 200);
    CHECK(silent.reaches_end());
    CHECK(world.until([&] { return half.ended || half.was_reset; }));
    CHECK(plain.reaches_end());
    REQUIRE(world.until([&] { return world.last_service().connections() == 1; }));
    open.send(Opcode::text, "still open");
    CHECK(open.frame() == Frame{text, "still open"});
    CHECK(handler.closes.empty());
  });
}

TEST_CASE("the time for a handshake begins again with each answer") {
  World world({"simulated", net::BackendKind::simulated});
  world.serve<Site>({.handshake_timeout_ms = 1000});
  Client& client = world.connect();
  world.settle();
  for (int i = 0; i < 5; i++) {
    world.simulation().advance_ms(900);
    client.write(get("/page"));
    REQUIRE(client.answer().status == 200);
  }
  world.simulation().advance_ms(1001);
  CHECK(client.reaches_end());
}

// ---- Decisions ----

TEST_CASE("a connection that ends in on_upgrade is neither opened nor rejected") {
  in_every_world([](World& world) {
    Echo& handler = world.serve<Echo>();
    handler.upgrading = [&world](Upgrade& upgrade) {
      if (upgrade.request().path() == "/rejected") upgrade.reject(404);
      world.reactor().for_each([](net::Endpoint& endpoint) {
        if (endpoint.kind() == net::EndpointKind::stream) endpoint.close();
      });
    };
    for (const char* path : {"/", "/rejected"}) {
      Client& client = world.connect();
      client.upgrade(path);
      REQUIRE(world.until([&] { return client.ended || client.was_reset; }));
      CHECK(client.in.empty());
      CHECK(world.is_empty());
    }
    CHECK(handler.opened == 0);
    CHECK(world.last_service().counters().rejected.value() == 0);
    CHECK(handler.closes.empty());
  });
}

TEST_CASE("on_upgrade sees the request and may add fields, choose a subprotocol and set user data") {
  in_every_world([](World& world) {
    Echo& handler =
        world.serve<Echo>({.subprotocols = {"first", "second"}, .response_fields = {{"Server", "test"}}});
    static int data = 7;
    handler.upgrading = [](Upgrade& upgrade) {
      CHECK(upgrade.request().target() == "/chat?x=1");
      CHECK(upgrade.request().find("X-Token") == "secret");
      CHECK(upgrade.subprotocol() == "first");
      std::string temporary = "second";
      upgrade.set_subprotocol(temporary);
      temporary = "xxxxxx";
      std::string value = "added";
      upgrade.add_field("X-Added", value);
      value = "xxxxx";
      upgrade.set_user_data(&data);
    };
    handler.opening = [](Connection& connection) {
      CHECK(connection.user_data() == &data);
      CHECK(connection.subprotocol() == "second");
    };
    Client& client = world.connect();
    client.upgrade("/chat?x=1", "X-Token: secret\r\nSec-WebSocket-Protocol: second, other, first\r\n");
    const Answer answer = client.answer();
    CHECK(answer.status == 101);
    CHECK(answer.has("X-Added: added"));
    CHECK(answer.has("Server: test"));
    CHECK(answer.has("Sec-WebSocket-Protocol: second"));
    CHECK(handler.opened == 1);
  });
}

TEST_CASE("sixteen fields are added to an answer, and no more: the caller is told") {
  struct Many {
    void on_upgrade(Upgrade& upgrade) {
      for (int i = 0; i < 20; i++) added += upgrade.add_field("X-Field", "x") ? 1 : 0;
    }
    void on_message(Connection&, Opcode, Bytes) {}
    void on_http(HttpExchange& exchange) {
      const std::vector<HttpField> fields(size, {"X-Field", "x"});
      all = exchange.respond(200, "text/plain", "", fields);
    }
    std::size_t size = 16;
    int added = 0;
    bool all = false;
  };
  const auto count = [](const Answer& answer) {
    std::size_t found = 0;
    for (std::size_t at = 0; (at = answer.head.find("X-Field: x", at)) != std::string::npos; at++) found++;
    return found;
  };
  in_every_world([&](World& world) {
    Many& handler = world.serve<Many>();
    Client& client = world.connect();
    client.write(get("/"));
    CHECK(count(client.answer()) == 16);
    CHECK(handler.all);
    handler.size = 17;
    client.write(get("/"));
    CHECK(count(client.answer()) == 16);
    CHECK_FALSE(handler.all);
    client.upgrade();
    CHECK(count(client.answer()) == 16);
    CHECK(handler.added == 16);
  });
}

TEST_CASE("on_upgrade may reject with status, reason, fields and body") {
  in_every_world([](World& world) {
    Echo& handler = world.serve<Echo>({.response_fields = {{"Server", "test"}}});
    handler.upgrading = [](Upgrade& upgrade) {
      upgrade.add_field("WWW-Authenticate", "Basic");
      upgrade.reject(401, "who are you?", "Not You");
    };
    Client& client = world.connect();
    client.write(Client::request() + client_frame(Opcode::text, "glued"));
    const Answer answer = client.answer();
    CHECK(answer.head.starts_with("HTTP/1.1 401 Not You\r\n"));
    CHECK(answer.has("WWW-Authenticate: Basic"));
    CHECK(answer.has("Server: test"));
    CHECK(answer.has("Connection: close"));
    CHECK(answer.body == "who are you?");
    CHECK(client.reaches_end());
    client.close();
    CHECK(world.is_empty());
    CHECK(handler.opened == 0);
    CHECK(handler.closes.empty());
  });
}

TEST_CASE("subprotocols are chosen in the server's order") {
  in_every_world([](World& world) {
    Echo& handler = world.serve<Echo>({.subprotocols = {"b", "a"}});
    std::string chosen;
    handler.opening = [&](Connection& connection) { chosen = connection.subprotocol(); };
    const auto ask = [&](std::string_view offer) {
      Client& client = world.connect();
      client.upgrade("/", offer);
      return client.answer();
    };
    CHECK(ask("Sec-WebSocket-Protocol: a, b\r\n").has("Sec-WebSocket-Protocol: b"));
    CHECK(chosen == "b");
    CHECK(ask("Sec-WebSocket-Protocol: a\r\nSec-WebSocket-Protocol: c\r\n").has("Sec-WebSocket-Protocol: a"));
    CHECK(chosen == "a");
    CHECK(ask("Sec-WebSocket-Protocol: c\r\n").head.find("Sec-WebSocket-Protocol") == std::string::npos);
    CHECK(chosen == "");
    CHECK(ask("").status == 101);
  });
}

TEST_CASE("each Origin policy lets in whom it should") {
  in_every_world([](World& world) {
    const auto status = [&](ServiceOptions options, std::string_view origin) {
      Echo& handler = world.make_handler<Echo>();
      world.listen(world.service(handler, std::move(options)));
      Client& client = world.connect();
      client.upgrade("/", origin.empty() ? "" : "Origin: " + std::string(origin) + "\r\n");
      const unsigned answer = client.answer().status;
      if (answer != 101) CHECK(client.reaches_end());
      CHECK(handler.opened == (answer == 101 ? 1 : 0));
      return answer;
    };
    CHECK(status({}, "") == 101);
    CHECK(status({}, "https://example.com") == 101);
    CHECK(status({}, "https://evil.com") == 403);
    CHECK(status({}, "null") == 403);
    CHECK(status({.origin_policy = OriginPolicy::any}, "https://evil.com") == 101);
    const ServiceOptions list{.origin_policy = OriginPolicy::allow_list,
                              .allowed_origins = {"https://good.com"}};
    CHECK(status(list, "https://good.com") == 101);
    CHECK(status(list, "https://example.com") == 403);
  });
}

TEST_CASE("routes go to their services with parameters, other paths to the root") {
  in_every_world([](World& world) {
    Echo& root = world.make_handler<Echo>();
    Echo& chat = world.make_handler<Echo>();
    Echo& room = world.make_handler<Echo>();
    Service& chat_service = world.service(chat, {.max_message_bytes = 10});
    Service& room_service = world.service(room, {.subprotocols = {"room"}});
    Service& service = world.service(root);
    service.add_route("/chat", chat_service);
    service.add_route("/rooms/:room/:member", room_service);
    world.listen(service);
    std::string seen;
    room.upgrading = [&](Upgrade& upgrade) {
      seen = std::string(upgrade.params().find("room")) + "+" + std::string(upgrade.params().find("member"));
    };
    Client& in_chat = world.open("/chat");
    in_chat.send(Opcode::text, "0123456789");
    CHECK(in_chat.frame() == Frame{text, "0123456789"});
    in_chat.send(Opcode::text, "0123456789x");  // the route's own limit
    CHECK(in_chat.is_closed_with(close_payload(1009)));
    Client& in_room = world.connect();
    in_room.upgrade("/rooms/blue/ann?x=y", "Sec-WebSocket-Protocol: room\r\n");
    CHECK(in_room.answer().has("Sec-WebSocket-Protocol: room"));
    CHECK(seen == "blue+ann");
    in_room.send(Opcode::text, "0123456789x");
    CHECK(in_room.frame() == Frame{text, "0123456789x"});
    CHECK(room_service.connections() == 1);
    Client& other = world.open("/nowhere");  // the root's own: its handler takes messages
    for (Client* client : {&in_chat, &in_room, &other}) client->close();
    CHECK(world.is_empty());
    CHECK(root.opened == 1);
    CHECK(chat.closes.size() == 1);
    CHECK(room.closes.size() == 1);
  });
}

// ---- Decisions that come later ----

TEST_CASE("a held handshake is accepted later from another thread, with everything that was sent meanwhile") {
  in_every_world([](World& world) {
    Echo& handler = world.serve<Echo>({.subprotocols = {"a", "b"}});
    std::vector<UpgradeTicket> tickets;
    handler.upgrading = [&](Upgrade& upgrade) { tickets.push_back(upgrade.hold()); };
    const std::string large = random_letters(100'000);
    for (const std::string& protocol : {std::string(), std::string("b")}) {
      for (const std::size_t cut : {std::size_t{0}, std::size_t{100}, Client::request().size() + 20}) {
        CAPTURE(cut);
        tickets.clear();
        Client& client = world.connect();
        const std::string wire = Client::request("/", "Sec-WebSocket-Protocol: b, a\r\n") +
                                 client_frame(Opcode::text, "glued") + client_frame(Opcode::text, large);
        client.write(wire.substr(0, cut));
        world.turn(0);
        client.write(wire.substr(cut));
        REQUIRE(world.until([&] { return !tickets.empty(); }));
        world.settle(20);
        CHECK(client.in.empty());
        CHECK(handler.opened == 0);
        std::thread([&] {
          tickets[0].accept(protocol, {{"X-Late", "yes"}});
          tickets[0].accept();  // once is enough
          tickets[0].reject(403);
        }).join();
        const Answer answer = client.answer();
        CHECK(answer.status == 101);
        CHECK(answer.has("X-Late: yes"));
        CHECK(answer.has("Sec-WebSocket-Protocol: " + (protocol.empty() ? "a" : protocol)));
        CHECK(client.frame() == Frame{text, "glued"});
        CHECK(client.frame() == Frame{text, large});
        client.send(Opcode::text, "later");
        CHECK(client.frame() == Frame{text, "later"});
        handler.opened = 0;
      }
    }
  });
}

TEST_CASE("a subprotocol that the client did not offer is not answered, by the handler or by a ticket") {
  in_every_world([](World& world) {
    Echo& handler = world.serve<Echo>({.subprotocols = {"a", "b"}});
    std::vector<UpgradeTicket> tickets;
    bool holds = false;
    handler.upgrading = [&](Upgrade& upgrade) {
      CHECK_FALSE(upgrade.set_subprotocol("b"));
      CHECK_FALSE(upgrade.set_subprotocol("A"));
      CHECK(upgrade.subprotocol() == "a");
      if (holds) tickets.push_back(upgrade.hold());
    };
    for (; tickets.empty(); holds = true) {
      Client& client = world.connect();
      client.upgrade("/", "Sec-WebSocket-Protocol: x\r\nSec-WebSocket-Protocol: a\r\n");
      if (holds) {
        REQUIRE(world.until([&] { return !tickets.empty(); }));
        tickets[0].accept("b");
      }
      CHECK(client.answer().has("Sec-WebSocket-Protocol: a"));
    }
    handler.upgrading = [&](Upgrade& upgrade) {
      CHECK(upgrade.set_subprotocol("x"));
      CHECK(upgrade.set_subprotocol(""));
    };
    Client& none = world.connect();
    none.upgrade("/", "Sec-WebSocket-Protocol: x, a\r\n");
    CHECK(none.answer().head.find("Sec-WebSocket-Protocol") == std::string::npos);
  });
}

TEST_CASE("on_gone has the user data of every handshake that does not come to on_open, and of no other") {
  struct Owning : Echo {
    void on_gone(Connection& connection) { gone.push_back(connection.user_data()); }
    std::vector<void*> gone;
  };
  in_every_world([](World& world) {
    Owning& handler = world.serve<Owning>({.handshake_timeout_ms = 40, .close_timeout_ms = 40});
    static int data[4];
    int next = 0;
    std::vector<UpgradeTicket> tickets;
    handler.upgrading = [&](Upgrade& upgrade) {
      upgrade.set_user_data(&data[next]);
      const std::string_view path = upgrade.request().path();
      if (path == "/reject") upgrade.reject(403);
      if (path == "/hold") tickets.push_back(upgrade.hold());
      next++;
    };
    world.connect().upgrade("/reject");
    REQUIRE(world.until([&] { return handler.gone == std::vector<void*>{&data[0]}; }));
    Client& goes = world.connect();
    goes.upgrade("/hold");
    REQUIRE(world.until([&] { return tickets.size() == 1; }));
    goes.reset();
    REQUIRE(world.until([&] { return handler.gone.size() == 2; }));
    world.connect().upgrade("/hold");  // and runs out of time
    REQUIRE(world.until([&] { return handler.gone.size() == 3; }));
    Client& opens = world.connect();
    opens.upgrade("/");
    CHECK(opens.answer().status == 101);
    opens.close();
    Client& nothing = world.connect();  // has no user data
    nothing.write("garbage\r\n\r\n");
    CHECK(nothing.answer().status == 400);
    nothing.close();
    CHECK(world.is_empty());
    CHECK(handler.closes.size() == 1);
    CHECK(handler.gone == std::vector<void*>{&data[0], &data[1], &data[2]});
  });
}

TEST_CASE("a held handshake is rejected later from another thread") {
  in_every_world([](World& world) {
    Echo& handler = world.serve<Echo>();
    std::vector<UpgradeTicket> tickets;
    handler.upgrading = [&](Upgrade& upgrade) { tickets.push_back(upgrade.hold()); };
    Client& client = world.connect();
    client.write(Client::request() + client_frame(Opcode::binary, random_bytes(60'000)));
    REQUIRE(world.until([&] { return !tickets.empty(); }));
    world.settle();
    std::thread([&] { tickets[0].reject(403, "no"); }).join();
    const Answer answer = client.answer();
    CHECK(answer.status == 403);
    CHECK(answer.body == "no");
    CHECK(client.reaches_end());
    client.close();
    CHECK(world.is_empty());
    CHECK(handler.opened == 0);
    std::thread([&] { tickets[0].accept(); }).join();
    world.settle();
    CHECK(handler.opened == 0);
  });
}

TEST_CASE("a held handshake still times out, and ends when the peer goes") {
  in_every_world([](World& world) {
    Echo& handler = world.serve<Echo>({.handshake_timeout_ms = 40});
    std::vector<UpgradeTicket> tickets;
    handler.upgrading = [&](Upgrade& upgrade) { tickets.push_back(upgrade.hold()); };
    Client& waits = world.connect();
    waits.upgrade();
    Client& goes = world.connect();
    goes.upgrade();
    REQUIRE(world.until([&] { return tickets.size() == 2; }));
    goes.reset();
    CHECK(waits.reaches_end());
    CHECK(world.is_empty());
    tickets[0].accept();
    tickets[1].reject(500);
    world.settle();
    CHECK(handler.opened == 0);
    CHECK(handler.closes.empty());
  });
}

TEST_CASE("what a held peer sends is bounded") {
  in_every_world(
      [](World& world) {
        Echo& handler = world.serve<Echo>({.http = {.max_bytes = 4096}});
        std::vector<UpgradeTicket> tickets;
        handler.upgrading = [&](Upgrade& upgrade) { tickets.push_back(upgrade.hold()); };
        Client& client = world.connect();
        const std::size_t before = world.reactor().blocks().bytes_in_use();
        const std::string payload = random_bytes(20'000'000);
        client.write(Client::request() + client_frame(Opcode::binary, payload.substr(0, 16'000'000)));
        REQUIRE(world.until([&] { return !tickets.empty(); }));
        world.settle(60);
        CHECK(client.unsent() > 1'000'000);
        CHECK(world.reactor().blocks().bytes_in_use() < before + 2'000'000);
        tickets[0].accept();
        CHECK(client.answer().status == 101);
        CHECK(client.frame().payload == payload.substr(0, 16'000'000));
      },
      real_kinds());
}

// ---- The client's side ----

namespace {

// A server that the test plays: it answers the first request with what the test says.
struct Played {
  Played(World& world, Dialer& dialer, std::string_view answer, ServiceOptions options = {}) {
    Fd listening = std::move(*net::listen_stream(*net::Address::ip("127.0.0.1", 0)));
    Service& service = world.service(dialer, std::move(options), Role::client);
    DialOptions dial{.host = "test.example", .target = "/t?q", .origin = "http://o"};
    const HttpField fields[] = {{"X-Mine", "yes"}};
    dial.fields = fields;
    REQUIRE(service.dial(*net::Address::of_socket(listening.get()), dial) != nullptr);
    Fd fd;
    REQUIRE(world.until([&] {
      fd.reset(accept4(listening.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
      return static_cast<bool>(fd);
    }));
    server = &world.adopt(std::move(fd));
    server->masks = false;
    REQUIRE(world.until([&] { return server->in.ends_with("\r\n\r\n"); }));
    request = std::exchange(server->in, {});
    server->write(answered(answer));
  }

  // The answer, with the accept key in place of "KEY".
  std::string answered(std::string_view answer) const {
    const std::size_t at = request.find("Sec-WebSocket-Key: ");
    const AcceptKey accept = accept_key(std::string_view(request).substr(at + 19, 24));
    std::string out(answer);
    if (const std::size_t key = out.find("KEY"); key != std::string::npos)
      out.replace(key, 3, accept.data(), accept.size());
    return out;
  }

  Client* server = nullptr;
  std::string request;
};

constexpr std::string_view good_answer =
    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "
    "KEY\r\n\r\n";

std::string changed(std::string_view from, std::string_view to) {
  std::string answer(good_answer);
  return answer.replace(answer.find(from), from.size(), to);
}

}  // namespace

TEST_CASE("a client shakes hands, also when frames are glued to the answer") {
  in_every_world(
      [](World& world) {
        for (const bool cut : {false, true}) {
          Dialer& dialer = world.make_handler<Dialer>();
          dialer.receiving = echo;
          const std::string glued = server_frame(Opcode::text, "glued") + server_frame(Opcode::ping, "p");
          Played played(world, dialer, cut ? good_answer.substr(0, 50) : std::string(good_answer) + glued);
          if (cut) {
            world.settle();
            played.server->write(played.answered(good_answer).substr(50) + glued);
          }
          CHECK(played.request.starts_with("GET /t?q HTTP/1.1\r\n"));
          for (const std::string line :
               {"Host: test.example", "X-Mine: yes", "Origin: http://o", "Sec-WebSocket-Version: 13"}) {
            CHECK(played.request.find("\r\n" + line + "\r\n") != std::string::npos);
          }
          CHECK(played.server->frame().payload == "glued");
          CHECK(played.server->frame().payload == "p");
          CHECK(dialer.connected == 1);
          CHECK(dialer.opened == 1);
          played.server->shut_down();
          CHECK(world.is_empty());
          CHECK(dialer.closes.size() == 1);
          CHECK(dialer.refusals.empty());
        }
      },
      real_kinds());
}

TEST_CASE("a client skips interim responses and joins folded lines, however they are cut") {
  const std::string interims = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n";
  const std::string folded = changed("\r\n\r\n", "\r\nX: a\r\n b\r\n\r\n");
  const std::string glued = server_frame(Opcode::text, "glued");
  in_every_world(
      [&](World& world) {
        for (const std::string& answer : {interims + std::string(good_answer), folded, interims + folded}) {
          for (std::size_t cut = 0; cut < answer.size(); cut += 13) {
            CAPTURE(answer);
            CAPTURE(cut);
            Dialer& dialer = world.make_handler<Dialer>();
            Played played(world, dialer, "");
            const std::string wire = played.answered(answer) + glued;
            played.server->write(wire.substr(0, cut));
            world.turn(0);
            played.server->write(wire.substr(cut));
            REQUIRE(world.until([&] { return dialer.messages.size() == 1 || !dialer.refusals.empty(); }));
            CHECK(dialer.messages.size() == 1);
            played.server->shut_down();
            CHECK(world.is_empty());
          }
        }
        std::string endless;
        while (endless.size() < 600) endless += interims;
        Dialer& dialer = world.make_handler<Dialer>();
        Played played(world, dialer, endless, {.http = {.max_bytes = 500}});
        CHECK(world.is_empty());
        CHECK(dialer.refusals == std::vector{Dialer::Refused{Errc::protocol, UpgradeFailure::none, 0, ""}});
        Dialer& waiting = world.make_handler<Dialer>();
        Played slow(world, waiting, interims, {.handshake_timeout_ms = 40});
        CHECK(world.is_empty());
        CHECK(waiting.refusals == std::vector{Dialer::Refused{Errc::timed_out, UpgradeFailure::none, 0, ""}});
      },
      real_kinds());
}

TEST_CASE("a client refuses every wrong answer and says why") {
  struct Case {
    std::string answer;
    Dialer::Refused refused;
  };
  const std::vector<Case> cases = {
      {"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno",
       {Errc::none, UpgradeFailure::status_not_101, 403, "no"}},
      {changed("Upgrade: websocket\r\n", ""), {Errc::none, UpgradeFailure::upgrade_missing, 101, ""}},
      {changed("Connection: Upgrade\r\n", ""), {Errc::none, UpgradeFailure::connection_missing, 101, ""}},
      {changed("Sec-WebSocket-Accept: KEY\r\n", ""), {Errc::none, UpgradeFailure::accept_missing, 101, ""}},
      {changed("KEY", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), {Errc::none, UpgradeFailure::accept_wrong, 101, ""}},
      {changed("\r\n\r\n", "\r\nSec-WebSocket-Protocol: x\r\n\r\n"),
       {Errc::none, UpgradeFailure::subprotocol_unasked, 101, ""}},
      {changed("websocket", "websocket, h2c"), {Errc::none, UpgradeFailure::upgrade_missing, 101, ""}},
      {changed("\r\n\r\n", "\r\nSec-WebSocket-Extensions: ,\r\n\r\n"),
       {Errc::none, UpgradeFailure::extension_malformed, 101, ""}},
      {"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno",
       {Errc::none, UpgradeFailure::status_not_101, 403, "no"}},
      {changed("\r\n\r\n", "\r\nSec-WebSocket-Extensions: x\r\n\r\n"),
       {Errc::none, UpgradeFailure::extension_unasked, 101, ""}},
      {"nonsense\r\n\r\n", {Errc::protocol, UpgradeFailure::none, 0, ""}},
  };
  in_every_world(
      [&](World& world) {
        for (const Case& wrong : cases) {
          CAPTURE(wrong.answer);
          Dialer& dialer = world.make_handler<Dialer>();
          Played played(world, dialer, wrong.answer);
          CHECK(world.is_empty());
          CHECK(dialer.refusals == std::vector{wrong.refused});
          CHECK(dialer.opened == 0);
          CHECK(dialer.closes.empty());
        }
      },
      real_kinds());
}

namespace {

// The engine's client on a connection that is there, in every world; the test plays the server.
struct Dialled {
  explicit Dialled(World& world, ServiceOptions options = {}) : dialer(world.make_handler<Dialer>()) {
    service = &world.service(dialer, std::move(options), Role::client);
  }
  // Begins, and takes the request.
  Connection* begin(World& world, std::uint32_t timeout_ms = 0) {
    auto [fd, peer] = world.pair();
    server = peer;
    server->masks = false;
    Connection* connection = service->dial_on(std::move(fd), {.host = "h", .timeout_ms = timeout_ms});
    REQUIRE(connection != nullptr);
    if (connection->closed()) return connection;
    REQUIRE(world.until([&] { return server->in.ends_with("\r\n\r\n"); }));
    const std::size_t key = server->in.find("Sec-WebSocket-Key: ");
    const AcceptKey accept = accept_key(std::string_view(server->in).substr(key + 19, 24));
    good = changed("KEY", {accept.data(), accept.size()});
    server->in.clear();
    return connection;
  }
  bool is_refused(World& world, const Dialer::Refused& refused) {
    world.until([&] { return !dialer.refusals.empty(); });
    return std::exchange(dialer.refusals, {}) == std::vector{refused};
  }

  Dialer& dialer;
  Service* service = nullptr;
  Client* server = nullptr;
  std::string good;  // the answer that is right
};

}  // namespace

TEST_CASE("a service that shuts down does not wait for servers that its dials have not reached yet") {
  in_every_world([](World& world) {
    for (const bool request_has_left : {false, true}) {
      CAPTURE(request_has_left);
      Dialled client(world, {.handshake_timeout_ms = 60'000, .close_timeout_ms = 60'000});
      auto [fd, silent] = world.pair();
      REQUIRE(client.service->dial_on(std::move(fd), {.host = "h"}) != nullptr);
      if (request_has_left) REQUIRE(world.until([&peer = silent] { return peer->in.ends_with("\r\n\r\n"); }));
      bool empty = false;
      client.service->shut_down([&empty] { empty = true; });
      CHECK(world.until([&empty] { return empty; }));
      CHECK(client.is_refused(world, {Errc::canceled, UpgradeFailure::none, 0, ""}));
      silent->close();
    }
  });
}

TEST_CASE("a refusal is told with the first bytes of its content, wherever it is cut") {
  in_every_world([](World& world) {
    const std::string answer = "HTTP/1.1 403 No\r\nContent-Length: 5\r\n\r\nsorry";
    const Dialer::Refused whole{Errc::none, UpgradeFailure::status_not_101, 403, "sorry"};
    Dialled client(world);
    for (std::size_t cut = 0; cut < answer.size(); cut++) {
      CAPTURE(cut);
      client.begin(world);
      client.server->write(answer.substr(0, cut));
      world.settle(2);
      CHECK(client.dialer.refusals.empty());
      client.server->write(answer.substr(cut) + "more");
      CHECK(client.is_refused(world, whole));
      client.server->close();
    }
    CHECK(world.is_empty());
  });
}

TEST_CASE("content that does not come whole is told as far as it came: to the end, the deadline, the bound") {
  in_every_world([](World& world) {
    const auto refused = [](unsigned status, std::string body) {
      return Dialer::Refused{Errc::none, UpgradeFailure::status_not_101, status, std::move(body)};
    };
    Dialled client(world);
    client.begin(world);
    client.server->write("HTTP/1.1 403 No\r\nContent-Length: 5\r\n\r\nso").shut_down();
    CHECK(client.is_refused(world, refused(403, "so")));
    client.begin(world);
    client.server->write("HTTP/1.1 500 No\r\n\r\nwithout ").write("a length").shut_down();
    CHECK(client.is_refused(world, refused(500, "without a length")));
    client.begin(world, 30);
    client.server->write("HTTP/1.1 403 No\r\nContent-Length: 5\r\n\r\nsor");
    CHECK(client.is_refused(world, refused(403, "sor")));
    client.begin(world);
    client.server->write("HTTP/1.1 403 No\r\nContent-Length: 50000\r\n\r\n" + std::string(20'000, 'x'));
    CHECK(client.is_refused(world, refused(403, std::string(max_refusal_body_bytes, 'x'))));
    client.begin(world);
    client.server->write("HTTP/1.1 204 No\r\n\r\n");
    CHECK(client.is_refused(world, refused(204, "")));
    client.server->close();
    CHECK(world.is_empty());
  });
}

TEST_CASE("on_response sees the 101 before on_open, and may refuse it") {
  in_every_world([](World& world) {
    Dialled client(world);
    const auto answer = [&](bool accept) {
      client.dialer.judging = [&, accept](Connection&) {
        CHECK(client.dialer.opened == 0);
        return accept;
      };
      client.begin(world);
      client.server->write(client.good.replace(client.good.size() - 2, 2, "X-Realm: here\r\n\r\n") +
                           server_frame(Opcode::text, "glued"));
    };
    answer(false);
    CHECK(client.is_refused(world, {Errc::canceled, UpgradeFailure::none, 101, ""}));
    CHECK(client.server->reaches_end());
    answer(true);
    CHECK(world.until([&] { return client.dialer.messages.size() == 1; }));
    CHECK(client.dialer.opened == 1);
    CHECK(client.dialer.responses == std::vector<std::string>{"101 here", "101 here"});
    client.server->close();
    // One that says no by itself is not shown.
    client.begin(world);
    client.server->write("HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n");
    CHECK(client.is_refused(world, {Errc::none, UpgradeFailure::status_not_101, 403, ""}));
    CHECK(client.dialer.responses.size() == 2);
    client.server->close();
    client.dialer.judging = [](Connection& connection) {
      connection.terminate();
      return true;
    };
    client.begin(world);
    client.server->write(client.good);
    CHECK(client.is_refused(world, {Errc::canceled, UpgradeFailure::none, 0, ""}));
    client.server->close();
    CHECK(world.is_empty());
  });
}

TEST_CASE("a handshake that we end ourselves, at whatever time, is reported once") {
  in_every_world([](World& world) {
    const Dialer::Refused canceled{Errc::canceled, UpgradeFailure::none, 0, ""};
    Dialled client(world);
    for (const bool gently : {false, true}) {
      const auto end = [gently](Connection& connection) {
        gently ? connection.close() : connection.terminate();
      };
      client.dialer.connecting = end;
      client.begin(world);
      CHECK(client.is_refused(world, canceled));
      client.dialer.connecting = {};
      end(*client.begin(world));
      CHECK(client.is_refused(world, canceled));
      Connection* connection = client.begin(world);
      client.server->write("HTTP/1.1 403 No\r\nContent-Length: 5\r\n\r\nso");
      world.settle();
      end(*connection);
      CHECK(client.is_refused(world, canceled));
    }
    CHECK(world.is_empty());
    CHECK(client.dialer.opened == 0);
    CHECK(client.dialer.refusals.empty());
  });
}

TEST_CASE("a service can go before its reactor, and ends its connections") {
  in_every_world([](World& world) {
    Dialer& dialer = world.make_handler<Dialer>();
    auto service = std::make_unique<Service>(world.reactor(), Role::client, dialer);
    auto [fd, first] = world.pair();
    Client* const open = first;
    open->masks = false;
    REQUIRE(service->dial_on(std::move(fd), {.host = "h"}) != nullptr);
    REQUIRE(world.until([&] { return open->in.ends_with("\r\n\r\n"); }));
    const std::size_t key = open->in.find("Sec-WebSocket-Key: ");
    const AcceptKey accept = accept_key(std::string_view(open->in).substr(key + 19, 24));
    open->write(changed("KEY", {accept.data(), accept.size()}) +
                server_frame(Opcode::text, "half", {.fin = false}));
    REQUIRE(world.until([&] { return dialer.opened == 1; }));
    world.settle(3);
    auto [other_fd, opening] = world.pair();
    Connection* other = service->dial_on(std::move(other_fd), {.host = "h"});
    auto [gone_fd, going] = world.pair();
    service->dial_on(std::move(gone_fd), {.host = "h"})->terminate();  // its turn has not ended
    CHECK(other != nullptr);
    service.reset();
    CHECK(dialer.closes ==
          std::vector{Recorder::Closed{CloseCode::abnormal, "", ClosedBy::local, Errc::canceled}});
    CHECK(dialer.refusals.size() == 2);
    world.settle();
    CHECK(world.is_empty());
    CHECK(world.reactor().endpoints() == 0);
    for (Client* peer : {open, opening, going})
      CHECK(world.until([&] { return peer->ended || peer->was_reset; }));
  });
}

TEST_CASE("a client reports an answer that does not come") {
  in_every_world(
      [](World& world) {
        Dialer& slow = world.make_handler<Dialer>();
        Played played(world, slow, "HTTP/1.1 101 Sw", {.handshake_timeout_ms = 40});
        CHECK(world.is_empty());
        CHECK(slow.refusals == std::vector{Dialer::Refused{Errc::timed_out, UpgradeFailure::none, 0, ""}});
        Dialer& ended = world.make_handler<Dialer>();
        Played ends(world, ended, "HTTP/1.1 101 Sw");
        ends.server->shut_down();
        CHECK(world.is_empty());
        CHECK(ended.refusals ==
              std::vector{Dialer::Refused{Errc::end_of_stream, UpgradeFailure::none, 0, ""}});
        Dialer& reset = world.make_handler<Dialer>();
        Played resets(world, reset, "");
        resets.server->reset();
        CHECK(world.is_empty());
        CHECK(reset.refusals ==
              std::vector{Dialer::Refused{Errc::connection_reset, UpgradeFailure::none, 0, ""}});
      },
      real_kinds());
}

TEST_CASE("a client that nobody listens to is refused, and impossible requests are not sent") {
  in_every_world(
      [](World& world) {
        Fd free = std::move(*net::listen_stream(*net::Address::ip("127.0.0.1", 0)));
        const net::Address nobody = *net::Address::of_socket(free.get());
        free.reset();
        Dialer& dialer = world.make_handler<Dialer>();
        Service& service = world.service(dialer, {}, Role::client);
        int data = 0;
        Connection* connection = service.dial(nobody, {.host = "x", .user_data = &data});
        if (connection != nullptr) CHECK(connection->user_data() == &data);
        CHECK(world.is_empty());
        const bool told = dialer.refusals ==
                          std::vector{Dialer::Refused{Errc::connection_refused, UpgradeFailure::none, 0, ""}};
        CHECK((told || service.last_error().code == Errc::connection_refused));
        CHECK(dialer.connected == 0);
        const HttpField two_lines[] = {{"X-A", "b\r\nEvil: 1"}}, ours[] = {{"Upgrade", "h2c"}};
        for (const DialOptions& bad : {DialOptions{.host = "with space"},
                                       {.host = "x", .target = "/a b"},
                                       {.host = "x", .origin = "http://o\r\nEvil: 1"},
                                       {.host = "x", .fields = two_lines},
                                       {.host = "x", .fields = ours}}) {
          CHECK(service.dial(nobody, bad) == nullptr);
          CHECK(service.last_error().code == Errc::invalid_argument);
        }
      },
      real_kinds());
}

TEST_CASE("a client and a server of the same engine talk") {
  in_every_world(
      [](World& world) {
        Echo& server = world.serve<Echo>({.subprotocols = {"p", "q"}});
        Dialer& dialer = world.make_handler<Dialer>();
        Service& client = world.service(dialer, {.subprotocols = {"q"}}, Role::client);
        dialer.opening = [](Connection& connection) {
          CHECK(connection.subprotocol() == "q");
          CHECK(connection.role() == Role::client);
          for (const std::size_t size : {0u, 10u, 1000u, 100'000u})
            connection.send(Opcode::binary, to_bytes(random_bytes(size)));
          connection.ping(to_bytes("rtt"));
        };
        dialer.ponged = [](Connection& connection) { connection.close(CloseCode::normal, "done"); };
        REQUIRE(client.dial(world.address, {.host = "localhost"}) != nullptr);
        CHECK(world.until([&] { return dialer.closes.size() == 1; }));
        CHECK(world.is_empty());
        REQUIRE(dialer.messages.size() == 4);
        CHECK(dialer.messages[3].payload == random_bytes(100'000));
        CHECK(dialer.pongs == std::vector<std::string>{"rtt"});
        CHECK(dialer.closes[0] == Recorder::Closed{CloseCode::normal, "", ClosedBy::local, Errc::none});
        CHECK(server.closes ==
              std::vector{Recorder::Closed{CloseCode::normal, "done", ClosedBy::peer, Errc::none}});
      },
      real_kinds());
}

TEST_CASE("a trusted proxy says who is connected, in both versions and in any pieces, and others may not") {
  const std::string v1 = "PROXY TCP4 192.0.2.1 198.51.100.2 56324 443\r\n";
  const std::string v2 =
      std::string("\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c\xc0\x00\x02\x01\xc6\x33\x64\x02\xdc\x04\x01\xbb", 28);
  for (const Kind& kind : real_kinds()) {
    CAPTURE(kind.name);
    for (const std::string& header : {v1, v2}) {
      for (std::size_t cut = 0; cut <= header.size(); cut++) {
        CAPTURE(cut);
        World world(kind);
        Recorder& handler = world.serve<Recorder>({.trusted_proxies = "127.0.0.0/8"});
        std::string address;
        handler.opening = [&](Connection& connection) { address = connection.remote_address()->to_string(); };
        Client& client = world.connect();
        client.write(header.substr(0, cut));
        world.settle(2);
        client.write(header.substr(cut) + Client::request() + client_frame(Opcode::ping, "p"));
        CHECK(client.answer().status == 101);
        CHECK(client.frame().payload == "p");
        CHECK(address == "192.0.2.1:56324");
      }
    }
    World world(kind);
    world.serve<Recorder>({.trusted_proxies = "127.0.0.0/8"});
    Client& silent = world.connect();
    silent.write(Client::request());  // a proxy that is trusted must say so
    CHECK(world.until([&] { return silent.ended || silent.was_reset; }));
    world.serve<Recorder>({.trusted_proxies = "10.0.0.0/8"});
    Client& other = world.connect();
    other.write(v1 + Client::request());
    CHECK(other.answer().status == 400);
  }
}
