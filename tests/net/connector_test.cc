#include <levada/net/connector.h>

#include <fcntl.h>
#include <poll.h>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include <levada/net/simulated.h>
#include <levada/tests/net/support.h>
#include <levada/tests/support/hosts.h>

using namespace levada;
using namespace levada::net;
using namespace levada::net::test;
using levada::test::Good;
using levada::test::Refusing;
using levada::test::Silent;

namespace {

struct Seen {
  int calls = 0;
  Fd fd;
  Error error;
  std::size_t winner = 99;
  std::vector<Errc> attempts;
  std::uint64_t at_ns = 0;
  std::function<void()> then;
};

void take(void* context, ConnectOutcome& outcome) {
  auto& result = *static_cast<Seen*>(context);
  result.calls++;
  result.fd = std::move(outcome.fd);
  result.error = outcome.error;
  result.winner = outcome.winner;
  result.attempts.clear();
  for (const ConnectAttempt& attempt : outcome.attempts) result.attempts.push_back(attempt.error.code);
  result.at_ns = monotonic_ns();
  if (result.then) result.then();
}

std::uint64_t elapsed_ms(std::uint64_t began, const Seen& result) {
  return (result.at_ns - began) / nanoseconds_per_millisecond;
}

Seen connect_to(Reactor& reactor, const std::vector<Address>& addresses, const ConnectOptions& options) {
  Seen result;
  connect_first(reactor, addresses, options, take, &result);
  CHECK(result.calls == 0);
  CHECK(turn_until(reactor, [&] { return result.calls != 0; }));
  CHECK(turn_until(reactor, [&] { return reactor.endpoints() == 0; }));  // nobody is left behind
  CHECK(result.calls == 1);
  return result;
}

bool is_connected_to(const Fd& fd, const Address& address) {
  Address peer;
  socklen_t size = peer.size();
  if (getpeername(fd.get(), peer.get(), &size) != 0) return false;
  peer.set_size(size);
  return peer.to_string() == address.to_string() && (fcntl(fd.get(), F_GETFL) & O_NONBLOCK) != 0;
}

}  // namespace

TEST_CASE("the first address that answers wins") {
  on_each_backend([](Reactor& reactor) {
    const Good good;
    const Seen result = connect_to(reactor, {good.address}, {});
    CHECK(!result.error);
    CHECK(result.winner == 0);
    CHECK(is_connected_to(result.fd, good.address));
    CHECK(result.attempts == std::vector{Errc::none});
  });
}

TEST_CASE("the winner's descriptor becomes a stream of the same reactor") {
  on_each_backend([](Reactor& reactor) {
    const Good good;
    Seen result = connect_to(reactor, {good.address}, {});
    const Fd peer(accept(good.fd.get(), nullptr, nullptr));
    Record record;
    record.on_receive = echo;
    REQUIRE(reactor.add<Probe>(std::move(result.fd), record) != nullptr);
    write_all(peer, "hello");
    std::string answer;
    REQUIRE(turn_until(reactor, [&] { return read_some(peer, answer) || answer.size() == 5; }));
    CHECK(answer == "hello");
  });
}

TEST_CASE("an address that refuses is followed by the next one at once") {
  on_each_backend([](Reactor& reactor) {
    const Refusing refusing;
    const Good good;
    const std::uint64_t began = monotonic_ns();
    const Seen result =
        connect_to(reactor, {refusing.address, refusing.address, good.address}, {.attempt_delay_ms = 5000});
    CHECK(result.winner == 2);
    CHECK(is_connected_to(result.fd, good.address));
    CHECK(result.attempts == std::vector{Errc::connection_refused, Errc::connection_refused, Errc::none});
    CHECK(elapsed_ms(began, result) < 2000);
  });
}

