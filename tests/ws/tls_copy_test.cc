// The proof that a large message over TLS is copied by nobody but OpenSSL: what it decrypts, it puts where the message is
// assembled. SSL_read_ex is replaced by one that keeps where the plaintext went.
#include <levada/ws/service.h>

#include <dlfcn.h>
#include <openssl/ssl.h>
#include <string>
#include <utility>
#include <vector>

#include <doctest/doctest.h>

#include <levada/tests/support/tls_peer.h>

using namespace levada;
using namespace levada::ws;
using namespace levada::ws::test;

namespace {

std::vector<Bytes> decrypted;

struct Comparer {
  void on_open(Connection&) { opened++; }
  void on_message(Connection&, Opcode, Bytes payload) {
    right += to_text(payload) == expected;
    for (const Bytes each : std::exchange(decrypted, {})) {
      const bool inside =
          each.data() >= payload.data() && each.data() + each.size() <= payload.data() + payload.size();
      if (inside) in_place += each.size();
    }
  }
  std::string_view expected;
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
