// Clients named by URL, on epoll and io_uring: every step of a dial, and every way in which it ends.
#include <levada/ws/client.h>

#include <functional>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include <levada/tests/support/hosts.h>
#include <levada/tests/support/proxies.h>
#include <levada/tests/support/world.h>

using namespace levada;
using namespace levada::ws;
using namespace levada::ws::test;
using levada::test::EnvironmentVariable;

namespace {

// What a client's handler was told, in words.
struct Told {
  void on_open(Connection& connection) {
    events.push_back("open");
    last = connection.handle();
    if (opened) opened(connection);
  }
  void on_message(Connection&, Opcode, Bytes payload) {
    events.push_back("message " + std::string(to_text(payload)));
  }
  void on_close(Connection&, const CloseInfo& info) {
    events.push_back("close " + std::to_string(number(info.code)));
  }
  void on_refused(Connection&, const Refusal& refusal) {
    const std::string status = refusal.response == nullptr ? to_string(refusal.error.code)
                                                           : std::to_string(refusal.response->status());
    events.push_back("refused " + status +
                     (refusal.proxy_status == 0 ? "" : " proxy " + std::to_string(refusal.proxy_status)));
  }
  void on_unreachable(const Unreachable& unreachable) {
    events.push_back(std::string("unreachable ") + to_string(unreachable.error.code));
  }

  std::vector<std::string> events;
  Handle last;
  std::function<void(Connection&)> opened;
};

// One reactor with a client, and listening sockets that the test plays.
class Scene {
 public:
  explicit Scene(const Kind& kind, ClientOptions options = {})
      : world(kind), told(world.make_handler<Told>()) {
    options.service.close_timeout_ms = 50;
    client = std::make_unique<ws::Client>(world.reactor(), told, std::move(options));
  }
  ~Scene() {
    world.reactor().close_all();
    world.settle(2);
  }

