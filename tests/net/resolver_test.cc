#include <levada/net/resolver.h>

#include <condition_variable>
#include <mutex>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include <levada/net/simulated.h>
#include <levada/tests/net/support.h>
#include <levada/tests/support/thread_limit.h>

using namespace levada;
using namespace levada::net;
using namespace levada::net::test;

namespace {

std::string text_of(std::span<const Address> addresses) {
  std::string text;
  for (const Address& address : addresses) text += (text.empty() ? "" : " ") + address.to_string();
  return text;
}

struct Answer {
  int calls = 0;
  Errc code = Errc::none;
  std::string addresses;
  std::function<void()> then;
};

void take(void* context, const Resolution& resolution) {
  auto& answer = *static_cast<Answer*>(context);
  answer.calls++;
  answer.code = resolution.error.code;
  answer.addresses = text_of(resolution.addresses);
  if (answer.then) answer.then();
}

// A system whose lookups wait until they are let go, and whose thread can be waited for.
struct Gate {
  std::mutex mutex;
  std::condition_variable changed;
  bool open = false;
  int entered = 0, left = 0;
  std::vector<std::string> names;

  void reset() {
    const std::lock_guard lock(mutex);
    open = false;
    entered = left = 0;
    names.clear();
  }
  void let_go() {
    const std::lock_guard lock(mutex);
    open = true;
    changed.notify_all();
  }
  void wait_entered(int count) {
    std::unique_lock lock(mutex);
    REQUIRE(changed.wait_for(lock, std::chrono::seconds(10), [&] { return entered >= count; }));
  }
  void wait_left(int count) {
    std::unique_lock lock(mutex);
    REQUIRE(changed.wait_for(lock, std::chrono::seconds(10), [&] { return left >= count; }));
  }
};
Gate gate;

Result<std::vector<Address>> wait_at_gate(const std::string& host, std::uint16_t port) {
  std::unique_lock lock(gate.mutex);
  gate.names.push_back(host);
  gate.entered++;
  gate.changed.notify_all();
  gate.changed.wait(lock, [] { return gate.open; });
  gate.left++;
  gate.changed.notify_all();
  if (host == "missing.test") return Error{Errc::not_found, "test"};
  return std::vector<Address>{*Address::ip("192.0.2.1", port), *Address::ip("2001:db8::1", port)};
}

Result<std::vector<Address>> never_called(const std::string&, std::uint16_t) {
  return Error{Errc::other, "test"};
}

std::vector<Address> list(std::initializer_list<const char*> hosts) {
  std::vector<Address> addresses;
  for (const char* host : hosts) addresses.push_back(*Address::ip(host, 1));
  return addresses;
}

std::string interleaved(std::initializer_list<const char*> hosts) {
  std::vector<Address> addresses = list(hosts);
  interleave_families(addresses);
  return text_of(addresses);
}

}  // namespace

TEST_CASE("families alternate, beginning with the first, each in its own order") {
  CHECK(interleaved({}).empty());
  CHECK(interleaved({"::1"}) == "[::1]:1");
  CHECK(interleaved({"::1", "::2", "::3", "1.1.1.1", "2.2.2.2"}) ==
        "[::1]:1 1.1.1.1:1 [::2]:1 2.2.2.2:1 [::3]:1");
  CHECK(interleaved({"1.1.1.1", "2.2.2.2", "::1"}) == "1.1.1.1:1 [::1]:1 2.2.2.2:1");
  CHECK(interleaved({"1.1.1.1", "::1", "::2", "::3"}) == "1.1.1.1:1 [::1]:1 [::2]:1 [::3]:1");
}

