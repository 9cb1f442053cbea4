// The proof that a large message over TLS is copied by nobody but OpenSSL: into its memory, where it decrypts, and from
// there to where the message is assembled.
#include <levada/ws/service.h>

#include <string>

#include <doctest/doctest.h>

#include <levada/tests/support/count_copies.h>
#include <levada/tests/support/tls_peer.h>

using namespace levada;
using namespace levada::ws;
using namespace levada::ws::test;

namespace {

struct Comparer {
  void on_open(Connection&) { opened++; }
  void on_message(Connection&, Opcode, Bytes payload) { right += to_text(payload) == expected; }
  std::string_view expected;
  int opened = 0, right = 0;
};

}  // namespace

TEST_CASE("a large message over TLS is decrypted to where it is assembled") {
  for (const Kind& kind : real_kinds()) {
    CAPTURE(kind.name);
    World world(kind);
    auto& handler = world.make_handler<Comparer>();
    auto [fd, wire] = world.pair();
    wire->masks = false;  // the engine is the client, so that nothing hides in unmasking
    Service& service = world.service(handler, {}, Role::client);
    REQUIRE(service.dial_on(std::move(fd), {.host = "h", .tls = client_tls(), .tls_host = "localhost"}) !=
            nullptr);
    TlsPeer peer(world, *wire, net::TlsRole::server, *server_tls());
    peer.accept_upgrade();
    REQUIRE(peer.until([&] { return handler.opened == 1; }));
    const std::string payload = random_bytes(8'000'000);
    handler.expected = payload;
    peer.send(Opcode::binary, payload);
    std::size_t copied = 0;
    CHECK(world.until([&] {
      const std::size_t before = levada::test::copied_bytes();
      world.reactor().run_once(1);
      copied += levada::test::copied_bytes() - before;
      return handler.right == 1;
    }));
    // What came before the length was known was copied once more: one receive.
    const double copies = static_cast<double>(copied) / static_cast<double>(payload.size());
    MESSAGE(kind.name << ": each byte was copied " << copies << " times");
    CHECK(copies < 2.1);
    CHECK(copies > 1.9);  // the count sees OpenSSL
  }
}
