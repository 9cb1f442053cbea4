// Time limits on every backend: each ends a connection in its own way, at its bound, and not a moment before.
//
// Simulated time is exact: what is due after n milliseconds happens then. By real clocks it may happen up to a
// millisecond earlier, for the grain of the clock, and 10 ms later; a machine that is busy, on which the test itself begins to
// measure late, gets three tries.
#include <levada/ws/connection.h>

#include <string>
#include <vector>

#include <doctest/doctest.h>

#include <levada/tests/support/world.h>

using namespace levada;
using namespace levada::ws;
using namespace levada::ws::test;

namespace {

constexpr auto text = static_cast<unsigned>(Opcode::text);

using Closed = Recorder::Closed;

// Everything off but what a test asks for.
ServiceOptions no_limits() {
  ServiceOptions options;
  options.message_timeout_ms = options.ping_interval_ms = options.idle_timeout_ms = 0;
  options.write_timeout_ms = options.max_lifetime_ms = 0;
  return options;
}
template <class Set>
ServiceOptions only(Set&& set) {
  ServiceOptions options = no_limits();
  set(options);
  return options;
}

struct Streamer {
  void on_fragment(Connection&, Opcode, Bytes, bool last) { messages += last ? 1 : 0; }
  void on_close(Connection&, const CloseInfo& info) {
    closes.push_back({info.code, std::string(info.reason), info.by, info.error.code});
  }
  int messages = 0;
  std::vector<Closed> closes;
};

template <class H>
struct Line {
  H& handler;
  Service& service;
  Connection& connection;
  Client& client;
  Handle handle;

  bool open() const {
    const Connection* found = handle.get();
    return found != nullptr && found->is_open();
  }
};

template <class H = Recorder>
Line<H> open_line(World& world, ServiceOptions options) {
  H& handler = world.make_handler<H>();
  Service& service = world.service(handler, std::move(options));
  auto [fd, client] = world.pair();
  Connection* connection = service.adopt_upgraded(std::move(fd));
  REQUIRE(connection != nullptr);
  return {handler, service, *connection, *client, connection->handle()};
}

template <class Work>
void in_turn(World& world, Work work) {
  bool done = false;
  world.reactor().post([&work, &done] {
    work();
    done = true;
  });
  REQUIRE(world.until([&done] { return done; }));
}

class Watch {
 public:
  explicit Watch(World& world) : world_(world) { restart(); }
  void restart() { began_ns_ = world_.reactor().now_ns(); }
  double ms() const { return static_cast<double>(world_.reactor().now_ns() - began_ns_) / 1e6; }

  // Turns until so many milliseconds have passed, to the millisecond when the clock is simulated.
  void reach(std::uint32_t ms_passed) {
    while (ms() < ms_passed) world_.turn();
  }

 private:
  World& world_;
  std::uint64_t began_ns_;
};

constexpr double grain_ms = 1, late_ms = 10;

// `run(World&)` returns how many milliseconds passed until something that is due after `limit`.
template <class Run>
void happens_after(double limit, Run&& run, const std::vector<Kind>& kinds = all_kinds()) {
  for (const Kind& kind : kinds) {
    CAPTURE(kind.name);
    double passed = 0;
    for (int attempt = 0; attempt < 3; attempt++) {
      World world(kind);
      passed = run(world);
      if (passed >= limit - grain_ms && passed <= limit + late_ms) break;
    }
    CAPTURE(limit);
    CAPTURE(passed);
    if (kind.simulated()) {
      CHECK(passed == limit);
    } else {
      CHECK(passed >= limit - grain_ms);
      CHECK(passed <= limit + late_ms);
    }
  }
}

std::vector<Kind> simulated_kinds() {
  std::vector<Kind> kinds;
  for (const Kind& kind : all_kinds()) {
    if (kind.simulated()) kinds.push_back(kind);
  }
  return kinds;
}

// Passes a long time at once.
void pass(World& world, std::uint64_t milliseconds) {
  world.simulation().advance_ms(milliseconds);
  world.settle(4);
}

const std::string half_message = client_frame(Opcode::binary, random_letters(5000)).substr(0, 100);

}  // namespace

// ---- Handshake ----

