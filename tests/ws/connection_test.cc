// Connections after their handshake, on every backend: messages, control frames, closing, and peers that
// misbehave.
#include <levada/ws/connection.h>

#include <map>
#include <string>
#include <thread>
#include <vector>

#include <doctest/doctest.h>

#include <levada/tests/support/world.h>
#include <levada/ws/encoder.h>

using namespace levada;
using namespace levada::ws;
using namespace levada::ws::test;

namespace {

constexpr auto text = static_cast<unsigned>(Opcode::text);
constexpr auto binary = static_cast<unsigned>(Opcode::binary);
constexpr auto pong = static_cast<unsigned>(Opcode::pong);

using Message = Recorder::Message;
using Closed = Recorder::Closed;

Frame message(unsigned opcode, std::string payload) {
  return {opcode, std::move(payload)};
}

// Takes pieces instead of messages.
struct Streamer {
  void on_fragment(Connection& connection, Opcode opcode, Bytes piece, bool last) {
    pieces++;
    largest = std::max(largest, piece.size());
    blocks = std::max(blocks, connection.reactor().blocks().bytes_in_use());
    received += to_text(piece);
    if (last) messages.push_back({opcode, std::exchange(received, {})});
    if (echo) connection.send_fragment(opcode, piece, last);
  }
  void on_close(Connection&, const CloseInfo& info) { codes.push_back(info.code); }

  bool echo = false;
  int pieces = 0;
  std::size_t largest = 0, blocks = 0;
  std::string received;
  std::vector<Message> messages;
  std::vector<CloseCode> codes;
};

// What a handler is called for, in which it may do something to its connection.
const char* const handler_names[] = {"open", "message", "ping", "pong", "close"};

void set_hook(Recorder& handler, const std::string& name, std::function<void(Connection&)> hook) {
  if (name == "open") handler.opening = hook;
  if (name == "message")
    handler.receiving = [hook](Connection& connection, Opcode, MutableBytes) { hook(connection); };
  if (name == "ping") handler.pinged = hook;
  if (name == "pong") handler.ponged = hook;
  if (name == "close") handler.closing = hook;
}

}  // namespace

// ---- Messages ----

