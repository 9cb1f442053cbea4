#include <levada/ws/trace.h>

#include <algorithm>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include <levada/tests/support/world.h>

using namespace levada;
using namespace levada::ws;
using namespace levada::ws::test;

static_assert(sizeof(Connection) == 128, "tracing is nothing in a connection");

namespace {

using enum TraceKind;

struct Event {
  TraceKind kind;
  std::uint64_t value = 0;
  Opcode opcode = Opcode::continuation;
  bool operator==(const Event&) const = default;
};

std::string name(const Event& event) {
  return "kind " + std::to_string(static_cast<int>(event.kind)) + " value " + std::to_string(event.value) +
         " opcode " + std::to_string(static_cast<int>(event.opcode));
}

struct Traced : Echo {
  void on_trace(Connection&, const TraceEvent& event) {
    events.push_back({event.kind, event.value, event.opcode});
  }
  // What was told but for what depends on how the kernel takes and gives bytes.
  std::vector<Event> story() const {
    std::vector<Event> told = events;
    std::erase_if(told, [](const Event& event) {
      return event.kind == TraceKind::blocked || event.kind == TraceKind::drained;
    });
    return told;
  }
  std::size_t count(const Event& event) const {
    return static_cast<std::size_t>(std::count(events.begin(), events.end(), event));
  }
  std::vector<Event> events;
};

void check_story(const Traced& handler, const std::vector<Event>& expected) {
  const std::vector<Event> story = handler.story();
  CHECK(story.size() == expected.size());
  for (std::size_t i = 0; i < std::min(story.size(), expected.size()); i++) {
    INFO(i << ": " << name(story[i]) << ", expected " << name(expected[i]));
    CHECK((story[i] == expected[i]));
  }
}

constexpr std::uint64_t limit(TraceLimit which) {
  return static_cast<std::uint64_t>(which);
}

const std::vector<Kind> perfect{{"simulated", net::BackendKind::simulated}};

// Runs until the one limit of these options has passed; `prepare(Client&)` says what the peer does before.
template <class Prepare>
void check_limit(TraceLimit which, const ServiceOptions& options, Prepare&& prepare) {
  CAPTURE(static_cast<int>(which));
  World world(perfect[0]);
  Traced& handler = world.serve<Traced>(options);
  Client& client = world.connect();
  prepare(world, handler, client);
  world.settle(4);
  CHECK(handler.count({timed_out, limit(which)}) == 0);
  for (int i = 0; i < 30 && handler.count({timed_out, limit(which)}) == 0; i++) {
    world.simulation().advance_ms(100);
    world.settle(2);
  }
  CHECK(handler.count({timed_out, limit(which)}) == 1);
  const auto limits = std::count_if(handler.events.begin(), handler.events.end(),
                                    [](const Event& event) { return event.kind == timed_out; });
  CHECK(limits == 1);
}

}  // namespace

TEST_CASE("the life of a connection is told event by event, in order") {
  in_every_world([](World& world) {
    Traced& handler = world.serve<Traced>();
    Client& client = world.open();
    client.send(Opcode::text, "hello");
    CHECK(client.frame().payload == "hello");
    client.send(Opcode::binary, "one", {.fin = false}).send(Opcode::ping, "?");
    client.send(Opcode::continuation, std::string(1000, 'x'));
    CHECK(client.frame().opcode == 10);
    CHECK(client.frame().payload.size() == 1003);
    client.send(Opcode::close, close_payload(3000, "bye"));
    CHECK(client.is_closed_with(close_payload(3000)));
    client.close();
    CHECK(world.is_empty());
    check_story(handler, {{began},
                          {opened},
                          {frame_received, 5, Opcode::text},
                          {delivered, 5, Opcode::text},
                          {frame_queued, 5, Opcode::text},
                          {frame_received, 3, Opcode::binary},
                          {frame_received, 1, Opcode::ping},
                          {frame_queued, 1, Opcode::pong},
                          {frame_received, 1000, Opcode::continuation},
                          {delivered, 1003, Opcode::binary},
                          {frame_queued, 1003, Opcode::binary},
                          {frame_received, 5, Opcode::close},
                          {close_received, 3000},
                          {frame_queued, 2, Opcode::close},
                          {close_sent, 3000},
                          {closed, 3000},
                          {gone}});
  });
}