TEST_CASE("a handshake that is not finished in time is ended") {
  happens_after(60, [](World& world) {
    Recorder& handler = world.serve<Recorder>({.handshake_timeout_ms = 60});
    Service& service = world.last_service();
    Client& client = world.connect();
    REQUIRE(world.until([&] { return service.connections() == 1; }));
    Watch watch(world);
    for (const char byte : Client::request().substr(0, 30)) {  // what comes does not prolong it
      client.write({&byte, 1});
      world.turn(0);
    }
    REQUIRE(world.until([&] { return service.connections() == 0; }));
    const double passed = watch.ms();
    CHECK(service.counters().handshake_timeouts.value() == 1);
    CHECK(handler.opened == 0);
    CHECK(handler.closes.empty());
    CHECK(world.until([&] { return client.ended || client.was_reset; }));
    return passed;
  });
}

TEST_CASE("a handshake that is finished just in time is served, and its timer is off") {
  in_every_world(
      [](World& world) {
        ServiceOptions options = no_limits();
        options.handshake_timeout_ms = 60;
        Recorder& handler = world.serve<Recorder>(options);
        Client& client = world.connect();
        REQUIRE(world.until([&] { return world.last_service().connections() == 1; }));
        Watch watch(world);
        client.write(Client::request().substr(0, 50));
        watch.reach(59);
        client.write(Client::request().substr(50));
        CHECK(client.answer().status == 101);
        watch.reach(200);
        CHECK(handler.last.get() != nullptr);
        CHECK(world.last_service().counters().handshake_timeouts.value() == 0);
      },
      simulated_kinds());
}

TEST_CASE("a handshake that is held has no longer time") {
  happens_after(60, [](World& world) {
    Recorder& handler = world.serve<Recorder>({.handshake_timeout_ms = 60});
    handler.upgrading = [](Upgrade& upgrade) { upgrade.hold(); };
    Client& client = world.connect();
    REQUIRE(world.until([&] { return world.last_service().connections() == 1; }));
    Watch watch(world);
    client.upgrade();
    REQUIRE(world.until([&] { return world.last_service().connections() == 0; }));
    return watch.ms();
  });
}

// ---- Idle, keepalive, lifetime ----

TEST_CASE("a connection that receives nothing is closed with 1001") {
  happens_after(80, [](World& world) {
    auto line = open_line(world, only([](ServiceOptions& options) { options.idle_timeout_ms = 80; }));
    Watch watch(world);
    in_turn(world, [&] { line.connection.send_text("sending does not count"); });
    REQUIRE(world.until([&] { return !line.open(); }));
    const double passed = watch.ms();
    CHECK(line.service.counters().idle_timeouts.value() == 1);
    CHECK(line.client.frame().opcode == text);
    CHECK(line.client.frame() == Frame{8, close_payload(1001, "idle")});
    line.client.send(Opcode::close, close_payload(1001));
    CHECK(line.client.reaches_end());
    CHECK(line.handler.closes == std::vector{Closed{CloseCode::going_away, "", ClosedBy::local, Errc::none}});
    return passed;
  });
}

TEST_CASE("any byte that is received starts the idle time anew") {
  happens_after(
      79 + 80,
      [](World& world) {
        auto line = open_line(world, only([](ServiceOptions& options) { options.idle_timeout_ms = 80; }));
        Watch watch(world);
        watch.reach(79);
        line.client.write(half_message.substr(0, 1));
        REQUIRE(world.until([&] { return !line.open(); }));
        return watch.ms();
      },
      simulated_kinds());
}

