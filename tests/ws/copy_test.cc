// The proof that an echo copies nothing in proportion to its payload. Three observations make it, none of
// which needs the engine's help:
//  - memcpy and memmove are counted while the reactor runs (not masking, which may copy as well);
//  - messages that came together lie at the distance that they had on the wire: where they were received;
//  - a handler that changes the payload after it was sent changes what arrives: what was queued is the
//    payload itself.
#include <levada/ws/service.h>

#include <cstring>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include <levada/tests/support/count_copies.h>
#include <levada/tests/support/world.h>

using namespace levada;
using namespace levada::ws;
using namespace levada::ws::test;

namespace {

// What an echo may copy whatever its size: headers, and what the loop keeps.
constexpr std::size_t small = 512;

// Echoes, and changes the payload behind the engine's back.
struct Tamperer {
  void on_message(Connection& connection, Opcode opcode, MutableBytes payload) {
    seen.push_back(payload);
    if (twice) connection.send(opcode, payload);
    if (copies) copy = std::string(to_text(payload));
    connection.send(opcode, payload);
    if (!payload.empty()) payload.front() = payload[payload.size() / 2] = payload.back() = '!';
  }
  std::vector<Bytes> seen;
  std::string copy;
  bool twice = false, copies = false;
};

std::string tampered(std::string payload) {
  payload.front() = payload[payload.size() / 2] = payload.back() = '!';
  return payload;
}

// Turns until the client has the frame; returns what the reactor has copied meanwhile.
std::size_t copied_until(World& world, Client& client, std::size_t bytes) {
  std::size_t copied = 0;
  const std::uint64_t limit = monotonic_ns() + 10 * nanoseconds_per_second;
  while (client.in.size() < bytes && monotonic_ns() < limit) {
    client.move_bytes();
    const std::size_t before = levada::test::copied_bytes();
    world.reactor().run_once(1);
    copied += levada::test::copied_bytes() - before;
    client.move_bytes();
  }
  REQUIRE(client.in.size() == bytes);
  return copied;
}

struct Setup {
  explicit Setup(World& world) : handler(world.make_handler<Tamperer>()) {
    auto [fd, other] = world.pair();
    client = other;
    world.service(handler).adopt_upgraded(std::move(fd));
  }
  Tamperer& handler;
  Client* client = nullptr;
};

}  // namespace

TEST_CASE("copies are counted") {
  const std::string from = random_bytes(1000);
  std::string to(1000, '\0');
  const char* volatile source = from.data();
  char* volatile target = to.data();
  std::size_t before = levada::test::copied_bytes();
  CHECK(levada::test::copied_bytes() - before == 0);
  before = levada::test::copied_bytes();
  std::memcpy(target, source, from.size());
  CHECK(levada::test::copied_bytes() - before == 1000);
  CHECK(to == from);
  before = levada::test::copied_bytes();
  std::copy_n(static_cast<const char*>(source), from.size(), static_cast<char*>(target));
  CHECK(levada::test::copied_bytes() - before == 1000);
  std::memmove(target + 1, static_cast<const char*>(target), 999);
  CHECK(to.substr(1) == from.substr(0, 999));
}

// Where messages that were received one after the other lie so.
std::vector<Kind> incremental_kinds() {
  std::vector<Kind> kinds = real_kinds();
  std::erase_if(kinds, [](const Kind& kind) { return !kind.incremental; });
  return kinds;
}

TEST_CASE("a message that was received whole is echoed without a copy") {
  for (const std::size_t size : {1000u, 4096u, 12'000u}) {
    for (const Opcode opcode : {Opcode::text, Opcode::binary}) {
      CAPTURE(size);
      in_every_world(
          [&](World& world) {
            Setup setup(world);
            const std::string payload = random_letters(size);
            const std::string wire = client_frame(opcode, payload),
                              answer = server_frame(opcode, tampered(payload));
            setup.client->write(wire + wire);
            const std::size_t copied = copied_until(world, *setup.client, 2 * answer.size());
            CHECK(copied < small);
            CHECK((setup.client->in == answer + answer));
            REQUIRE(setup.handler.seen.size() == 2);
            CHECK(setup.handler.seen[1].data() - setup.handler.seen[0].data() ==
                  static_cast<std::ptrdiff_t>(wire.size()));
          },
          incremental_kinds());
    }
  }
}

TEST_CASE("a message that came in pieces is echoed without a copy, and received with one at most") {
  in_every_world(
      [](World& world) {
        const bool receives_are_seen = world.kind().backend == net::BackendKind::epoll;
        for (const std::size_t size : {200'000u, 1'000'000u}) {
          for (const Opcode opcode : {Opcode::text, Opcode::binary}) {
            CAPTURE(size);
            Setup setup(world);
            const std::string payload = random_letters(size);
            const std::string wire = client_frame(opcode, payload),
                              answer = server_frame(opcode, tampered(payload));
            levada::test::take_receives();
            const std::size_t first = 10'000;
            setup.client->write(wire.substr(0, first));
            std::size_t copied = 0;
            for (int i = 0; i < 4; i++) {
              const std::size_t before = levada::test::copied_bytes();
              world.reactor().run_once(1);
              copied += levada::test::copied_bytes() - before;
            }
            setup.client->write(wire.substr(first));
            copied += copied_until(world, *setup.client, answer.size());
            CHECK(copied < small);
            CHECK((setup.client->in == answer));
            REQUIRE(setup.handler.seen.size() == 1);
            std::size_t received_in_place = 0;
            for (const Bytes bytes : levada::test::take_receives()) {
              const Bytes message = setup.handler.seen[0];
              const bool inside =
                  bytes.data() >= message.data() && bytes.data() < message.data() + message.size();
              if (inside) received_in_place += bytes.size();
            }
            if (receives_are_seen) CHECK(received_in_place == wire.size() - first);
          }
        }
      },
      real_kinds());
}

TEST_CASE("the observations see a copy where there is one") {
  in_every_world(
      [](World& world) {
        Setup setup(world);
        setup.handler.twice =
            true;  // the second time the engine has to copy: what was changed later does not arrive
        const std::string payload = random_letters(8000), wire = client_frame(Opcode::text, payload);
        const std::string copy = server_frame(Opcode::text, payload);
        setup.client->write(wire);
        copied_until(world, *setup.client, 2 * copy.size());
        CHECK((setup.client->in == server_frame(Opcode::text, tampered(payload)) + copy));
        setup.client->in.clear();
        setup.handler.twice = false;
        setup.handler.copies = true;
        setup.client->write(wire);
        CHECK(copied_until(world, *setup.client, copy.size()) >= 8000);
      },
      real_kinds());
}
