// Sending on every backend: what a message has to pass, what becomes of one for which there is no room, and how it
// leaves.
#include <levada/ws/connection.h>

#include <algorithm>
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

Frame message(unsigned opcode, std::string payload) {
  return {opcode, std::move(payload)};
}

constexpr OutputPolicy policies[] = {OutputPolicy::report, OutputPolicy::drop_newest,
                                     OutputPolicy::drop_oldest, OutputPolicy::close};

// The ways to send a message.
constexpr const char* ways[] = {"copied", "parts", "prepared", "kept", "fragment"};

SendStatus send_by(std::string_view way, Connection& connection, const std::string& payload) {
  const Bytes bytes = to_bytes(payload);
  if (way == "parts") {
    const Bytes parts[] = {bytes.first(bytes.size() / 3), {}, bytes.subspan(bytes.size() / 3)};
    return connection.send(Opcode::binary, parts);
  }
  if (way == "prepared") return connection.send(PreparedMessage(Opcode::binary, bytes));
  if (way == "kept") return connection.send(Opcode::binary, connection.keep(bytes));
  if (way == "fragment") return connection.send_fragment(Opcode::binary, bytes, true);
  return connection.send(Opcode::binary, bytes);
}

// A connection of a new service without a handshake, and its client.
struct Line {
  Recorder& handler;
  Service& service;
  Connection& connection;
  Client& client;
};

Line open_line(World& world, ServiceOptions options) {
  Recorder& handler = world.make_handler<Recorder>();
  Service& service = world.service(handler, std::move(options));
  auto [fd, client] = world.pair();
  Connection* connection = service.adopt_upgraded(std::move(fd));
  REQUIRE(connection != nullptr);
  return {handler, service, *connection, *client};
}

// Runs `work` in a turn of the reactor, as a handler would.
template <class Work>
void in_turn(World& world, Work work) {
  bool done = false;
  world.reactor().post([&work, &done] {
    work();
    done = true;
  });
  REQUIRE(world.until([&done] { return done; }));
}

// Sends a message of which some is taken and some is not, as the client does not read.
std::string stall(World& world, Line& line, std::size_t size) {
  const std::string first = random_bytes(size, 99);
  line.client.reading = false;
  in_turn(world,
          [&] { REQUIRE(line.connection.send(Opcode::binary, to_bytes(first)) == SendStatus::queued); });
  const auto stalled = [&] { return line.connection.blocked() && line.connection.buffered() < size; };
  REQUIRE(world.until(stalled));
  world.settle(30);  // simulated faults may have stopped it early
  REQUIRE(world.until(stalled));
  return first;
}

std::string numbered(std::uint64_t number, std::size_t size) {
  return std::to_string(number) + ':' + random_letters(size, number);
}

}  // namespace

// ---- Ways to send ----

TEST_CASE("what is sent in every way arrives in order") {
  in_every_world([](World& world) {
    Recorder& handler = world.serve<Recorder>();
    const PreparedMessage small(Opcode::text, to_bytes("small"));
    const std::string large_payload = random_bytes(30000, 7);
    const PreparedMessage large(Opcode::binary, to_bytes(large_payload));
    handler.receiving = [&](Connection& connection, Opcode, MutableBytes) {
      CHECK(connection.send_text("copied") == SendStatus::queued);
      const std::string parts[] = {"g", "", "athe", "red"};
      const Bytes views[] = {to_bytes(parts[0]), to_bytes(parts[1]), to_bytes(parts[2]), to_bytes(parts[3])};
      CHECK(connection.send(Opcode::text, views) == SendStatus::queued);
      CHECK(connection.send(small) == SendStatus::queued);
      CHECK(connection.send(large) == SendStatus::queued);
      CHECK(connection.send_fragment(Opcode::text, to_bytes("frag"), false) == SendStatus::queued);
      CHECK(connection.ping(to_bytes("between")) == SendStatus::queued);
      CHECK(connection.send_fragment(Opcode::text, {}, false) == SendStatus::queued);
      CHECK(connection.send_fragment(Opcode::text, to_bytes("ment"), true) == SendStatus::queued);
      CHECK(connection.pong() == SendStatus::queued);
      CHECK(connection.send(Opcode::binary, std::span<const Bytes>{}) == SendStatus::queued);
      CHECK(connection.send(Opcode::binary, to_bytes(large_payload)) == SendStatus::queued);
    };
    Client& client = world.open();
    client.send(Opcode::text, "go");
    CHECK(client.frame() == message(text, "copied"));
    CHECK(client.frame() == message(text, "gathered"));
    CHECK(client.frame() == message(text, "small"));
    CHECK(client.frame() == message(binary, large_payload));
    CHECK((client.frame() == Frame{text, "frag", false}));
    CHECK(client.frame() == message(9, "between"));
    CHECK((client.frame() == Frame{0, "", false}));
    CHECK((client.frame() == Frame{0, "ment", true}));
    CHECK(client.frame() == message(pong, ""));
    CHECK(client.frame() == message(binary, ""));
    CHECK(client.frame() == message(binary, large_payload));
  });
}

