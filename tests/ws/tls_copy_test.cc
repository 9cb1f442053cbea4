// The proof of what is copied over TLS, and that a large message over TLS is copied by nobody but OpenSSL: what it decrypts, it puts where the message is
// assembled. SSL_read_ex is replaced by one that keeps where the plaintext went.
#include <levada/ws/service.h>

#include <dlfcn.h>
#include <openssl/ssl.h>
#include <string>
#include <utility>
#include <vector>

#include <doctest/doctest.h>

#include <levada/tests/support/count_copies.h>
#include <levada/tests/support/tls_peer.h>

using namespace levada;
using namespace levada::ws;
using namespace levada::ws::test;

namespace {

std::vector<Bytes> decrypted;

struct Comparer {
  void on_open(Connection& connection) {
    opened++;
    last = connection.handle();
  }
  void on_message(Connection&, Opcode, Bytes payload) {
    right += to_text(payload) == expected;
    for (const Bytes each : std::exchange(decrypted, {})) {
      const bool inside =
          each.data() >= payload.data() && each.data() + each.size() <= payload.data() + payload.size();
      if (inside) in_place += each.size();
    }
  }
  std::string_view expected;
  Handle last;
  int opened = 0, right = 0;
  std::size_t in_place = 0;
};

}  // namespace

extern "C" int SSL_read_ex(SSL* ssl, void* room, std::size_t size, std::size_t* got) {
  static const auto real = reinterpret_cast<decltype(&SSL_read_ex)>(dlsym(RTLD_NEXT, "SSL_read_ex"));
  const int result = real(ssl, room, size, got);
  if (result == 1) decrypted.push_back({static_cast<const std::uint8_t*>(room), *got});
  return result;
}

TEST_CASE("a large message over TLS is decrypted to where it is assembled") {
  constexpr std::size_t one_receive = 300'000;  // came before the length was known, and was copied
  for (const Kind& kind : real_kinds()) {
    for (const Role role : {Role::server, Role::client}) {
      CAPTURE(kind.name);
      CAPTURE(role == Role::server);
      const bool serves = role == Role::server;
      World world(kind);
      auto& handler = world.make_handler<Comparer>();
      auto [fd, wire] = world.pair();
      wire->masks = serves;
      Service& service = world.service(handler, {.tls = serves ? server_tls() : nullptr}, role);
      if (serves) {
        service.adopt(std::move(fd));
      } else {
        const DialOptions options{.host = "h", .tls = client_tls(), .tls_host = "localhost"};
        REQUIRE(service.dial_on(std::move(fd), options) != nullptr);
      }
      TlsPeer peer(world, *wire, serves ? net::TlsRole::client : net::TlsRole::server,
                   serves ? *client_tls() : *server_tls());
      serves ? peer.open() : peer.accept_upgrade();
      REQUIRE(peer.until([&] { return handler.opened == 1; }));
      const std::string payload = random_bytes(4'000'000);
      handler.expected = payload;
      peer.send(Opcode::binary, payload);
      CHECK(world.until([&] { return handler.right == 1; }));
      CHECK(handler.in_place > payload.size() - one_receive);
    }
  }
}

TEST_CASE("a byte over TLS is copied twice in each direction: once by us, once by OpenSSL") {
  for (const Kind& kind : real_kinds()) {
    CAPTURE(kind.name);
    World world(kind);
    auto& handler = world.make_handler<Comparer>();
    auto [fd, wire] = world.pair();
    wire->masks = true;
    world.service(handler, {.tls = server_tls()}).adopt(std::move(fd));
    TlsPeer peer(world, *wire, net::TlsRole::client, *client_tls());
    peer.open();
    REQUIRE(peer.until([&] { return handler.opened == 1; }));
    const std::string payload = random_bytes(200'000);  // less than what is encrypted ahead
    // Sending, from memory that is kept: all of it is encrypted in the turn's flush.
    const PreparedMessage message(Opcode::binary, to_bytes(payload));
    handler.last.get()->send(message);
    std::size_t before = levada::test::copied_bytes();
    world.reactor().run_once(0);
    std::size_t copied = levada::test::copied_bytes() - before;
    MESSAGE(kind.name << ": " << copied << " bytes copied to send 200000");
    CHECK(copied > payload.size());
    CHECK(copied < payload.size() * 21 / 10);
    // Receiving, in pieces that stay below what is assembled: the wire holds all of it before the turn.
    handler.expected = std::string_view(payload).substr(0, 10'000);
    copied = 0;
    for (int i = 1; i <= 20; i++) {
      peer.send(Opcode::binary, payload.substr(0, 10'000));
      wire->move_bytes();
      before = levada::test::copied_bytes();
      world.reactor().run_once(1000);
      copied += levada::test::copied_bytes() - before;
      world.until([&] { return handler.right == i; });
    }
    CHECK(handler.right == 20);
    MESSAGE(kind.name << ": " << copied << " bytes copied to receive 200000");
    CHECK(copied > payload.size());
    CHECK(copied < payload.size() * 21 / 10);
  }
}
