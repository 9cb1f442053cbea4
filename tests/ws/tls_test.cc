// WebSocket over TLS: the server against peers that the test plays, in every world; the client role against servers that
// the test plays, and both roles against each other, on epoll and io_uring.
#include <levada/ws/client.h>

#include <functional>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include <levada/tests/support/tls_peer.h>
#include <levada/ws/prepared.h>

using namespace levada;
using namespace levada::ws;
using namespace levada::ws::test;

namespace {

using net::TlsRole;
using Wire = ws::test::Client;

ServiceOptions secure(ServiceOptions options = {}) {
  if (options.tls == nullptr) options.tls = server_tls();
  return options;
}

// A peer that has connected to the world's server and speaks TLS with it.
TlsPeer dial(World& world) {
  return {world, world.connect(), TlsRole::client, *client_tls()};
}

// What a client's handler was told, in words.
struct Told {
  void on_open(Connection& connection) {
    events.push_back(connection.tls() != nullptr && connection.tls()->resumed() ? "open resumed" : "open");
    last = connection.handle();
    if (opened) opened(connection);
  }
  void on_message(Connection& connection, Opcode opcode, Bytes payload) {
    if (received) return received(connection, opcode, payload);
    events.push_back("message " + std::string(to_text(payload)));
  }
  void on_close(Connection&, const CloseInfo& info) {
    events.push_back("close " + std::to_string(number(info.code)) + " " + to_string(info.error.code));
  }
  void on_refused(Connection&, const Refusal& refusal) {
    events.push_back("refused " + (refusal.response == nullptr ? refusal.error.message()
                                                               : std::to_string(refusal.response->status())));
  }
  void on_unreachable(const Unreachable& unreachable) {
    events.push_back("unreachable " + unreachable.error.message());
  }

  std::vector<std::string> events;
  Handle last;
  std::function<void(Connection&)> opened;
  std::function<void(Connection&, Opcode, Bytes)> received;
};

ClientOptions trusting(ClientOptions options = {}) {
  options.proxy_from_environment = false;
  options.service.close_timeout_ms = 200;
  options.tls = client_tls_options();
  return options;
}

// One reactor with a client; servers are services of the same reactor, or listening sockets that the test plays.
class Scene {
 public:
  explicit Scene(const Kind& kind, ClientOptions options = trusting())
      : world(kind), told(world.make_handler<Told>()) {
    client = std::make_unique<ws::Client>(world.reactor(), told, std::move(options));
  }
  ~Scene() {
    world.reactor().close_all();
    world.settle(2);
  }