  // A plain socket that the test answers on.
  struct Door {
    Fd fd;
    net::Address address;
    std::string authority() const { return "127.0.0.1:" + std::to_string(address.port()); }
  };
  static Door listen() {
    Fd fd = std::move(*net::listen_stream(*net::Address::ip("127.0.0.1", 0)));
    const net::Address address = *net::Address::of_socket(fd.get());
    return {std::move(fd), address};
  }
  ws::test::Client& accept(const Door& door) {
    int fd = -1;
    REQUIRE(world.until(
        [&] { return (fd = accept4(door.fd.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0; }));
    ws::test::Client& peer = world.adopt(Fd(fd));
    peer.masks = false;
    return peer;
  }
  std::string head(ws::test::Client& peer) {
    REQUIRE(world.until([&] { return peer.in.find("\r\n\r\n") != std::string::npos; }));
    return std::exchange(peer.in, {});
  }
  static std::string value(const std::string& head, const std::string& name) {
    const auto at = head.find("\r\n" + name + ": ");
    if (at == std::string::npos) return "-";
    const auto begin = at + name.size() + 4;
    return head.substr(begin, head.find("\r\n", begin) - begin);
  }
  static std::string accepted(const std::string& head) {
    const AcceptKey key = accept_key(value(head, "Sec-WebSocket-Key"));
    return "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: "
           "Upgrade\r\nSec-WebSocket-Accept: " +
           std::string(key.data(), key.size()) + "\r\n\r\n";
  }
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
};

template <class Test>
void on_real_backends(Test&& test) {
  for (const Kind& kind : real_kinds()) {
    CAPTURE(kind.name);
    test(kind);
  }
}

}  // namespace

TEST_CASE("a client reaches a server by its URL, names itself as asked and exchanges messages") {
  on_real_backends([](const Kind& kind) {
    Scene scene(kind);
    const auto door = Scene::listen();
    const std::string url = "ws://localhost:" + std::to_string(door.address.port()) + "/chat?room=1";
    const HttpField fields[] = {{"Cookie", "a=b"}};
    REQUIRE(scene.client->dial({.url = url, .origin = "http://here", .fields = fields}));
    auto& peer = scene.accept(door);
    const std::string head = scene.head(peer);
    CHECK(head.starts_with("GET /chat?room=1 HTTP/1.1\r\n"));
    CHECK(Scene::value(head, "Host") == url.substr(5, url.find("/chat") - 5));
    CHECK(Scene::value(head, "Origin") == "http://here");
    CHECK(Scene::value(head, "Cookie") == "a=b");
    peer.write(Scene::accepted(head) + raw_frame(1, "glued", false));
    CHECK(scene.hears({"open", "message glued"}));
    CHECK(scene.client->dials() == 0);
    scene.told.last.get()->close();
    CHECK(peer.frame().payload == close_payload(1000));
  });
}

TEST_CASE("a dial ends with the right error: bad URLs, refusing hosts, names that are not there") {
  on_real_backends([](const Kind& kind) {
    ClientOptions options;
    options.resolver.lookup = [](const std::string&, std::uint16_t) -> Result<std::vector<net::Address>> {
      return Error{Errc::not_found, "lookup"};
    };
    Scene scene(kind, options);
    const auto bad = scene.client->dial({.url = "http://localhost/"});
    REQUIRE(!bad);
    CHECK(bad.error().code == Errc::invalid_argument);
    CHECK(scene.client->url_error() == UrlError::bad_scheme);
    std::string refusing;
    {
      const auto door = Scene::listen();
      refusing = "ws://" + door.authority() + "/";
    }
    REQUIRE(scene.client->dial({.url = refusing}));
    CHECK(scene.hears({"unreachable connection_refused"}));
    REQUIRE(scene.client->dial({.url = "ws://nowhere.invalid/"}));
    CHECK(scene.hears({"unreachable connection_refused", "unreachable not_found"}));
    REQUIRE(scene.client->dial({.url = "ws+unix:/no/such/socket"}));
    CHECK(scene.hears({"unreachable connection_refused", "unreachable not_found", "unreachable not_found"}));
  });
}

TEST_CASE("one deadline covers the whole dial") {
  on_real_backends([](const Kind& kind) {
    ClientOptions options;
    options.timeout_ms = 50;
    Scene scene(kind, options);
    const auto door = Scene::listen();  // accepts in the kernel, never answers
    const std::uint64_t begin = monotonic_ns();
    REQUIRE(scene.client->dial({.url = "ws://" + door.authority()}));
    CHECK(scene.hears({"refused timed_out"}));
    const std::uint64_t took_ms = (monotonic_ns() - begin) / nanoseconds_per_millisecond;
    CHECK(took_ms >= 49);
    CHECK(took_ms < 2000);
  });
}

TEST_CASE("an unreachable, a refusing and a silent host each end a dial in time, with the right error") {
  on_real_backends([](const Kind& kind) {
    const auto dial = [&](const std::string& host, const std::string& told) {
      ClientOptions options;
      options.timeout_ms = 80;
      Scene scene(kind, options);
      const std::uint64_t begin = monotonic_ns();
      REQUIRE(scene.client->dial({.url = "ws://" + host}));
      CHECK(scene.hears({told}));
      CHECK(scene.client->dials() == 0);
      return (monotonic_ns() - begin) / nanoseconds_per_millisecond;
    };
    CHECK(dial(std::string(levada::test::unreachable_host), "unreachable unreachable") < 2000);
    CHECK(dial(levada::test::Refusing().address.to_string(), "unreachable connection_refused") < 2000);
    const levada::test::Silent silent;
    const std::uint64_t took_ms = dial(silent.address.to_string(), "unreachable timed_out");
    CHECK(took_ms >= 79);
    CHECK(took_ms < 2000);
  });
}

TEST_CASE("redirects are followed only when asked for, to a bound, and take no credentials to another host") {
  on_real_backends([](const Kind& kind) {
    for (const unsigned max_redirects : {0u, 1u}) {
      ClientOptions options;
      options.max_redirects = max_redirects;
      Scene scene(kind, options);
      const auto first = Scene::listen();
      const auto second = Scene::listen();
      const HttpField fields[] = {{"Authorization", "secret"}, {"X-Other", "kept"}};
      REQUIRE(scene.client->dial({.url = "ws://" + first.authority() + "/a", .fields = fields}));
      auto& peer = scene.accept(first);
      CHECK(Scene::value(scene.head(peer), "Authorization") == "secret");
      peer.write("HTTP/1.1 307 Elsewhere\r\nLocation: http://" + second.authority() +
                 "/b\r\nContent-Length: 0\r\n\r\n");
      if (max_redirects == 0) {
        CHECK(scene.hears({"refused 307"}));
        continue;
      }
      auto& other = scene.accept(second);
      const std::string head = scene.head(other);
      CHECK(head.starts_with("GET /b HTTP/1.1\r\n"));
      CHECK(Scene::value(head, "Authorization") == "-");
      CHECK(Scene::value(head, "X-Other") == "kept");
      other.write("HTTP/1.1 302 Again\r\nLocation: /c\r\nContent-Length: 0\r\n\r\n");
      CHECK(scene.hears({"refused 302"}));
    }
  });
}

TEST_CASE("a lost connection is dialled again, until it is canceled or closed by us") {
  on_real_backends([](const Kind& kind) {
    ClientOptions options;
    options.reconnect = {.enabled = true, .min_delay_ms = 1, .max_delay_ms = 4};
    Scene scene(kind, options);
    const auto door = Scene::listen();
    auto dial = scene.client->dial({.url = "ws://" + door.authority()});
    REQUIRE(dial);
    auto& first = scene.accept(door);
    first.write(Scene::accepted(scene.head(first)));
    CHECK(scene.hears({"open"}));
    first.reset();
    auto& second = scene.accept(door);
    scene.head(second);
    second.reset();  // in the middle of the handshake
    auto& third = scene.accept(door);
    third.write(Scene::accepted(scene.head(third)));
    CHECK(scene.hears({"open", "close 1006", "open"}));
    CHECK(scene.client->dials() == 1);
    scene.told.last.get()->close();
    CHECK(third.frame().payload == close_payload(1000));
    third.send(Opcode::close, close_payload(1000));
    third.shut_down();
    CHECK(scene.hears({"open", "close 1006", "open", "close 1000"}));
    CHECK(scene.client->dials() == 0);
  });
}

TEST_CASE("a canceled dial calls nothing any more, in whatever step") {
  on_real_backends([](const Kind& kind) {
    Scene scene(kind);
    const auto door = Scene::listen();
    for (int turns = 0; turns < 4; turns++) {
      auto dial = scene.client->dial({.url = "ws://" + door.authority()});
      REQUIRE(dial);
      for (int i = 0; i < turns; i++) scene.world.turn();
      scene.client->cancel(*dial);
      scene.client->cancel(*dial);
      scene.world.settle();
    }
    CHECK(scene.told.events.empty());
    CHECK(scene.client->dials() == 0);
    CHECK(scene.client->service().connections() == 0);
  });
}

TEST_CASE("a dial goes through a CONNECT proxy with its credentials, and tells how one refuses") {
  on_real_backends([](const Kind& kind) {
    const auto proxy = Scene::listen();
    ClientOptions options;
    options.proxy_url = "http://user:pass@" + proxy.authority();
    Scene scene(kind, options);
    REQUIRE(scene.client->dial({.url = "ws://far.example/x"}));
    auto& peer = scene.accept(proxy);
    const std::string connect = scene.head(peer);
    CHECK(connect.starts_with("CONNECT far.example:80 HTTP/1.1\r\n"));
    CHECK(Scene::value(connect, "Proxy-Authorization") == "Basic dXNlcjpwYXNz");
    peer.write("HTTP/1.1 200 Connection established\r\n\r\n");
    const std::string head = scene.head(peer);
    CHECK(head.starts_with("GET /x HTTP/1.1\r\nHost: far.example\r\n"));
    peer.write(Scene::accepted(head));
    CHECK(scene.hears({"open"}));
    REQUIRE(scene.client->dial({.url = "ws://far.example/x"}));
    auto& again = scene.accept(proxy);
    scene.head(again);
    again.write("HTTP/1.1 407 Login\r\nContent-Length: 0\r\n\r\n");
    CHECK(scene.hears({"open", "refused permission_denied proxy 407"}));
  });
}

TEST_CASE("a dial goes through a SOCKS5 proxy that resolves the name") {
  on_real_backends([](const Kind& kind) {
    const auto proxy = Scene::listen();
    ClientOptions options;
    options.proxy_url = "socks5://" + proxy.authority();
    Scene scene(kind, options);
    REQUIRE(scene.client->dial({.url = "ws://far.example/x"}));
    auto& peer = scene.accept(proxy);
    const auto expect = [&](std::string bytes) {
      CHECK(scene.world.until([&] { return peer.in.size() >= bytes.size(); }));
      CHECK(std::exchange(peer.in, {}) == bytes);
    };
    expect(std::string("\x05\x01\x00", 3));
    peer.write(std::string("\x05\x00", 2));
    expect(std::string("\x05\x01\x00\x03\x0b", 5) + "far.example" + std::string("\x00\x50", 2));
    peer.write(std::string("\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00", 10));
    peer.write(Scene::accepted(scene.head(peer)));
    CHECK(scene.hears({"open"}));
  });
}

TEST_CASE("the environment names the proxy, unless the options or NO_PROXY say otherwise") {
  on_real_backends([](const Kind& kind) {
    const auto proxy = Scene::listen(), server = Scene::listen();
    const EnvironmentVariable set("http_proxy", "http://" + proxy.authority());
    const auto arrives_at = [&](const Scene::Door& door, ClientOptions options) {
      Scene scene(kind, std::move(options));
      REQUIRE(scene.client->dial({.url = "ws://" + server.authority()}));
      return scene.head(scene.accept(door));
    };
    CHECK(arrives_at(proxy, {}).starts_with("CONNECT " + server.authority() + " "));
    CHECK(arrives_at(server, {.proxy_from_environment = false}).starts_with("GET / "));
    CHECK(arrives_at(server, {.no_proxy = "127.0.0.1"}).starts_with("GET / "));
    const EnvironmentVariable except("NO_PROXY", "*");
    CHECK(arrives_at(server, {}).starts_with("GET / "));
  });
}

TEST_CASE("a proxy that cannot be used ends the dial with its own error") {
  on_real_backends([](const Kind& kind) {
    ClientOptions options;
    options.proxy_url = "https://proxy.example";
    Scene tls(kind, options);
    REQUIRE(tls.client->dial({.url = "ws://far.example"}));
    CHECK(tls.hears({"unreachable not_supported"}));
    options.proxy_url = "ftp://proxy.example";
    Scene other(kind, options);
    REQUIRE(other.client->dial({.url = "ws://far.example"}));
    CHECK(other.hears({"unreachable invalid_argument"}));
  });
}
