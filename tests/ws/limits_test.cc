// Each bound of ServiceOptions on what a peer sends: one under it, at it, and one over it, on the wire, with the exact
// code. Those in time are tests of deadlines, those of what is queued tests of sending.
#include <levada/ws/service.h>

#include <string>
#include <utility>
#include <vector>

#include <doctest/doctest.h>

#include <levada/tests/support/world.h>

using namespace levada;
using namespace levada::ws;
using namespace levada::ws::test;

namespace {

using Closed = Recorder::Closed;

// What a peer says so that it comes to `size` in the measure of a limit; masked or not.
using Say = std::string (*)(std::size_t size, bool masks);

struct Limit {
  const char* name;
  ServiceOptions options;  // with a limit of 20
  Say say;
  unsigned code;
  const char* reason;
};

std::string one_frame(std::size_t size, bool masks) {
  return raw_frame(2, std::string(size, 'x'), masks);
}

std::string in_fragments(std::size_t size, bool masks) {
  return raw_frame(2, std::string(size / 2, 'x'), masks, {.fin = false}) +
         raw_frame(0, std::string(size - size / 2, 'y'), masks);
}

std::string many_fragments(std::size_t count, bool masks) {
  std::string wire = raw_frame(1, "x", masks, {.fin = false});
  for (std::size_t i = 2; i < count; i++) wire += raw_frame(0, "x", masks, {.fin = false});
  return wire + raw_frame(0, "x", masks);
}

std::string many_controls(std::size_t count, bool masks) {
  std::string wire;
  for (std::size_t i = 0; i < count; i++) wire += raw_frame(i % 2 == 0 ? 10 : 9, "c", masks);
  return wire + raw_frame(1, "done", masks);
}

const Limit limits[] = {
    {"max_message_bytes, one frame", {.max_message_bytes = 20}, one_frame, 1009, "message_too_big"},
    {"max_message_bytes, fragments", {.max_message_bytes = 20}, in_fragments, 1009, "message_too_big"},
    {"max_fragments", {.max_fragments = 20}, many_fragments, 1008, "too_many_fragments"},
    {"max_controls_per_s", {.max_controls_per_s = 20}, many_controls, 1008, "too_many_controls"},
};

// A handler that takes pieces; a message is what came until the last one.
struct Pieces {
  void on_open(Connection& connection) { last = connection.handle(); }
  void on_fragment(Connection&, Opcode opcode, Bytes piece, bool is_last) {
    text += to_text(piece);
    if (is_last) messages.push_back({opcode, std::exchange(text, {})});
  }
  void on_close(Connection&, const CloseInfo& info) {
    closes.push_back({info.code, std::string(info.reason), info.by, info.error.code});
  }

  Handle last;
  std::string text;
  std::vector<Recorder::Message> messages;
  std::vector<Closed> closes;
};

// All of it is taken, or answered with the limit's code.
template <class H>
void check_limit(World& world, const H& handler, Client& client, const Limit& limit, std::size_t size) {
  client.write(limit.say(size, client.masks));
  if (size <= 20) {
    REQUIRE(world.until([&] { return handler.messages.size() == 1 || !handler.closes.empty(); }));
    CHECK(handler.messages.size() == 1);
    CHECK(handler.last.get()->is_open());
    return;
  }
  CHECK(client.frames_until(Opcode::close).back().payload == close_payload(limit.code));
  CHECK(handler.messages.empty());
  CHECK(handler.closes == std::vector{Closed{static_cast<CloseCode>(limit.code), limit.reason,
                                             ClosedBy::local, Errc::protocol}});
}

// Calls `test(world, limit, size)` for each limit, one under it, at it and one over it, in every world.
template <class Test>
void at_every_limit(Test&& test) {
  for (const Limit& limit : limits) {
    CAPTURE(limit.name);
    for (const std::size_t size : {19u, 20u, 21u}) {
      CAPTURE(size);
      in_every_world([&](World& world) {
        // Each second has a count of control frames of its own: where it goes by itself, it is to have just begun.
        if (limit.options.max_controls_per_s != 0 && !world.kind().simulated())
          REQUIRE(world.until([&] { return world.reactor().now_ms() % 1000 < 500; }));
        test(world, limit, size);
      });
    }
  }
}

}  // namespace

TEST_CASE("what a peer may send is taken up to its limit, and one more is closed with the limit's code") {
  at_every_limit([](World& world, const Limit& limit, std::size_t size) {
    Recorder& handler = world.serve<Recorder>(limit.options);
    Client& client = world.open();
    check_limit(world, handler, client, limit, size);
  });
}

TEST_CASE("the same for a handler that takes pieces") {
  at_every_limit([](World& world, const Limit& limit, std::size_t size) {
    Pieces& handler = world.serve<Pieces>(limit.options);
    Client& client = world.open();
    check_limit(world, handler, client, limit, size);
  });
}