TEST_CASE(
    "an address that is silent is followed by the next one after the delay, and closed when that wins") {
  on_each_backend([](Reactor& reactor) {
    const Silent silent;
    const Good good;
    const std::uint64_t began = monotonic_ns();
    const Seen result = connect_to(reactor, {silent.address, good.address}, {.attempt_delay_ms = 60});
    CHECK(result.winner == 1);
    CHECK(result.attempts == std::vector{Errc::canceled, Errc::none});
    CHECK(elapsed_ms(began, result) >= 58);
    CHECK(elapsed_ms(began, result) < 2000);
  });
}

TEST_CASE("good, refusing and silent addresses in any order end with the good one") {
  const Good good;
  const Refusing refusing;
  const Silent silent;
  std::vector<Address> addresses = {good.address, refusing.address, silent.address};
  const auto before = [](const Address& a, const Address& b) { return a.port() < b.port(); };
  std::sort(addresses.begin(), addresses.end(), before);
  do {
    on_each_backend([&](Reactor& reactor) {
      const Seen result = connect_to(reactor, addresses, {.attempt_delay_ms = 20});
      CHECK(!result.error);
      CHECK(is_connected_to(result.fd, good.address));
    });
  } while (std::next_permutation(addresses.begin(), addresses.end(), before));
}

TEST_CASE("silence ends at the deadline, and not before") {
  on_each_backend([](Reactor& reactor) {
    const Silent silent;
    const Refusing refusing;
    const std::uint64_t began = monotonic_ns();
    const Seen result = connect_to(reactor, {silent.address, refusing.address, silent.address},
                                   {.attempt_delay_ms = 20, .timeout_ms = 150});
    CHECK(result.error.code == Errc::timed_out);
    CHECK(!result.fd);
    CHECK(result.attempts == std::vector{Errc::timed_out, Errc::connection_refused, Errc::timed_out});
    CHECK(elapsed_ms(began, result) >= 149);
    CHECK(elapsed_ms(began, result) < 2000);
  });
}

TEST_CASE("a deadline before the next attempt leaves that one out") {
  on_each_backend([](Reactor& reactor) {
    const Silent silent;
    const Good good;
    const Seen result = connect_to(reactor, {silent.address, good.address}, {.timeout_ms = 50});
    CHECK(result.error.code == Errc::timed_out);
    CHECK(result.attempts == std::vector{Errc::timed_out, Errc::canceled});
  });
}

TEST_CASE("when all attempts fail, the error that says most is reported") {
  on_each_backend([](Reactor& reactor) {
    const Refusing refusing;
    const Address missing = *Address::unix_path("@levada-connector-test-nobody");
    const Seen result = connect_to(reactor, {missing, refusing.address}, {});
    CHECK(result.error.code == Errc::connection_refused);
    CHECK(!result.fd);
    const Seen none = connect_to(reactor, {}, {});
    CHECK(none.error.code == Errc::invalid_argument);
  });
}

TEST_CASE("the errors are ordered by what they say") {
  const auto telling = [](std::vector<Errc> codes) {
    std::vector<ConnectAttempt> attempts;
    for (const Errc code : codes) attempts.push_back({{}, {code, "connect"}});
    return most_telling(attempts).code;
  };
  CHECK(telling({}) == Errc::none);
  CHECK(telling({Errc::address_not_available, Errc::unreachable}) == Errc::unreachable);
  CHECK(telling({Errc::unreachable, Errc::connection_refused, Errc::timed_out}) == Errc::connection_refused);
  CHECK(telling({Errc::timed_out, Errc::unreachable}) == Errc::timed_out);
  CHECK(telling({Errc::descriptor_limit, Errc::connection_refused}) == Errc::descriptor_limit);
  CHECK(telling({Errc::canceled, Errc::not_supported}) == Errc::not_supported);
}

TEST_CASE("a local address is used by the attempts of its family") {
  on_each_backend([](Reactor& reactor) {
    const Good good;
    const Address source = *Address::ip("127.0.0.7", 0);
    const Seen result = connect_to(reactor, {good.address}, {.source = &source});
    REQUIRE(result.fd);
    CHECK(Address::of_socket(result.fd.get())->to_string().starts_with("127.0.0.7:"));
  });
}

