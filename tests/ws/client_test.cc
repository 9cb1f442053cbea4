// Clients named by URL, on epoll and io_uring: every step of a dial, and every way in which it ends.
#include <levada/ws/client.h>

#include <unistd.h>
#include <algorithm>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include <levada/tests/support/hosts.h>
#include <levada/tests/support/proxies.h>
#include <levada/tests/support/world.h>
#include <levada/ws/server.h>

using namespace levada;
using namespace levada::ws;
using namespace levada::ws::test;
using levada::test::EnvironmentVariable;

namespace {

// What a client's handler was told, in words.
struct Told {
  void on_connected(Connection& connection) {
    last = connection.handle();
    if (connected) connected(connection);
  }
  bool on_response(Connection&, const HttpResponse&) {
    if (in_call) in_call();
    return true;
  }
  void on_open(Connection& connection) {
    events.push_back("open");
    last = connection.handle();
    if (opened) opened(connection);
    if (in_call) in_call();
  }
  void on_message(Connection&, Opcode, Bytes payload) {
    events.push_back("message " + std::string(to_text(payload)));
    if (in_call) in_call();
  }
  void on_close(Connection&, const CloseInfo& info) {
    events.push_back("close " + std::to_string(number(info.code)));
    if (in_call) in_call();
  }
  void on_refused(Connection&, const Refusal& refusal) {
    const std::string status = refusal.response == nullptr ? to_string(refusal.error.code)
                                                           : std::to_string(refusal.response->status());
    events.push_back("refused " + status +
                     (refusal.proxy_status == 0 ? "" : " proxy " + std::to_string(refusal.proxy_status)));
    if (in_call) in_call();
  }
  void on_unreachable(const Unreachable& unreachable) {
    events.push_back(std::string("unreachable ") + to_string(unreachable.error.code));
    if (in_call) in_call();
  }
  void on_retry(const Retry& retry) {
    retries.push_back({retry.error.code, retry.status, retry.attempt, retry.delay_ms});
    if (in_call) in_call();
  }
  struct Again {
    Errc error;
    unsigned status, attempt;
    std::uint32_t delay_ms;
  };

