// The proof that messages over TLS allocate nothing on our side in the steady state, in both roles on one reactor, and
// that connecting over and over leaves nothing behind.
#include <levada/ws/client.h>

#include <malloc.h>
#include <filesystem>
#include <string>

#include <doctest/doctest.h>

#include <levada/tests/support/count_openssl.h>
#include <levada/tests/support/tls_peer.h>

using namespace levada;
using namespace levada::ws;
using namespace levada::ws::test;

namespace {

struct PlainEcho {
  void on_message(Connection& connection, Opcode opcode, Bytes payload) { connection.send(opcode, payload); }
};

// Sends the echo on until it has come so often.
struct Repeater {
  void on_open(Connection& connection) {
    opened++;
    handle = connection.handle();
  }
  void on_message(Connection& connection, Opcode opcode, Bytes payload) {
    if (++echoes < wanted) connection.send(opcode, payload);
  }
  void on_close(Connection&, const CloseInfo& info) { closed += info.code == CloseCode::normal; }

  Handle handle;
  std::uint64_t echoes = 0, wanted = 0;
  int opened = 0, closed = 0;
};

struct Both {
  Both(const Kind& kind, bool tls) : world(kind) {
    world.serve<PlainEcho>({.tls = tls ? server_tls() : nullptr});
    url = (tls ? "wss://127.0.0.1:" : "ws://127.0.0.1:") + std::to_string(world.address.port());
    ClientOptions options{.proxy_from_environment = false, .tls = client_tls_options()};
    client = std::make_unique<ws::Client>(world.reactor(), repeater, std::move(options));
  }
  ~Both() {
    world.reactor().close_all();
    world.settle(2);
  }
  void run(std::uint64_t count, std::string_view payload) {
    repeater.wanted = repeater.echoes + count;
    repeater.handle.get()->send(Opcode::binary, to_bytes(payload));
    while (repeater.echoes < repeater.wanted) world.reactor().run_once(1000);
  }

  World world;
  Repeater repeater;
  std::string url;
  std::unique_ptr<ws::Client> client;
};

std::size_t open_descriptors() {
  const std::filesystem::directory_iterator all("/proc/self/fd");
  return static_cast<std::size_t>(std::distance(begin(all), end(all)));
}

}  // namespace

TEST_CASE("echoes over TLS allocate nothing on our side, in both roles") {
  REQUIRE(levada::test::counts_openssl);
  for (const Kind& kind : real_kinds()) {
    CAPTURE(kind.name);
    Both both(kind, true);
    REQUIRE(both.client->dial({.url = both.url}));
    REQUIRE(both.world.until([&] { return both.repeater.opened == 1; }));
    for (const std::size_t size : {16u, 512u, 4096u, 65'536u, 300'000u}) {
      CAPTURE(size);
      const std::string payload = random_bytes(size);
      both.run(100, payload);
      const std::uint64_t before = levada::test::our_allocations();
      const std::uint64_t theirs = levada::test::openssl_allocations;
      both.run(1000, payload);
      CHECK(levada::test::our_allocations() == before);
      MESSAGE(kind.name << ", " << size << " B: OpenSSL allocates "
                        << static_cast<double>(levada::test::openssl_allocations - theirs) / 1000
                        << " times per echo");
    }
  }
}

TEST_CASE("15 000 connections one after the other leave no descriptor and no memory behind") {
  for (const Kind& kind : real_kinds()) {
    for (const bool tls : {false, true}) {
      CAPTURE(kind.name);
      CAPTURE(tls);
      Both both(kind, tls);
      const auto connect = [&](int until) {
        while (both.repeater.closed < until) {
          REQUIRE(both.client->dial({.url = both.url}));
          const int number = both.repeater.opened + 1;
          while (both.repeater.opened < number) both.world.reactor().run_once(1000);
          both.repeater.handle.get()->close();
          while (both.repeater.closed < number) both.world.reactor().run_once(1000);
        }
        REQUIRE(both.world.until([&] { return both.client->service().connections() == 0; }));
        REQUIRE(both.world.is_empty());
      };
      connect(1000);
      const std::size_t descriptors = open_descriptors();
      const std::size_t memory = mallinfo2().uordblks;
      connect(15'000);
      CHECK(open_descriptors() == descriptors);
      CHECK(mallinfo2().uordblks < memory + 100'000);
      CHECK(both.client->dials() == 0);
    }
  }
}