TEST_CASE("a canceled connector says nothing and leaves nothing behind") {
  on_each_backend([](Reactor& reactor) {
    const Silent silent;
    const Good good;
    Seen result;
    const std::vector<Address> addresses = {silent.address, good.address};
    SlotId id = connect_first(reactor, addresses, {.attempt_delay_ms = 10}, take, &result);
    cancel_connecting(reactor, id);
    cancel_connecting(reactor, id);
    id =
        connect_first(reactor, {&addresses[1], 1}, {}, take, &result);  // connected already, not reported yet
    cancel_connecting(reactor, id);
    CHECK(turn_until(reactor, [&] { return reactor.endpoints() == 0; }));
    for (int i = 0; i < 5; i++) reactor.run_once(10);
    CHECK(result.calls == 0);
    cancel_connecting(reactor, id);
  });
}

TEST_CASE("the callback may begin the next connection and cancel its own") {
  on_each_backend([](Reactor& reactor) {
    const Good good;
    Seen first, second;
    SlotId id;
    first.then = [&] {
      cancel_connecting(reactor, id);
      connect_first(reactor, {&good.address, 1}, {}, take, &second);
    };
    id = connect_first(reactor, {&good.address, 1}, {}, take, &first);
    REQUIRE(turn_until(reactor, [&] { return second.calls == 1; }));
    CHECK(first.calls == 1);
    CHECK(second.fd);
  });
}

TEST_CASE("a reactor that ends in the middle closes the attempts") {
  const Silent silent;
  for (const BackendKind kind : real_backends()) {
    Seen result;
    auto reactor = Reactor::create({.backend = kind});
    REQUIRE(reactor);
    connect_first(**reactor, {&silent.address, 1}, {}, take, &result);
    (*reactor)->run_once(0);
    reactor->reset();
    CHECK(result.calls == 0);
  }
}

TEST_CASE("many connections leave no descriptor behind") {
  on_each_backend([](Reactor& reactor) {
    const Good good;
    const Refusing refusing;
    const std::vector<Address> addresses = {refusing.address, good.address};
    const int before = Fd(dup(0)).get();
    for (int i = 0; i < 300; i++) {
      const Seen result = connect_to(reactor, addresses, {});
      REQUIRE(result.fd);
      const Fd accepted(accept(good.fd.get(), nullptr, nullptr));
      REQUIRE(accepted);
    }
    CHECK(turn_until(reactor, [&] { return Fd(dup(0)).get() == before; }));  // io_uring closes a turn later
  });
}

// ---- Simulated: every step under the test's control ----

namespace {

struct SimulatedWorld {
  Simulation simulation;
  Reactor reactor{{}, SimulatedBackend::make, &simulation};
  std::vector<Peer> peers;
  std::vector<std::uint64_t> opened_ms;
  int fail_at = -1;  // number of the attempt whose socket cannot be made

  ConnectOptions options(std::uint32_t delay_ms, std::uint32_t timeout_ms) {
    return {.attempt_delay_ms = delay_ms, .timeout_ms = timeout_ms, .open = open, .open_context = this};
  }
  static Result<Fd> open(void* context, const Address&, const Address*) {
    auto& self = *static_cast<SimulatedWorld*>(context);
    self.opened_ms.push_back(self.simulation.now_ns() / nanoseconds_per_millisecond);
    if (self.fail_at == static_cast<int>(self.opened_ms.size()) - 1)
      return Error{Errc::unreachable, "connect"};
    SimulatedConnection made = self.simulation.open();
    self.peers.push_back(made.peer);
    return std::move(made.fd);
  }
  void pass(std::uint32_t milliseconds) {
    for (std::uint32_t i = 0; i < milliseconds; i++) reactor.run_once(1);
  }
};

const std::vector<Address> three = {*Address::ip("192.0.2.1", 1), *Address::ip("192.0.2.2", 1),
                                    *Address::ip("192.0.2.3", 1)};

}  // namespace