TEST_CASE("a silent peer is pinged, the round trip is measured, and the answer keeps the connection") {
  const std::uint32_t answer_after = 7;
  happens_after(50, [&](World& world) {
    auto line = open_line(world, only([](ServiceOptions& options) {
                            options.ping_interval_ms = 50;
                            options.idle_timeout_ms = 80;
                          }));
    const Counters& counters = line.service.counters();
    Watch watch(world);
    REQUIRE(world.until([&] { return counters.pings_sent.value() == 1; }));
    const double passed = watch.ms();
    CHECK(!line.connection.rtt_us());
    const Frame ping = line.client.frame();
    CHECK(ping.opcode == 9);
    Watch round_trip(world);
    round_trip.reach(answer_after);
    line.client.send(Opcode::pong, ping.payload);
    REQUIRE(world.until([&] { return line.connection.rtt_us().has_value(); }));
    const std::uint32_t measured = *line.connection.rtt_us();
    if (world.kind().simulated()) {
      watch.reach(100);
      CHECK(line.open());
      CHECK(measured == (watch.ms() >= 100 ? answer_after * 1000 : 0));
    } else {
      CHECK(measured >= answer_after * 1000);
      CHECK(measured < 1'000'000);
    }
    CHECK(line.handler.pongs.empty());
    std::uint64_t recorded = 0;
    for (std::size_t i = 0; i < net::LatencyHistogram::buckets; i++) recorded += counters.rtt.count(i);
    CHECK(recorded == 1);
    CHECK(counters.rtt.sum_ns() == std::uint64_t{measured} * 1000);
    return passed;
  });
}

TEST_CASE(
    "a peer from which something is received is not pinged, and one that never answers is pinged each "
    "interval") {
  in_every_world(
      [](World& world) {
        auto line = open_line(world, only([](ServiceOptions& options) { options.ping_interval_ms = 50; }));
        const Counters& counters = line.service.counters();
        Watch watch(world);
        for (std::uint32_t at = 49; at <= 490; at += 49) {
          watch.reach(at);
          line.client.send(Opcode::pong, "here");
          world.turn(0);
        }
        CHECK(counters.pings_sent.value() == 0);
        watch.reach(539);
        CHECK(counters.pings_sent.value() == 0);
        for (std::uint64_t i = 1; i <= 5; i++) {
          watch.reach(490 + static_cast<std::uint32_t>(i) * 50);
          CHECK(counters.pings_sent.value() == i);
        }
        CHECK(line.open());
      },
      simulated_kinds());
}

TEST_CASE(
    "only the answer to the last measuring ping measures, a late one is nobody's, all others are the "
    "handler's") {
  in_every_world([](World& world) {
    auto line = open_line(world, no_limits());
    const auto ping = [&] {
      in_turn(world, [&] { CHECK(line.connection.measure_rtt() == SendStatus::queued); });
      return line.client.frame().payload;
    };
    const std::string late = ping();
    CHECK(late.size() == 12);
    Watch watch(world);
    watch.reach(3);
    const std::string last = ping();
    CHECK(late != last);
    std::string forged = last;
    forged[0] = static_cast<char>(~forged[0]);
    const std::vector<std::string> others{forged, std::string(), last + "x", last.substr(0, 11), "late"};
    line.client.send(Opcode::pong, late);
    for (const std::string& other : others) line.client.send(Opcode::pong, other);
    REQUIRE(world.until([&] { return line.handler.pongs.size() == 5; }));
    CHECK(line.handler.pongs == others);
    CHECK(!line.connection.rtt_us());
    line.client.send(Opcode::pong, last);
    REQUIRE(world.until([&] { return line.connection.rtt_us().has_value(); }));
    CHECK(line.handler.pongs.size() == 5);
    line.client.send(Opcode::pong, last);  // a second time it measures nothing
    line.client.send(Opcode::pong, "end");
    REQUIRE(world.until([&] { return line.handler.pongs.size() == 6; }));
    CHECK(line.handler.pongs.back() == "end");
    CHECK(line.connection.rtt_us().has_value());
    CHECK(line.service.counters().pings_sent.value() == 2);
  });
}

TEST_CASE("a connection that has lived its time is closed with 1001, however busy it is") {
  happens_after(100, [](World& world) {
    auto line = open_line<Echo>(world, only([](ServiceOptions& options) { options.max_lifetime_ms = 100; }));
    Watch watch(world);
    for (std::uint32_t at = 0; at < 95; at += 5) {
      watch.reach(at);
      line.client.send(Opcode::text, "busy");
      world.turn(0);
    }
    REQUIRE(world.until([&] { return !line.open(); }));
    const double passed = watch.ms();
    CHECK(line.service.counters().lifetimes_over.value() == 1);
    CHECK(line.client.frames_until(Opcode::close).back().payload == close_payload(1001, "lifetime is over"));
    return passed;
  });
}

// ---- Messages ----

