#include <levada/net/datagram.h>

#include <set>
#include <string>

#include <doctest/doctest.h>

#include <levada/tests/net/support.h>

using namespace levada;
using namespace levada::net;
using namespace levada::net::test;

namespace {

void echo_datagram(void*, Datagram& datagram, MutableBytes bytes, const Address& from) {
  CHECK_FALSE(datagram.send_to(bytes, from));
}

void collect(void* texts, Datagram&, MutableBytes bytes, const Address&) {
  static_cast<std::multiset<std::string>*>(texts)->insert(std::string(to_text(bytes)));
}

}  // namespace

TEST_CASE("datagrams come whole, with their sender, more than one batch at once") {
  on_each_backend([](Reactor& reactor) {
    auto server = Datagram::bind(reactor, any_local(), echo_datagram, nullptr);
    std::multiset<std::string> sent, got;
    auto client = Datagram::bind(reactor, any_local(), collect, &got);
    REQUIRE(server);
    REQUIRE(client);
    for (std::size_t i = 0; i < 3 * Datagram::batch; i++) {
      const std::string text = pattern(i * 5, i);
      sent.insert(text);
      REQUIRE_FALSE((*client)->send_to(to_bytes(text), *(*server)->address()));
    }
    REQUIRE(turn_until(reactor, [&] { return got.size() == sent.size(); }));
    CHECK(got == sent);
    CHECK(sleeps(reactor));
  });
}

TEST_CASE("a datagram longer than the buffer is cut off and one that is too long for UDP is an error") {
  on_each_backend([](Reactor& reactor) {
    std::multiset<std::string> got;
    auto socket = Datagram::bind(reactor, any_local(), collect, &got, 100);
    const Address own = *(*socket)->address();
    REQUIRE_FALSE((*socket)->send_to(to_bytes(std::string(150, 'x')), own));
    CHECK((*socket)->send_to(to_bytes(std::string(70'000, 'x')), own));
    REQUIRE(turn_until(reactor, [&] { return got.size() == 1; }));
    CHECK(got.begin()->size() == 100);
  });
}

TEST_CASE("a datagram socket may close in its handler") {
  on_each_backend([](Reactor& reactor) {
    int calls = 0;
    auto handler = [](void* count, Datagram& datagram, MutableBytes, const Address&) {
      ++*static_cast<int*>(count);
      datagram.close();
    };
    auto socket = Datagram::bind(reactor, any_local(), handler, &calls);
    const Address own = *(*socket)->address();
    for (int i = 0; i < 3; i++) REQUIRE_FALSE((*socket)->send_to(to_bytes("x"), own));
    REQUIRE(turn_until(reactor, [&] { return reactor.endpoints() == 0; }));
    CHECK(calls == 1);
    CHECK((*socket)->send_to(to_bytes("x"), own).code == Errc::invalid_argument);
  });
}

TEST_CASE("a datagram sent to nobody does no harm, and a port in use is an error") {
  on_each_backend([](Reactor& reactor) {
    std::multiset<std::string> got;
    auto socket = Datagram::bind(reactor, any_local(), collect, &got);
    const auto taken = Datagram::bind(reactor, *(*socket)->address(), collect, &got);
    REQUIRE_FALSE(taken);
    CHECK(taken.error().code == Errc::address_in_use);
    Address nobody = any_local();
    {
      auto gone = Datagram::bind(reactor, any_local(), collect, &got);
      nobody = *(*gone)->address();
    }
    reactor.run_once(0);
    REQUIRE_FALSE((*socket)->send_to(to_bytes("hello?"), nobody));
    CHECK(sleeps(reactor));
    REQUIRE_FALSE((*socket)->send_to(to_bytes("me"), *(*socket)->address()));
    REQUIRE(turn_until(reactor, [&] { return got.count("me") == 1; }));
  });
}