TEST_CASE("numbers and localhost need no question") {
  CHECK(text_of(known_addresses("192.0.2.1", 80)) == "192.0.2.1:80");
  CHECK(text_of(known_addresses("2001:db8::1", 80)) == "[2001:db8::1]:80");
  CHECK(text_of(known_addresses("localhost", 80)) == "127.0.0.1:80 [::1]:80");
  CHECK(text_of(known_addresses("LocalHost.", 80)) == "127.0.0.1:80 [::1]:80");
  CHECK(text_of(known_addresses("a.localhost", 80)) == "127.0.0.1:80 [::1]:80");
  for (const char* host : {"", "*", "notlocalhost", "localhost.example", "example.com", "1.2.3", "host"}) {
    CHECK_MESSAGE(known_addresses(host, 80).empty(), host);
  }
}

TEST_CASE("the system is asked about other names, and its errors are told") {
  auto missing = resolve_blocking("name.invalid", 80);
  REQUIRE(!missing);
  CHECK((missing.error().code == Errc::not_found || missing.error().code == Errc::timed_out));
  CHECK(resolve_blocking("", 80).error().code == Errc::invalid_argument);
  CHECK(resolve_blocking(std::string("localhost\0x", 11), 80).error().code == Errc::invalid_argument);
  CHECK(text_of(*resolve_blocking("127.1", 80)) == "127.0.0.1:80");  // the system's own reading of numbers
}

TEST_CASE("known addresses come in a later turn, without a thread") {
  on_each_backend([](Reactor& reactor) {
    Resolver resolver(reactor, {.lookup = never_called});
    Answer answer;
    resolver.resolve("localhost", 9, 0, take, &answer);
    CHECK(answer.calls == 0);
    REQUIRE(turn_until(reactor, [&] { return answer.calls != 0; }));
    CHECK(answer.addresses == "127.0.0.1:9 [::1]:9");
    CHECK(answer.code == Errc::none);
    CHECK(reactor.endpoints() == 0);
  });
}

TEST_CASE("a simulated reactor resolves too") {
  Simulation simulation;
  Reactor reactor({}, SimulatedBackend::make, &simulation);
  Resolver resolver(reactor);
  Answer answer;
  resolver.resolve("::1", 9, 100, take, &answer);
  reactor.run_once(0);
  CHECK(answer.addresses == "[::1]:9");
  reactor.run_once(200);
  CHECK(answer.calls == 1);
}

TEST_CASE("names are looked up on another thread, one after the other, and answered on the reactor's") {
  on_each_backend([](Reactor& reactor) {
    gate.reset();
    Resolver resolver(reactor, {.max_threads = 1, .lookup = wait_at_gate});
    Answer first, second, number;
    resolver.resolve("first.test", 80, 0, take, &first);
    resolver.resolve("missing.test", 80, 0, take, &second);
    resolver.resolve("192.0.2.9", 80, 0, take, &number);
    gate.wait_entered(1);
    REQUIRE(turn_until(reactor, [&] { return number.calls == 1; }));  // does not wait for the others
    CHECK(first.calls == 0);
    gate.let_go();
    REQUIRE(turn_until(reactor, [&] { return first.calls == 1 && second.calls == 1; }));
    CHECK(first.addresses == "192.0.2.1:80 [2001:db8::1]:80");
    CHECK(second.code == Errc::not_found);
    CHECK(second.addresses.empty());
    CHECK(gate.names == std::vector<std::string>{"first.test", "missing.test"});
  });
}

TEST_CASE("without a thread to look a query is answered with the reason, and the next one may have it") {
  levada::test::with_few_threads(0, [](auto lift) {
    auto reactor = Reactor::create({.backend = BackendKind::epoll});
    Resolver resolver(**reactor, {.lookup = never_called});
    Answer answer;
    resolver.resolve("somewhere.test", 80, 0, take, &answer);
    REQUIRE(turn_until(**reactor, [&] { return answer.calls == 1; }));
    CHECK(answer.code == Errc::no_memory);
    lift();
    resolver.resolve("somewhere.test", 80, 0, take, &answer);
    REQUIRE(turn_until(**reactor, [&] { return answer.calls == 2; }));
    CHECK(answer.code == Errc::other);  // the lookup's
  });
}

