// The proof that masks cost no system call per frame: getrandom() is replaced by one that counts.
#include <levada/ws/service.h>

#include <sys/random.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <doctest/doctest.h>

#include <levada/tests/support/world.h>

using namespace levada;
using namespace levada::ws;
using namespace levada::ws::test;

namespace {
int calls = 0;
}  // namespace

extern "C" ssize_t getrandom(void* buffer, std::size_t size, unsigned flags) {
  calls++;
  return syscall(SYS_getrandom, buffer, size, flags);
}

TEST_CASE("a thousand masked frames need one call for random bytes") {
  in_every_world([](World& world) {
    auto& handler = world.make_handler<Recorder>();
    Service& service = world.service(handler, {}, Role::client);
    auto [fd, peer] = world.pair();
    Client* const server = peer;
    server->masks = false;
    REQUIRE(service.dial_on(std::move(fd), {.host = "h"}) != nullptr);
    REQUIRE(world.until([&] { return server->in.ends_with("\r\n\r\n"); }));
    CHECK(calls > 0);  // the key of the handshake
    const std::size_t key = server->in.find("Sec-WebSocket-Key: ");
    const AcceptKey accept = accept_key(std::string_view(server->in).substr(key + 19, 24));
    server->write("HTTP/1.1 101 x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: " +
                  std::string(accept.data(), accept.size()) + "\r\n\r\n");
    server->in.clear();
    REQUIRE(world.until([&] { return handler.opened == 1; }));
    calls = 0;
    for (int i = 0; i < 3000; i++) REQUIRE(handler.last.get()->send_text("x") == SendStatus::queued);
    CHECK(calls >= 2);  // 4096 bytes, 1024 keys, at a time
    CHECK(calls <= 3);
    CHECK(world.until([&] { return server->in.size() == 3000 * 7; }));
    server->close();
    CHECK(world.is_empty());
  });
}