TEST_CASE("a payload may be sent as often as one likes, also in parts and with other opcodes") {
  in_every_world([](World& world) {
    Recorder& handler = world.serve<Recorder>();
    handler.receiving = [](Connection& connection, Opcode opcode, MutableBytes payload) {
      connection.send(opcode, payload);
      connection.send(Opcode::binary, payload);
      connection.send(opcode, payload.subspan(payload.size() / 2));
      connection.send(opcode, payload.first(payload.size() / 2));
    };
    Client& client = world.open();
    for (const std::size_t size : {10u, 511u, 512u, 1000u, 65536u, 150'000u}) {
      for (const bool fragmented : {false, true}) {
        CAPTURE(size);
        const std::string payload = random_letters(size);
        if (fragmented) {
          client.send(Opcode::text, payload.substr(0, 5), {.fin = false})
              .send(Opcode::continuation, payload.substr(5));
        } else {
          client.send(Opcode::text, payload);
        }
        CHECK(client.frame() == message(text, payload));
        CHECK(client.frame() == message(binary, payload));
        CHECK(client.frame() == message(text, payload.substr(size / 2)));
        CHECK(client.frame() == message(text, payload.substr(0, size / 2)));
      }
    }
  });
}

TEST_CASE("the first half of a payload sent first does not change what is sent after it") {
  in_every_world([](World& world) {
    Recorder& handler = world.serve<Recorder>();
    handler.receiving = [](Connection& connection, Opcode opcode, MutableBytes payload) {
      connection.send(opcode, payload.first(payload.size() / 2));
      connection.send(opcode, payload);
    };
    Client& client = world.open();
    const std::string payload = random_letters(3000);
    client.send(Opcode::text, payload);
    CHECK(client.frame() == message(text, payload.substr(0, 1500)));
    CHECK(client.frame() == message(text, payload));
  });
}

TEST_CASE("kept payloads outlive their handler and can be sent later, to anyone") {
  in_every_world([](World& world) {
    Recorder& handler = world.serve<Recorder>();
    std::vector<PayloadRef> kept;
    handler.receiving = [&](Connection& connection, Opcode, MutableBytes payload) {
      kept.push_back(connection.keep(payload));
      kept.push_back(connection.keep(payload.subspan(payload.size() / 2)));
    };
    Client& sender = world.open();
    Client& other = world.open();
    std::vector<std::string> payloads;
    for (const std::size_t size : {0u, 3u, 600u, 5000u, 20'000u, 100'000u, 400'000u}) {
      payloads.push_back(random_bytes(size, size));
      sender.send(Opcode::binary, payloads.back());
    }
    REQUIRE(world.until([&] { return kept.size() == 2 * payloads.size(); }));
    for (int i = 0; i < 200; i++)
      sender.send(Opcode::binary, random_bytes(5000));  // buffers would be reused now
    REQUIRE(world.until([&] { return kept.size() == 2 * payloads.size() + 400; }));
    kept.resize(2 * payloads.size());
    for (std::size_t i = 0; i < payloads.size(); i++) {
      CHECK(to_text(kept[2 * i].bytes()) == payloads[i]);
      CHECK(to_text(kept[2 * i + 1].bytes()) == payloads[i].substr(payloads[i].size() / 2));
    }
    world.reactor().post([&] {
      for (PayloadRef& ref : kept)
        CHECK(handler.last.get()->send(Opcode::binary, std::move(ref)) == SendStatus::queued);
      kept.clear();
    });
    for (const std::string& payload : payloads) {
      CHECK(other.frame() == message(binary, payload));
      CHECK(other.frame() == message(binary, payload.substr(payload.size() / 2)));
    }
  });
}

TEST_CASE("a kept payload may be dropped by another thread") {
  in_every_world([](World& world) {
    Recorder& handler = world.serve<Recorder>();
    std::vector<PayloadRef> kept;
    handler.receiving = [&](Connection& connection, Opcode, MutableBytes payload) {
      kept.push_back(connection.keep(payload));
      connection.send(Opcode::binary, payload);
    };
    Client& client = world.open();
    for (const std::size_t size : {100u, 30'000u, 300'000u}) {
      client.send(Opcode::binary, random_bytes(size));
      CHECK(client.frame() == message(binary, random_bytes(size)));
    }
    std::thread([moved = std::move(kept)]() mutable { moved.clear(); }).join();
    client.send(Opcode::binary, random_bytes(30'000));
    CHECK(client.frame() == message(binary, random_bytes(30'000)));
    kept.clear();
  });
}

TEST_CASE("a prepared message goes to many connections") {
  in_every_world([](World& world) {
    Recorder& handler = world.serve<Recorder>();
    Service& service = world.last_service();
    std::vector<Client*> clients;
    for (int i = 0; i < 20; i++) clients.push_back(&world.open());
    REQUIRE(world.until([&] { return handler.opened == 20; }));
    for (const std::size_t size : {5u, 600u, 100'000u}) {
      const std::string payload = random_letters(size);
      world.reactor().post([&] {
        const PreparedMessage message(Opcode::text, to_bytes(payload));
        service.for_each(
            [&](Connection& connection) { CHECK(connection.send(message) == SendStatus::queued); });
      });
      for (Client* client : clients) CHECK(client->frame() == message(text, payload));
    }
  });
}

TEST_CASE("a handler may change a payload and send it back") {
  in_every_world([](World& world) {
    Recorder& handler = world.serve<Recorder>();
    handler.receiving = [](Connection& connection, Opcode opcode, MutableBytes payload) {
      for (std::uint8_t& byte : payload) byte = static_cast<std::uint8_t>(byte - 'a' + 'A');
      connection.send(opcode, payload);
    };
    Client& client = world.open();
    client.send(Opcode::text, random_letters(2000));
    std::string upper = random_letters(2000);
    for (char& c : upper) c = static_cast<char>(c - 'a' + 'A');
    CHECK(client.frame() == message(text, upper));
  });
}

TEST_CASE("a send beyond the bound is refused whole and the connection goes on") {
  in_every_world([](World& world) {
    Recorder& handler = world.serve<Recorder>({.max_buffered_bytes = 2'000'000});
    int queued = 0;
    bool full = false;
    handler.receiving = [&](Connection& connection, Opcode, MutableBytes) {
      const std::string payload = random_bytes(50'000);
      const PreparedMessage prepared(Opcode::binary, to_bytes(payload));
      const Bytes parts[] = {to_bytes(payload)};
      while (connection.send(Opcode::binary, to_bytes(payload)) == SendStatus::queued) queued++;
      CHECK(connection.buffered() <= 2'000'000);
      CHECK(connection.send(prepared) == SendStatus::full);
      CHECK(connection.send(Opcode::binary, parts) == SendStatus::full);
      CHECK(connection.send_fragment(Opcode::binary, to_bytes(payload), true) == SendStatus::full);
      CHECK(connection.send(Opcode::binary, connection.keep(to_bytes(payload))) == SendStatus::full);
      full = true;
    };
    Client& client = world.open();
    client.send(Opcode::text, "go");
    REQUIRE(world.until([&] { return full; }));
    CHECK(queued == 39);
    for (int i = 0; i < queued; i++) CHECK(client.frame() == message(binary, random_bytes(50'000)));
    client.send(Opcode::ping, "alive");
    CHECK(client.frame() == message(pong, "alive"));
  });
}

// ---- The limit ----

TEST_CASE("a message up to the limit is queued, and one byte more meets the policy, however it is sent") {
  static constexpr std::size_t limit = 10'000, first_frame = 4004;
  in_every_world([](World& world) {
    for (const OutputPolicy policy : policies) {
      for (const std::string way : ways) {
        for (const std::size_t size :
             {limit - first_frame - 1, limit - first_frame, limit - first_frame + 1}) {
          const bool over = size > limit - first_frame;
          const auto number = static_cast<int>(policy);
          CAPTURE(number);
          CAPTURE(way);
          CAPTURE(over);
          Line line = open_line(world, {.max_buffered_bytes = limit, .output_policy = policy});
          const std::string first = random_bytes(first_frame - 4), second = random_bytes(size - 4, 2);
          SendStatus status{};
          in_turn(world, [&] {
            REQUIRE(line.connection.send(Opcode::binary, to_bytes(first)) == SendStatus::queued);
            REQUIRE(line.connection.buffered() == first_frame);
            status = send_by(way, line.connection, second);
            CHECK(line.connection.buffered() <= limit + control_reserve_bytes);
          });
          const Counters& counters = line.service.counters();
          const bool fragment = way == "fragment";
          const bool refused = over && (policy == OutputPolicy::report || fragment);
          const bool drops = over && !fragment && policy == OutputPolicy::drop_newest;
          const bool replaces = over && !fragment && policy == OutputPolicy::drop_oldest;
          const bool closes = over && !fragment && policy == OutputPolicy::close;
          CHECK(status == (refused  ? SendStatus::full
                           : drops  ? SendStatus::dropped
                           : closes ? SendStatus::closed
                                    : SendStatus::queued));
          CHECK(counters.sends_refused.value() == (refused ? 1 : 0));
          CHECK(counters.messages_dropped.value() == (drops || replaces ? 1 : 0));
          CHECK(counters.messages_sent.value() == (status == SendStatus::queued ? 2 : 1));
          if (!replaces) CHECK(line.client.frame() == message(binary, first));
          if (status == SendStatus::queued) {
            Frame got = line.client.frame();
            CHECK(got.payload == second);
          }
          if (closes) {
            CHECK(line.client.frame() == message(8, close_payload(1008, "too slow")));
            CHECK(!line.connection.is_open());
            line.client.send(Opcode::close, close_payload(1008));
            CHECK(line.client.reaches_end());
          } else {
            in_turn(world, [&] { CHECK(line.connection.send_text("goes on") == SendStatus::queued); });
            CHECK(line.client.frame() == message(text, "goes on"));
          }
          line.client.close();
        }
      }
    }
    CHECK(world.is_empty());
  });
}

TEST_CASE("a message longer than the limit never fits, and drops nothing for that") {
  in_every_world([](World& world) {
    for (const OutputPolicy policy : {OutputPolicy::drop_newest, OutputPolicy::drop_oldest}) {
      Line line = open_line(world, {.max_buffered_bytes = 1000, .output_policy = policy});
      in_turn(world, [&] {
        CHECK(line.connection.send_text("stays") == SendStatus::queued);
        CHECK(line.connection.send(Opcode::binary, to_bytes(random_bytes(997))) == SendStatus::dropped);
      });
      CHECK(line.service.counters().messages_dropped.value() == 1);
      CHECK(line.client.frame() == message(text, "stays"));
    }
  });
}

TEST_CASE("pings, pongs and the close frame leave at the limit, by a reserve that is never exceeded") {
  static constexpr std::size_t limit = 10'000;
  in_every_world([](World& world) {
    for (const OutputPolicy policy : policies) {
      Line line = open_line(world, {.max_buffered_bytes = limit, .output_policy = policy});
      const std::string payload = random_bytes(limit - 4), longest(125, 'p');
      static constexpr std::size_t for_controls = control_reserve_bytes - close_reserve_bytes;
      static constexpr std::size_t whole = for_controls / 127, rest = for_controls % 127;
      in_turn(world, [&] {
        Connection& connection = line.connection;
        CHECK(connection.send(Opcode::binary, to_bytes(payload)) == SendStatus::queued);
        for (std::size_t i = 0; i < whole; i++) {
          const Bytes bytes = to_bytes(longest);
          CHECK((i % 2 == 0 ? connection.ping(bytes) : connection.pong(bytes)) == SendStatus::queued);
        }
        CHECK(connection.ping(to_bytes(longest).first(rest - 1)) ==
              SendStatus::dropped);  // one byte too many
        CHECK(connection.ping(to_bytes(longest).first(rest - 2)) == SendStatus::queued);
        CHECK(connection.buffered() == limit + for_controls);
        CHECK(connection.pong() == SendStatus::dropped);
        CHECK(connection.send(PreparedMessage(Opcode::ping, {})) == SendStatus::dropped);
        connection.close(CloseCode::normal, std::string(123, 'r'));
        CHECK(!connection.is_open());
        CHECK(connection.buffered() == limit + for_controls + 127);
        CHECK(connection.buffered() <= limit + control_reserve_bytes);
      });
      CHECK(line.service.counters().controls_dropped.value() == 3);
      CHECK(line.service.counters().messages_dropped.value() == 0);
      CHECK(line.client.frame() == message(binary, payload));
      for (std::size_t i = 0; i < whole; i++) CHECK(line.client.frame().payload == longest);
      CHECK(line.client.frame() == message(9, longest.substr(0, rest - 2)));
      CHECK(line.client.frame() == message(8, close_payload(1000, std::string(123, 'r'))));
      line.client.send(Opcode::close, close_payload(1000));
      CHECK(line.client.reaches_end());
      line.client.close();
    }
    CHECK(world.is_empty());
  });
}

TEST_CASE("a ping is answered although the queue of its connection is full and stalled") {
  in_every_world([](World& world) {
    Line line = open_line(world, {.max_buffered_bytes = 3'000'000, .pause_above_bytes = 3'000'000});
    const std::string first = stall(world, line, 2'500'000);
    std::string second;
    in_turn(world, [&] {
      second = random_bytes(3'000'000 - line.connection.buffered() - 10, 5);
      CHECK(line.connection.send(Opcode::binary, to_bytes(second)) == SendStatus::queued);
      CHECK(line.connection.buffered() == 3'000'000);
    });
    line.client.send(Opcode::ping, "are you there");
    REQUIRE(world.until([&] { return line.handler.pings.size() == 1; }));
    line.client.reading = true;
    CHECK(line.client.frame().payload == first);
    CHECK(line.client.frame().payload == second);
    CHECK(line.client.frame() == message(pong, "are you there"));
    CHECK(world.until([&] { return line.handler.drained == 1; }));
  });
}

// ---- Dropping ----

TEST_CASE(
    "only whole messages that have not begun to leave are dropped, the oldest first, and never a fragment") {
  in_every_world([](World& world) {
    static constexpr std::size_t first_bytes = 2'000'000, limit = 2'100'000;
    Line line = open_line(world, {.max_buffered_bytes = limit, .output_policy = OutputPolicy::drop_oldest});
    const std::string first = stall(world, line, first_bytes);
    const std::string large = random_bytes(20'000, 7);
    const PreparedMessage prepared(Opcode::binary, to_bytes(large));
    Owner* const owner = prepared.share();
    const std::size_t references = owner->references();
    std::size_t filler = 0;
    in_turn(world, [&] {
      Connection& connection = line.connection;
      CHECK(connection.send_text("one") == SendStatus::queued);
      CHECK(connection.send_fragment(Opcode::text, to_bytes("frag"), false) == SendStatus::queued);
      CHECK(connection.ping(to_bytes("between")) == SendStatus::queued);
      CHECK(connection.send_fragment(Opcode::text, to_bytes("ment"), true) == SendStatus::queued);
      CHECK(connection.send(prepared) == SendStatus::queued);
      CHECK(connection.send(Opcode::binary, connection.keep(to_bytes(large))) == SendStatus::queued);
      CHECK(connection.send_text("two") == SendStatus::queued);
      CHECK(owner->references() == references + 1);
      filler = limit - connection.buffered() - 10;
      CHECK(connection.send(Opcode::binary, to_bytes(random_bytes(filler, 3))) == SendStatus::queued);
      CHECK(connection.buffered() == limit);
    });
    const Counters& counters = line.service.counters();
    CHECK(counters.messages_dropped.value() == 0);
    in_turn(world, [&] { CHECK(line.connection.send_text("abc") == SendStatus::queued); });
    CHECK(counters.messages_dropped.value() == 1);  // "one"
    CHECK(line.connection.buffered() == limit);
    in_turn(world, [&] { CHECK(line.connection.send_text("3") == SendStatus::queued); });
    CHECK(counters.messages_dropped.value() == 2);  // the prepared one
    CHECK(owner->references() == references);
    in_turn(world, [&] {
      const std::string next = random_bytes(30'000, 4);
      CHECK(line.connection.send(Opcode::binary, to_bytes(next)) == SendStatus::queued);
    });
    CHECK(counters.messages_dropped.value() == 3);  // the kept one
    CHECK(line.connection.buffered() <= limit);
    line.client.reading = true;
    CHECK(line.client.frame() == message(binary, first));
    CHECK((line.client.frame() == Frame{text, "frag", false}));
    CHECK(line.client.frame() == message(9, "between"));
    CHECK((line.client.frame() == Frame{0, "ment", true}));
    CHECK(line.client.frame() == message(text, "two"));
    CHECK(line.client.frame() == message(binary, random_bytes(filler, 3)));
    CHECK(line.client.frame() == message(text, "abc"));
    CHECK(line.client.frame() == message(text, "3"));
    CHECK(line.client.frame() == message(binary, random_bytes(30'000, 4)));
    owner->drop_reference();
  });
}

TEST_CASE(
    "when the message that is leaving takes all the room, new ones are dropped and no other is lost for "
    "them") {
  in_every_world([](World& world) {
    Line line =
        open_line(world, {.max_buffered_bytes = 2'000'010, .output_policy = OutputPolicy::drop_oldest});
    const std::string first = stall(world, line, 2'000'000);
    std::size_t left = 0;
    in_turn(world, [&] {
      CHECK(line.connection.send_text("small") == SendStatus::queued);
      left = 2'000'010 - line.connection.buffered();
      const std::string too_large = random_bytes(left + 20);  // dropping "small" would not be enough
      CHECK(line.connection.send(Opcode::binary, to_bytes(too_large)) == SendStatus::dropped);
    });
    line.client.reading = true;
    CHECK(line.client.frame() == message(binary, first));
    CHECK(line.client.frame() == message(text, "small"));
    CHECK(line.service.counters().messages_dropped.value() == 1);
  });
}

TEST_CASE(
    "random sends to a slow reader: the limit holds to the byte, and what was queued and not dropped "
    "arrives") {
  std::uint64_t seed = 0;
  in_every_world([&seed](World& world) {
    static constexpr std::size_t limit = 150'000;
    for (const OutputPolicy policy :
         {OutputPolicy::report, OutputPolicy::drop_newest, OutputPolicy::drop_oldest}) {
      SeededRandom random(++seed);
      Line line = open_line(world, {.max_buffered_bytes = limit, .output_policy = policy});
      std::vector<std::uint64_t> queued;  // by number
      std::vector<std::size_t> sizes;
      std::uint64_t dropped = 0, refused = 0, controls = 0, pings = 0;
      std::string control_order;
      for (int round = 0; round < 60; round++) {
        line.client.reading = random.below(3) == 0;
        in_turn(world, [&] {
          for (int i = 0; i < 12; i++) {
            if (random.below(6) == 0) {
              const bool sent = line.connection.ping(to_bytes("ping")) == SendStatus::queued;
              (sent ? pings : controls)++;
              CHECK(line.connection.buffered() <= limit + control_reserve_bytes - close_reserve_bytes);
              continue;
            }
            const std::uint64_t number = sizes.size();
            sizes.push_back(random.below(4) == 0 ? random.below(50'000) : random.below(2'000));
            const std::string payload = numbered(number, sizes.back());
            const std::size_t before = line.connection.buffered();
            const SendStatus status = send_by(ways[random.below(4)], line.connection, payload);
            if (status == SendStatus::queued) queued.push_back(number);
            if (status == SendStatus::dropped) dropped++;
            if (status == SendStatus::full) refused++;
            REQUIRE(line.connection.buffered() <= std::max(limit, before));
          }
        });
      }
      in_turn(world, [&] {
        line.connection.close();
        CHECK(line.connection.buffered() <= limit + control_reserve_bytes);
      });
      line.client.reading = true;
      std::vector<std::uint64_t> got;
      std::uint64_t got_pings = 0;
      for (const Frame& frame : line.client.frames_until(Opcode::close)) {
        if (frame.opcode == 9) got_pings++;
        if (frame.opcode != binary) continue;
        got.push_back(std::stoull(frame.payload));
        REQUIRE(frame.payload == numbered(got.back(), sizes[got.back()]));
      }
      const Counters& counters = line.service.counters();
      CHECK(got_pings == pings);
      CHECK(counters.controls_dropped.value() == controls);
      CHECK(counters.sends_refused.value() == refused);
      CHECK(counters.messages_sent.value() == queued.size());
      CHECK(refused + counters.messages_dropped.value() > 0);
      CHECK((policy == OutputPolicy::report ? dropped : refused) == 0);
      if (policy != OutputPolicy::drop_oldest) {
        CHECK(got == queued);
        CHECK(counters.messages_dropped.value() == dropped);
      } else {
        CHECK(std::includes(queued.begin(), queued.end(), got.begin(), got.end()));
        CHECK(got.back() == queued.back());
        CHECK(queued.size() - got.size() == counters.messages_dropped.value() - dropped);
        CHECK(queued.size() > got.size());
      }
      line.client.send(Opcode::close, close_payload(1000));
      CHECK(line.client.reaches_end());
      line.client.close();
    }
    CHECK(world.is_empty());
  });
}

// ---- Draining ----

TEST_CASE("on_drain follows a refusal, also when the kernel then takes everything at once, and only then") {
  in_every_world([](World& world) {
    Line line = open_line(world, {.max_buffered_bytes = 1000});
    in_turn(world, [&] { CHECK(line.connection.send_text("fits") == SendStatus::queued); });
    CHECK(line.client.frame().payload == "fits");
    world.settle();
    if (!world.kind().simulated()) CHECK(line.handler.drained == 0);  // faults may stall it
    line.handler.drained = 0;
    in_turn(world, [&] {
      CHECK(line.connection.send(Opcode::binary, to_bytes(random_bytes(900))) == SendStatus::queued);
      CHECK(line.connection.send(Opcode::binary, to_bytes(random_bytes(900))) == SendStatus::full);
    });
    CHECK(world.until([&] { return line.handler.drained == 1; }));
    CHECK(line.connection.buffered() == 0);
    CHECK(line.client.frame().payload.size() == 900);
    world.settle();
    CHECK(line.handler.drained == 1);
  });
}

TEST_CASE("a handler that sends on in on_drain gets everything across a slow reader") {
  in_every_world([](World& world) {
    Line line = open_line(world, {.max_buffered_bytes = 100'000});
    std::uint64_t next = 0;
    static constexpr std::uint64_t count = 300;
    const auto send_on = [&](Connection& connection) {
      while (next < count) {
        if (connection.send(Opcode::text, to_bytes(numbered(next, 20'000))) != SendStatus::queued) return;
        next++;
      }
    };
    line.handler.draining = send_on;
    line.client.reading = false;
    in_turn(world, [&] { send_on(line.connection); });
    for (std::uint64_t i = 0; i < count; i++) {
      line.client.reading = i % 8 != 0 || line.client.in.empty();
      world.turn(0);
      line.client.reading = true;
      REQUIRE(line.client.frame() == message(text, numbered(i, 20'000)));
    }
    CHECK(next == count);
    CHECK(line.handler.drained > 1);
  });
}

TEST_CASE("with a low limit of unsent bytes in the kernel, a peer that does not read shows earlier") {
  in_every_world(
      [](World& world) {
        const auto taken_until_stall = [&world](std::uint32_t lowat) {
          Recorder& handler = world.make_handler<Recorder>();
          world.listen(world.service(handler, {.notsent_lowat_bytes = lowat}));
          Client& client = world.connect();
          client.upgrade();
          CHECK(client.answer().status == 101);
          client.reading = false;
          REQUIRE(world.until([&] { return handler.opened == 1; }));
          Connection& connection = *handler.last.get();
          std::size_t sent = 0;
          const std::string payload = random_bytes(16'000);
          int same = 0;
          for (std::size_t before = 0; same<20; same = connection.buffered()> before ? same + 1 : 0) {
            before = connection.buffered();
            in_turn(world, [&] { connection.send(Opcode::binary, to_bytes(payload)); });
            world.turn(0);
            sent += 16'004;
          }
          CHECK(connection.blocked());
          const std::size_t taken = sent - connection.buffered();
          client.reading = true;
          for (std::size_t got = 0; got < sent; got += 16'004) REQUIRE(client.frame().payload == payload);
          return taken;
        };
        const std::size_t usual = taken_until_stall(0), early = taken_until_stall(16 * 1024);
        CAPTURE(usual);
        CAPTURE(early);
        CHECK(early * 2 < usual);
      },
      real_kinds());
}

// ---- Plain requests ----

TEST_CASE("a client that asks on and reads no answers gets a bounded number of them, and the end") {
  struct Page {
    void on_http(HttpExchange& exchange) {
      answers++;
      exchange.respond(200, "text/plain", std::string(50'000, 'x'));
    }
    int answers = 0;
  };
  in_every_world([](World& world) {
    Page& handler = world.make_handler<Page>();
    Service& service = world.service(handler, {.pause_above_bytes = 300'000});
    auto [fd, client] = world.pair();
    Connection* connection = service.adopt(std::move(fd));
    client->reading = false;
    std::string requests;
    for (int i = 0; i < 1000; i++) requests += "GET / HTTP/1.1\r\nHost: x\r\n\r\n";
    client->write(requests);
    REQUIRE(world.until([&client = client] { return client->unsent() == 0; }));
    world.settle(4);
    CHECK(connection->buffered() <= 300'000 + 51'000);
    client->reading = true;
    for (int i = 0; i < handler.answers; i++) {
      const Answer answer = client->answer();
      CHECK(answer.body.size() == 50'000);
      CHECK(answer.has("Connection: close") == (i + 1 == handler.answers));
    }
    CHECK(client->reaches_end());
    CHECK(handler.answers < 1000);
    client->close();
    CHECK(world.is_empty());
  });
}

TEST_CASE("what other threads send is refused while too much of it waits for the reactor") {
  in_every_world(
      [](World& world) {
        Recorder& handler = world.serve<Recorder>();
        Client& client = world.open();
        const std::string payload = random_bytes(600);
        std::vector<SendStatus> statuses;
        std::thread([&] {
          for (int i = 0; i < 2; i++)
            statuses.push_back(handler.last.send(Opcode::binary, to_bytes(payload)));
        }).join();
        CHECK(statuses == std::vector{SendStatus::queued, SendStatus::full});
        CHECK(client.frame() == message(binary, payload));
        CHECK(world.reactor().counters().posts_refused.value() == 1);
        CHECK(handler.last.send(Opcode::binary, to_bytes(payload)) == SendStatus::queued);
        CHECK(client.frame() == message(binary, payload));
      },
      all_kinds(), {.max_posted_bytes = 1000});
}