TEST_CASE("a deadline ends a query while the system is still looking, and its answer is dropped") {
  on_each_backend([](Reactor& reactor) {
    gate.reset();
    Resolver resolver(reactor, {.max_threads = 1, .lookup = wait_at_gate});
    Answer slow, queued;
    const std::uint64_t began = monotonic_ns();
    resolver.resolve("slow.test", 80, 30, take, &slow);
    resolver.resolve("queued.test", 80, 30, take, &queued);
    REQUIRE(turn_until(reactor, [&] { return slow.calls == 1 && queued.calls == 1; }));
    CHECK(monotonic_ns() - began >= 29 * nanoseconds_per_millisecond);
    CHECK(slow.code == Errc::timed_out);
    CHECK(queued.code == Errc::timed_out);
    gate.let_go();
    Answer after;
    resolver.resolve("after.test", 80, 0, take, &after);
    REQUIRE(turn_until(reactor, [&] { return after.calls == 1; }));
    CHECK(slow.calls == 1);
    CHECK(gate.names == std::vector<std::string>{"slow.test", "after.test"});  // the queued one was taken out
  });
}

TEST_CASE("a canceled query is never answered, whenever it is canceled") {
  on_each_backend([](Reactor& reactor) {
    gate.reset();
    Resolver resolver(reactor, {.max_threads = 1, .lookup = wait_at_gate});
    Answer running, queued, known, last;
    const SlotId running_id = resolver.resolve("running.test", 80, 0, take, &running);
    const SlotId queued_id = resolver.resolve("queued.test", 80, 0, take, &queued);
    const SlotId known_id = resolver.resolve("localhost", 80, 0, take, &known);
    gate.wait_entered(1);
    for (const SlotId id : {running_id, queued_id, known_id}) resolver.cancel(id);
    resolver.cancel(running_id);
    gate.let_go();
    resolver.resolve("last.test", 80, 0, take, &last);
    REQUIRE(turn_until(reactor, [&] { return last.calls == 1; }));
    CHECK(running.calls + queued.calls + known.calls == 0);
    resolver.cancel(running_id);  // its slot may have another tenant by now
    CHECK(reactor.endpoints() == 0);
  });
}

TEST_CASE("a name that hangs does not hold up the others, and threads are bounded") {
  on_each_backend([](Reactor& reactor) {
    gate.reset();
    const Lookup hang_at_gate = [](const std::string& host, std::uint16_t port) {
      return host == "hangs.test"
                 ? wait_at_gate(host, port)
                 : Result<std::vector<Address>>(std::vector{*Address::ip("192.0.2.7", port)});
    };
    Resolver resolver(reactor, {.max_threads = 2, .lookup = hang_at_gate});
    Answer hangs, good, hangs_too, waits;
    resolver.resolve("hangs.test", 80, 0, take, &hangs);
    resolver.resolve("good.test", 80, 0, take, &good);
    REQUIRE(turn_until(reactor, [&] { return good.calls == 1; }));
    CHECK(good.addresses == "192.0.2.7:80");
    resolver.resolve("hangs.test", 80, 0, take, &hangs_too);
    gate.wait_entered(2);
    resolver.resolve("good.test", 80, 30, take, &waits);  // both threads are busy
    REQUIRE(turn_until(reactor, [&] { return waits.calls == 1; }));
    CHECK(waits.code == Errc::timed_out);
    CHECK(hangs.calls == 0);
    gate.let_go();
    REQUIRE(turn_until(reactor, [&] { return hangs.calls + hangs_too.calls == 2; }));
  });
}