TEST_CASE("every way to send tells its frame with the payload's length") {
  in_every_world([](World& world) {
    Traced& handler = world.serve<Traced>();
    Client& client = world.open();
    handler.receiving = [](Connection& connection, Opcode, MutableBytes payload) {
      connection.send_text("text");
      const Bytes parts[] = {to_bytes("par"), to_bytes("ts")};
      connection.send(Opcode::binary, parts);
      connection.send(PreparedMessage(Opcode::text, to_bytes(std::string(200, 'p'))));
      connection.send(PreparedMessage(Opcode::text, to_bytes(std::string(70'000, 'P'))));
      connection.send(Opcode::binary, connection.keep(payload));
      connection.send_fragment(Opcode::text, to_bytes("a"), false);
      connection.send_fragment(Opcode::text, to_bytes("bc"), true);
      connection.ping(to_bytes("1234567"));
    };
    client.send(Opcode::binary, std::string(600, 'x'));
    client.frames_until(Opcode::ping);
    check_story(handler, {{began},
                          {opened},
                          {frame_received, 600, Opcode::binary},
                          {delivered, 600, Opcode::binary},
                          {frame_queued, 4, Opcode::text},
                          {frame_queued, 5, Opcode::binary},
                          {frame_queued, 200, Opcode::text},
                          {frame_queued, 70'000, Opcode::text},
                          {frame_queued, 600, Opcode::binary},
                          {frame_queued, 1, Opcode::text},
                          {frame_queued, 2, Opcode::continuation},
                          {frame_queued, 7, Opcode::ping}});
  });
}

TEST_CASE("a refused handshake is told with its status, a broken rule with its close code") {
  in_every_world([](World& world) {
    Traced& handler = world.serve<Traced>();
    handler.upgrading = [](Upgrade& upgrade) {
      if (upgrade.request().path() == "/no") upgrade.reject(403);
    };
    Client& refused = world.connect();
    refused.upgrade("/no");
    CHECK(refused.answer().status == 403);
    refused.close();
    CHECK(world.is_empty());
    check_story(handler, {{began}, {rejected, 403}, {gone}});
    handler.events.clear();
    Client& wrong = world.open();
    wrong.send(Opcode::text, "\xFF");
    CHECK(wrong.is_closed_with(close_payload(1007)));
    CHECK(handler.count({failed, 1007}) == 1);
    CHECK(handler.count({close_sent, 1007}) == 1);
    CHECK(handler.count({closed, 1007}) == 1);
    CHECK(handler.count({gone}) == 0);
    wrong.close();
    CHECK(world.is_empty());
    CHECK(handler.count({gone}) == 1);
  });
}

TEST_CASE("a queue that is full, what is dropped, a stall and its end are told") {
  for (const OutputPolicy policy :
       {OutputPolicy::report, OutputPolicy::drop_newest, OutputPolicy::drop_oldest}) {
    World world(perfect[0]);
    Traced& handler = world.serve<Traced>({.max_buffered_bytes = 100'000, .output_policy = policy});
    Client& client = world.open();
    client.reading = false;
    Connection& connection = *handler.last.get();
    connection.send(Opcode::binary, to_bytes(std::string(90'000, 'x')));
    world.settle(4);
    CHECK(handler.count({blocked, connection.buffered()}) == 1);
    connection.send(Opcode::text,
                    to_bytes(std::string(5'000, 'y')));  // waits, and is all that can be dropped
    const std::string late(100'000 - connection.buffered() - 9, 'z');
    connection.send(Opcode::binary, to_bytes(late));
    connection.pause();
    connection.pause();
    connection.resume();
    client.reading = true;
    CHECK(world.until([&] { return connection.buffered() == 0; }));
    world.settle(4);
    CHECK(handler.count({would_exceed, late.size() + 10}) == (policy == OutputPolicy::report ? 1 : 0));
    CHECK(handler.count({dropped, 1}) == (policy == OutputPolicy::report ? 0 : 1));
    CHECK(handler.count({drained}) == 1);
    CHECK(handler.count({paused}) == 1);
    CHECK(handler.count({resumed}) == 1);
  }
}

TEST_CASE("a round trip is told in microseconds") {
  World world(perfect[0]);
  Traced& handler = world.serve<Traced>();
  Client& client = world.open();
  CHECK(handler.last.get()->measure_rtt() == SendStatus::queued);
  const Frame ping = client.frame();
  world.simulation().advance_ms(30);
  client.send(Opcode::pong, ping.payload);
  CHECK(world.until([&] { return handler.last.get()->rtt_us().has_value(); }));
  CHECK(handler.count({round_trip, *handler.last.get()->rtt_us()}) == 1);
  CHECK(*handler.last.get()->rtt_us() >= 30'000);
}

TEST_CASE("each timeout is told as what it is") {
  const auto opens = [](World&, Traced&, Client& client) {
    client.upgrade();
    CHECK(client.answer().status == 101);
  };
  const ServiceOptions none{
      .message_timeout_ms = 0, .ping_interval_ms = 0, .idle_timeout_ms = 0, .write_timeout_ms = 0};
  const auto with = [&none](auto change) {
    ServiceOptions options = none;
    change(options);
    return options;
  };
  check_limit(TraceLimit::handshake, with([](auto& o) { o.handshake_timeout_ms = 1000; }),
              [](World&, Traced&, Client& client) { client.write("GET "); });
  check_limit(TraceLimit::idle, with([](auto& o) { o.idle_timeout_ms = 1000; }), opens);
  check_limit(TraceLimit::lifetime, with([](auto& o) { o.max_lifetime_ms = 1000; }), opens);
  const auto begins = [&](World& world, Traced& handler, Client& client) {
    opens(world, handler, client);
    client.send(Opcode::binary, "x", {.length = 1000});
  };
  check_limit(TraceLimit::message, with([](auto& o) { o.message_timeout_ms = 1000; }), begins);
  check_limit(TraceLimit::rate, with([](auto& o) {
                o.min_bytes_per_s = 10;
                o.rate_window_ms = 1000;
              }),
              begins);
  check_limit(TraceLimit::close, with([](auto& o) { o.close_timeout_ms = 1000; }),
              [&](World& world, Traced& handler, Client& client) {
                opens(world, handler, client);
                handler.last.get()->close();
              });
  check_limit(TraceLimit::write, with([](auto& o) { o.write_timeout_ms = 1000; }),
              [&](World& world, Traced& handler, Client& client) {
                opens(world, handler, client);
                client.reading = false;
                handler.last.get()->send(Opcode::binary, to_bytes(std::string(1'000'000, 'x')));
              });
}

TEST_CASE("what the memory budget ends is told") {
  net::ReactorOptions options;
  options.budget = std::make_shared<MemoryBudget>(200'000, BudgetPolicy::refuse_large);
  World world(perfect[0], options);
  Traced& handler = world.serve<Traced>();
  Client& client = world.open();
  client.write(raw_frame(2, std::string(300'000, 'x'), true, {.length = 1'000'000}));
  CHECK(world.until([&] { return handler.closes.size() == 1; }));
  CHECK(handler.count({shed}) == 1);
  CHECK(handler.count({closed, 1013}) == 1);
}
