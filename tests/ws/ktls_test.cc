// WebSocket over TLS whose records the kernel makes, on real connections: where it can, it has to; where it cannot, the
// same holds with OpenSSL's records, and the reason is told. tests/kernel_tls runs these under a kernel that can.
#include <levada/ws/client.h>

#include <functional>
#include <initializer_list>
#include <string>
#include <string_view>
#include <vector>

#include <doctest/doctest.h>

#include <levada/tests/support/raw_tls_client.h>
#include <levada/tests/support/tls_peer.h>

using namespace levada;
using namespace levada::ws;
using namespace levada::ws::test;

namespace {

using net::KtlsUse;
using net::TlsRole;
using net::TlsVersion;

struct Suite {
  const char* name;
  TlsVersion version;
  const char *ciphers, *cipher_suites;
};
constexpr Suite suites[] = {
    {"1.3 AES-256-GCM", TlsVersion::tls_1_3, "", "TLS_AES_256_GCM_SHA384"},
    {"1.3 AES-128-GCM", TlsVersion::tls_1_3, "", "TLS_AES_128_GCM_SHA256"},
    {"1.3 ChaCha20", TlsVersion::tls_1_3, "", "TLS_CHACHA20_POLY1305_SHA256"},
    {"1.2 AES-256-GCM", TlsVersion::tls_1_2, "ECDHE-ECDSA-AES256-GCM-SHA384", ""},
    {"1.2 ChaCha20", TlsVersion::tls_1_2, "ECDHE-ECDSA-CHACHA20-POLY1305", ""},
};

void check_use(const KtlsUse& use) {
  CHECK(use.sends == net::ktls_available().available);
  CHECK_FALSE(use.receives);
  CHECK_FALSE(std::string_view(use.reason).empty());
  if (!use.sends) CHECK(std::string_view(use.reason) == net::ktls_available().reason);
}

net::TlsOptions with(net::TlsOptions options, const Suite& suite) {
  options.max_version = suite.version;
  options.ciphers = suite.ciphers;
  options.cipher_suites = suite.cipher_suites;
  return options;
}

struct Told {
  void on_open(Connection& connection) {
    opened++;
    resumed = connection.tls()->resumed();
    use = connection.tls()->ktls();
    last = connection.handle();
  }
  void on_message(Connection&, Opcode, Bytes payload) { messages.emplace_back(to_text(payload)); }
  void on_close(Connection&, const CloseInfo& info) {
    closes.push_back(std::to_string(number(info.code)) + " " + to_string(info.error.code));
  }

  int opened = 0;
  bool resumed = false;
  KtlsUse use;
  Handle last;
  std::vector<std::string> messages, closes;
};

// A server and a client of levada on one reactor.
struct Both {
  Both(const Kind& kind, net::TlsOptions server, net::TlsOptions client)
      : world(kind), told(world.make_handler<Told>()) {
    echo = &world.serve<Echo>({.tls = make_tls(TlsRole::server, server)});
    echo->recording = false;
    echo->opening = [this](Connection& connection) { server_use = connection.tls()->ktls(); };
    ClientOptions options;
    options.proxy_from_environment = false;
    options.service.close_timeout_ms = 1000;
    options.tls = std::move(client);
    dialer = std::make_unique<ws::Client>(world.reactor(), told, std::move(options));
  }
  ~Both() {
    world.reactor().close_all();
    world.settle(2);
  }
  void dial() {
    const int before = told.opened;
    REQUIRE(dialer->dial({.url = "wss://localhost:" + std::to_string(world.address.port()) + "/"}));
    REQUIRE(world.until([&] { return told.opened > before; }));
  }

  World world;
  Told& told;
  Echo* echo = nullptr;
  KtlsUse server_use;
  std::unique_ptr<ws::Client> dialer;
};

}  // namespace