TEST_CASE("a blocking lookup ends at its deadline, and is not missed afterwards") {
  gate.reset();
  const std::uint64_t began = monotonic_ns();
  const auto late = resolve_within(30, "slow.test", 80, wait_at_gate);
  REQUIRE(!late);
  CHECK(late.error().code == Errc::timed_out);
  CHECK(monotonic_ns() - began >= 30 * nanoseconds_per_millisecond);
  gate.let_go();
  gate.wait_left(1);
  const auto known = resolve_within(0, "127.0.0.1", 80, never_called);
  REQUIRE(known);
  auto found = resolve_within(10'000, "there.test", 80, wait_at_gate);
  REQUIRE(found);
  CHECK(text_of(*found) == "192.0.2.1:80 [2001:db8::1]:80");
}

TEST_CASE("a reactor can go before its resolver, whatever that is doing") {
  for (const BackendKind kind : real_backends()) {
    gate.reset();
    Answer answer, known;
    auto reactor = Reactor::create({.backend = kind});
    REQUIRE(reactor);
    {
      Resolver resolver(**reactor, {.max_threads = 1, .lookup = wait_at_gate});
      resolver.resolve("busy.test", 80, 20, take, &answer);
      resolver.resolve("next.test", 80, 20, take, &answer);
      resolver.resolve("localhost", 80, 20, take, &known);
      gate.wait_entered(1);
      reactor->reset();
      gate.let_go();
      gate.wait_left(1);
    }
    CHECK(answer.calls + known.calls == 0);
    CHECK(gate.names == std::vector<std::string>{"busy.test"});
  }
}

TEST_CASE("a resolver goes on after close_all()") {
  on_each_backend([](Reactor& reactor) {
    gate.reset();
    Resolver resolver(reactor, {.lookup = wait_at_gate});
    Answer before, after;
    resolver.resolve("before.test", 80, 0, take, &before);
    reactor.close_all();
    gate.let_go();
    resolver.resolve("after.test", 80, 0, take, &after);
    REQUIRE(turn_until(reactor, [&] { return after.calls == 1; }));
    CHECK(before.calls == 0);
  });
}

TEST_CASE("the queue is bounded") {
  on_each_backend([](Reactor& reactor) {
    gate.reset();
    Resolver resolver(reactor, {.max_queued = 2, .max_threads = 1, .lookup = wait_at_gate});
    std::vector<Answer> answers(4);
    resolver.resolve("0.test", 80, 0, take, &answers[0]);
    gate.wait_entered(1);
    for (std::size_t i = 1; i < 4; i++) resolver.resolve("x.test", 80, 0, take, &answers[i]);
    REQUIRE(turn_until(reactor, [&] { return answers[3].calls == 1; }));
    CHECK(answers[3].code == Errc::would_block);
    gate.let_go();
    REQUIRE(turn_until(reactor, [&] { return answers[1].calls == 1 && answers[2].calls == 1; }));
    CHECK(answers[2].code == Errc::none);
  });
}

TEST_CASE("a resolver can go while its thread is busy, and so can the reactor after it") {
  for (const BackendKind kind : real_backends()) {
    gate.reset();
    Answer answer, known;
    {
      auto reactor = Reactor::create({.backend = kind});
      REQUIRE(reactor);
      {
        Resolver resolver(**reactor, {.max_threads = 1, .lookup = wait_at_gate});
        resolver.resolve("busy.test", 80, 20, take, &answer);
        resolver.resolve("next.test", 80, 20, take, &answer);
        resolver.resolve("localhost", 80, 20, take, &known);
        gate.wait_entered(1);
      }
      (*reactor)->run_once(0);
      (*reactor)->run_once(40);
      CHECK((*reactor)->endpoints() == 0);
    }
    gate.let_go();
    gate.wait_left(1);
    CHECK(answer.calls + known.calls == 0);
    CHECK(gate.names == std::vector<std::string>{"busy.test"});
  }
}

TEST_CASE("an answer may ask the next question and cancel itself") {
  on_each_backend([](Reactor& reactor) {
    Resolver resolver(reactor);
    Answer first, second;
    SlotId id;
    first.then = [&] {
      resolver.cancel(id);
      resolver.resolve("::1", 2, 0, take, &second);
    };
    id = resolver.resolve("localhost", 1, 0, take, &first);
    REQUIRE(turn_until(reactor, [&] { return second.calls == 1; }));
    CHECK(first.calls == 1);
    CHECK(second.addresses == "[::1]:2");
  });
}
