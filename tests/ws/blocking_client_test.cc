#include <levada/ws/blocking_client.h>

#include <poll.h>
#include <unistd.h>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include <doctest/doctest.h>

#include <levada/core/clock.h>
#include <levada/net/io_uring.h>
#include <levada/tests/support/frames.h>
#include <levada/tests/support/hosts.h>
#include <levada/tests/support/proxies.h>
#include <levada/ws/server.h>

using namespace levada;
using namespace levada::ws;
using namespace levada::ws::test;
using levada::test::EnvironmentVariable;
using levada::test::HandingProxy;

namespace {

// ---- A server on both backends ----

struct Echo {
  void on_upgrade(Upgrade& upgrade) {
    const HttpRequest& request = upgrade.request();
    if (request.path() == "/forbidden") return upgrade.reject(403, "not you\n");
    upgrade.add_field("X-Origin", request.find(FieldId::origin));
    upgrade.add_field("X-Test", request.find("X-Test"));
    upgrade.add_field("X-Authorization", request.find("Authorization"));
  }
  void on_message(Connection& connection, Opcode opcode, Bytes payload) {
    const std::string_view text = to_text(payload);
    if (text == "close me") return connection.close(static_cast<CloseCode>(4001), "as you like");
    if (text == "kill me") return connection.terminate();
    if (text == "ping me") {
      connection.ping(to_bytes("are you there?"));
      connection.send_text("pinged");
      return;
    }
    connection.send(opcode, payload);
  }
  void on_pong(Connection& connection, Bytes payload) { connection.send(Opcode::binary, payload); }
};

template <class Test>
void on_each_backend(Test&& test, const std::string& unix_path = {}) {
  std::vector<net::BackendKind> kinds{net::BackendKind::epoll};
  if (net::io_uring_abilities().sufficient()) kinds.push_back(net::BackendKind::io_uring);
  for (const net::BackendKind kind : kinds) {
    CAPTURE(std::string(net::to_string(kind)));
    ServerOptions options;
    options.reactor.backend = kind;
    options.unix_path = unix_path;
    options.service.origin_policy = OriginPolicy::any;
    options.service.subprotocols = {"chat.v2", "chat.v1"};
    Server server(options);
    server.route("", [](int) { return Echo{}; });
    REQUIRE(!server.start());
    test(server);
  }
}

Deadline soon() {
  return Deadline::in_ms(10'000);
}

std::string read_text(BlockingClient& client) {
  auto message = client.read(soon());
  REQUIRE_MESSAGE(message, message.error().message());
  return std::string(to_text(message->payload));
}

Errc read_error(BlockingClient& client, Deadline deadline = soon()) {
  auto message = client.read(deadline);
  REQUIRE(!message);
  return message.error().code;
}

// How long `call` took, in milliseconds.
template <class Call>
std::uint64_t duration_ms(Call&& call) {
  const std::uint64_t began = monotonic_ns();
  call();
  return (monotonic_ns() - began) / nanoseconds_per_millisecond;
}

// ---- A peer that says what a test wants, without sockets ----

// Answers the handshake, then gives out `pieces`, one a read; an empty one is a timeout, and behind the last is `end`.
class ScriptedTransport final : public Transport {
 public:
  ScriptedTransport(std::vector<std::string> pieces, Errc end)
      : pieces_(pieces.begin(), pieces.end()), end_(end) {}

  Result<std::size_t> read(MutableBytes into, Deadline) override {
    if (!answered_) return answer(into);
    if (pieces_.empty()) return Error{end_, "script"};
    std::string& piece = pieces_.front();
    if (piece.empty()) {
      pieces_.pop_front();
      return Error{Errc::timed_out, "script"};
    }
    const std::size_t size = std::min(into.size(), piece.size());
    std::copy_n(piece.begin(), size, into.begin());
    piece.erase(0, size);
    if (piece.empty()) pieces_.pop_front();
    return size;
  }
  Result<std::size_t> write(Bytes from, Deadline) override {
    if (room == 0) return Error{write_error, "script"};
    const std::size_t size = std::min(from.size(), room);
    room -= size;
    written.append(to_text(from.first(size)));
    return size;
  }
  void close() override { closed_ = true; }
  int fd() const override { return -1; }

  std::string response = "HTTP/1.1 101 x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n";
  std::string written;
  std::size_t room = ~std::size_t{0};
  Errc write_error = Errc::timed_out;

 private:
  Result<std::size_t> answer(MutableBytes into) {
    HttpRequest request;
    REQUIRE(request.parse(to_bytes(written)).state == ParseState::complete);
    const AcceptKey key = accept_key(request.find(FieldId::sec_websocket_key));
    std::string text = response + "Sec-WebSocket-Accept: " + std::string(key.data(), key.size()) + "\r\n\r\n";
    written.clear();
    answered_ = true;
    if (!pieces_.empty() && glued) {
      text += pieces_.front();
      pieces_.pop_front();
    }
    REQUIRE(text.size() <= into.size());
    std::copy(text.begin(), text.end(), into.begin());
    return text.size();
  }

 public:
  bool glued = false;  // the first piece comes with the head

 private:
  std::deque<std::string> pieces_;
  Errc end_;
  bool answered_ = false;
  bool closed_ = false;
};

// A client on such a peer, which stays valid while the client has its transport.
struct Scripted {
  explicit Scripted(std::vector<std::string> pieces, Errc end = Errc::end_of_stream)
      : made(std::make_unique<ScriptedTransport>(std::move(pieces), end)), peer(made.get()) {}
  Error open(const BlockingOptions& options = {}) {
    return client.open(std::move(made), "example.com", "/", options, soon());
  }
  // The frames that the client has sent since, unmasked.
  std::vector<Frame> frames() {
    std::vector<Frame> list;
    while (std::optional<Frame> frame = take_frame(peer->written)) list.push_back(*frame);
    CHECK(peer->written.empty());
    return list;
  }

  std::unique_ptr<ScriptedTransport> made;
  ScriptedTransport* peer;
  BlockingClient client;
};

constexpr auto text_opcode = static_cast<unsigned>(Opcode::text);

}  // namespace

TEST_CASE("messages of all sizes come back from a server") {
  on_each_backend([](Server& server) {
    BlockingClient client;
    REQUIRE(!client.dial(server.url()));
    CHECK(client.is_open());
    CHECK(client.response().status() == 101);
    for (const std::size_t size : {0u, 1u, 125u, 126u, 65535u, 65536u, 300'000u}) {
      const std::string payload = random_letters(size);
      REQUIRE(!client.write_text(payload, soon()));
      CHECK(client.buffered() == 0);
      CHECK(read_text(client) == payload);
    }
    const std::string bytes = random_bytes(1000);
    REQUIRE(!client.write(Opcode::binary, to_bytes(bytes), soon()));
    auto message = client.read(soon());
    REQUIRE(message);
    CHECK(message->opcode == Opcode::binary);
    CHECK(to_text(message->payload) == bytes);
    CHECK(!client.close(CloseCode::normal, "bye", soon()));
    CHECK(client.close_code() == CloseCode::normal);
    CHECK_FALSE(client.is_open());
  });
}

TEST_CASE("a client is used for one connection after another") {
  on_each_backend([](Server& server) {
    BlockingClient client;
    for (int i = 0; i < 200; i++) {
      REQUIRE(!client.dial(server.url()));
      REQUIRE(!client.write_text("x", soon()));
      CHECK(read_text(client) == "x");
      if (i % 2 == 0) CHECK(!client.close(CloseCode::normal, "", soon()));
    }
  });
}

TEST_CASE("Unix sockets are dialed by their URL") {
  char folder[] = "/tmp/levada-XXXXXX";
  REQUIRE(mkdtemp(folder) != nullptr);
  const std::string path = std::string(folder) + "/a b";
  on_each_backend(
      [&](Server&) {
        BlockingClient client;
        const std::string url = "ws+unix:" + std::string(folder) + "/a%20b:/chat";
        REQUIRE(!client.dial(url));
        REQUIRE(!client.write_text("hello", soon()));
        CHECK(read_text(client) == "hello");
      },
      path);
  unlink(path.c_str());
  rmdir(folder);
}

TEST_CASE("origin, subprotocols, fields and credentials are sent, and the server's choice is told") {
  on_each_backend([](Server& server) {
    BlockingClient client;
    const std::string_view subprotocols[] = {"chat.v1", "other"};
    const HttpField fields[] = {{"X-Test", "yes"}};
    const BlockingOptions options{
        .origin = "http://example.com", .subprotocols = subprotocols, .fields = fields};
    const std::string url = "ws://Aladdin:open%20sesame@" + server.url().substr(5) + "/chat?x=1";
    REQUIRE(!client.dial(url, options));
    CHECK(client.subprotocol() == "chat.v1");
    CHECK(client.response().find("X-Origin") == "http://example.com");
    CHECK(client.response().find("X-Test") == "yes");
    CHECK(client.response().find("X-Authorization") == "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
  });
}

TEST_CASE("a refused handshake tells status, fields and content") {
  on_each_backend([](Server& server) {
    BlockingClient client;
    const Error error = client.dial(server.url() + "/forbidden");
    CHECK(error.code == Errc::protocol);
    CHECK(client.refusal() == UpgradeFailure::status_not_101);
    CHECK(client.response().status() == 403);
    CHECK(to_text(client.response_body()) == "not you\n");
    CHECK_FALSE(client.is_open());
    CHECK(client.write_text("x", soon()).code == Errc::end_of_stream);
    REQUIRE(!client.dial(server.url()));
    CHECK(client.refusal() == UpgradeFailure::none);
  });
}

TEST_CASE("the server's close frame ends reading, with its code and reason") {
  on_each_backend([](Server& server) {
    BlockingClient client;
    REQUIRE(!client.dial(server.url()));
    REQUIRE(!client.write_text("last words", soon()));
    REQUIRE(!client.write_text("close me", soon()));
    CHECK(read_text(client) == "last words");
    CHECK(read_error(client) == Errc::end_of_stream);
    CHECK(number(client.close_code()) == 4001);
    CHECK(client.close_reason() == "as you like");
    CHECK(read_error(client) == Errc::end_of_stream);
    CHECK(client.write_text("x", soon()).code == Errc::end_of_stream);
    CHECK(!client.close(CloseCode::normal, "", soon()));
  });
}

TEST_CASE("a connection that ends without a close frame is an error, not an end") {
  on_each_backend([](Server& server) {
    BlockingClient client;
    REQUIRE(!client.dial(server.url()));
    REQUIRE(!client.write_text("kill me", soon()));
    CHECK(read_error(client) == Errc::connection_reset);
    CHECK(client.close_code() == CloseCode::abnormal);
    CHECK(client.close(CloseCode::normal, "", soon()).code == Errc::end_of_stream);
  });
}

TEST_CASE("pings are answered while reading, and pongs are counted") {
  on_each_backend([](Server& server) {
    BlockingClient client;
    REQUIRE(!client.dial(server.url()));
    REQUIRE(!client.write_text("ping me", soon()));
    CHECK(read_text(client) == "pinged");
    CHECK(read_text(client) == "are you there?");  // the server tells the pong that it got
    CHECK(client.pongs() == 0);
    REQUIRE(!client.ping(to_bytes("x"), soon()));
    REQUIRE(!client.write_text("after", soon()));
    CHECK(read_text(client) == "after");
    CHECK(client.pongs() == 1);
  });
}

TEST_CASE("messages before the peer's close frame still arrive after ours") {
  on_each_backend([](Server& server) {
    BlockingClient client;
    REQUIRE(!client.dial(server.url()));
    for (int i = 0; i < 100; i++) REQUIRE(!client.write_text(std::to_string(i), soon()));
    REQUIRE(!client.send_close(CloseCode::going_away, "", soon()));
    CHECK(client.is_closing());
    CHECK(client.write_text("x", soon()).code == Errc::end_of_stream);
    for (int i = 0; i < 100; i++) CHECK(read_text(client) == std::to_string(i));
    CHECK(read_error(client) == Errc::end_of_stream);
    CHECK(client.close_code() == CloseCode::going_away);
  });
}

TEST_CASE("more than the sockets hold is written and read in turns, without a deadlock") {
  on_each_backend([](Server& server) {
    BlockingClient client;
    REQUIRE(!client.dial(server.url()));
    const std::string payload = random_letters(1 << 20);
    std::size_t sent = 0, received = 0;
    while (received < 48) {
      if (sent < 48 && client.buffered() < (std::size_t{4} << 20)) {
        const Error error = client.write_text(payload, Deadline::now());
        REQUIRE((!error || error.code == Errc::timed_out));
        sent++;
        continue;
      }
      CHECK(read_text(client) == payload);
      received++;
    }
    CHECK(!client.close(CloseCode::normal, "", soon()));
  });
}

// ---- Deadlines ----

TEST_CASE("reading ends at its deadline, and goes on afterwards") {
  on_each_backend([](Server& server) {
    BlockingClient client;
    REQUIRE(!client.dial(server.url()));
    const std::uint64_t took =
        duration_ms([&] { CHECK(read_error(client, Deadline::in_ms(80)) == Errc::timed_out); });
    CHECK(took >= 80);
    CHECK(took < 1000);
    CHECK(duration_ms([&] { CHECK(read_error(client, Deadline::now()) == Errc::timed_out); }) < 500);
    REQUIRE(!client.write_text("still there", soon()));
    CHECK(read_text(client) == "still there");
  });
}

TEST_CASE("a server that accepts and says nothing is left at the deadline of the dial") {
  const Fd listening = std::move(*net::listen_stream(*net::Address::ip("127.0.0.1", 0)));
  const std::string port = std::to_string(net::Address::of_socket(listening.get())->port());
  BlockingClient client;
  const std::uint64_t took = duration_ms([&] {
    const Error error = client.dial("ws://127.0.0.1:" + port, {.dial_timeout_ms = 120});
    CHECK(error.code == Errc::timed_out);
  });
  CHECK(took >= 120);
  CHECK(took < 1500);
  CHECK(client.refusal() == UpgradeFailure::none);
  CHECK(client.response().status() == 0);
}

TEST_CASE("a host that drops what is sent to it is left at the deadline, too") {
  const levada::test::Silent silent;
  BlockingClient client;
  const std::string url = "ws://" + silent.address.to_string();
  const std::uint64_t took =
      duration_ms([&] { CHECK(client.dial(url, {.dial_timeout_ms = 120}).code == Errc::timed_out); });
  CHECK(took >= 120);
  CHECK(took < 1500);
}

TEST_CASE("a name that takes too long to look up is left at the deadline, too") {
  static std::mutex mutex;
  static std::condition_variable changed;
  static bool over = false, left = false;
  BlockingClient client;
  const std::uint64_t began = monotonic_ns();
  const Error error =
      client.dial("ws://slow.test",
                  {.dial_timeout_ms = 50,
                   .lookup = [](const std::string&, std::uint16_t) -> Result<std::vector<net::Address>> {
                     std::unique_lock lock(mutex);
                     changed.wait(lock, [] { return over; });
                     left = true;
                     changed.notify_all();
                     return Error{Errc::not_found, "test"};
                   }});
  CHECK(error.code == Errc::timed_out);
  CHECK(monotonic_ns() - began >= 49 * nanoseconds_per_millisecond);
  CHECK(monotonic_ns() - began < 5 * nanoseconds_per_second);
  std::unique_lock lock(mutex);
  over = true;
  changed.notify_all();
  CHECK(changed.wait_for(lock, std::chrono::seconds(10), [] { return left; }));
}

TEST_CASE("a port that refuses is an error at once, and another address of the list is tried") {
  const levada::test::Refusing refusing;
  BlockingClient client;
  const std::uint64_t took = duration_ms(
      [&] { CHECK(client.dial("ws://" + refusing.address.to_string()).code == Errc::connection_refused); });
  CHECK(took < 2000);
  const levada::test::Good good;
  CHECK(connect_blocking(std::vector{refusing.address, good.address}, soon()));
  const std::vector refusing_twice{refusing.address, refusing.address};
  CHECK(connect_blocking(refusing_twice, soon()).error().code == Errc::connection_refused);
  CHECK(connect_blocking({}, soon()).error().code == Errc::invalid_argument);
}

TEST_CASE("a host that no route leads to is an error at once") {
  BlockingClient client;
  const std::string url = "ws://" + std::string(levada::test::unreachable_host);
  CHECK(client.dial(url).code == Errc::unreachable);
}

// ---- Proxies ----

TEST_CASE("a client goes through CONNECT and SOCKS5 proxies, which are asked for the server's name") {
  on_each_backend([](Server& server) {
    const auto hand_on = [&](Fd fd) { server.adopt(std::move(fd)); };
    for (const bool socks : {false, true}) {
      auto proxy = socks ? HandingProxy::socks5(hand_on) : HandingProxy::connect(hand_on);
      const std::string proxy_url = proxy.url(socks ? "" : "user:p%20w");
      BlockingClient client;
      const Error error = client.dial("ws://far.example:81/x", {.proxy_url = proxy_url});
      REQUIRE_MESSAGE(!error, error.message());
      REQUIRE(!client.write_text("hello", soon()));
      CHECK(read_text(client) == "hello");
      CHECK(client.proxy_status() == 0);
      if (socks) {
        CHECK(proxy.asked() == "far.example:81");
      } else {
        CHECK(proxy.asked().starts_with("CONNECT far.example:81 HTTP/1.1\r\n"));
        CHECK(proxy.asked().find("\r\nProxy-Authorization: Basic dXNlcjpwIHc=\r\n") != std::string::npos);
      }
    }
  });
}

TEST_CASE("a proxy that refuses, talks nonsense, ends or says nothing is told") {
  const auto error_of = [](HandingProxy proxy, std::uint32_t timeout_ms = 10'000) {
    BlockingClient client;
    const std::string url = proxy.url();
    const Error error = client.dial("ws://far.example/", {.dial_timeout_ms = timeout_ms, .proxy_url = url});
    CHECK_FALSE(client.is_open());
    return std::pair(error.code, client.proxy_status());
  };
  using Told = std::pair<Errc, unsigned>;
  const auto refuse = [](std::string_view head) { return HandingProxy::connect({}, head); };
  CHECK(error_of(refuse("HTTP/1.1 407 Login\r\n\r\n")) == Told(Errc::permission_denied, 407));
  CHECK(error_of(refuse("HTTP/1.1 502 Bad\r\n\r\n")) == Told(Errc::connection_refused, 502));
  CHECK(error_of(refuse("what?\r\n\r\n")) == Told(Errc::protocol, 0));
  CHECK(error_of(refuse("HTTP/1.1 200 OK\r\n\r\nservers wait for us")) == Told(Errc::protocol, 0));
  CHECK(error_of(refuse("HTTP/1.1 200")) == Told(Errc::end_of_stream, 0));
  CHECK(error_of(HandingProxy::socks5({}, 4)) == Told(Errc::unreachable, 0));
  Fd kept;
  CHECK(error_of(HandingProxy::connect([&](Fd fd) { kept = std::move(fd); }, ""), 100) ==
        Told(Errc::timed_out, 0));
}

TEST_CASE("the environment names the proxy, unless the options or NO_PROXY say otherwise") {
  on_each_backend([](Server& server) {
    BlockingClient client;
    {
      auto proxy = HandingProxy::connect([&](Fd fd) { server.adopt(std::move(fd)); });
      const EnvironmentVariable set("http_proxy", proxy.url());
      CHECK(!client.dial("ws://far.example/"));
      CHECK(proxy.asked().starts_with("CONNECT far.example:80 "));
    }
    const levada::test::Refusing nobody;
    const EnvironmentVariable set("HTTP_PROXY", nobody.address.to_string());
    CHECK(client.dial(server.url()).code == Errc::connection_refused);
    CHECK(!client.dial(server.url(), {.no_proxy = "127.0.0.0/8"}));
    CHECK(!client.dial(server.url(), {.proxy_from_environment = false}));
    const EnvironmentVariable except("NO_PROXY", "example.com, 127.0.0.1");
    CHECK(!client.dial(server.url()));
  });
}

TEST_CASE("a proxy that cannot be used is refused before anything is sent") {
  BlockingClient client;
  const auto dial = [&](std::string_view proxy) { return client.dial("ws://h/", {.proxy_url = proxy}); };
  CHECK(dial("ftp://h").code == Errc::invalid_argument);
  CHECK(dial("https://h").message() == "proxy: not_supported (https://, TLS to the proxy itself)");
  const levada::test::Good good;
  CHECK(dial("http://us%3Aer:x@" + good.address.to_string()).code == Errc::invalid_argument);
}

TEST_CASE("a server that trickles its answer does not move the deadline") {
  const Fd listening = std::move(*net::listen_stream(*net::Address::ip("127.0.0.1", 0)));
  const std::string port = std::to_string(net::Address::of_socket(listening.get())->port());
  std::thread trickling([&] {
    pollfd readable{listening.get(), POLLIN, 0};
    poll(&readable, 1, 10'000);
    const Fd peer(accept4(listening.get(), nullptr, nullptr, SOCK_CLOEXEC));
    const std::string_view endless =
        "HTTP/1.1 101 x\r\nX-Slow: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    pollfd ended{peer.get(), POLLRDHUP, 0};
    for (std::size_t i = 0; poll(&ended, 1, 10) == 0; i++) {
      if (send(peer.get(), &endless[i % endless.size()], i < endless.size() ? 1 : 0, MSG_NOSIGNAL) < 0) break;
    }
  });
  BlockingClient client;
  const std::uint64_t took = duration_ms([&] {
    CHECK(client.dial("ws://127.0.0.1:" + port, {.dial_timeout_ms = 200}).code == Errc::timed_out);
  });
  CHECK(took >= 200);
  CHECK(took < 1500);
  trickling.join();
}

TEST_CASE("URLs that are none are refused before anything is sent") {
  BlockingClient client;
  CHECK(client.dial("http://example.com").code == Errc::invalid_argument);
  CHECK(client.dial("ws://h/#x").code == Errc::invalid_argument);
  CHECK(client.dial("ws://us%3Aer@h/").code == Errc::invalid_argument);
  CHECK(client.dial("ws+unix:/does/not/exist").code == Errc::not_found);
}

// ---- The protocol, over a transport of the test's ----

TEST_CASE("frames glued to the 101 and frames in single bytes are read alike") {
  const std::string frames = server_frame(Opcode::text, "one") + server_frame(Opcode::text, "two");
  Scripted glued({frames});
  glued.peer->glued = true;
  REQUIRE(!glued.open());
  CHECK(glued.client.has_input());
  CHECK(read_text(glued.client) == "one");
  CHECK(read_text(glued.client) == "two");
  CHECK(read_error(glued.client) == Errc::connection_reset);

  std::vector<std::string> bytes;
  for (const char byte : frames) bytes.emplace_back(1, byte);
  Scripted single(bytes);
  REQUIRE(!single.open());
  CHECK(read_text(single.client) == "one");
  CHECK(read_text(single.client) == "two");
}

TEST_CASE("interim responses and folded lines before the 101 are read over") {
  Scripted scripted({server_frame(Opcode::text, "hi")});
  scripted.peer->glued = true;
  scripted.peer->response =
      "HTTP/1.1 100 x\r\n\r\nHTTP/1.1 103 x\r\nLink: </a>\r\n\r\n"
      "HTTP/1.1 101 x\r\nUpgrade:\r\n websocket\r\nConnection: Upgrade\r\n";
  REQUIRE(!scripted.open());
  CHECK(read_text(scripted.client) == "hi");
  Scripted endless({});
  for (int i = 0; i < 20; i++) endless.peer->response.insert(0, "HTTP/1.1 100 x\r\n\r\n");
  CHECK(endless.open({.http = {.max_bytes = 300}}).code == Errc::protocol);
}

TEST_CASE("a timeout in the middle of a message loses nothing") {
  const std::string frame = server_frame(Opcode::binary, random_bytes(1000));
  for (const std::size_t cut : {1u, 3u, 4u, 500u}) {
    Scripted scripted({frame.substr(0, cut), "", frame.substr(cut)});
    REQUIRE(!scripted.open());
    CHECK(read_error(scripted.client) == Errc::timed_out);
    CHECK(read_text(scripted.client) == random_bytes(1000));
  }
}

TEST_CASE("fragments are joined, with control frames between them") {
  Scripted scripted({server_frame(Opcode::text, "a", {.fin = false}) + server_frame(Opcode::ping, "p") +
                     server_frame(Opcode::continuation, "b")});
  REQUIRE(!scripted.open());
  CHECK(read_text(scripted.client) == "ab");
  const Frame pong{.opcode = static_cast<unsigned>(Opcode::pong), .payload = "p", .masked = true};
  CHECK(scripted.frames() == std::vector{pong});
}

TEST_CASE("every frame that is sent is masked, each with a key of its own") {
  Scripted scripted({});
  REQUIRE(!scripted.open());
  const std::string payload(64, '\0');
  for (int i = 0; i < 2; i++) REQUIRE(!scripted.client.write_text(payload, soon()));
  const std::string written = scripted.peer->written;
  CHECK(written.substr(2, 4) != written.substr(72, 4));
  const std::vector<Frame> frames = scripted.frames();
  REQUIRE(frames.size() == 2);
  for (const Frame& frame : frames) {
    CHECK(frame.masked);
    CHECK(frame.opcode == text_opcode);
    CHECK(frame.payload == payload);
  }
}

TEST_CASE("what breaks the rules is answered with its close code") {
  struct Case {
    std::string bytes;
    CloseCode code;
  };
  const Case cases[] = {
      {client_frame(Opcode::text, "masked"), CloseCode::protocol_error},
      {server_frame(Opcode::text, "x", {.rsv = 4}), CloseCode::protocol_error},
      {raw_frame(3, "x", false), CloseCode::protocol_error},
      {server_frame(Opcode::continuation, "x"), CloseCode::protocol_error},
      {server_frame(Opcode::text, "\xff"), CloseCode::invalid_payload},
      {server_frame(Opcode::binary, std::string(101, 'x')), CloseCode::message_too_big},
      {server_frame(Opcode::close, "\x03"), CloseCode::protocol_error},
  };
  for (const Case& one : cases) {
    Scripted scripted({server_frame(Opcode::text, "fine") + one.bytes}, Errc::timed_out);
    // The transport goes with the connection, so what was written is looked at through a copy.
    struct Tap final : Transport {
      ScriptedTransport& inner;
      std::string& written;
      std::unique_ptr<ScriptedTransport> owner;
      Tap(std::unique_ptr<ScriptedTransport> made, std::string& out)
          : inner(*made), written(out), owner(std::move(made)) {}
      Result<std::size_t> read(MutableBytes into, Deadline deadline) override {
        return inner.read(into, deadline);
      }
      Result<std::size_t> write(Bytes from, Deadline deadline) override {
        written.append(to_text(from));
        return inner.write(from, deadline);
      }
      void close() override { inner.close(); }
      int fd() const override { return -1; }
    };
    std::string written;
    auto tap = std::make_unique<Tap>(std::move(scripted.made), written);
    REQUIRE(!scripted.client.open(std::move(tap), "h", "/", {.max_message_bytes = 100}, soon()));
    written.clear();
    CHECK(read_text(scripted.client) == "fine");
    CHECK(read_error(scripted.client) == Errc::protocol);
    CHECK(scripted.client.close_code() == one.code);
    const std::optional<Frame> frame = take_frame(written);
    REQUIRE(frame);
    CHECK(frame->opcode == static_cast<unsigned>(Opcode::close));
    CHECK(frame->payload.substr(0, 2) == close_payload(static_cast<std::uint16_t>(one.code)));
    CHECK_FALSE(scripted.client.is_open());
    CHECK(scripted.client.close(CloseCode::normal, "", soon()).code == Errc::end_of_stream);
  }
}

TEST_CASE("a message that could not leave in time leaves later, whole and once") {
  Scripted scripted({"", server_frame(Opcode::text, "answer")});
  REQUIRE(!scripted.open());
  scripted.peer->room = 5;
  CHECK(scripted.client.write_text("first", Deadline::now()).code == Errc::timed_out);
  CHECK(scripted.client.buffered() == 6);
  CHECK(scripted.client.write_text("second", Deadline::now()).code == Errc::timed_out);
  scripted.peer->room = 3;
  CHECK(scripted.client.flush(Deadline::now()).code == Errc::timed_out);
  scripted.peer->room = 1000;
  CHECK(read_error(scripted.client) == Errc::timed_out);  // reading sends, too
  CHECK(scripted.client.buffered() == 0);
  const std::vector<Frame> frames = scripted.frames();
  REQUIRE(frames.size() == 2);
  CHECK(frames[0].payload == "first");
  CHECK(frames[1].payload == "second");
  CHECK(read_text(scripted.client) == "answer");
}

TEST_CASE("what waits to be sent is bounded") {
  Scripted scripted({});
  REQUIRE(!scripted.open({.max_buffered_bytes = 100}));
  scripted.peer->room = 0;
  CHECK(scripted.client.write_text(std::string(80, 'a'), Deadline::now()).code == Errc::timed_out);
  CHECK(scripted.client.write_text("too much for now", Deadline::now()).code == Errc::would_block);
  scripted.peer->room = 1000;
  CHECK(!scripted.client.write_text("now", Deadline::now()));
  const std::vector<Frame> frames = scripted.frames();
  REQUIRE(frames.size() == 2);
  CHECK(frames[1].payload == "now");
}

TEST_CASE("when writing fails, the peer's last words are still read") {
  Scripted scripted({server_frame(Opcode::text, "sorry") + server_frame(Opcode::ping, "p"),
                     server_frame(Opcode::close, close_payload(1013, "full"))});
  REQUIRE(!scripted.open());
  scripted.peer->room = 0;
  scripted.peer->write_error = Errc::connection_reset;
  CHECK(scripted.client.write_text("x", soon()).code == Errc::connection_reset);
  CHECK(scripted.client.write_text("y", soon()).code == Errc::connection_reset);
  CHECK(read_text(scripted.client) == "sorry");
  CHECK(!scripted.client.close(CloseCode::normal, "", soon()));
  CHECK(scripted.client.close_code() == CloseCode::try_again_later);
  CHECK(scripted.client.close_reason() == "full");
}

TEST_CASE("closing ends the connection also when the peer never answers") {
  Scripted scripted({server_frame(Opcode::text, "dropped")}, Errc::timed_out);
  REQUIRE(!scripted.open());
  CHECK(scripted.client.close(CloseCode::normal, "", Deadline::now()).code == Errc::timed_out);
  CHECK_FALSE(scripted.client.is_open());
}

TEST_CASE("an answer that is not the one asked for is refused") {
  Scripted old({});
  old.peer->response =
      "HTTP/1.1 101 x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Protocol: no\r\n";
  CHECK(old.open().code == Errc::protocol);
  CHECK(old.client.refusal() == UpgradeFailure::subprotocol_unasked);
  Scripted malformed({});
  malformed.peer->response =
      "HTTP/1.1 101 x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Extensions:\r\n";
  CHECK(malformed.open().code == Errc::protocol);
  CHECK(malformed.client.refusal() == UpgradeFailure::extension_malformed);
  Scripted unready({});
  unready.peer->response = "HTTP/1.1 100 x\r\n\r\nHTTP/1.1 503 x\r\n";
  CHECK(unready.open().code == Errc::protocol);
  CHECK(unready.client.response().status() == 503);
  Scripted noise({});
  noise.peer->response = "SSH-2.0\r\n";
  CHECK(noise.open().code == Errc::protocol);
  CHECK(noise.client.refusal() == UpgradeFailure::none);
  CHECK(noise.client.response().status() == 0);
  Scripted redirect({"moved", "there", "and more"});
  redirect.peer->response = "HTTP/1.1 302 x\r\nLocation: /there\r\nContent-Length: 10\r\n";
  CHECK(redirect.open().code == Errc::protocol);
  CHECK(redirect.client.response().find("Location") == "/there");
  CHECK(to_text(redirect.client.response_body()) == "movedthere");
  Scripted bad_request({});
  const HttpField field[] = {{"X", "a"}};
  CHECK(bad_request.client.open(std::move(bad_request.made), "h", "no slash \r\n", {.fields = field}, soon())
            .code == Errc::invalid_argument);
}

TEST_CASE("deadlines count what is left") {
  CHECK(Deadline::now().left_ns() == 0);
  CHECK(Deadline::never().is_never());
  CHECK(Deadline::never().divided_by(3).is_never());
  const std::uint64_t left = Deadline::in_ms(10'000).divided_by(4).left_ns();
  CHECK(left <= 2500 * nanoseconds_per_millisecond);
  CHECK(left > 1500 * nanoseconds_per_millisecond);
  CHECK_FALSE(Deadline::in_ms(~std::uint64_t{0}).is_never());
  CHECK(Deadline::in_ms(~std::uint64_t{0}).left_ns() > nanoseconds_per_second);
}