TEST_CASE("a message that is not finished in time fails the connection with 1008, whatever trickles in") {
  for (const bool fragmented : {false, true}) {
    CAPTURE(fragmented);
    happens_after(90, [fragmented](World& world) {
      auto line = open_line(world, only([](ServiceOptions& options) { options.message_timeout_ms = 90; }));
      line.client.write(fragmented ? client_frame(Opcode::text, "a", {.fin = false}) : half_message);
      REQUIRE(world.until([&] { return line.client.unsent() == 0; }));
      world.turn(0);
      Watch watch(world);
      for (std::uint32_t at = 5; at < 85; at += 5) {
        watch.reach(at);
        line.client.write(fragmented ? client_frame(Opcode::continuation, "b", {.fin = false}) : "x");
        world.turn(0);
      }
      REQUIRE(world.until([&] { return !line.open(); }));
      const double passed = watch.ms();
      CHECK(line.client.is_closed_with(close_payload(1008)));
      CHECK(line.handler.closes == std::vector{Closed{CloseCode::policy_violation, "message_timeout",
                                                      ClosedBy::local, Errc::timed_out}});
      CHECK(line.service.counters().violations.value() == 1);
      return passed;
    });
  }
}

TEST_CASE("a large message that is not finished fails the connection while it is received into its memory") {
  for (const bool slow : {false, true}) {
    in_every_world([slow](World& world) {
      ServiceOptions options = no_limits();
      (slow ? options.rate_window_ms : options.message_timeout_ms) = 50;
      options.min_bytes_per_s = slow ? 1'000'000 : 0;
      auto line = open_line(world, options);
      const std::string frame = client_frame(Opcode::binary, random_bytes(3'000'000));
      line.client.write(frame.substr(0, 400'000));
      REQUIRE(world.until([&] { return line.client.unsent() == 0; }));
      REQUIRE(world.until([&] { return !line.open(); }));
      line.client.write(frame.substr(400'000, 400'000));  // where it would have gone to
      CHECK(line.client.is_closed_with(close_payload(1008)));
      REQUIRE(world.until([&] { return line.client.unsent() == 0; }));
      auto next = open_line<Echo>(world, no_limits());  // in the memory that it had
      next.client.write(frame);
      CHECK((next.client.frame().payload == random_bytes(3'000'000)));
      line.client.close();
      REQUIRE(world.until([&] { return line.service.connections() == 0; }));
    });
  }
}

TEST_CASE("each message of a busy stream has the whole time, though none of the receives ends with one") {
  in_every_world(
      [](World& world) {
        auto line = open_line(world, only([](ServiceOptions& options) { options.message_timeout_ms = 90; }));
        const std::string frame = client_frame(Opcode::text, random_letters(100));
        Watch watch(world);
        line.client.write(frame.substr(0, 50));
        for (std::uint32_t i = 1; i <= 10; i++) {
          watch.reach(i * 89);
          line.client.write(frame.substr(50) + frame.substr(0, 50));
          REQUIRE(world.until([&] { return line.handler.messages.size() == i; }));
        }
        watch.reach(890 + 89);
        CHECK(line.open());
        watch.reach(890 + 90);
        CHECK(!line.open());
      },
      simulated_kinds());
}

TEST_CASE("at least the least rate has to arrive in each window of a message: 1008 with one byte less") {
  // 1000 B/s over 100 ms: 100 bytes, not counting those that the message began with.
  for (const int difference : {-1, 0, 1}) {
    for (const bool streams : {false, true}) {
      CAPTURE(difference);
      CAPTURE(streams);
      const auto run = [difference](World& world, auto& line) {
        line.client.write(half_message);
        world.turn(0);
        REQUIRE(world.until([&] { return line.client.unsent() == 0; }));
        Watch watch(world);
        for (std::uint32_t window = 0; window < 4; window++) {
          watch.reach(100 * window + 50);
          line.client.write(std::string(100, 'x'));
          watch.reach(100 * window + 100);
          REQUIRE(line.open());
        }
        watch.reach(450);
        line.client.write(std::string(static_cast<std::size_t>(100 + difference), 'x'));
        watch.reach(499);
        CHECK(line.open());
        watch.reach(500);
        CHECK(line.open() == (difference >= 0));
        if (difference >= 0) return;
        CHECK(line.client.is_closed_with(close_payload(1008)));
        CHECK(line.handler.closes == std::vector{Closed{CloseCode::policy_violation, "message_too_slow",
                                                        ClosedBy::local, Errc::timed_out}});
      };
      in_every_world(
          [&](World& world) {
            ServiceOptions options = no_limits();
            options.min_bytes_per_s = 1000;
            options.rate_window_ms = 100;
            if (streams) {
              auto line = open_line<Streamer>(world, options);
              run(world, line);
            } else {
              auto line = open_line(world, options);
              run(world, line);
            }
          },
          simulated_kinds());
    }
  }
}

TEST_CASE("a byte each 10 ms inside a frame ends with 1008 at the end of the window") {
  happens_after(120, [](World& world) {
    auto line = open_line(world, only([](ServiceOptions& options) {
                            options.min_bytes_per_s = 1000;
                            options.rate_window_ms = 120;
                          }));
    line.client.write(half_message);
    world.turn(0);
    REQUIRE(world.until([&] { return line.client.unsent() == 0; }));
    Watch watch(world);
    for (std::uint32_t at = 10; at < 115; at += 10) {
      watch.reach(at);
      line.client.write("x");
      world.turn(0);
    }
    REQUIRE(world.until([&] { return !line.open(); }));
    return watch.ms();
  });
}

TEST_CASE("the least rate is asked only inside a message: between messages a peer may be silent") {
  in_every_world(
      [](World& world) {
        auto line =
            open_line(world, only([](ServiceOptions& options) { options.min_bytes_per_s = 1'000'000; }));
        line.client.send(Opcode::text, "done");
        REQUIRE(world.until([&] { return line.handler.messages.size() == 1; }));
        pass(world, 60'000);
        CHECK(line.open());
      },
      simulated_kinds());
}

TEST_CASE("a streamed message may take as long as it likes") {
  in_every_world(
      [](World& world) {
        auto line = open_line<Streamer>(
            world, only([](ServiceOptions& options) { options.message_timeout_ms = 100; }));
        line.client.write(half_message);
        for (int i = 0; i < 10; i++) {
          pass(world, 10'000);
          line.client.write(half_message.substr(0, 1));
        }
        CHECK(line.open());
      },
      simulated_kinds());
}

TEST_CASE("without a limit nothing ends, however long it takes") {
  in_every_world(
      [](World& world) {
        auto line = open_line(world, no_limits());
        auto stalled = open_line(world, no_limits());
        stalled.client.reading = false;
        in_turn(world, [&] { stalled.connection.send(Opcode::binary, to_bytes(random_bytes(1'000'000))); });
        line.client.write(half_message);
        for (int hour = 0; hour < 100; hour++) pass(world, 3'600'000);
        CHECK(line.open());
        CHECK(stalled.open());
        CHECK(line.service.counters().pings_sent.value() == 0);
        line.client.write(client_frame(Opcode::binary, random_letters(5000)).substr(100));
        REQUIRE(world.until([&] { return line.handler.messages.size() == 1; }));
        stalled.client.reading = true;
        CHECK(stalled.client.frame().payload == random_bytes(1'000'000));
      },
      simulated_kinds());
}

// ---- Control frames ----

TEST_CASE(
    "as many control frames a second as allowed are served, and one more fails the connection with 1008") {
  in_every_world(
      [](World& world) {
        ServiceOptions options = no_limits();
        options.max_controls_per_s = 5;
        auto line = open_line(world, options);
        const auto controls = [&](int count) {
          for (int i = 0; i < count; i++) line.client.send(i % 2 == 0 ? Opcode::ping : Opcode::pong, "c");
          REQUIRE(world.until([&] { return line.client.unsent() == 0; }));
          world.settle(4);
        };
        const auto next_second = [&] {
          while (world.reactor().now_ms() % 1000 != 0) world.turn();
        };
        for (int second = 0; second < 3; second++) {
          next_second();
          controls(5);
          world.settle(20);
          CHECK(line.open());
        }
        // Only the low bits of the time are the same.
        for (const std::uint64_t seconds : {256u, 65536u, 512u}) {
          next_second();
          pass(world, seconds * 1000 - world.reactor().now_ms() % 1000);
          next_second();
          controls(5);
          CHECK(line.open());
        }
        line.client.send(Opcode::text, "no control frame");
        world.settle(4);
        CHECK(line.open());
        line.client.send(Opcode::pong, "one more");
        REQUIRE(world.until([&] { return !line.open(); }));
        CHECK(line.client.frames_until(Opcode::close).back().payload == close_payload(1008));
        CHECK(line.handler.closes == std::vector{Closed{CloseCode::policy_violation, "too_many_controls",
                                                        ClosedBy::local, Errc::protocol}});
        CHECK(line.service.counters().violations.value() == 1);
      },
      {{"simulated", net::BackendKind::simulated}});
}

TEST_CASE("too many control frames at once end with 1008 on every backend") {
  in_every_world([](World& world) {
    auto line = open_line(world, only([](ServiceOptions& options) { options.max_controls_per_s = 10; }));
    std::string wire;
    for (int i = 0; i < 31; i++) wire += client_frame(Opcode::ping, "p");  // in three seconds at most
    line.client.write(wire);
    CHECK(line.client.frames_until(Opcode::close).back().payload == close_payload(1008));
    CHECK(line.handler.pings.size() >= 10);
    CHECK(line.handler.pings.size() <= 30);
  });
}

// ---- Peers that do not read ----

TEST_CASE("a peer that takes nothing of what is queued is cut after the write timeout") {
  happens_after(
      80,
      [](World& world) {
        auto line = open_line(world, only([](ServiceOptions& options) { options.write_timeout_ms = 80; }));
        line.client.reading = false;
        const PreparedMessage much(Opcode::binary, to_bytes(random_bytes(5'000'000)));  // copying takes time
        in_turn(world, [&] { line.connection.send(much); });
        REQUIRE(world.until([&] { return line.connection.blocked(); }));
        Watch watch(world);
        if (!world.kind().simulated()) {  // more does not prolong it
          watch.reach(40);
          in_turn(world, [&] { line.connection.send_text("more"); });
        }
        REQUIRE(world.until([&] { return !line.open(); }));
        const double passed = watch.ms();
        CHECK(line.service.counters().write_timeouts.value() == 1);
        CHECK(line.handler.closes ==
              std::vector{Closed{CloseCode::abnormal, "", ClosedBy::transport, Errc::timed_out}});
        line.client.close();
        CHECK(world.is_empty());
        return passed;
      },
      [] {
        std::vector<Kind> kinds = real_kinds();
        kinds.push_back({"simulated", net::BackendKind::simulated});
        return kinds;
      }());
}

TEST_CASE("a peer that takes a little now and then is not cut, and gets everything") {
  in_every_world([](World& world) {
    auto line = open_line(world, only([](ServiceOptions& options) { options.write_timeout_ms = 60; }));
    const std::string payload = random_bytes(1'500'000);
    line.client.reading = false;
    in_turn(world, [&] { line.connection.send(Opcode::binary, to_bytes(payload)); });
    Watch watch(world);
    for (std::uint32_t at = 20; line.connection.buffered() != 0; at += 20) {
      watch.reach(at);
      REQUIRE(line.open());
      line.client.reading = true;
      line.client.move_bytes();
      line.client.reading = false;
    }
    CHECK(watch.ms() > 60);
    line.client.reading = true;
    CHECK(line.client.frame().payload == payload);
    CHECK(line.service.counters().write_timeouts.value() == 0);
  });
}

// ---- Pauses ----

TEST_CASE("while reading is paused a message's time stands still, and goes on afterwards") {
  happens_after(30 + 1000 + 60,
                [](World& world) {
                  auto line = open_line(
                      world, only([](ServiceOptions& options) { options.message_timeout_ms = 90; }));
                  line.client.write(half_message);
                  REQUIRE(world.until([&] { return line.client.unsent() == 0; }));
                  world.turn(0);
                  Watch watch(world);
                  watch.reach(30);
                  in_turn(world, [&] { line.connection.pause(); });
                  watch.reach(1030);
                  CHECK(line.open());
                  in_turn(world, [&] { line.connection.resume(); });
                  REQUIRE(world.until([&] { return !line.open(); }));
                  CHECK(line.client.is_closed_with(close_payload(1008)));
                  return watch.ms();
                },
                {{"simulated", net::BackendKind::simulated}});
}

TEST_CASE(
    "a message that begins in the bytes behind the one whose handler pauses has its whole time after the "
    "pause") {
  in_every_world([](World& world) {
    auto line = open_line(world, only([](ServiceOptions& options) { options.message_timeout_ms = 1000; }));
    for (int round = 0; round < 2; round++) {  // the second time with what the first left behind
      std::size_t before = line.handler.messages.size();
      line.handler.receiving = [](Connection& connection, Opcode, MutableBytes) { connection.pause(); };
      const std::string whole = client_frame(Opcode::text, random_letters(300));
      line.client.write(whole + half_message);
      REQUIRE(world.until([&] { return line.handler.messages.size() == before + 1; }));
      Watch watch(world);
      watch.reach(30);
      in_turn(world, [&] { line.connection.resume(); });
      watch.reach(100);
      REQUIRE(line.open());
      line.handler.receiving = nullptr;
      line.client.write(client_frame(Opcode::binary, random_letters(5000)).substr(100));
      REQUIRE(world.until([&] { return line.handler.messages.size() == before + 2; }));
      if (!world.kind().simulated()) break;
      pass(world, 10'000);
    }
  });
}

TEST_CASE("a connection that does not read is neither idle, nor slow, nor pinged") {
  in_every_world(
      [](World& world) {
        auto line = open_line(world, only([](ServiceOptions& options) {
                                options.idle_timeout_ms = 100;
                                options.ping_interval_ms = 50;
                                options.min_bytes_per_s = 1000;
                                options.rate_window_ms = 100;
                              }));
        line.client.write(half_message);
        REQUIRE(world.until([&] { return line.client.unsent() == 0; }));
        in_turn(world, [&] { line.connection.pause(); });
        const std::uint64_t pings = line.service.counters().pings_sent.value();
        pass(world, 10'000);
        CHECK(line.open());
        CHECK(line.service.counters().pings_sent.value() == pings);
        in_turn(world, [&] { line.connection.resume(); });
        Watch watch(world);
        watch.reach(99);
        CHECK(line.open());
        watch.reach(100);
        CHECK(!line.open());
      },
      simulated_kinds());
}

// ---- Closing ----

TEST_CASE(
    "a peer that does not answer the close frame is cut after its time, in the middle of a message too") {
  for (const bool in_message : {false, true}) {
    CAPTURE(in_message);
    happens_after(120, [in_message](World& world) {
      ServiceOptions options;  // with all the shorter limits of an open connection
      options.close_timeout_ms = 120;
      options.message_timeout_ms = options.idle_timeout_ms = 30;
      options.ping_interval_ms = 20;
      options.min_bytes_per_s = 1000;
      options.rate_window_ms = 25;
      auto line = open_line(world, options);
      Watch watch(world);
      in_turn(world, [&] { line.connection.close(); });
      if (in_message) line.client.write(half_message);
      REQUIRE(world.until([&] { return line.service.connections() == 0; }));
      const double passed = watch.ms();
      CHECK(line.service.counters().close_timeouts.value() == 1);
      CHECK(line.handler.closes ==
            std::vector{Closed{CloseCode::abnormal, "", ClosedBy::transport, Errc::timed_out}});
      return passed;
    });
  }
}

TEST_CASE(
    "a peer that slowly takes what was queued before the close frame gets its time, and all of it to "
    "answer") {
  for (const std::uint32_t step : {20u, 38u, 39u}) {
    CAPTURE(step);
    const std::vector<Kind> exact{{"simulated", net::BackendKind::simulated}};
    const auto test = [step](World& world) {
      ServiceOptions options = no_limits();
      options.close_timeout_ms = world.kind().simulated() ? 40 : 200;
      auto line = open_line(world, options);
      const std::string payload = random_bytes(600'000);
      line.client.reading = false;
      in_turn(world, [&] {
        line.connection.send(Opcode::binary, to_bytes(payload));
        line.connection.close();
      });
      Watch watch(world);
      for (std::uint32_t at = step; line.connection.buffered() != 0; at += step) {
        watch.reach(at);
        REQUIRE(line.handle.get() != nullptr);
        line.client.reading = true;
        line.client.move_bytes();
        line.client.reading = false;
        world.turn(0);
      }
      CHECK(watch.ms() > 40);
      watch.restart();
      watch.reach(step);
      line.client.reading = true;
      line.client.move_bytes();
      CHECK(line.client.frame().payload == payload);
      CHECK(line.client.frame() == Frame{8, close_payload(1000)});
      line.client.send(Opcode::close, close_payload(1000));
      CHECK(line.client.reaches_end());
      CHECK(line.handler.closes == std::vector{Closed{CloseCode::normal, "", ClosedBy::local, Errc::none}});
    };
    in_every_world(test, step == 20 ? all_kinds() : exact);
  }
}

TEST_CASE("room that is reported in the moment of the deadline counts") {
  in_every_world(
      [](World& world) {
        ServiceOptions options = no_limits();
        options.close_timeout_ms = 40;
        auto line = open_line(world, options);
        line.client.reading = false;
        in_turn(world, [&] {
          line.connection.send(Opcode::binary, to_bytes(random_bytes(200'000)));
          line.connection.close();
        });
        world.settle(4);
        while (line.connection.buffered() > 0) {
          line.client.reading = true;
          line.client.move_bytes();
          line.client.reading = false;
          world.simulation().advance_ms(40);
          world.turn(0);
          world.turn(0);
          REQUIRE(line.handle.get() != nullptr);
        }
      },
      {{"simulated", net::BackendKind::simulated}});
}

TEST_CASE("a peer that stops taking what was queued before the close frame is cut after its time") {
  happens_after(100 + 60,
                [](World& world) {
                  ServiceOptions options = no_limits();
                  options.close_timeout_ms = 60;
                  auto line = open_line(world, options);
                  line.client.reading = false;
                  in_turn(world, [&] {
                    line.connection.send(Opcode::binary, to_bytes(random_bytes(5'000'000)));
                    line.connection.close();
                  });
                  Watch watch(world);
                  for (const std::uint32_t at : {50u, 100u}) {
                    watch.reach(at);
                    line.client.reading = true;
                    line.client.move_bytes();
                    line.client.reading = false;
                    world.turn(0);
                  }
                  REQUIRE(world.until([&] { return line.service.connections() == 0; }));
                  const double passed = watch.ms();
                  CHECK(line.service.counters().close_timeouts.value() == 1);
                  return passed;
                },
                {{"simulated", net::BackendKind::simulated}});
}

TEST_CASE("a peer that takes its time for ever is cut after the write timeout") {
  in_every_world(
      [](World& world) {
        ServiceOptions options = no_limits();
        options.close_timeout_ms = 60;
        options.write_timeout_ms = 500;
        auto line = open_line(world, options);
        line.client.reading = false;
        in_turn(world, [&] {
          line.connection.send(Opcode::binary, to_bytes(random_bytes(5'000'000)));
          line.connection.close();
        });
        Watch watch(world);
        for (std::uint32_t at = 50; line.service.connections() != 0; at += 50) {
          for (; watch.ms() < at && line.service.connections() != 0;) world.turn();
          line.client.reading = true;
          line.client.move_bytes();
          line.client.reading = false;
        }
        CHECK(watch.ms() >= 500);
        CHECK(watch.ms() <= 560);
      },
      {{"simulated", net::BackendKind::simulated}});
}

TEST_CASE("a peer that takes the close frame late has the whole close timeout from then on") {
  in_every_world(
      [](World& world) {
        auto line = open_line(world, only([](ServiceOptions& options) { options.close_timeout_ms = 100; }));
        line.client.reading = false;
        const std::string payload = random_bytes(std::size_t{4} << 20);
        in_turn(world, [&] {
          line.connection.send(Opcode::binary, to_bytes(payload));
          line.connection.close();
        });
        Watch watch(world);
        watch.reach(60);
        CHECK(line.connection.buffered() > 0);
        line.client.reading = true;
        line.client.frames_until(Opcode::close);
        watch.restart();
        REQUIRE(world.until([&] { return line.handler.closes.size() == 1; }));
        CHECK(line.handler.closes[0].error == Errc::timed_out);
        CHECK(watch.ms() >= 90);  // the last bytes may have been taken some turns before they were looked at
        CHECK(watch.ms() <= 100);
      },
      simulated_kinds());
}