TEST_CASE(
    "the kernel makes the records of both roles, with every version and cipher, or it is told why not") {
  on_real_backends([](const Kind& kind) {
    for (const Suite& suite : suites) {
      CAPTURE(suite.name);
      Both both(kind, with(server_tls_options(), suite), with(client_tls_options(), suite));
      both.dial();
      check_use(both.told.use);
      check_use(both.server_use);
      std::size_t count = 0;
      for (const std::size_t size : std::initializer_list<std::size_t>{0, 1, 125, 126, 4096, 16'383, 16'384,
                                                                       16'385, 65'535, 65'536, 1u << 20}) {
        CAPTURE(size);
        const std::string payload = random_bytes(size, size + 1);
        CHECK(both.told.last.get()->send(Opcode::binary, to_bytes(payload)) == SendStatus::queued);
        REQUIRE(both.world.until([&] { return both.told.messages.size() > count; }));
        CHECK((both.told.messages[count++] == payload));
      }
      both.told.last.get()->close(CloseCode::normal);
      REQUIRE(
          both.world.until([&] { return both.told.closes.size() == 1 && both.echo->closes.size() == 1; }));
      CHECK(both.told.closes[0] == "1000 none");
      CHECK(both.echo->closes[0].error == Errc::none);
    }
  });
}

TEST_CASE("it makes none where it is told not to") {
  on_real_backends([](const Kind& kind) {
    net::TlsOptions server = server_tls_options();
    server.ktls = false;
    Both both(kind, server, client_tls_options());
    both.dial();
    CHECK_FALSE(both.server_use.sends);
    CHECK_FALSE(std::string_view(both.server_use.reason).empty());
    check_use(both.told.use);
    both.told.last.get()->send_text("hello");
    CHECK(both.world.until([&] { return both.told.messages.size() == 1; }));
  });
}

TEST_CASE(
    "fragments, many small messages and a large one arrive in order, and a peer that waits gets all of it") {
  on_real_backends([](const Kind& kind) {
    World world(kind);
    Recorder& handler = world.serve<Recorder>({.tls = server_tls()});
    const std::string large = random_bytes(6'000'000);
    handler.receiving = [&](Connection& connection, Opcode, MutableBytes) {
      check_use(connection.tls()->ktls());
      for (int i = 0; i < 500; i++) connection.send_text("small " + std::to_string(i));
      connection.send_fragment(Opcode::binary, to_bytes("one"), false);
      connection.ping(to_bytes("between"));
      connection.send_fragment(Opcode::binary, to_bytes(large), true);
      connection.send_text("last");
      connection.close(CloseCode::going_away);
    };
    for (const bool waits : {false, true}) {
      TlsPeer peer(world, world.connect(), TlsRole::client, *client_tls());
      peer.open();
      peer.wire.reading = !waits;
      peer.send(Opcode::text, "go");
      if (waits) {
        CHECK(world.until([&] { return handler.last.get() != nullptr && handler.last.get()->blocked(); }));
        world.settle(50);
        peer.wire.reading = true;
      }
      for (int i = 0; i < 500; i++) REQUIRE(peer.frame().payload == "small " + std::to_string(i));
      CHECK((peer.frame() == Frame{.opcode = 2, .payload = "one", .fin = false}));
      CHECK((peer.frame() == Frame{.opcode = 9, .payload = "between"}));
      CHECK((peer.frame() == Frame{.opcode = 0, .payload = large}));
      CHECK((peer.frame() == Frame{.opcode = 1, .payload = "last"}));
      CHECK((peer.frame() == Frame{.opcode = 8, .payload = close_payload(1001)}));
      peer.send(Opcode::close, close_payload(1001));
      CHECK(peer.ends_properly());
      peer.end.session->close();
      peer.pump();
      peer.wire.close();
      CHECK(world.is_empty());
    }
  });
}

// The peer reads nothing until the server has handed over all that the kernel takes. It has not been seen to fail without
// TlsKernel::is_through(): the kernel rarely holds a part of the last record.
TEST_CASE("what fills the socket to the last byte is followed by close_notify, not cut by the end of TCP") {
  on_real_backends([](const Kind& kind) {
    World world(kind);
    Recorder& handler = world.serve<Recorder>({.tls = server_tls()});
    handler.opening = [](Connection& connection) {
      constexpr int bytes = 20'000;
      setsockopt(connection.native_fd(), SOL_SOCKET, SO_SNDBUF, &bytes, sizeof bytes);
    };
    for (std::size_t size = 20'000; size < 220'000; size += 4000) {
      CAPTURE(size);
      const std::string payload = random_bytes(size);
      handler.receiving = [&](Connection& connection, Opcode, MutableBytes) {
        connection.send(Opcode::binary, to_bytes(payload));
        connection.close(CloseCode::normal);
      };
      TlsPeer peer(world, world.connect(), TlsRole::client, *client_tls());
      peer.open();
      peer.wire.reading = false;
      peer.send(Opcode::text, "go").send(Opcode::close, close_payload(1000));
      world.settle(10);
      peer.wire.reading = true;
      CHECK((peer.frame() == Frame{.opcode = 2, .payload = payload}));
      CHECK((peer.frame() == Frame{.opcode = 8, .payload = close_payload(1000)}));
      CHECK(peer.ends_properly());
      peer.wire.close();
      CHECK(world.is_empty());
    }
  });
}

TEST_CASE(
    "tickets that the kernel sends are good: the second connection is resumed, and the kernel sends again") {
  on_real_backends([](const Kind& kind) {
    for (const Suite& suite : suites) {
      CAPTURE(suite.name);
      Both both(kind, with(server_tls_options(), suite), with(client_tls_options(), suite));
      for (const bool resumed : {false, true}) {
        both.dial();
        CHECK(both.told.resumed == resumed);
        check_use(both.told.use);
        check_use(both.server_use);
        const std::size_t count = both.told.messages.size();
        both.told.last.get()->send_text("hello");
        REQUIRE(both.world.until([&] { return both.told.messages.size() > count; }));
        CHECK(both.told.messages.back() == "hello");
      }
    }
  });
}

TEST_CASE("the end of a connection without close_notify is told from a proper one") {
  on_real_backends([](const Kind& kind) {
    World world(kind);
    Recorder& handler = world.serve<Recorder>({.tls = server_tls()});
    TlsPeer peer(world, world.connect(), TlsRole::client, *client_tls());
    peer.open();
    peer.wire.shut_down();
    REQUIRE(peer.until([&] { return handler.closes.size() == 1; }));
    CHECK(handler.closes[0].error == Errc::truncated);
    peer.wire.close();
    CHECK(world.is_empty());
    // And the other way round: what the server cuts off has no close_notify.
    TlsPeer other(world, world.connect(), TlsRole::client, *client_tls());
    other.open();
    handler.last.get()->terminate();
    CHECK(other.until([&] { return other.is_over(); }));
    CHECK(other.end.last != net::TlsEvent::ended);
    other.wire.close();
  });
}

TEST_CASE("a peer that asks for new keys gets them, or is told that the kernel cannot change its own") {
  on_real_backends([](const Kind& kind) {
    World world(kind);
    Echo& handler = world.serve<Echo>({.tls = server_tls()});
    TlsPeer peer(world, world.connect(), TlsRole::client, *client_tls());
    peer.open();
    // New keys of the peer's alone do not concern the kernel.
    REQUIRE_FALSE(peer.end.session->update_keys(false));
    peer.send(Opcode::text, "hello");
    CHECK(peer.frame().payload == "hello");
    REQUIRE_FALSE(peer.end.session->update_keys(true));
    peer.pump();
    if (net::ktls_available().available) {
      REQUIRE(peer.until([&] { return handler.closes.size() == 1 && peer.is_over(); }));
      CHECK(handler.closes[0].error == Errc::not_supported);
      CHECK(peer.end.session->error().code == Errc::alert_received);
    } else {
      peer.send(Opcode::text, "again");
      CHECK(peer.frame().payload == "again");
    }
    peer.wire.close();
    CHECK(world.is_empty());
  });
}

TEST_CASE("a connection that is not TCP is left to OpenSSL") {
  on_real_backends([](const Kind& kind) {
    World world(kind);
    Echo& handler = world.make_handler<Echo>();
    Service& service = world.service(handler, {.tls = server_tls()});
    auto [fd, wire] = world.pair();
    REQUIRE(service.adopt(std::move(fd)) != nullptr);
    TlsPeer peer(world, *wire, TlsRole::client, *client_tls());
    peer.open();
    const KtlsUse use = handler.last.get()->tls()->ktls();
    CHECK_FALSE(use.sends);
    CHECK_FALSE(std::string_view(use.reason).empty());
    peer.send(Opcode::text, "hello");
    CHECK(peer.frame().payload == "hello");
    peer.wire.close();
    CHECK(world.is_empty());
  });
}
