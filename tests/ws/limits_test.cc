// Each bound of ServiceOptions on what a peer sends: one under it, at it, and one over it, on the wire, with the exact
// code. Those in time are tests of deadlines, those of what is queued tests of sending.
#include <levada/ws/service.h>

#include <string>

#include <doctest/doctest.h>

#include <levada/tests/support/world.h>

using namespace levada;
using namespace levada::ws;
using namespace levada::ws::test;

namespace {

using Closed = Recorder::Closed;

// What a peer says so that it comes to `size` in the measure of a limit.
using Say = std::string (*)(std::size_t size);

struct Limit {
  const char* name;
  ServiceOptions options;  // with a limit of 20
  Say say;
  unsigned code;
  const char* reason;
};

std::string in_fragments(std::size_t size) {
  return client_frame(Opcode::binary, std::string(size / 2, 'x'), {.fin = false}) +
         client_frame(Opcode::continuation, std::string(size - size / 2, 'y'));
}

std::string many_fragments(std::size_t count) {
  std::string wire = client_frame(Opcode::text, "x", {.fin = false});
  for (std::size_t i = 2; i < count; i++) wire += client_frame(Opcode::continuation, "x", {.fin = false});
  return wire + client_frame(Opcode::continuation, "x");
}

std::string many_controls(std::size_t count) {
  std::string wire;
  for (std::size_t i = 0; i < count; i++) wire += client_frame(i % 2 == 0 ? Opcode::pong : Opcode::ping, "c");
  return wire + client_frame(Opcode::text, "done");
}

const Limit limits[] = {
    {"max_message_bytes, one frame",
     {.max_message_bytes = 20},
     [](std::size_t size) { return client_frame(Opcode::binary, std::string(size, 'x')); },
     1009,
     "message_too_big"},
    {"max_message_bytes, fragments", {.max_message_bytes = 20}, in_fragments, 1009, "message_too_big"},
    {"max_fragments", {.max_fragments = 20}, many_fragments, 1008, "too_many_fragments"},
    {"max_controls_per_s", {.max_controls_per_s = 20}, many_controls, 1008, "too_many_controls"},
};

}  // namespace

TEST_CASE("what a peer may send is taken up to its limit, and one more is closed with the limit's code") {
  for (const Limit& limit : limits) {
    CAPTURE(limit.name);
    for (const std::size_t size : {19u, 20u, 21u}) {
      CAPTURE(size);
      in_every_world(
          [&](World& world) {
            Recorder& handler = world.serve<Recorder>(limit.options);
            Client& client = world.open();
            client.write(limit.say(size));
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
          },
          {{"simulated", net::BackendKind::simulated}});  // where a second is as long as it has to be
    }
  }
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

TEST_CASE("reading goes on while no more than the bound waits, and pauses one byte above it") {
  for (const std::size_t more : {0u, 1u, 2u}) {  // one under, at, and one over
    CAPTURE(more);
    World world({"simulated", net::BackendKind::simulated});
    Recorder& handler = world.serve<Recorder>({.pause_above_bytes = 100'001});
    Service& service = world.last_service();
    Client& client = world.open();
    client.reading = false;
    Connection& connection = *handler.last.get();
    connection.send(Opcode::binary, to_bytes(random_bytes(100'000)));
    world.settle();
    REQUIRE(connection.blocked());
    const std::size_t size = 100'000 + more - connection.buffered() - 4;
    connection.send(Opcode::binary, to_bytes(random_bytes(size)));
    world.settle();
    REQUIRE(connection.buffered() == 100'000 + more);
    client.send(Opcode::text, "first");
    world.settle();
    CHECK(handler.messages.size() == 1);
    CHECK(connection.paused() == (more == 2));
    CHECK(service.counters().pauses.value() == (more == 2 ? 1 : 0));
    client.send(Opcode::text, "second");
    world.settle();
    CHECK(handler.messages.size() == (more == 2 ? 1 : 2));
    client.reading = true;
    REQUIRE(world.until([&] { return handler.messages.size() == 2; }));
  }
}
