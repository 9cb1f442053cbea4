// The proof that compressed messages allocate nothing in the steady state: as allocation_test.cc, with a peer whose
// messages zlib has compressed.
#include <levada/ws/service.h>

#include <sys/socket.h>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include <levada/tests/support/count_alloc.h>
#include <levada/tests/support/deflating.h>
#include <levada/tests/support/world.h>

using namespace levada;
using namespace levada::ws;
using namespace levada::ws::test;

namespace {

// Echoes whole; a binary message in two fragments.
struct EchoBothWays {
  void on_message(Connection& connection, Opcode opcode, Bytes payload) {
    messages++;
    if (opcode == Opcode::text) {
      connection.send(opcode, payload);
      return;
    }
    connection.send_fragment(opcode, payload.first(payload.size() / 2), false);
    connection.send_fragment(opcode, payload.subspan(payload.size() / 2), true);
  }
  std::size_t messages = 0;
};

// A message as a client sends it, which stands alone; whole, or in two fragments.
std::string wire_of(std::string_view payload, Opcode opcode, bool fragments) {
  const std::string all = RawDeflater(15).message(payload);
  if (!fragments) return client_frame(opcode, all, {.rsv = 4});
  return client_frame(opcode, all.substr(0, all.size() / 2), {.fin = false, .rsv = 4}) +
         client_frame(Opcode::continuation, all.substr(all.size() / 2));
}

}  // namespace

TEST_CASE(
    "compressed echoes of all sizes allocate nothing, with shared contexts and with a connection's own") {
  for (const Kind& kind : real_kinds()) {
    for (const DeflateContext context : {DeflateContext::shared, DeflateContext::dedicated}) {
      CAPTURE(kind.name);
      CAPTURE(static_cast<int>(context));
      World world(kind);
      EchoBothWays& handler =
          world.serve<EchoBothWays>({.deflate = {.enabled = true, .deflater = context, .inflater = context}});
      std::vector<Client*> clients;
      for (int i = 0; i < 3; i++)
        clients.push_back(&world.open("/", "Sec-WebSocket-Extensions: permessage-deflate\r\n"));
      std::vector<std::string> wires;
      for (const std::size_t size : {16u, 128u, 1024u, 16'384u, 200'000u}) {
        for (const Opcode opcode : {Opcode::text, Opcode::binary}) {
          for (const bool fragments : {false, true})
            wires.push_back(wire_of(json_text(size), opcode, fragments));
        }
      }
      std::uint64_t allocated = 0;
      std::size_t sent = 0;
      for (int round = 0; round < 90; round++) {
        if (round == 30) allocated = 0;
        Client& client = *clients[static_cast<std::size_t>(round) % clients.size()];
        for (const std::string& wire : wires) {
          client.write(wire);
          sent++;
          const std::uint64_t limit = monotonic_ns() + 10 * nanoseconds_per_second;
          for (int quiet = 0; handler.messages < sent || quiet < 2;) {
            client.move_bytes();
            const std::uint64_t before = levada::test::allocations();
            world.reactor().run_once(0);
            allocated += levada::test::allocations() - before;
            quiet += handler.messages == sent ? 1 : 0;
            REQUIRE(monotonic_ns() < limit);
          }
          client.move_bytes();
          client.in.clear();
        }
      }
      CHECK(handler.messages == 90 * wires.size());
      CHECK(allocated == 0);
    }
  }
}

TEST_CASE("an idle connection with shared contexts holds nothing that one without compression does not") {
  constexpr std::size_t count = 500;
  const auto held = [] { return levada::test::allocations() - levada::test::releases(); };
  for (const Kind& kind : real_kinds()) {
    CAPTURE(kind.name);
    std::uint64_t allocations[2] = {};
    std::size_t pooled[2] = {};
    for (const bool deflate : {false, true}) {
      World world(kind);
      EchoBothWays& handler = world.serve<EchoBothWays>({.deflate = {.enabled = true}});
      // Echoed in fragments, too.
      const std::string json = json_text(1024);
      const std::string wire = deflate
                                   ? wire_of(json, Opcode::text, false) + wire_of(json, Opcode::binary, true)
                                   : client_frame(Opcode::text, json) + client_frame(Opcode::binary, json);
      const auto echo = [&] {
        Client& client = world.open("/", deflate ? "Sec-WebSocket-Extensions: permessage-deflate\r\n"
                                                 : "Sec-WebSocket-Extensions: permessage-unknown\r\n");
        client.write(wire);
        const std::size_t wanted = handler.messages + 2;
        REQUIRE(world.until([&] { return handler.messages == wanted; }));
      };
      echo();
      world.settle();
      const std::size_t before = world.reactor().blocks().bytes_in_use();
      const std::uint64_t held_before = held();
      for (std::size_t i = 0; i < count; i++) echo();
      world.settle();
      allocations[deflate] = held() - held_before;
      pooled[deflate] = world.reactor().blocks().bytes_in_use() - before;
    }
    CHECK(pooled[1] <= pooled[0] + 64 * count);
    // The test's own clients hold some in both; a context or a table's entry for each would be one more.
    CHECK(allocations[1] < allocations[0] + count / 2);
  }
}