TEST_CASE("simulated: attempts begin one delay after another, and a late one may win") {
  SimulatedWorld world;
  Seen result;
  connect_first(world.reactor, three, world.options(250, 5000), take, &result);
  world.pass(600);
  CHECK(world.opened_ms == std::vector<std::uint64_t>{0, 250, 500});
  world.peers[1].accept();
  world.pass(3);
  CHECK(result.calls == 1);
  CHECK(result.winner == 1);
  CHECK(result.fd.release() >= SimulatedBackend::first_descriptor);
  CHECK(world.peers[0].closed());
  CHECK_FALSE(world.peers[1].closed());
  CHECK(world.peers[2].closed());
  CHECK(world.reactor.endpoints() == 0);
}

TEST_CASE("simulated: a failure begins the next attempt, whose delay counts from then") {
  SimulatedWorld world;
  Seen result;
  connect_first(world.reactor, three, world.options(250, 5000), take, &result);
  world.pass(100);
  world.peers[0].refuse(ECONNREFUSED);
  world.pass(400);
  REQUIRE(world.opened_ms.size() == 3);
  CHECK(world.opened_ms[1] <= 102);
  CHECK(world.opened_ms[2] - world.opened_ms[1] == 250);
  world.peers[1].refuse(ETIMEDOUT);
  world.peers[2].refuse(EHOSTUNREACH);
  world.pass(3);
  CHECK(result.calls == 1);
  CHECK(result.error.code == Errc::connection_refused);
  CHECK(result.attempts == std::vector{Errc::connection_refused, Errc::timed_out, Errc::unreachable});
}

TEST_CASE("simulated: sockets that cannot be made are passed over, also when they all are") {
  SimulatedWorld world;
  Seen result;
  world.fail_at = 0;
  connect_first(world.reactor, three, world.options(250, 5000), take, &result);
  CHECK(world.opened_ms.size() == 2);
  world.peers[0].accept();
  world.pass(2);
  CHECK(result.winner == 1);
  result.fd.release();

  SimulatedWorld lost;
  Seen failure;
  lost.fail_at = 0;
  connect_first(lost.reactor, {three.data(), 1}, lost.options(250, 5000), take, &failure);
  CHECK(failure.calls == 0);
  lost.pass(3);
  CHECK(failure.calls == 1);
  CHECK(failure.error.code == Errc::unreachable);
}

TEST_CASE("simulated: the deadline is kept to the millisecond") {
  SimulatedWorld world;
  Seen result;
  connect_first(world.reactor, three, world.options(250, 700), take, &result);
  world.pass(699);
  CHECK(result.calls == 0);
  world.pass(2);
  CHECK(result.calls == 1);
  CHECK(result.error.code == Errc::timed_out);
  for (const Peer& peer : world.peers) CHECK(peer.closed());
}

TEST_CASE("simulated: without a deadline it waits for ever") {
  SimulatedWorld world;
  Seen result;
  connect_first(world.reactor, three, world.options(250, 0), take, &result);
  world.pass(5000);
  world.simulation.advance_ms(3'600'000);
  world.pass(5);
  CHECK(result.calls == 0);
  world.peers[2].accept();
  world.pass(2);
  CHECK(result.winner == 2);
  result.fd.release();
}

TEST_CASE("simulated: two that succeed in one turn give one connection") {
  SimulatedWorld world;
  Seen result;
  connect_first(world.reactor, three, world.options(10, 0), take, &result);
  world.pass(25);
  REQUIRE(world.peers.size() == 3);
  for (Peer& peer : world.peers) peer.accept();
  world.pass(2);
  CHECK(result.calls == 1);
  CHECK(result.winner == 0);
  CHECK((world.peers[1].closed() && world.peers[2].closed()));
  result.fd.release();
}