TEST_CASE("the same for a client, of its server") {
  at_every_limit([](World& world, const Limit& limit, std::size_t size) {
    Recorder& handler = world.make_handler<Recorder>();
    auto [fd, server] = world.pair();
    server->masks = false;
    REQUIRE(world.service(handler, limit.options, Role::client).adopt_upgraded(std::move(fd)) != nullptr);
    check_limit(world, handler, *server, limit, size);
  });
}

TEST_CASE("a request's head is taken up to its limits, and one byte or field more gets 431") {
  const std::size_t bytes = Client::request("/", "X: \r\n").size();
  for (const std::size_t more : {19u, 20u, 21u}) {
    CAPTURE(more);
    in_every_world([&](World& world) {
      world.serve<Echo>({.http = {.max_bytes = bytes + 20}});
      Client& client = world.connect();
      client.upgrade("/", "X: " + std::string(more, 'x') + "\r\n");
      CHECK(client.answer().status == (more <= 20 ? 101 : 431));
    });
  }
  for (const int more : {4, 5, 6}) {  // beside the 5 of every handshake
    CAPTURE(more);
    in_every_world([&](World& world) {
      world.serve<Echo>({.http = {.max_fields = 10}});
      std::string fields;
      for (int i = 0; i < more; i++) fields += "X-" + std::to_string(i) + ": y\r\n";
      Client& client = world.connect();
      client.upgrade("/", fields);
      CHECK(client.answer().status == (more <= 5 ? 101 : 431));
    });
  }
}

TEST_CASE("a request line that is within the bound on the head is read on, and one that is not gets 414") {
  const std::string line = "GET /" + std::string(200, 'a') + " HTTP/1.1\r\n";
  const std::string rest = Client::request().substr(Client::request().find("\r\n") + 2);
  for (const std::size_t more :
       {0u, 1u, 2u}) {  // the line's end is one byte beyond the bound, at it, and before it
    CAPTURE(more);
    in_every_world([&](World& world) {
      world.serve<Echo>({.http = {.max_bytes = line.size() - 1 + more}});
      Client& client = world.connect();
      client.write(line + rest);
      CHECK(client.answer().status == (more == 0 ? 414 : 431));
    });
  }
}

TEST_CASE("subprotocols beyond the 255th are left out") {
  World world({"simulated", net::BackendKind::simulated});
  std::vector<std::string> names;
  for (int i = 1; i <= 257; i++) names.push_back("p" + std::to_string(i));
  Recorder& handler = world.serve<Recorder>({.subprotocols = names});
  for (const int number : {1, 254, 255, 256, 257}) {
    const std::string name = "p" + std::to_string(number);
    Client& client = world.connect();
    client.upgrade("/", "Sec-WebSocket-Protocol: " + name + "\r\n");
    const Answer answer = client.answer();
    CHECK(answer.status == 101);
    CHECK(answer.has("Sec-WebSocket-Protocol: " + name) == (number <= 255));
    CHECK(handler.last.get()->subprotocol() == (number <= 255 ? name : ""));
  }
}

TEST_CASE("reading goes on while no more than the bound waits, and pauses one byte above it") {
  std::vector<Kind> kinds = real_kinds();
  kinds.push_back({"simulated", net::BackendKind::simulated});
  constexpr std::size_t bound = 4'000'000;
  for (const std::size_t more : {0u, 1u, 2u}) {  // one under, at, and one over
    CAPTURE(more);
    in_every_world(
        [more](World& world) {
          Recorder& handler = world.serve<Recorder>({.pause_above_bytes = bound});
          Service& service = world.last_service();
          Client& client = world.open();
          client.reading = false;
          Connection& connection = *handler.last.get();
          while (!connection.blocked()) {  // until the kernel is full
            connection.send(Opcode::binary, to_bytes(random_bytes(100'000)));
            world.settle(4);
          }
          constexpr std::size_t header = 10;
          const std::size_t size = bound - 1 + more - connection.buffered() - header;
          connection.send(Opcode::binary, to_bytes(random_bytes(size)));
          world.settle();
          REQUIRE(connection.buffered() == bound - 1 + more);
          client.send(Opcode::text, "first");
          REQUIRE(world.until([&] { return handler.messages.size() == 1; }));
          CHECK(connection.paused() == (more == 2));
          CHECK(service.counters().pauses.value() == (more == 2 ? 1 : 0));
          client.send(Opcode::text, "second");
          world.settle();
          CHECK(handler.messages.size() == (more == 2 ? 1 : 2));
          client.reading = true;
          REQUIRE(world.until([&] { return handler.messages.size() == 2; }));
        },
        kinds);
  }
}