  std::vector<std::string> events;
  Handle last;
  std::vector<Again> retries;
  std::function<void(Connection&)> connected, opened;
  std::function<void()> in_call;  // in every other call
};

// A lookup that never comes back. What it waits for is not destroyed either: that would wait for it.
Result<std::vector<net::Address>> hang(const std::string&, std::uint16_t) {
  static std::mutex mutex;
  static auto& never = *new std::condition_variable;
  std::unique_lock lock(mutex);
  never.wait(lock, [] { return false; });
  return Error{Errc::other, "test"};
}

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

TEST_CASE("a turn ends although large messages keep coming, so that tasks and timers get theirs") {
  struct Bouncer {
    void on_open(Connection& connection) {
      for (int i = 0; i < 3; i++) connection.send(Opcode::binary, to_bytes(payload));
    }
    void on_message(Connection& connection, Opcode opcode, Bytes message) {
      if (++messages < limit) connection.send(opcode, message);
    }
    const int limit = 1000;
    const std::string payload = random_bytes(1 << 20);
    int messages = 0;
  };
  struct Wall {
    void on_message(Connection& connection, Opcode opcode, Bytes message) {
      connection.send(opcode, message);
    }
  };
  on_real_backends([](const Kind& kind) {
    Server server(
        ServerOptions{});  // in a thread of its own, so its echoes come while the client's turn goes on
    server.route("", [](int) { return Wall{}; });
    REQUIRE(!server.start());
    World world(kind);
    Bouncer& bouncer = world.make_handler<Bouncer>();
    ClientOptions client_options;
    client_options.proxy_from_environment = false;
    ws::Client client(world.reactor(), bouncer, std::move(client_options));
    for (int i = 0; i < 4; i++) REQUIRE(client.dial({.url = server.url()}));
    int most = 0;
    CHECK(world.until([&, before = 0]() mutable {
      most = std::max(most, bouncer.messages - before);
      before = bouncer.messages;
      return before >= bouncer.limit;
    }));
    CHECK(most < 100);
    world.reactor().close_all();
    world.settle(2);
    server.stop();
    server.wait();
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

// ---- How it ends ----

namespace {

enum class First { client, reactor, close_all };

// Every state of a dial at once, and then the end in that order.
void end_in_order(const Kind& kind, First first) {
  Told told;
  const auto door = Scene::listen();
  auto made = net::Reactor::create({.backend = kind.backend});
  REQUIRE(made);
  std::unique_ptr<net::Reactor> reactor = std::move(*made);
  ClientOptions options;
  options.resolver.lookup = hang;
  options.reconnect = {.enabled = true, .min_delay_ms = 5'000};
  auto client = std::make_unique<ws::Client>(*reactor, told, options);
  const std::string here = "ws://" + door.authority();
  const levada::test::Silent silent;
  for (const std::string& url : {here, std::string("ws://hangs.test"), std::string("ws+unix:/no/such/socket"),
                                 "ws://" + silent.address.to_string()}) {
    REQUIRE(client->dial({.url = url}));
  }
  const auto until = [&](auto&& done) {
    for (int i = 0; i < 2000; i++) {
      if (done()) return;
      reactor->run_once(5);
    }
    FAIL("it does not come to that");
  };
  Fd peer;
  until([&] {
    peer.reset(accept4(door.fd.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
    return static_cast<bool>(peer);
  });
  std::string head;
  until([&] {
    char buffer[4096];
    const ssize_t got = recv(peer.get(), buffer, sizeof buffer, MSG_DONTWAIT);
    if (got > 0) head.append(buffer, static_cast<std::size_t>(got));
    return head.ends_with("\r\n\r\n");
  });
  const std::string answer = Scene::accepted(head);
  REQUIRE(send(peer.get(), answer.data(), answer.size(), 0) == static_cast<ssize_t>(answer.size()));
  until([&] { return !told.events.empty() && !told.retries.empty(); });
  CHECK(told.events == std::vector<std::string>{"open"});
  CHECK(told.retries.size() == 1);
  bool connected = false;
  told.connected = [&](Connection&) { connected = true; };
  REQUIRE(client->dial({.url = here}));  // is in its handshake
  until([&] { return connected; });
  CHECK(client->dials() == 5);
  std::vector<std::string> expected{"open", "close 1006"};
  if (first == First::client) {
    client.reset();
    reactor->run_once(0);
    CHECK(reactor->endpoints() == 0);
  } else {
    expected.push_back("refused canceled");
    first == First::reactor ? reactor.reset() : reactor->close_all();
    CHECK(client->dials() == 0);
  }
  std::sort(told.events.begin() + 1, told.events.end());
  CHECK(told.events == expected);
  if (first != First::close_all) return;
  REQUIRE(client->dial({.url = here}));  // the reactor goes on
  connected = false;
  until([&] { return connected; });
}

}  // namespace

TEST_CASE("client and reactor may end in either order, whatever is under way") {
  on_real_backends([](const Kind& kind) {
    for (const First first : {First::client, First::reactor, First::close_all}) {
      CAPTURE(static_cast<int>(first));
      end_in_order(kind, first);
    }
  });
}

TEST_CASE("a handler that dials in its last calls does not keep a reactor from ending") {
  on_real_backends([](const Kind& kind) {
    Told told;
    const auto door = Scene::listen();
    auto reactor = net::Reactor::create({.backend = kind.backend});
    REQUIRE(reactor);
    ws::Client client(**reactor, told);
    const std::string url = "ws://" + door.authority();
    told.in_call = [&] { (void)client.dial({.url = url}); };
    bool connected = false;
    told.connected = [&](Connection&) { connected = true; };
    REQUIRE(client.dial({.url = url}));
    for (int i = 0; i < 2000 && !connected; i++) (*reactor)->run_once(5);
    reactor->reset();
    CHECK(told.events == std::vector<std::string>{"refused canceled"});
    CHECK(client.dials() == 0);
  });
}

TEST_CASE("a dial is canceled inside every call of the handler") {
  on_real_backends([](const Kind& kind) {
    ClientOptions options;
    options.reconnect = {.enabled = true, .min_delay_ms = 1, .max_delay_ms = 2, .after_refusal = true};
    Scene scene(kind, options);
    const auto door = Scene::listen();
    const std::string url = "ws://" + door.authority();
    std::uint64_t number = 0;
    const auto cancel = [&] { scene.client->cancel(number); };
    const auto dial = [&] {
      scene.told.events.clear();
      number = *scene.client->dial({.url = url});
    };
    scene.told.connected = [&](Connection&) { cancel(); };
    dial();
    CHECK(scene.accept(door).reaches_end());
    CHECK(scene.hears({}));
    CHECK(scene.client->dials() == 0);
    scene.told.connected = {};
    const char* const refusal = "HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n";
    // in on_response, which would have accepted
    scene.told.in_call = cancel;
    dial();
    auto& answers = scene.accept(door);
    answers.write(Scene::accepted(scene.head(answers)));
    CHECK(answers.reaches_end());
    CHECK(scene.hears({}));
    // in on_retry, after a refusal
    dial();
    auto& refuses = scene.accept(door);
    scene.head(refuses);
    refuses.write(refusal);
    CHECK(scene.world.until([&] { return scene.told.retries.size() == 1; }));
    CHECK(scene.told.retries[0].status == 403);
    CHECK(scene.hears({}));
    CHECK(scene.client->dials() == 0);
    // in on_open, on_message and on_close: the connection stays, and is not dialled again
    for (const int call : {0, 1, 2}) {
      int calls = -1;  // on_response comes first
      scene.told.in_call = [&] {
        if (calls++ == call) cancel();
      };
      dial();
      auto& peer = scene.accept(door);
      peer.write(Scene::accepted(scene.head(peer)) + raw_frame(1, "m", false));
      CHECK(scene.hears({"open", "message m"}));
      peer.close();
      CHECK(scene.hears({"open", "message m", "close 1006"}));
      CHECK(scene.client->dials() == 0);
    }
    CHECK(scene.told.retries.size() == 2);  // on_close comes before on_retry would; only there it is too late
  });
}

TEST_CASE("a dial whose connection we end in its handshake is over, and told") {
  on_real_backends([](const Kind& kind) {
    for (const bool reconnect : {false, true}) {
      ClientOptions options;
      options.reconnect = {.enabled = reconnect, .min_delay_ms = 1};
      Scene scene(kind, options);
      const auto door = Scene::listen();
      REQUIRE(scene.client->dial({.url = "ws://" + door.authority()}));
      scene.head(scene.accept(door));
      scene.told.last.get()->terminate();
      CHECK(scene.hears({"refused canceled"}));
      CHECK(scene.client->dials() == 0);
      for (const bool gently : {false, true}) {
        scene.told.connected = [gently](Connection& connection) {
          gently ? connection.close() : connection.terminate();
        };
        scene.told.events.clear();
        REQUIRE(scene.client->dial({.url = "ws://" + door.authority()}));
        CHECK(scene.accept(door).reaches_end());
        CHECK(scene.hears({"refused canceled"}));
        CHECK(scene.client->dials() == 0);
      }
    }
  });
}

// ---- Reconnecting ----

TEST_CASE("after a redirect, a reconnect asks the original URL again, with what was left out on the way") {
  on_real_backends([](const Kind& kind) {
    ClientOptions options;
    options.max_redirects = 1;
    options.reconnect = {.enabled = true, .min_delay_ms = 1, .max_delay_ms = 2};
    Scene scene(kind, options);
    const auto first = Scene::listen(), second = Scene::listen();
    const HttpField fields[] = {{"Authorization", "secret"}};
    REQUIRE(scene.client->dial({.url = "ws://" + first.authority() + "/a", .fields = fields}));
    for (int round = 0; round < 3; round++) {
      CAPTURE(round);
      auto& peer = scene.accept(first);
      const std::string head = scene.head(peer);
      CHECK(head.starts_with("GET /a HTTP/1.1\r\n"));
      CHECK(Scene::value(head, "Authorization") == "secret");
      peer.write("HTTP/1.1 307 Elsewhere\r\nLocation: http://" + second.authority() + "/b\r\n\r\n");
      auto& other = scene.accept(second);  // although the first answer's content has no end
      const std::string next = scene.head(other);
      CHECK(next.starts_with("GET /b HTTP/1.1\r\n"));
      CHECK(Scene::value(next, "Authorization") == "-");
      if (round == 1) other.write(Scene::accepted(next));
      if (round == 1) REQUIRE(scene.world.until([&] { return scene.told.events.size() == 1; }));
      other.reset();
    }
  });
}

TEST_CASE("what another attempt would not change ends a dial that reconnects, and tells") {
  on_real_backends([](const Kind& kind) {
    ClientOptions options;
    options.reconnect = {.enabled = true, .min_delay_ms = 1};
    options.proxy_url = "https://proxy.example";
    Scene tls(kind, options);
    REQUIRE(tls.client->dial({.url = "ws://far.example"}));
    CHECK(tls.hears({"unreachable not_supported"}));
    CHECK(tls.client->dials() == 0);
    const auto proxy = Scene::listen();
    options.proxy_url = "http://" + proxy.authority();
    Scene login(kind, options);
    REQUIRE(login.client->dial({.url = "ws://far.example"}));
    auto& peer = login.accept(proxy);
    login.head(peer);
    peer.write("HTTP/1.1 407 Login\r\nContent-Length: 0\r\n\r\n");
    CHECK(login.hears({"refused permission_denied proxy 407"}));
    CHECK(login.client->dials() == 0);
    CHECK(login.told.retries.empty());
  });
}

TEST_CASE(
    "each attempt that failed is told, with the delay before the next: it doubles, has a cap and is "
    "jittered") {
  const Kind simulated{"simulated", net::BackendKind::simulated};
  World world(simulated);
  Told& told = world.make_handler<Told>();
  ClientOptions options;
  options.reconnect = {.enabled = true, .min_delay_ms = 100, .max_delay_ms = 10'000};
  ws::Client client(world.reactor(), told, options);
  auto dial = client.dial({.url = "ws+unix:/no/such/socket"});
  REQUIRE(dial);
  for (int i = 0; i < 5'000 && told.retries.size() < 60; i++) {
    const std::size_t before = told.retries.size();
    const std::uint32_t delay = before == 0 ? 1 : told.retries.back().delay_ms;
    if (delay > 2) world.simulation().advance_ms(delay - 2);
    world.turn(0);
    CHECK(told.retries.size() == before);  // not too early
    while (told.retries.size() == before) world.turn(1);
  }
  REQUIRE(told.retries.size() == 60);
  CHECK(told.events.empty());
  std::size_t at_cap = 0, jittered = 0;
  for (std::size_t i = 0; i < told.retries.size(); i++) {
    const auto& [error, status, attempt, delay_ms] = told.retries[i];
    CHECK(error == Errc::not_found);
    CHECK(attempt == i + 1);
    const std::uint32_t most = i < 7 ? 100u << i : 10'000u;
    CHECK(delay_ms <= most);
    CHECK(delay_ms >= most / 2);
    at_cap += most == 10'000u ? 1 : 0;
    jittered += delay_ms < most ? 1 : 0;
  }
  CHECK(at_cap == 53);
  CHECK(jittered > 50);
  client.cancel(*dial);
  CHECK(client.dials() == 0);
}

// ---- Requests ----

TEST_CASE("a request that cannot be sent as asked is refused at once") {
  on_real_backends([](const Kind& kind) {
    Scene scene(kind);
    const HttpField two_lines[] = {{"X-A", "b\r\nEvil: 1"}}, no_token[] = {{"X A", "b"}},
                    ours[] = {{"Host", "x"}};
    for (const DialRequest& request : {DialRequest{.url = "ws://h", .origin = "http://o\r\nEvil: 1"},
                                       {.url = "ws://h", .fields = two_lines},
                                       {.url = "ws://h", .fields = no_token},
                                       {.url = "ws://h", .fields = ours}}) {
      const auto dial = scene.client->dial(request);
      REQUIRE(!dial);
      CHECK(dial.error().code == Errc::invalid_argument);
      CHECK(scene.client->url_error() == UrlError::none);
    }
    CHECK(scene.client->dials() == 0);
    scene.world.settle();
    CHECK(scene.told.events.empty());
  });
}

TEST_CASE("a user in the URL becomes credentials, which a redirect to another host does not get") {
  on_real_backends([](const Kind& kind) {
    ClientOptions options;
    options.max_redirects = 2;
    Scene scene(kind, options);
    const auto door = Scene::listen(), other = Scene::listen();
    REQUIRE(scene.client->dial({.url = "ws://user:pass@" + door.authority() + "/a/b"}));
    auto& peer = scene.accept(door);
    std::string head = scene.head(peer);
    CHECK(Scene::value(head, "Host") == door.authority());
    CHECK(Scene::value(head, "Authorization") == "Basic dXNlcjpwYXNz");
    peer.write("HTTP/1.1 302 Beside\r\nLocation: chat?x#y\r\nContent-Length: 0\r\n\r\n");
    auto& beside = scene.accept(door);
    head = scene.head(beside);
    CHECK(head.starts_with("GET /a/chat?x HTTP/1.1\r\n"));
    CHECK(Scene::value(head, "Authorization") == "Basic dXNlcjpwYXNz");
    beside.write("HTTP/1.1 302 Away\r\nLocation: //" + other.authority() + "\r\nContent-Length: 0\r\n\r\n");
    head = scene.head(scene.accept(other));
    CHECK(head.starts_with("GET / HTTP/1.1\r\n"));
    CHECK(Scene::value(head, "Authorization") == "-");
  });
}

TEST_CASE("a timeout of 0 is none") {
  on_real_backends([](const Kind& kind) {
    ClientOptions options;
    options.timeout_ms = 0;
    options.service.handshake_timeout_ms = 1;
    Scene scene(kind, options);
    const auto door = Scene::listen();
    REQUIRE(scene.client->dial({.url = "ws://" + door.authority()}));
    auto& peer = scene.accept(door);
    const std::string head = scene.head(peer);
    const std::uint64_t began = monotonic_ns();
    REQUIRE(scene.world.until([&] { return monotonic_ns() - began > 30 * nanoseconds_per_millisecond; }));
    peer.write(Scene::accepted(head));
    CHECK(scene.hears({"open"}));
  });
}

TEST_CASE("a client reaches a server on a Unix socket") {
  on_real_backends([](const Kind& kind) {
    Scene scene(kind);
    const std::string name = "levada-client-test-" + std::to_string(getpid());
    Scene::Door door;
    door.fd = std::move(*net::listen_stream(*net::Address::unix_path("@" + name)));
    REQUIRE(scene.client->dial({.url = "ws+unix:@" + name + ":/chat?x"}));
    auto& peer = scene.accept(door);
    const std::string head = scene.head(peer);
    CHECK(head.starts_with("GET /chat?x HTTP/1.1\r\n"));
    CHECK(Scene::value(head, "Host") == "localhost");
    peer.write(Scene::accepted(head) + raw_frame(1, "hi", false));
    CHECK(scene.hears({"open", "message hi"}));
  });
}

TEST_CASE("the next address of a name is tried when one refuses") {
  on_real_backends([](const Kind& kind) {
    static net::Address refuses, answers;
    const levada::test::Refusing refusing;
    const auto door = Scene::listen();
    refuses = refusing.address;
    answers = door.address;
    ClientOptions options;
    options.resolver.lookup = [](const std::string&, std::uint16_t) -> Result<std::vector<net::Address>> {
      return std::vector{*net::Address::ip("255.255.255.255", 1), refuses, answers};
    };
    Scene scene(kind, options);
    REQUIRE(scene.client->dial({.url = "ws://several.test"}));
    auto& peer = scene.accept(door);
    const std::string head = scene.head(peer);
    CHECK(Scene::value(head, "Host") == "several.test");
    peer.write(Scene::accepted(head));
    CHECK(scene.hears({"open"}));
  });
}

TEST_CASE("a silent proxy ends the dial at its deadline") {
  on_real_backends([](const Kind& kind) {
    for (const std::string scheme : {"http://", "socks5://"}) {
      const auto proxy = Scene::listen();  // the kernel accepts, nobody answers
      ClientOptions options;
      options.timeout_ms = 50;
      options.proxy_url = scheme + proxy.authority();
      Scene scene(kind, options);
      const std::uint64_t began = monotonic_ns();
      REQUIRE(scene.client->dial({.url = "ws://far.example"}));
      CHECK(scene.hears({"refused timed_out"}));
      CHECK(monotonic_ns() - began >= 49 * nanoseconds_per_millisecond);
      CHECK(monotonic_ns() - began < 2'000 * nanoseconds_per_millisecond);
    }
  });
}
