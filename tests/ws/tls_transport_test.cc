// The blocking client over TLS, against a server on each backend.
#include <levada/ws/tls_transport.h>

#include <sys/socket.h>
#include <unistd.h>
#include <atomic>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include <doctest/doctest.h>

#include <levada/net/io_uring.h>
#include <levada/tests/support/certificates.h>
#include <levada/tests/support/frames.h>
#include <levada/tests/support/proxies.h>
#include <levada/tests/support/tls_pair.h>
#include <levada/ws/server.h>

using namespace levada;
using namespace levada::ws;
using namespace levada::ws::test;
using levada::test::EnvironmentVariable;
using levada::test::HandingProxy;

namespace {

struct Echo {
  void on_message(Connection& connection, Opcode opcode, Bytes payload) {
    if (to_text(payload) == "kill me") return connection.terminate();
    connection.send(opcode, payload);
  }
};

template <class Test>
void on_each_backend(const levada::test::Issued& certificate, Test&& test) {
  std::vector<net::BackendKind> kinds{net::BackendKind::epoll};
  if (net::io_uring_abilities().sufficient()) kinds.push_back(net::BackendKind::io_uring);
  for (const net::BackendKind kind : kinds) {
    CAPTURE(std::string(net::to_string(kind)));
    ServerOptions options;
    options.reactor.backend = kind;
    auto tls = net::TlsContext::create(net::TlsRole::server, {.certificates = {certificate.tls()}});
    REQUIRE(tls);
    options.service.tls = *tls;
    Server server(options);
    server.route("", [](int) { return Echo{}; });
    REQUIRE(!server.start());
    CHECK(server.url().starts_with("wss://"));
    test("wss://localhost:" + std::to_string(server.port()) + "/", server);
  }
}

// Of a thread of this process, as /proc says: 'S' sleeps.
char state_of(int thread) {
  std::ifstream file("/proc/self/task/" + std::to_string(thread) + "/stat");
  std::string line;
  std::getline(file, line);
  return line.at(line.rfind(')') + 2);
}

Deadline soon() {
  return Deadline::in_ms(10'000);
}

}  // namespace

TEST_CASE("a blocking client exchanges messages of any size over TLS, also without waiting") {
  const levada::test::Authority authority;
  on_each_backend(authority.issue(), [&](const std::string& url, Server&) {
    BlockingClient client;
    REQUIRE(!client.dial(url, {.tls = {.ca = authority.pem()}}));
    for (const std::size_t size : {0u, 1u, 125u, 126u, 16'384u, 16'385u, 70'000u, 2'000'000u}) {
      const std::string payload = random_bytes(size);
      REQUIRE(!client.write(Opcode::binary, to_bytes(payload), Deadline::now()));  // some of it waits
      auto message = client.read(soon());
      REQUIRE_MESSAGE(message, message.error().message());
      CHECK(to_text(message->payload) == payload);
    }
    CHECK(!client.close(CloseCode::normal, "", soon()));
  });
}

TEST_CASE("a blocking client refuses a server that it cannot trust, and tells a cut from an end") {
  const levada::test::Authority authority;
  on_each_backend(authority.issue({.names = "DNS:elsewhere"}), [&](const std::string& url, Server&) {
    BlockingClient client;
    CHECK(client.dial(url, {.tls = {.ca = authority.pem()}}).code == Errc::certificate_refused);
    CHECK(client.dial(url, {.tls = {.ca = levada::test::Authority("other").pem()}}).code ==
          Errc::certificate_refused);
    REQUIRE(!client.dial(url, {.tls = {.insecure_no_verification = true}}));
    REQUIRE(!client.write(Opcode::text, to_bytes("kill me"), soon()));
    auto message = client.read(soon());
    REQUIRE(!message);
    CHECK(message.error().code == Errc::truncated);
  });
}

TEST_CASE("a blocking client speaks TLS through CONNECT and SOCKS5 proxies with the server behind them") {
  const levada::test::Authority authority;
  on_each_backend(authority.issue(), [&](const std::string&, Server& server) {
    const auto hand_on = [&](Fd fd) { server.adopt(std::move(fd)); };
    for (const bool socks : {false, true}) {
      auto proxy = socks ? HandingProxy::socks5(hand_on) : HandingProxy::connect(hand_on);
      const EnvironmentVariable set("HTTPS_PROXY", proxy.url());
      BlockingClient client;
      const Error error = client.dial("wss://localhost:9443", {.tls = {.ca = authority.pem()}});
      REQUIRE_MESSAGE(!error, error.message());
      REQUIRE(!client.write(Opcode::text, to_bytes("hello"), soon()));
      auto message = client.read(soon());
      REQUIRE(message);
      CHECK(to_text(message->payload) == "hello");
      CHECK(proxy.asked().find("localhost:9443") != std::string::npos);
    }
  });
}

TEST_CASE("what was taken and has not left does so while an answer is waited for, and counts until then") {
  const levada::test::Authority authority;
  const auto issued = authority.issue();
  const auto serves = *net::TlsContext::create(net::TlsRole::server, {.certificates = {issued.tls()}});
  const auto trusts = *net::TlsContext::create(net::TlsRole::client, {.ca = authority.pem()});
  int ends[2];
  REQUIRE(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0);
  std::atomic<std::size_t> question{0};
  std::atomic<bool> established{false};
  const int asking = gettid();
  std::thread server([&, fd = Fd(ends[1])] {  // reads the question, all of it, and then answers
    levada::test::TlsEnd end;
    end.session = std::move(net::TlsSession::accept(*serves, end.output()).value());
    std::vector<char> buffer(20'000);
    const auto exchange = [&] {
      const ssize_t got = recv(fd.get(), buffer.data(), buffer.size(), 0);
      if (got <= 0) return false;
      end.feed({buffer.data(), static_cast<std::size_t>(got)});
      const std::string records = end.take_records();
      return send(fd.get(), records.data(), records.size(), MSG_NOSIGNAL) ==
             static_cast<ssize_t>(records.size());
    };
    while (end.established == 0) REQUIRE(exchange());
    established = true;
    established.notify_one();
    question.wait(0);
    while (state_of(asking) != 'S') std::this_thread::yield();  // until it has nothing to do but to wait
    while (end.plaintext.size() < question && exchange()) continue;
    REQUIRE(!end.session->write(to_bytes("answer")));
    const std::string records = end.take_records();
    CHECK(send(fd.get(), records.data(), records.size(), MSG_NOSIGNAL) ==
          static_cast<ssize_t>(records.size()));
  });
  auto transport = TlsTransport::connect(SocketTransport(Fd(ends[0])), *trusts, "localhost", 1, soon());
  REQUIRE(transport);
  established.wait(false);  // from here on nobody reads until everything waits
  const std::string part = random_bytes(16'384);
  std::size_t taken = 0;
  while (auto size = (*transport)->write(to_bytes(part), Deadline::now())) taken += *size;
  CHECK((*transport)->buffered() > 0);
  CHECK((*transport)->flush(Deadline::now()).code == Errc::timed_out);
  question = taken;
  question.notify_one();
  std::uint8_t answer[16];
  auto got = (*transport)->read(answer, soon());
  CHECK(got);
  if (got) CHECK(to_text(Bytes(answer).first(*got)) == "answer");
  CHECK((*transport)->buffered() == 0);
  (*transport)->close();
  server.join();
}