TEST_CASE("messages of every length are echoed") {
  in_every_world([](World& world) {
    world.serve<Echo>();
    Client& client = world.open();
    const std::vector<std::size_t> sizes = {0,   1,    125,   126,   127,   511,    512,
                                            513, 4096, 65535, 65536, 70000, 200'000};
    for (const std::size_t size : sizes) {
      const std::string payload = random_letters(size, size);
      client.send(Opcode::text, payload).send(Opcode::binary, payload);
      CAPTURE(size);
      CHECK(client.frame() == message(text, payload));
      CHECK(client.frame() == message(binary, payload));
    }
    std::string all;
    for (const std::size_t size : sizes) all += client_frame(Opcode::binary, random_bytes(size, size));
    client.write(all + all);
    for (int i = 0; i < 2; i++) {
      for (const std::size_t size : sizes) CHECK(client.frame() == message(binary, random_bytes(size, size)));
    }
  });
}

TEST_CASE("messages up to 16 MiB are echoed, whole and in fragments of 64 B to 1 MiB") {
  in_every_world(
      [](World& world) {
        world.serve<Echo>({.max_fragments = 1u << 19}).recording = false;
        Client& client = world.open();
        const std::string bytes = random_bytes(std::size_t{16} << 20);
        const auto echoes = [&](std::size_t size, std::size_t fragment) {
          CAPTURE(size);
          CAPTURE(fragment);
          const std::string payload = bytes.substr(bytes.size() - size);
          for (std::size_t at = 0; at < size; at += fragment) {
            client.send(at == 0 ? Opcode::binary : Opcode::continuation, payload.substr(at, fragment),
                        {.fin = at + fragment >= size});
          }
          CHECK(client.frame().payload == payload);
        };
        for (const std::size_t size : {65'536u, 1u << 20, 16u << 20}) echoes(size, size);
        for (const std::size_t fragment : {65'536u, 1u << 20}) echoes(16u << 20, fragment);
        for (const std::size_t fragment : {64u, 1000u, 4096u}) echoes(1u << 20, fragment);
        client.send(Opcode::close, "");
        CHECK(client.is_closed_with(""));
        client.close();
        CHECK(world.is_empty());
      },
      faultless_kinds());
}

TEST_CASE("a large message that comes in tiny pieces is one message") {
  in_every_world([](World& world) {
    world.serve<Echo>().recording = false;
    Client& client = world.open();
    const std::string payload = random_bytes(65'536);
    const std::string wire = client_frame(Opcode::binary, payload);
    for (std::size_t at = 0; at < wire.size(); at += 61) {
      client.write(std::string_view(wire).substr(at, 61));
      world.turn(0);
    }
    CHECK(client.frame() == message(binary, payload));
  });
}

TEST_CASE("thousands of round trips, and thousands of messages in a row, keep their order") {
  in_every_world([](World& world) {
    world.serve<Echo>().recording = false;
    Client& client = world.open();
    for (int i = 0; i < 2000; i++) {
      client.send(Opcode::text, std::to_string(i));
      REQUIRE(client.frame() == message(text, std::to_string(i)));
    }
    std::string burst;
    for (int i = 0; i < 5000; i++) burst += client_frame(Opcode::text, std::to_string(i));
    client.write(burst);
    for (int i = 0; i < 5000; i++) REQUIRE(client.frame() == message(text, std::to_string(i)));
  });
}

TEST_CASE("fragments are joined, and control frames between them are answered first") {
  in_every_world([](World& world) {
    Echo& handler = world.serve<Echo>();
    Client& client = world.open();
    client.send(Opcode::text, "Hel", {.fin = false})
        .send(Opcode::ping, "1")
        .send(Opcode::continuation, "", {.fin = false});
    client.send(Opcode::ping, "2").send(Opcode::continuation, "lo");
    CHECK(client.frame() == message(pong, "1"));
    CHECK(client.frame() == message(pong, "2"));
    CHECK(client.frame() == message(text, "Hello"));
    CHECK(handler.messages == std::vector<Message>{{Opcode::text, "Hello"}});
    CHECK(handler.pings == std::vector<std::string>{"1", "2"});
  });
}

TEST_CASE("many connections at once each get their own") {
  in_every_world([](World& world) {
    world.serve<Echo>().recording = false;
    std::vector<Client*> clients;
    for (int i = 0; i < 50; i++) clients.push_back(&world.open());
    for (int round = 0; round < 5; round++) {
      for (std::size_t i = 0; i < clients.size(); i++) {
        clients[i]->send(Opcode::binary, random_bytes(i * 300, i)).send(Opcode::text, std::to_string(i));
      }
      for (std::size_t i = 0; i < clients.size(); i++) {
        REQUIRE(clients[i]->frame() == message(binary, random_bytes(i * 300, i)));
        REQUIRE(clients[i]->frame() == message(text, std::to_string(i)));
      }
    }
  });
}

TEST_CASE("interleaved fragments of many connections stay apart") {
  in_every_world([](World& world) {
    world.serve<Echo>();
    std::vector<Client*> clients;
    for (int i = 0; i < 10; i++) clients.push_back(&world.open());
    for (int piece = 0; piece < 20; piece++) {
      for (std::size_t i = 0; i < clients.size(); i++) {
        clients[i]->send(piece == 0 ? Opcode::binary : Opcode::continuation,
                         random_bytes(1000, i * 100 + static_cast<std::size_t>(piece)), {.fin = piece == 19});
      }
      world.turn();
    }
    for (std::size_t i = 0; i < clients.size(); i++) {
      std::string expected;
      for (std::size_t piece = 0; piece < 20; piece++) expected += random_bytes(1000, i * 100 + piece);
      CHECK(clients[i]->frame() == message(binary, expected));
    }
  });
}

TEST_CASE("a frame that trickles in octet by octet is one message") {
  in_every_world([](World& world) {
    world.serve<Echo>();
    Client& client = world.open();
    const std::string wire =
        client_frame(Opcode::text, random_letters(300)) + client_frame(Opcode::ping, "x");
    for (const char byte : wire) {
      client.write({&byte, 1});
      world.turn(0);
    }
    CHECK(client.frame() == message(text, random_letters(300)));
    CHECK(client.frame() == message(pong, "x"));
  });
}

TEST_CASE("streamed messages come in pieces and take no memory") {
  in_every_world([](World& world) {
    Streamer& handler = world.serve<Streamer>({.max_message_bytes = 1 << 22});
    Client& client = world.open();
    const std::string payload = random_bytes(3'000'000);
    const std::size_t before = world.reactor().blocks().bytes_in_use();
    client.send(Opcode::binary, payload);
    client.send(Opcode::text, "ab", {.fin = false}).send(Opcode::ping, "p").send(Opcode::continuation, "cd");
    client.send(Opcode::text, "");
    CHECK(client.frame() == message(pong, "p"));
    REQUIRE(world.until([&] { return handler.messages.size() == 3; }));
    CHECK((handler.messages[0] == Message{Opcode::binary, payload}));
    CHECK((handler.messages[1] == Message{Opcode::text, "abcd"}));
    CHECK((handler.messages[2] == Message{Opcode::text, ""}));
    CHECK(handler.pieces > 5);
    CHECK(handler.blocks < before + 1'500'000);
  });
}

TEST_CASE("a streamed echo sends each piece as a fragment") {
  in_every_world([](World& world) {
    world.serve<Streamer>().echo = true;
    Client& client = world.open();
    const std::string payload = random_letters(200'000);
    client.send(Opcode::text, payload);
    std::string got;
    for (bool first = true;; first = false) {
      const Frame frame = client.frame();
      CHECK(frame.opcode == (first ? text : 0));
      got += frame.payload;
      if (frame.fin) break;
    }
    CHECK(got == payload);
  });
}

// ---- Pings ----

TEST_CASE("pings of every length are answered one by one, in order and with the same bytes") {
  in_every_world([](World& world) {
    Echo& handler = world.serve<Echo>();
    Client& client = world.open();
    for (std::size_t size = 0; size <= 125; size++) client.send(Opcode::ping, random_bytes(size, size));
    for (std::size_t size = 0; size <= 125; size++)
      CHECK(client.frame() == message(pong, random_bytes(size, size)));
    CHECK(handler.pings.size() == 126);
    client.send(Opcode::pong, "unasked").send(Opcode::text, "still here");
    CHECK(client.frame() == message(text, "still here"));
    CHECK(handler.pongs == std::vector<std::string>{"unasked"});
  });
}

TEST_CASE("pings are not answered when that is switched off") {
  in_every_world([](World& world) {
    Echo& handler = world.serve<Echo>({.auto_pong = false});
    Client& client = world.open();
    client.send(Opcode::ping, "a").send(Opcode::text, "b");
    CHECK(client.frame() == message(text, "b"));
    CHECK(handler.pings == std::vector<std::string>{"a"});
    handler.pinged = [](Connection& connection) { connection.pong(to_bytes("mine")); };
    client.send(Opcode::ping, "c");
    CHECK(client.frame() == message(pong, "mine"));
  });
}

TEST_CASE("a handler sees a ping before it is answered") {
  in_every_world([](World& world) {
    world.serve<Echo>().pinged = [](Connection& connection) { connection.send_text("first"); };
    Client& client = world.open();
    client.send(Opcode::ping, "second");
    CHECK(client.frame() == message(text, "first"));
    CHECK(client.frame() == message(pong, "second"));
  });
}

// ---- Closing ----

TEST_CASE("a close of the peer is answered with its code, and the server ends the connection") {
  in_every_world([](World& world) {
    Echo& handler = world.serve<Echo>();
    for (const unsigned code : {1000u, 1001u, 1002u, 1003u, 1007u, 1011u, 1014u, 3000u, 4999u}) {
      Client& client = world.open();
      client.send(Opcode::text, "last").send(Opcode::close, close_payload(code, "why \xe2\x82\xac"));
      CHECK(client.frame() == message(text, "last"));
      CHECK(client.is_closed_with(close_payload(code)));
      REQUIRE(handler.closes.size() == 1);
      CHECK((handler.closes[0] ==
             Closed{static_cast<CloseCode>(code), "why \xe2\x82\xac", ClosedBy::peer, Errc::none}));
      handler.closes.clear();
      client.close();
    }
    Client& client = world.open();
    client.send(Opcode::close, "");
    CHECK(client.is_closed_with(""));
    client.close();
    CHECK(world.is_empty());
    CHECK(handler.closes == std::vector{Closed{CloseCode::no_status, "", ClosedBy::peer, Errc::none}});
    CHECK(handler.opened == 10);
  });
}

TEST_CASE("everything after the peer's close is ignored") {
  in_every_world([](World& world) {
    Echo& handler = world.serve<Echo>();
    Client& client = world.open();
    client.write(client_frame(Opcode::close, close_payload(1000)) + client_frame(Opcode::text, "late") +
                 client_frame(Opcode::ping, "late") + client_frame(Opcode::close, close_payload(1001)) +
                 "garbage");
    CHECK(client.is_closed_with(close_payload(1000)));
    client.write(client_frame(Opcode::text, "later"));
    world.settle();
    CHECK(!client.was_reset);
    client.close();
    CHECK(world.is_empty());
    CHECK(handler.messages.empty());
    CHECK(handler.pings.empty());
    CHECK(handler.closes.size() == 1);
  });
}

TEST_CASE("a close of our own waits for the peer's, then ends") {
  in_every_world([](World& world) {
    Echo& handler = world.serve<Echo>();
    handler.receiving = [](Connection& connection, Opcode, MutableBytes) {
      connection.send_text("before");
      connection.close(CloseCode::going_away, "so long");
      CHECK(!connection.is_open());
      CHECK(connection.send_text("after") == SendStatus::closed);
      CHECK(connection.ping() == SendStatus::closed);
      connection.close(CloseCode::normal);  // the first one counts
    };
    Client& client = world.open();
    client.send(Opcode::text, "go").send(Opcode::text, "not delivered").send(Opcode::ping, "not answered");
    CHECK(client.frame() == message(text, "before"));
    CHECK(client.frame() == message(8, close_payload(1001, "so long")));
    world.settle();
    CHECK(!client.ended);
    CHECK(handler.closes.empty());
    client.send(Opcode::close, close_payload(4000, "you too"));
    CHECK(client.reaches_end());
    client.close();
    CHECK(world.is_empty());
    CHECK(handler.closes ==
          std::vector{Closed{static_cast<CloseCode>(4000), "you too", ClosedBy::local, Errc::none}});
    CHECK(handler.messages.size() == 1);
    CHECK(handler.pings.empty());
  });
}

TEST_CASE("a connection that is paused still reads the answer to its close") {
  in_every_world([](World& world) {
    Recorder& handler = world.serve<Recorder>({.close_timeout_ms = 60'000});
    handler.opening = [](Connection& connection) { connection.pause(); };
    Client& client = world.open();
    client.send(Opcode::text, "not read");
    world.settle();
    handler.last.close(CloseCode::going_away);
    CHECK(client.frame() == message(8, close_payload(1001)));
    client.send(Opcode::close, close_payload(1001));
    CHECK(client.reaches_end());
    client.close();
    CHECK(world.is_empty());
    CHECK(handler.closes == std::vector{Closed{CloseCode::going_away, "", ClosedBy::local, Errc::none}});
  });
}

TEST_CASE("a peer that does not answer a close is dropped after the timeout") {
  in_every_world([](World& world) {
    Echo& handler = world.serve<Echo>({.close_timeout_ms = 30});
    handler.opening = [](Connection& connection) { connection.close(); };
    Client& client = world.open();
    CHECK(client.frame() == message(8, close_payload(1000)));
    CHECK(client.reaches_end());
    CHECK(world.is_empty());
    CHECK(handler.closes ==
          std::vector{Closed{CloseCode::abnormal, "", ClosedBy::transport, Errc::timed_out}});
  });
}

TEST_CASE("a peer that does not end TCP after the close is dropped after the timeout") {
  in_every_world([](World& world) {
    Echo& handler = world.serve<Echo>({.close_timeout_ms = 30});
    Client& client = world.open();
    client.send(Opcode::close, close_payload(1000));
    CHECK(client.is_closed_with(close_payload(1000)));
    CHECK(world.is_empty());
    CHECK(handler.closes.size() == 1);
  });
}

TEST_CASE("both sides may close at the same time") {
  in_every_world([](World& world) {
    Echo& handler = world.serve<Echo>();
    Client& client = world.open();
    REQUIRE(world.until([&] { return handler.opened == 1; }));
    handler.last.close(CloseCode::going_away);
    client.send(Opcode::close, close_payload(1000));
    const Frame last = client.frame();
    CHECK(last.opcode == 8);
    CHECK(client.reaches_end());
    client.close();
    CHECK(world.is_empty());
    CHECK(handler.closes.size() == 1);
  });
}

TEST_CASE("the end of TCP without a close is reported as 1006") {
  in_every_world([](World& world) {
    Echo& handler = world.serve<Echo>();
    for (const std::string& before : {std::string(), client_frame(Opcode::text, "half").substr(0, 8),
                                      client_frame(Opcode::text, "half", {.fin = false})}) {
      Client& client = world.open();
      client.write(before);
      client.shut_down();
      CHECK(world.until([&] { return client.ended || client.was_reset; }));
      client.close();
      CHECK(world.is_empty());
      CHECK(handler.closes ==
            std::vector{Closed{CloseCode::abnormal, "", ClosedBy::transport, Errc::end_of_stream}});
      handler.closes.clear();
    }
  });
}

TEST_CASE("what was asked before the end of TCP is still answered") {
  in_every_world([](World& world) {
    world.serve<Echo>();
    Client& client = world.open();
    const std::string payload = random_letters(1'000'000);
    client.send(Opcode::text, payload).send(Opcode::text, "last");
    REQUIRE(world.until([&] { return client.unsent() == 0; }));
    client.shut_down();
    CHECK(client.frame().payload == payload);
    CHECK(client.frame() == message(text, "last"));
    CHECK(client.reaches_end());
    client.close();
    CHECK(world.is_empty());
  });
}

TEST_CASE("in on_close nothing can be sent any more") {
  in_every_world([](World& world) {
    Echo& handler = world.serve<Echo>({.close_timeout_ms = 30});
    static std::vector<bool> results;
    results.clear();
    handler.closing = [](Connection& connection) {
      results.push_back(connection.is_open() || connection.send_text("no") != SendStatus::closed);
      connection.close();
    };
    world.open().send(Opcode::close, close_payload(1000));  // by the peer
    Client& ends = world.open();
    ends.shut_down();
    Client& breaks = world.open();
    breaks.send(static_cast<Opcode>(3), "");
    Client& resets = world.open();
    REQUIRE(world.until([&] { return handler.opened == 4; }));
    resets.reset();
    REQUIRE(world.until([&] { return results.size() == 4; }));
    CHECK(results == std::vector<bool>(4, false));
    CHECK(ends.reaches_end());
    CHECK(ends.in.empty());
  });
}

TEST_CASE("terminate and close may be called in each handler, and on_close comes once for each on_open") {
  in_every_world([](World& world) {
    for (const bool terminate : {true, false}) {
      for (const std::string name : handler_names) {
        CAPTURE(name);
        CAPTURE(terminate);
        Echo& handler = world.serve<Echo>({.close_timeout_ms = 30});
        set_hook(handler, name, [terminate](Connection& connection) {
          if (terminate) connection.terminate();
          connection.close();
          connection.terminate();
        });
        if (!terminate) set_hook(handler, name, [](Connection& connection) { connection.close(); });
        Client& client = world.connect();
        client.write(Client::request() + client_frame(Opcode::ping, "p") + client_frame(Opcode::pong, "q") +
                     client_frame(Opcode::text, "hello") + client_frame(Opcode::close, close_payload(1000)));
        REQUIRE(world.until([&] { return client.ended || client.was_reset; }));
        client.close();
        CHECK(world.is_empty());
        CHECK(handler.opened == 1);
        CHECK(handler.closes.size() == 1);
      }
    }
  });
}

TEST_CASE("a reset at any moment ends the connection and nobody else's") {
  in_every_world([](World& world) {
    Echo& handler = world.serve<Echo>();
    Client& witness = world.open();
    const std::string wire = Client::request() + client_frame(Opcode::text, "one") +
                             client_frame(Opcode::binary, random_bytes(300), {.fin = false}) +
                             client_frame(Opcode::continuation, random_bytes(30)) +
                             client_frame(Opcode::close, close_payload(1000));
    for (std::size_t size = 0; size <= wire.size(); size += size < 60 ? 20 : 7) {
      Client& client = world.connect();
      client.write(wire.substr(0, size));
      world.turn(0);
      client.reset();
      world.turn(0);
    }
    REQUIRE(world.until([&] { return world.last_service().connections() == 1; }));
    CHECK(handler.closes.size() == static_cast<std::size_t>(handler.opened - 1));
    witness.send(Opcode::text, "alive");
    CHECK(witness.frame() == message(text, "alive"));
  });
}

TEST_CASE("a reset is reported") {
  in_every_world([](World& world) {
    Echo& handler = world.serve<Echo>();
    Client& client = world.open();
    REQUIRE(world.until([&] { return handler.opened == 1; }));
    client.reset();
    CHECK(world.is_empty());
    CHECK(handler.closes ==
          std::vector{Closed{CloseCode::abnormal, "", ClosedBy::transport, Errc::connection_reset}});
  });
}

// ---- Broken rules ----

TEST_CASE("a broken rule is answered with its code, after what came before it, and the end of TCP") {
  struct Case {
    std::string wire;
    unsigned code;
    std::string reason;
  };
  const std::string bad_text = "\xce\xba\xff";
  const std::vector<Case> cases = {
      {raw_frame(2, "x", false), 1002, "not_masked"},
      {raw_frame(2, "x", true, {.rsv = 4}), 1002, "reserved_bits"},
      {raw_frame(2, "x", true, {.rsv = 2}), 1002, "reserved_bits"},
      {raw_frame(2, "x", true, {.rsv = 1}), 1002, "reserved_bits"},
      {raw_frame(3, "x", true), 1002, "reserved_opcode"},
      {raw_frame(11, "x", true), 1002, "reserved_opcode"},
      {raw_frame(9, std::string(126, 'x'), true), 1002, "control_too_long"},
      {raw_frame(9, "x", true, {.fin = false}), 1002, "control_fragmented"},
      {raw_frame(0, "x", true), 1002, "nothing_to_continue"},
      {raw_frame(1, "x", true, {.fin = false}) + raw_frame(1, "y", true), 1002, "message_not_finished"},
      {raw_frame(2, "x", true, {.length_bytes = 2}), 1002, "length_not_minimal"},
      {raw_frame(2, "x", true, {.length_bytes = 8}), 1002, "length_not_minimal"},
      {raw_frame(2, "x", true, {.length_bytes = 8, .length = 1ull << 63}), 1002, "length_too_large"},
      {raw_frame(8, "x", true), 1002, "bad_close_payload"},
      {raw_frame(8, close_payload(1005), true), 1002, "bad_close_code"},
      {raw_frame(8, close_payload(1000, "\xff"), true), 1007, "bad_text"},
      {raw_frame(1, bad_text, true), 1007, "bad_text"},
      {raw_frame(1, bad_text, true, {.length = 900}), 1007, "bad_text"},
      {raw_frame(1, "\xe2\x82", true, {.fin = false}) + raw_frame(0, "x", true), 1007, "bad_text"},
      {raw_frame(2, "", true, {.length = 1001}), 1009, "message_too_big"},
      {raw_frame(2, std::string(600, 'x'), true, {.fin = false}) + raw_frame(0, "", true, {.length = 401}),
       1009, "message_too_big"},
      {raw_frame(2, "", true, {.fin = false}) + raw_frame(0, "", true, {.fin = false}) +
           raw_frame(0, "", true, {.fin = false}) + raw_frame(0, "", true),
       1008, "too_many_fragments"},
  };
  in_every_world([&](World& world) {
    Echo& handler = world.serve<Echo>({.max_message_bytes = 1000, .max_fragments = 3});
    for (const Case& broken : cases) {
      CAPTURE(broken.reason);
      handler.closes.clear();
      Client& client = world.open();
      client.write(client_frame(Opcode::text, "before") + client_frame(Opcode::ping, "p") + broken.wire +
                   client_frame(Opcode::text, "after") + client_frame(Opcode::ping, "after"));
      CHECK(client.frame() == message(text, "before"));
      CHECK(client.frame() == message(pong, "p"));
      CHECK(client.is_closed_with(close_payload(broken.code)));
      CHECK(handler.closes == std::vector{Closed{static_cast<CloseCode>(broken.code), broken.reason,
                                                 ClosedBy::local, Errc::protocol}});
      client.close();
      CHECK(world.is_empty());
    }
  });
}

TEST_CASE("what a connection has left unfinished when it fails is not another one's") {
  in_every_world([](World& world) {
    world.serve<Echo>();
    Client& good = world.open();
    Client& bad = world.open();
    bad.write(client_frame(Opcode::text, "Hel", {.fin = false}) + raw_frame(3, "", true));
    CHECK(bad.is_closed_with(close_payload(1002)));
    good.send(Opcode::text, "hello");
    CHECK(good.frame() == message(text, "hello"));
    good.send(Opcode::continuation, "lo");
    CHECK(good.is_closed_with(close_payload(1002)));
  });
}

TEST_CASE("a broken rule after our own close ends the connection without a second close") {
  in_every_world([](World& world) {
    Echo& handler = world.serve<Echo>();
    handler.opening = [](Connection& connection) { connection.close(); };
    Client& client = world.open();
    CHECK(client.frame() == message(8, close_payload(1000)));
    client.write(raw_frame(3, "", true));
    CHECK(client.reaches_end());
    client.close();
    CHECK(world.is_empty());
    REQUIRE(handler.closes.size() == 1);
    CHECK(handler.closes[0].code == CloseCode::protocol_error);
  });
}

TEST_CASE("a message that breaks a limit at its header takes no memory") {
  in_every_world([](World& world) {
    world.serve<Echo>();
    Client& client = world.open();
    const std::size_t before = world.reactor().blocks().bytes_in_use();
    client.write(raw_frame(2, "", true, {.length = (16u << 20) + 1}));
    CHECK(client.is_closed_with(close_payload(1009)));
    CHECK(world.reactor().blocks().bytes_in_use() <= before + 70'000);
  });
}

// ---- Peers that do not read ----

TEST_CASE("a peer that sends and never reads is paused, and nothing is lost when it reads again") {
  in_every_world([](World& world) {
    Echo& handler = world.serve<Echo>({.pause_above_bytes = 100'000});
    handler.recording = false;
    Client& client = world.open();
    client.reading = false;
    std::string wire, answers;
    for (std::uint64_t i = 0; i < 1500; i++) {
      wire += client_frame(Opcode::binary, random_bytes(10'000, i));
      answers += server_frame(Opcode::binary, random_bytes(10'000, i));
    }
    client.write(wire);
    std::size_t before = 0;
    for (int same = 0; same < 20; same = client.unsent() == before ? same + 1 : 0) {
      before = client.unsent();
      world.turn();
    }
    CHECK(client.unsent() > 1'000'000);  // the engine has stopped taking it
    REQUIRE(handler.last.get() != nullptr);
    CHECK(handler.last.get()->paused());
    CHECK(handler.last.get()->buffered() > 100'000);
    CHECK(handler.last.get()->buffered() < 3'000'000);
    Client& other = world.open();  // others are served meanwhile
    other.send(Opcode::text, "hi");
    CHECK(other.frame() == message(text, "hi"));
    client.reading = true;
    CHECK(world.until([&] { return client.in.size() >= answers.size(); }));
    CHECK((client.in == answers));
    CHECK(handler.drained > 0);
  });
}

TEST_CASE("a close is answered in time although the peer does not read, and the timeout ends it") {
  in_every_world([](World& world) {
    Recorder& handler = world.serve<Recorder>({.close_timeout_ms = 30});
    handler.receiving = [](Connection& connection, Opcode, MutableBytes) {
      for (int i = 0; i < 400; i++) connection.send(Opcode::binary, to_bytes(random_bytes(50'000)));
      connection.close();
    };
    Client& client = world.open();
    client.reading = false;
    client.send(Opcode::text, "go");
    REQUIRE(world.until([&] { return handler.closes.size() == 1; }));
    CHECK(handler.closes[0].error == Errc::timed_out);
    client.close();
    CHECK(world.is_empty());
  });
}

// ---- Handles and other threads ----

TEST_CASE("handles send, close and run from other threads, and say so when the connection is gone") {
  in_every_world([](World& world) {
    Echo& handler = world.serve<Echo>();
    static std::vector<SendStatus> results;
    results.clear();
    const auto result = [](Handle, SendStatus status) { results.push_back(status); };
    Client& client = world.open();
    REQUIRE(world.until([&] { return handler.opened == 1; }));
    const Handle handle = handler.last;
    const std::string payload = random_letters(1000);
    std::thread([&] {
      std::string copied = payload;
      handle.send(Opcode::text, to_bytes(copied), result);
      copied.assign(copied.size(), 'x');
      handle.send(PreparedMessage(Opcode::binary, to_bytes("prepared")), result);
      handle.run([](Connection* connection) { connection->send_text("run"); });
      handle.close(CloseCode::going_away);
      handle.send(Opcode::text, to_bytes("too late"), result);
    }).join();
    CHECK(client.frame() == message(text, payload));
    CHECK(client.frame() == message(binary, "prepared"));
    CHECK(client.frame() == message(text, "run"));
    CHECK(client.frame() == message(8, close_payload(1001)));
    client.send(Opcode::close, close_payload(1001));
    CHECK(client.reaches_end());
    client.close();
    CHECK(world.is_empty());
    bool ran = false;
    std::thread([&] {
      handle.send(Opcode::text, to_bytes("dead"), result);
      handle.close();
      handle.run([&ran](Connection* connection) { ran = connection == nullptr; });
    }).join();
    REQUIRE(world.until([&] { return ran; }));
    CHECK(handle.get() == nullptr);
    CHECK(results ==
          std::vector{SendStatus::queued, SendStatus::queued, SendStatus::closed, SendStatus::closed});
    Client& next = world.open();  // in the same slot, but another connection
    handle.send(Opcode::text, to_bytes("not for you"), result);
    next.send(Opcode::text, "mine");
    CHECK(next.frame() == message(text, "mine"));
    CHECK(!(handler.last == handle));
  });
}

TEST_CASE("a handle of a client's connection sends masked") {
  in_every_world([](World& world) {
    Echo& handler = world.make_handler<Echo>();
    Service& service = world.service(handler, {}, Role::client);
    auto [fd, client] = world.pair();
    const Handle handle = service.adopt_upgraded(std::move(fd))->handle();
    handle.send(Opcode::text, to_bytes("from a handle"));
    const Frame frame = client->frame();
    CHECK(frame.masked);
    CHECK(frame.payload == "from a handle");
    CHECK(frame.opcode == text);
  });
}

TEST_CASE("user data, role, subprotocol and descriptor are the connection's own") {
  in_every_world([](World& world) {
    Echo& handler = world.serve<Echo>();
    int value = 0;
    handler.opening = [&](Connection& connection) {
      CHECK(connection.user_data() == nullptr);
      connection.set_user_data(&value);
      CHECK(connection.is_open());
      CHECK(connection.role() == Role::server);
      CHECK(connection.subprotocol().empty());
      CHECK(connection.native_fd() >= 0);
      CHECK(connection.handle().get() == &connection);
      CHECK(&connection.service() == &world.last_service());
    };
    handler.receiving = [&](Connection& connection, Opcode, MutableBytes) {
      ++*static_cast<int*>(connection.user_data());
      connection.send_text("ok");
    };
    Client& client = world.open();
    client.send(Opcode::text, "x");
    client.frame();
    CHECK(value == 1);
  });
}

// ---- The client's side ----

TEST_CASE("a client masks every frame with a key of its own") {
  in_every_world([](World& world) {
    Echo& handler = world.make_handler<Echo>();
    Service& service = world.service(handler, {}, Role::client);
    auto [fd, peer] = world.pair();
    Connection* connection = service.adopt_upgraded(std::move(fd));
    peer->masks = false;
    std::map<std::string, int> keys;
    for (int i = 0; i < 20; i++) connection->send(Opcode::binary, Bytes(std::vector<std::uint8_t>(64)));
    REQUIRE(world.until([&peer = peer] { return peer->in.size() == 20 * 70; }));
    for (std::size_t i = 0; i < 20; i++) keys[peer->in.substr(i * 70 + 2, 4)]++;
    CHECK(keys.size() == 20);
    peer->in.clear();
    for (const std::size_t size : {0u, 100u, 1000u, 100'000u}) {
      peer->send(Opcode::binary, random_bytes(size));
      const Frame frame = peer->frame();
      CHECK(frame.masked);
      CHECK(frame.payload == random_bytes(size));
    }
    const Bytes parts[] = {to_bytes("a"), to_bytes("bcdef"), to_bytes("gh")};
    connection->send(Opcode::text, parts);
    CHECK(peer->frame().payload == "abcdefgh");
    peer->send(Opcode::ping, "p");
    CHECK(peer->frame().payload == "p");
  });
}

TEST_CASE("a client refuses masked frames with 1002") {
  in_every_world([](World& world) {
    Echo& handler = world.make_handler<Echo>();
    Service& service = world.service(handler, {}, Role::client);
    auto [fd, peer] = world.pair();
    service.adopt_upgraded(std::move(fd));
    peer->send(Opcode::text, "masked");
    CHECK(peer->frame().payload == close_payload(1002));
    world.settle();
    CHECK(!peer->ended);  // the server ends TCP
    CHECK(service.connections() == 1);
    peer->shut_down();
    CHECK(peer->reaches_end());
    CHECK(world.is_empty());
    REQUIRE(handler.closes.size() == 1);
    CHECK(handler.closes[0].reason == "masked");
  });
}

TEST_CASE("a client lets the server end TCP after the close handshake") {
  in_every_world([](World& world) {
    for (const bool client_begins : {true, false}) {
      Echo& handler = world.make_handler<Echo>();
      Service& service = world.service(handler, {}, Role::client);
      auto [fd, peer] = world.pair();
      peer->masks = false;
      Connection* connection = service.adopt_upgraded(std::move(fd));
      if (client_begins) {
        connection->close(CloseCode::normal, "bye");
        CHECK(peer->frame().payload == close_payload(1000, "bye"));
        peer->send(Opcode::close, close_payload(1000));
      } else {
        peer->send(Opcode::close, close_payload(1000));
        CHECK(peer->frame().payload == close_payload(1000));
      }
      world.settle();
      CHECK(!peer->ended);
      CHECK(service.connections() == 1);
      REQUIRE(handler.closes.size() == 1);
      peer->shut_down();
      CHECK(peer->reaches_end());
      CHECK(world.is_empty());
    }
  });
}

TEST_CASE("a client whose server does not end TCP gives up after the timeout") {
  in_every_world([](World& world) {
    Echo& handler = world.make_handler<Echo>();
    Service& service = world.service(handler, {.close_timeout_ms = 30}, Role::client);
    auto [fd, peer] = world.pair();
    peer->masks = false;
    service.adopt_upgraded(std::move(fd));
    peer->send(Opcode::close, close_payload(1000));
    CHECK(world.is_empty());
    CHECK(handler.closes.size() == 1);
  });
}

// ---- Failures of the system ----

TEST_CASE("whichever operation of the system fails, every on_open has its on_close and nothing is left") {
  const auto run = [](std::uint64_t failing) {
    Kind kind{"simulated", net::BackendKind::simulated, {.receive_bytes = 2000, .window_bytes = 3000}};
    kind.simulation.failing_operation = failing;
    World world(kind);
    Echo& handler = world.serve<Echo>({.close_timeout_ms = 30});
    Client& client = world.connect();
    client.upgrade().send(Opcode::text, random_letters(10'000)).send(Opcode::ping, "p");
    client.send(Opcode::binary, random_bytes(5000), {.fin = false}).send(Opcode::continuation, "end");
    client.send(Opcode::close, close_payload(1000));
    const bool ends = world.until([&] { return client.ended || client.was_reset; });
    client.close();
    CHECK(ends);
    CHECK(world.is_empty());
    CHECK(handler.closes.size() == static_cast<std::size_t>(handler.opened));
    return world.simulation().operations();
  };
  const std::uint64_t operations = run(0);
  CHECK(operations > 10);
  for (std::uint64_t failing = 2; failing <= operations; failing++) {  // the first is listening
    CAPTURE(failing);
    run(failing);
  }
}