  template <class H>
  H& serve(ServiceOptions options = secure()) {
    H& handler = world.serve<H>(std::move(options));
    port = world.address.port();
    return handler;
  }
  void listen() {
    door_ = std::move(*net::listen_stream(*net::Address::ip("127.0.0.1", 0)));
    port = net::Address::of_socket(door_.get())->port();
  }
  Wire& accept() {
    int fd = -1;
    REQUIRE(world.until(
        [&] { return (fd = accept4(door_.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0; }));
    Wire& peer = world.adopt(Fd(fd));
    peer.masks = false;
    return peer;
  }
  TlsPeer accept_tls(const net::TlsOptions& options = server_tls_options()) {
    return {world, accept(), TlsRole::server, *make_tls(TlsRole::server, options)};
  }
  std::string url(std::string_view scheme = "wss", std::string_view host = "localhost",
                  std::string_view path = "/") const {
    return std::string(scheme) + "://" + std::string(host) + ":" + std::to_string(port) + std::string(path);
  }
  std::uint64_t dial(const std::string& to) {
    auto number = client->dial({.url = to});
    REQUIRE(number);
    return *number;
  }
  std::uint64_t dial() { return dial(url()); }

  bool hears(const std::vector<std::string>& events) {
    world.until([&] { return told.events.size() >= events.size(); });
    world.settle(3);
    const bool same = told.events == events;
    if (!same) {
      for (const std::string& event : told.events) MESSAGE(event);
    }
    return same;
  }

  World world;
  Told& told;
  std::unique_ptr<ws::Client> client;
  std::uint16_t port = 0;

 private:
  Fd door_;
};

}  // namespace

// ---- Messages ----

TEST_CASE("messages of every length are echoed over TLS") {
  in_every_world([](World& world) {
    world.serve<Echo>(secure());
    TlsPeer peer = dial(world);
    peer.open();
    for (const std::size_t size : std::initializer_list<std::size_t>{0, 1, 125, 126, 511, 512, 4096, 16'384,
                                                                     65'535, 65'536, 1'000'000}) {
      CAPTURE(size);
      const std::string payload = random_bytes(size, size + 1);
      peer.send(Opcode::binary, payload);
      CHECK(peer.frame() == Frame{.opcode = 2, .payload = payload});
    }
  });
}

TEST_CASE("both sides are told when TLS is there, before the opening handshake") {
  struct Witness {
    void on_secured(Connection& connection) {
      CHECK(connection.tls() != nullptr);
      CHECK_FALSE(connection.is_open());
      events.emplace_back("secured");
    }
    void on_open(Connection&) { events.emplace_back("open"); }

    std::vector<std::string> events;
  };
  on_real_backends([](const Kind& kind) {
    Scene scene(kind);
    Witness& server = scene.serve<Witness>();
    Witness& witness = scene.world.make_handler<Witness>();
    ws::Client client(scene.world.reactor(), witness, trusting());
    REQUIRE(client.dial({.url = scene.url()}));
    CHECK(scene.world.until([&] { return witness.events.size() == 2 && server.events.size() == 2; }));
    CHECK(witness.events == std::vector<std::string>{"secured", "open"});
    CHECK(server.events == witness.events);
    scene.world.reactor().close_all();
    scene.world.settle(2);
  });
}

TEST_CASE("levada's client and server exchange messages of up to 8 MiB over TLS, in both directions") {
  on_real_backends([](const Kind& kind) {
    Scene scene(kind);
    Echo& echo = scene.serve<Echo>();
    echo.recording = false;
    std::vector<std::string> got;
    scene.told.received = [&](Connection&, Opcode, Bytes payload) { got.emplace_back(to_text(payload)); };
    scene.dial();
    CHECK(scene.hears({"open"}));
    std::size_t number = 0;
    for (const std::size_t size :
         std::initializer_list<std::size_t>{0u, 1u, 126u, 16'384u, 65'536u, 1u << 20, 8u << 20}) {
      CAPTURE(size);
      const std::string payload = random_bytes(size, size + 1);
      CHECK(scene.told.last.get()->send(Opcode::binary, to_bytes(payload)) == SendStatus::queued);
      REQUIRE(scene.world.until([&] { return got.size() > number; }));
      CHECK((got[number++] == payload));
    }
  });
}

TEST_CASE("many small messages of one turn share a few records") {
  in_every_world([](World& world) {
    Recorder& handler = world.serve<Recorder>(secure());
    handler.receiving = [](Connection& connection, Opcode, MutableBytes) {
      for (int i = 0; i < 5000; i++) connection.send_text("sixteen bytes " + std::to_string(10 + i % 90));
    };
    TlsPeer peer = dial(world);
    peer.open();
    const std::size_t before = peer.data_records;
    peer.send(Opcode::text, "go");
    for (int i = 0; i < 5000; i++) {
      const Frame frame = peer.frame();
      REQUIRE(frame.payload == "sixteen bytes " + std::to_string(10 + i % 90));
    }
    CHECK(peer.data_records - before >= 6);  // 90 000 bytes
    CHECK(peer.data_records - before <= 8);
  });
}

TEST_CASE("what is sent in every way arrives over TLS in order") {
  in_every_world([](World& world) {
    Recorder& handler = world.serve<Recorder>(secure());
    const std::string large = random_bytes(300'000);
    PayloadRef kept;
    handler.receiving = [&](Connection& connection, Opcode opcode, MutableBytes payload) {
      if (!kept) {
        kept = connection.keep(payload);
        return;
      }
      const PreparedMessage prepared(Opcode::binary, to_bytes(large)), small(Opcode::text, to_bytes("small"));
      const Bytes parts[] = {to_bytes("a"), to_bytes(large), to_bytes("b")};
      connection.send(prepared);
      connection.send(small);
      connection.send(Opcode::binary, std::move(kept));
      connection.send(Opcode::binary, parts);
      connection.send_fragment(Opcode::binary, to_bytes("one"), false);
      connection.ping(to_bytes("between"));
      connection.send_fragment(Opcode::binary, to_bytes(large), true);
      connection.send(opcode, payload);
    };
    TlsPeer peer = dial(world);
    peer.open();
    const std::string first = random_bytes(40'000, 7);
    peer.send(Opcode::binary, first).send(Opcode::binary, "second");
    CHECK((peer.frame() == Frame{.opcode = 2, .payload = large}));
    CHECK((peer.frame() == Frame{.opcode = 1, .payload = "small"}));
    CHECK((peer.frame() == Frame{.opcode = 2, .payload = first}));
    CHECK((peer.frame() == Frame{.opcode = 2, .payload = "a" + large + "b"}));
    CHECK((peer.frame() == Frame{.opcode = 2, .payload = "one", .fin = false}));
    CHECK((peer.frame() == Frame{.opcode = 9, .payload = "between"}));
    CHECK((peer.frame() == Frame{.opcode = 0, .payload = large}));
    CHECK((peer.frame() == Frame{.opcode = 2, .payload = "second"}));
  });
}

// ---- Back pressure ----

TEST_CASE(
    "for a peer that does not read, all that waits counts, the bound holds, and on_drain tells of its end") {
  in_every_world([](World& world) {
    constexpr std::size_t limit = 2'000'000;
    Recorder& handler = world.serve<Recorder>(secure({.max_buffered_bytes = limit}));
    int queued = 0;
    std::size_t most = 0;
    const std::string payload = random_bytes(50'000);
    const auto fill = [&](Connection& connection) {
      while (connection.send(Opcode::binary, to_bytes(payload)) == SendStatus::queued) queued++;
      most = std::max(most, connection.buffered());
    };
    handler.receiving = [&](Connection& connection, Opcode, MutableBytes) {
      fill(connection);
      CHECK(connection.buffered() <= limit);
      CHECK(connection.buffered() > limit - payload.size() - 10);
    };
    TlsPeer peer = dial(world);
    peer.open();
    peer.send(Opcode::text, "go");
    REQUIRE(world.until([&] { return queued > 0; }));
    CHECK(queued == 39);
    peer.wire.reading = false;
    int rounds = 0;
    while (rounds++ < 50) {  // the sockets fill up
      world.turn();
      fill(*handler.last.get());
      CHECK(handler.last.get()->buffered() <= limit);
    }
    CHECK(most > limit - payload.size() - 10);
    const int drained = handler.drained;
    peer.wire.reading = true;
    for (int i = 0; i < queued; i++) REQUIRE((peer.frame() == Frame{.opcode = 2, .payload = payload}));
    CHECK(peer.until([&] { return handler.drained > drained; }));
    CHECK(handler.last.get()->buffered() == 0);
  });
}

TEST_CASE("one message larger than what is encrypted ahead waits as plaintext") {
  on_real_backends([](const Kind& kind) {
    World world(kind);
    Recorder& handler = world.serve<Recorder>(secure());
    const std::string payload = random_bytes(std::size_t{8} << 20);
    handler.receiving = [&](Connection& connection, Opcode, MutableBytes) {
      connection.send(Opcode::binary, to_bytes(payload));
    };
    TlsPeer peer = dial(world);
    peer.open();
    peer.wire.reading = false;
    peer.send(Opcode::text, "go");
    REQUIRE(world.until([&] { return handler.last.get()->blocked(); }));
    world.settle();
    const std::size_t before = world.reactor().counters().sent_bytes.value();
    CHECK(handler.last.get()->buffered() + before < payload.size() + 20'000);
    peer.wire.reading = true;
    CHECK((peer.frame().payload == payload));
  });
}

TEST_CASE("drop_oldest drops whole messages that are not encrypted yet") {
  in_every_world([](World& world) {
    Recorder& handler = world.serve<Recorder>(
        secure({.max_buffered_bytes = 1'000'000, .output_policy = OutputPolicy::drop_oldest}));
    TlsPeer peer = dial(world);
    peer.open();
    peer.wire.reading = false;
    constexpr int messages = 2000;
    for (int i = 0; i < messages; i++) {
      const std::string payload =
          std::to_string(i) + " " + random_letters(10'000, static_cast<std::uint64_t>(i));
      CHECK(handler.last.get()->send(Opcode::text, to_bytes(payload)) == SendStatus::queued);
      CHECK(handler.last.get()->buffered() <= 1'000'000);
      if (i % 10 == 9) world.turn();
    }
    peer.wire.reading = true;
    int last = -1, received = 0;
    while (last != messages - 1) {
      const Frame frame = peer.frame();
      const int number = std::stoi(frame.payload);
      REQUIRE(number > last);
      REQUIRE((frame.payload ==
               std::to_string(number) + " " + random_letters(10'000, static_cast<std::uint64_t>(number))));
      last = number;
      received++;
    }
    CHECK(received < messages);
    CHECK(world.last_service().counters().messages_dropped.value() ==
          static_cast<std::uint64_t>(messages - received));
  });
}

TEST_CASE("with messages of a byte the bound holds over TLS as well, and they fill records") {
  in_every_world([](World& world) {
    constexpr std::size_t limit = 180'000, frame_bytes = 3, messages = limit / frame_bytes;
    Recorder& handler = world.serve<Recorder>(
        secure({.max_buffered_bytes = limit, .output_policy = OutputPolicy::drop_oldest}));
    TlsPeer peer = dial(world);
    peer.open();
    peer.wire.reading = false;
    Connection& connection = *handler.last.get();
    const std::size_t before = peer.data_records;
    for (std::size_t i = 0; i < messages; i++) REQUIRE(connection.send_text("x") == SendStatus::queued);
    CHECK(connection.buffered() == limit);
    std::size_t most = 0;
    for (int i = 0; i < 6; i++) {
      world.turn();
      most = std::max(most, connection.buffered());
    }
    CHECK(most <= limit);
    peer.wire.reading = true;
    for (std::size_t i = 0; i < messages; i++) REQUIRE(peer.frame().payload == "x");
    CHECK(peer.data_records - before <= limit / net::tls_record_bytes + 2);
  });
}

// ---- The end ----

TEST_CASE("a close is answered, then comes close_notify, then the end of TCP") {
  in_every_world([](World& world) {
    Recorder& handler = world.serve<Recorder>(secure());
    TlsPeer peer = dial(world);
    peer.open();
    peer.send(Opcode::close, close_payload(1000, "bye"));
    CHECK((peer.frame() == Frame{.opcode = 8, .payload = close_payload(1000)}));
    CHECK(peer.ends_properly());
    CHECK(handler.closes.at(0) == Recorder::Closed{CloseCode::normal, "bye", ClosedBy::peer, Errc::none});
    peer.end.session->close();
    peer.pump();
    peer.wire.close();
    CHECK(world.is_empty());
  });
}

TEST_CASE("levada's client and server close in order, and neither is told of a truncation") {
  on_real_backends([](const Kind& kind) {
    for (const bool by_client : {true, false}) {
      CAPTURE(by_client);
      Scene scene(kind);
      Recorder& handler = scene.serve<Recorder>();
      scene.dial();
      CHECK(scene.hears({"open"}));
      (by_client ? scene.told.last : handler.last).get()->close();
      CHECK(scene.hears({"open", "close 1000 none"}));
      CHECK(scene.world.until([&] { return handler.closes.size() == 1; }));
      CHECK(handler.closes[0].error == Errc::none);
      CHECK(scene.world.is_empty());
      CHECK(scene.client->service().connections() == 0);
    }
  });
}

TEST_CASE("a client answers close_notify with its own") {
  on_real_backends([](const Kind& kind) {
    Scene scene(kind);
    scene.listen();
    scene.dial();
    TlsPeer peer = scene.accept_tls();
    peer.accept_upgrade();
    CHECK(scene.hears({"open"}));
    peer.send(Opcode::close, close_payload(1000));
    CHECK(peer.frame().payload == close_payload(1000));
    peer.end.session->close();
    CHECK(peer.ends_properly());
    CHECK(scene.hears({"open", "close 1000 none"}));
  });
}

TEST_CASE("the end of TLS without a close is 1006, and a cut connection is told from it as truncated") {
  in_every_world([](World& world) {
    Recorder& handler = world.serve<Recorder>(secure());
    TlsPeer proper = dial(world);
    proper.open();
    proper.end.session->close();
    proper.pump();
    REQUIRE(world.until([&] { return handler.closes.size() == 1; }));
    CHECK(handler.closes[0].error == Errc::end_of_stream);
    CHECK(proper.ends_properly());
    TlsPeer cut = dial(world);
    cut.open();
    cut.wire.shut_down();
    REQUIRE(world.until([&] { return handler.closes.size() == 2; }));
    CHECK(handler.closes[1].error == Errc::truncated);
    CHECK(handler.closes[1].code == CloseCode::abnormal);
  });
}

TEST_CASE("a client is told of truncation as well, in the handshake and after it") {
  on_real_backends([](const Kind& kind) {
    Scene scene(kind);
    scene.listen();
    scene.dial();
    scene.accept().shut_down();
    CHECK(scene.hears({"refused TLS handshake: truncated (the connection ended)"}));
    scene.dial();
    TlsPeer peer = scene.accept_tls();
    peer.accept_upgrade();
    CHECK(peer.until([&] { return scene.told.events.size() == 2; }));
    peer.wire.shut_down();
    CHECK(scene.hears(
        {"refused TLS handshake: truncated (the connection ended)", "open", "close 1006 truncated"}));
  });
}

TEST_CASE("a graceful stop closes connections, and does not wait for who has not finished TLS") {
  in_every_world([](World& world) {
    Recorder& handler =
        world.serve<Recorder>(secure({.handshake_timeout_ms = 60'000, .close_timeout_ms = 50}));
    TlsPeer open = dial(world);
    open.open();
    Wire& silent = world.connect();
    silent.write("\x16\x03\x01");  // the beginning of a record
    world.settle();
    world.last_service().shut_down();
    CHECK(open.frame().payload == close_payload(1001));
    open.send(Opcode::close, close_payload(1001));
    CHECK(open.ends_properly());
    open.wire.close();
    CHECK(world.until([&] { return silent.ended || silent.was_reset; }));
    CHECK(world.is_empty());
    CHECK(handler.closes.size() == 1);
  });
}

// ---- What is not TLS, or not in time ----

TEST_CASE("garbage and plain HTTP to a wss port get at most an alert, and the end") {
  in_every_world([](World& world) {
    Recorder& handler = world.serve<Recorder>(secure());
    for (const std::string& bytes : {random_bytes(100'000), Wire::request(), std::string(5000, 'x')}) {
      Wire& client = world.connect();
      client.write(bytes);
      CHECK(world.until([&] { return client.ended || client.was_reset; }));
      if (!client.in.empty()) {  // OpenSSL has no alert for what is no record at all
        CHECK(client.ended);
        REQUIRE(client.in.size() == 7);
        CHECK(client.in[0] == 21);  // an alert
        CHECK(client.in[5] == 2);   // fatal
      }
      client.close();
    }
    CHECK(world.is_empty());
    CHECK(handler.opened == 0);
  });
}

TEST_CASE("a TLS client at a ws port, and a ws server under a wss URL, end with a clear error") {
  on_real_backends([](const Kind& kind) {
    Scene scene(kind);
    scene.serve<Recorder>(ServiceOptions{});
    scene.dial();
    CHECK(scene.hears({"refused TLS handshake: protocol (wrong version number)"}));
  });
}

TEST_CASE("the handshake's time limit covers TLS, for the server and for the client") {
  in_every_world([](World& world) {
    Recorder& handler = world.serve<Recorder>(secure({.handshake_timeout_ms = 30}));
    Wire& silent = world.connect();
    CHECK(world.until([&] { return silent.ended || silent.was_reset; }));
    TlsPeer half = dial(world);
    CHECK(half.shakes_hands());  // and no request
    CHECK(half.until([&] { return half.is_over(); }));
    CHECK(world.is_empty());
    CHECK(handler.opened == 0);
    CHECK(world.last_service().counters().handshake_timeouts.value() == 2);
  });
  on_real_backends([](const Kind& kind) {
    ClientOptions options = trusting();
    options.timeout_ms = 50;
    Scene scene(kind, options);
    scene.listen();
    scene.dial();
    scene.accept();
    CHECK(scene.hears({"refused handshake: timed_out"}));
  });
}

// ---- Certificates ----

TEST_CASE("a client refuses what it must not trust, says why, and its alert reaches the server") {
  static const levada::test::Authority other("Other");
  struct Case {
    levada::test::Issued shown;
    std::string why, alert;
  };
  const auto& ca = test_authority();
  const Case cases[] = {
      {ca.issue({.valid_from_s = -7200, .valid_until_s = -3600}), "certificate has expired",
       "certificate expired"},
      {ca.issue({.valid_from_s = 3600}), "certificate is not valid yet", "bad certificate"},
      {levada::test::Authority::self_signed(), "self-signed certificate", "unknown CA"},
      {ca.issue({.names = "DNS:elsewhere.example"}), "host name does not match", "bad certificate"},
      {other.issue(), "unknown CA", "unknown CA"},
  };
  on_real_backends([&](const Kind& kind) {
    for (const Case& each : cases) {
      CAPTURE(each.why);
      for (const auto version : {net::TlsVersion::tls_1_2, net::TlsVersion::tls_1_3}) {
        Scene scene(kind);
        scene.listen();
        scene.dial();
        TlsPeer peer = scene.accept_tls({.certificates = {each.shown.tls()}, .max_version = version});
        CHECK(peer.until([&] { return peer.end.last == net::TlsEvent::failed; }));
        CHECK(peer.end.session->error().message() == "TLS handshake: alert_received (" + each.alert + ")");
        CHECK(peer.until([&] { return peer.wire.ended || peer.wire.was_reset; }));
        CHECK(peer.wire.ended);
        CHECK(scene.hears({"refused TLS handshake: certificate_refused (" + each.why + ")"}));
      }
    }
  });
}

TEST_CASE("an address is checked as an address, and a CA that is withdrawn counts at once") {
  on_real_backends([](const Kind& kind) {
    Scene scene(kind);
    scene.serve<Recorder>();
    scene.dial(scene.url("wss", "127.0.0.1"));
    CHECK(scene.hears({"open"}));
    static const levada::test::Authority other("Other");
    CHECK_FALSE(scene.client->set_tls({.ca = other.pem()}));
    scene.dial(scene.url("wss", "127.0.0.1"));
    CHECK(scene.hears({"open", "refused TLS handshake: certificate_refused (unknown CA)"}));
    CHECK(scene.client->set_tls({.ca = {.text = "nonsense"}}).code == Errc::invalid_argument);
    CHECK_FALSE(scene.client->set_tls(client_tls_options()));
    scene.dial(scene.url("wss", "127.0.0.1"));
    CHECK(scene.hears({"open", "refused TLS handshake: certificate_refused (unknown CA)", "open"}));
  });
}

TEST_CASE("a server that only speaks TLS 1.1 is refused") {
  on_real_backends([](const Kind& kind) {
    // Without extensions, as such a server would answer: version 3.2, a random, no session, AES128-SHA.
    const std::string hello =
        std::string("\x03\x02", 2) + std::string(32, 'r') + std::string("\0\0\x2f\0", 4);
    const std::string message = std::string("\x02\0\0", 3) + static_cast<char>(hello.size()) + hello;
    const std::string record = std::string("\x16\x03\x02\0", 4) + static_cast<char>(message.size()) + message;
    Scene scene(kind);
    scene.listen();
    scene.dial();
    Wire& server = scene.accept();
    server.write(record);
    CHECK(scene.hears({"refused TLS handshake: protocol (unsupported protocol)"}));
    CHECK(scene.world.until([&] { return server.ended || server.was_reset; }));
    REQUIRE(server.in.size() > 7);
    CHECK(server.in.substr(server.in.size() - 2) == "\x02\x46");  // fatal, protocol_version
  });
}

TEST_CASE("a server that requires certificates lets in who has one, and its alert reaches who has none") {
  in_every_world([](World& world) {
    net::TlsOptions options = server_tls_options();
    options.ca = test_authority().pem();
    options.client_certificates = net::ClientCertificates::require;
    Recorder& handler = world.serve<Recorder>(secure({.tls = make_tls(TlsRole::server, options)}));
    std::string subject;
    handler.opening = [&](Connection& connection) { subject = connection.tls()->peer_subject(); };
    net::TlsOptions named = client_tls_options();
    named.certificates = {test_authority().issue({.common_name = "alice"}).tls()};
    TlsPeer alice(world, world.connect(), TlsRole::client, *make_tls(TlsRole::client, named));
    alice.open();
    CHECK(world.until([&] { return !subject.empty(); }));
    CHECK(subject == "CN=alice");
    TlsPeer nobody = dial(world);
    CHECK(nobody.until([&] { return nobody.end.established > 0; }));
    nobody.write(Wire::request() + random_bytes(200'000));  // unread when the server refuses
    CHECK(nobody.until([&] { return nobody.is_over(); }));
    CHECK(nobody.end.session->error().code == Errc::alert_received);
    CHECK(nobody.until([&] { return nobody.wire.ended || nobody.wire.was_reset; }));
    CHECK(nobody.wire.ended);
    CHECK(handler.opened == 1);
  });
  on_real_backends([](const Kind& kind) {
    Scene scene(kind);
    net::TlsOptions options = server_tls_options();
    options.ca = test_authority().pem();
    options.client_certificates = net::ClientCertificates::require;
    scene.serve<Recorder>(secure({.tls = make_tls(TlsRole::server, options)}));
    scene.dial();
    CHECK(scene.hears({"refused TLS: alert_received (certificate required)"}));
    net::TlsOptions named = client_tls_options();
    named.certificates = {test_authority().issue().tls()};
    CHECK_FALSE(scene.client->set_tls(named));
    scene.dial();
    CHECK(scene.hears({"refused TLS: alert_received (certificate required)", "open"}));
  });
}

TEST_CASE("certificates are chosen by name, and replaced while the server runs") {
  on_real_backends([](const Kind& kind) {
    const auto issue = [](const std::string& name, const std::string& names) {
      return test_authority().issue({.common_name = name, .names = names}).tls();
    };
    const auto tls =
        make_tls(TlsRole::server,
                 {.certificates = {issue("first", "DNS:localhost"), issue("second", "IP:127.0.0.1")}});
    Scene scene(kind);
    scene.serve<Recorder>(secure({.tls = tls}));
    std::string subject;
    scene.told.opened = [&](Connection& connection) { subject = connection.tls()->peer_subject(); };
    scene.dial();
    CHECK(scene.hears({"open"}));
    CHECK(subject == "CN=first");
    const Handle before = scene.told.last;
    CHECK_FALSE(tls->replace({.certificates = {issue("renewed", "DNS:localhost")}}));
    scene.dial();
    CHECK(scene.hears({"open", "open"}));  // not resumed
    CHECK(subject == "CN=renewed");
    CHECK(before.get() != nullptr);
  });
}

TEST_CASE("a second connection resumes the session of the first, unless the settings changed") {
  on_real_backends([](const Kind& kind) {
    for (const auto version : {net::TlsVersion::tls_1_2, net::TlsVersion::tls_1_3}) {
      ClientOptions options = trusting();
      options.tls.max_version = version;
      Scene scene(kind, options);
      scene.serve<Echo>();
      std::vector<std::string> events;
      for (const char* wanted : {"open", "open resumed", "open resumed", "open"}) {
        if (events.size() == 6) CHECK_FALSE(scene.client->set_tls(options.tls));
        scene.dial();
        events.emplace_back(wanted);
        CHECK(scene.hears(events));
        scene.told.last.get()->close();
        events.emplace_back("close 1000 none");
        CHECK(scene.hears(events));
      }
    }
  });
}

// ---- Ways in ----

TEST_CASE("a PROXY header comes before TLS, in any pieces and with TLS glued to it") {
  const std::string header = "PROXY TCP4 192.0.2.1 198.51.100.2 56324 443\r\n";
  on_real_backends([&](const Kind& kind) {
    for (const std::size_t cut : {std::size_t{0}, std::size_t{1}, std::size_t{20}, header.size()}) {
      World world(kind);
      Recorder& handler = world.serve<Recorder>(secure({.trusted_proxies = "127.0.0.0/8"}));
      std::string address;
      handler.opening = [&](Connection& connection) { address = connection.remote_address()->to_string(); };
      Wire& wire = world.connect();
      wire.write(header.substr(0, cut));
      world.settle(2);
      wire.write(header.substr(cut));
      TlsPeer peer(world, wire, TlsRole::client, *client_tls());
      peer.open();
      CHECK(world.until([&] { return !address.empty(); }));
      CHECK(address == "192.0.2.1:56324");
    }
    World world(kind);
    Recorder& handler = world.serve<Recorder>(secure({.trusted_proxies = "127.0.0.0/8"}));
    TlsPeer without = dial(world);
    CHECK(without.until([&] { return without.is_over(); }));
    CHECK(handler.opened == 0);
  });
}

TEST_CASE("a socket is adopted with the beginning of its TLS already read") {
  on_real_backends([](const Kind& kind) {  // only its reactor can read a simulated socket
    World world(kind);
    Echo& handler = world.make_handler<Echo>();
    Service& service = world.service(handler, secure());
    auto [fd, wire] = world.pair();
    TlsPeer peer(world, *wire, TlsRole::client, *client_tls());
    char buffer[4096];
    const ssize_t got = recv(fd.get(), buffer, sizeof buffer, 0);
    REQUIRE(got > 100);
    REQUIRE(service.adopt(std::move(fd), to_bytes({buffer, static_cast<std::size_t>(got)})) != nullptr);
    peer.open();
    peer.send(Opcode::text, "hello");
    CHECK(peer.frame().payload == "hello");
    auto [other, unused] = world.pair();
    CHECK(service.adopt_upgraded(std::move(other)) == nullptr);
    CHECK(service.last_error().code == Errc::not_supported);
  });
}

TEST_CASE("routes are served under TLS") {
  in_every_world([](World& world) {
    struct Plain {
      void on_http(HttpExchange& exchange) { exchange.respond(200, "text/plain", "page"); }
    };
    Service& root = world.service(world.make_handler<Plain>(), secure());
    world.listen(root);
    Echo& echo = world.make_handler<Echo>();
    root.add_route("/echo/:room", world.service(echo));
    TlsPeer peer = dial(world);
    REQUIRE(peer.shakes_hands());
    peer.write("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    CHECK(peer.head().starts_with("HTTP/1.1 200 "));
    REQUIRE(peer.until([&] { return peer.end.plaintext == "page"; }));
    peer.end.plaintext.clear();
    peer.open("/echo/1").send(Opcode::text, "hello");
    CHECK(peer.frame().payload == "hello");
    TlsPeer lost = dial(world);
    REQUIRE(lost.shakes_hands());
    lost.write(Wire::request("/nowhere"));
    CHECK(lost.head().starts_with("HTTP/1.1 404 "));
    CHECK(lost.until([&] { return lost.wire.ended; }));
    CHECK(lost.end.last == net::TlsEvent::ended);
  });
}

TEST_CASE("a client speaks TLS through CONNECT and SOCKS5 proxies with the server behind them") {
  on_real_backends([](const Kind& kind) {
    for (const std::string scheme : {"http", "socks5"}) {
      CAPTURE(scheme);
      const Fd door = std::move(*net::listen_stream(*net::Address::ip("127.0.0.1", 0)));
      ClientOptions options = trusting();
      options.proxy_url =
          scheme + "://127.0.0.1:" + std::to_string(net::Address::of_socket(door.get())->port());
      Scene scene(kind, options);
      scene.dial("wss://localhost:9443/x");
      int fd = -1;
      REQUIRE(scene.world.until(
          [&] { return (fd = accept4(door.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0; }));
      Wire& wire = scene.world.adopt(Fd(fd));
      wire.masks = false;
      const auto take = [&](std::size_t size) {
        REQUIRE(scene.world.until([&] { return wire.in.size() >= size; }));
        return std::exchange(wire.in, {});
      };
      if (scheme == "http") {
        CHECK(take(30).starts_with("CONNECT localhost:9443 HTTP/1.1\r\n"));
        wire.write("HTTP/1.1 200 OK\r\n\r\n");
      } else {
        take(3);
        wire.write(std::string("\x05\x00", 2));
        CHECK(take(16) == std::string("\x05\x01\x00\x03\x09", 5) + "localhost" + "\x24\xe3");
        wire.write(std::string("\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00", 10));
      }
      TlsPeer peer(scene.world, wire, TlsRole::server, *server_tls());
      peer.accept_upgrade();
      peer.send(Opcode::text, "hello");
      CHECK(scene.hears({"open", "message hello"}));
    }
  });
}

TEST_CASE("a redirect leads from ws to wss, and never back") {
  on_real_backends([](const Kind& kind) {
    ClientOptions options = trusting();
    options.max_redirects = 3;
    Scene scene(kind, options);
    scene.serve<Recorder>();
    const std::string safe = scene.url();
    Recorder& first = scene.serve<Recorder>(ServiceOptions{});
    first.upgrading = [&](Upgrade& upgrade) {
      upgrade.add_field("Location", safe);
      upgrade.reject(307);
    };
    scene.dial(scene.url("ws"));
    CHECK(scene.hears({"open"}));
    CHECK(scene.told.last.get()->tls() != nullptr);
    Recorder& second = scene.serve<Recorder>();
    second.upgrading = [&](Upgrade& upgrade) {
      upgrade.add_field("Location", "ws://localhost:1/");
      upgrade.reject(307);
    };
    scene.dial();
    CHECK(scene.hears({"open", "refused 307"}));
  });
}

TEST_CASE("a lost wss connection is dialled again, also when TLS fails in between") {
  on_real_backends([](const Kind& kind) {
    ClientOptions options = trusting();
    options.reconnect = {.enabled = true, .min_delay_ms = 1, .max_delay_ms = 4};
    Scene scene(kind, options);
    scene.listen();
    const std::uint64_t number = scene.dial();
    TlsPeer first = scene.accept_tls();
    first.accept_upgrade();
    CHECK(first.until([&] { return scene.told.events.size() == 1; }));
    first.wire.reset();
    scene.accept().write("this is not TLS");
    TlsPeer second = scene.accept_tls();
    second.accept_upgrade();
    CHECK(second.until([&] { return scene.told.events.size() == 3; }));
    CHECK(scene.told.events == std::vector<std::string>{"open", "close 1006 connection_reset", "open"});
    scene.client->cancel(number);
    CHECK(scene.client->dials() == 0);
  });
}

TEST_CASE("a canceled wss dial calls nothing any more, in whatever step") {
  on_real_backends([](const Kind& kind) {
    Scene scene(kind);
    Recorder& handler = scene.serve<Recorder>();
    int open = 0;
    for (int turns = 0; turns < 24; turns++) {
      const std::uint64_t number = scene.dial();
      for (int i = 0; i < turns; i++) scene.world.turn(0);
      const bool was_open = std::exchange(scene.told.events, {}).size() == 1;
      open += was_open;
      scene.client->cancel(number);
      scene.world.settle();
      CHECK(scene.told.events.empty());
      if (was_open) scene.told.last.get()->terminate();
      scene.world.settle(2);
      scene.told.events.clear();
    }
    CHECK(scene.client->dials() == 0);
    CHECK(scene.world.until([&] { return scene.client->service().connections() == 0; }));
    CHECK(scene.world.is_empty());
    CHECK(open > 0);
    CHECK(open < 24);
    CHECK(handler.opened >= open);
  });
}
