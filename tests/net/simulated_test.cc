#include <levada/net/simulated.h>

#include <fcntl.h>
#include <algorithm>
#include <cerrno>
#include <deque>
#include <memory>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include <levada/tests/net/support.h>

using namespace levada;
using namespace levada::net;
using namespace levada::net::test;

namespace {

// A reactor on a simulation with a listener whose connections echo.
struct World {
  explicit World(const SimulationOptions& options = {})
      : simulation(options), reactor({}, SimulatedBackend::make, &simulation) {
    listener = reactor.add<Listener>(simulation.listen(), &World::accept, this);
  }
  static void accept(void* self, Listener& listener, Fd fd) {
    auto& world = *static_cast<World*>(self);
    world.records.emplace_back();
    world.records.back().on_receive = echo;
    listener.reactor().add<Probe>(std::move(fd), world.records.back());
  }
  void turn(int count = 1) {
    for (int i = 0; i < count; i++) reactor.run_once(0);
  }

  Simulation simulation;
  Reactor reactor;
  Listener* listener = nullptr;
  std::deque<Record> records;
};

SimulationOptions rough(std::uint64_t seed) {
  SimulationOptions options;
  options.seed = seed;
  options.window_bytes = 3000;
  options.receive_bytes = 2000;
  options.shuffle = true;
  options.cut_one_in = 2;
  options.single_byte_one_in = 5;
  options.short_write_one_in = 3;
  options.refused_write_one_in = 4;
  options.spurious_one_in = 4;
  options.starved_one_in = 5;
  options.early_flush_one_in = 6;
  options.accept_failure_one_in = 3;
  return options;
}

// Echoes on several connections until all is back, or the connections are gone; returns the log.
std::string exchange(const SimulationOptions& options, bool must_succeed) {
  World world(options);
  if (world.listener == nullptr) return world.simulation.log_text();
  std::vector<Peer> peers;
  std::vector<std::string> sent(6), got(6);
  SeededRandom random(options.seed);
  for (std::size_t i = 0; i < sent.size(); i++) {
    peers.push_back(world.simulation.connect(*world.listener));
    sent[i] = pattern(10'000, i);
  }
  std::vector<std::size_t> written(6);
  bool done = false;
  for (int turn = 0; turn < 20'000 && !done; turn++) {
    done = true;
    for (std::size_t i = 0; i < peers.size(); i++) {
      const std::size_t part = std::min<std::size_t>(random.below(700), sent[i].size() - written[i]);
      peers[i].write(std::string_view(sent[i]).substr(written[i], part));
      written[i] += part;
      if (random.one_in(3)) got[i] += peers[i].read();
      if (got[i] == sent[i] && !peers[i].ended()) peers[i].shut_down();
      done &= peers[i].closed();
    }
    world.reactor.run_once(50);
  }
  if (must_succeed) {
    REQUIRE(done);
    REQUIRE(got == sent);
    REQUIRE(world.reactor.endpoints() == 1);
  }
  // Whatever went wrong, each got a piece of its own bytes and no other, and nothing is left.
  for (std::size_t i = 0; i < peers.size(); i++) REQUIRE(sent[i].starts_with(got[i]));
  for (Record& record : world.records) {
    if (record.probe != nullptr) record.probe->close();
    REQUIRE(record.ends.size() <= 1);
  }
  world.turn();
  REQUIRE(world.reactor.segments().in_use() == 0);
  for (const Record& record : world.records) REQUIRE(record.closed <= 1);
  return world.simulation.log_text();
}

}  // namespace

TEST_CASE("a simulated connection echoes, ends and closes as a real one does") {
  World world;
  Peer peer = world.simulation.connect(*world.listener);
  peer.write("hello");
  world.turn(2);
  CHECK(peer.read() == "hello");
  CHECK(peer.unreceived() == 0);
  peer.shut_down();
  world.turn();
  CHECK(world.records[0].ends == std::vector{Errc::end_of_stream});
  CHECK(peer.closed());
  CHECK_FALSE(peer.was_reset());
  CHECK(world.reactor.endpoints() == 1);
  CHECK(world.reactor.backend().kind() == BackendKind::simulated);
}

TEST_CASE("closing with bytes unread resets the simulated peer") {
  World world;
  Peer peer = world.simulation.connect(*world.listener);
  world.turn();
  peer.write("unread");
  world.records[0].probe->close();
  CHECK(peer.closed());
  CHECK(peer.was_reset());
}

TEST_CASE("a full window blocks the sender until the peer reads") {
  World world;
  Peer peer = world.simulation.connect(*world.listener);
  peer.set_window(1000);
  world.turn();
  const std::string text = pattern(2500);
  Probe& probe = *world.records[0].probe;
  probe.send(to_bytes(text));
  world.turn(3);
  CHECK(probe.blocked());
  CHECK(probe.buffered() == 1500);
  std::string got = peer.read();
  CHECK(got.size() == 1000);
  world.turn();
  got += peer.read();
  world.turn();
  got += peer.read();
  CHECK(got == text);
  CHECK_FALSE(probe.blocked());
  CHECK(world.records[0].drained == 1);
}

TEST_CASE("a reset loses what was not received and ends the stream") {
  World world;
  Peer peer = world.simulation.connect(*world.listener);
  world.turn();
  peer.write("lost");
  peer.reset();
  world.turn();
  CHECK(world.records[0].received.empty());
  CHECK(world.records[0].ends == std::vector{Errc::connection_reset});
}

TEST_CASE("sending to a peer that closed resets the connection") {
  World world;
  Peer peer = world.simulation.connect(*world.listener);
  world.turn();
  world.records[0].keep_open = true;
  peer.close();
  world.turn();
  CHECK(world.records[0].ends == std::vector{Errc::end_of_stream});
  for (int i = 0; i < 3 && world.records[0].probe != nullptr; i++) {
    world.records[0].probe->send(to_bytes("anybody?"));
    world.turn();
  }
  CHECK(world.records[0].closed == 1);
}

TEST_CASE("a simulated connection can be opened, and refused") {
  World world;
  Record good, bad;
  auto [good_fd, good_peer] = world.simulation.open();
  auto [bad_fd, bad_peer] = world.simulation.open();
  world.reactor.add_connecting<Probe>(std::move(good_fd), good)->send(to_bytes("early"));
  world.reactor.add_connecting<Probe>(std::move(bad_fd), bad);
  world.turn(3);
  CHECK(good.connected == 0);
  good_peer.accept();
  bad_peer.refuse(ECONNREFUSED);
  world.turn();
  CHECK(good.connected == 1);
  CHECK(good_peer.read() == "early");
  CHECK(bad.ends == std::vector{Errc::connection_refused});
}

TEST_CASE("the simulated clock moves only when it is told to, or when nothing is left but to wait") {
  World world;
  std::vector<std::uint32_t> rang;
  for (const std::uint32_t delay : {5u, 100u, 70'000u}) {
    world.reactor.after(delay, [&] { rang.push_back(world.reactor.now_ms()); });
  }
  world.turn(10);
  CHECK(rang.empty());
  world.simulation.advance_ms(5);
  world.turn();
  CHECK(rang == std::vector<std::uint32_t>{5});
  while (rang.size() < 3) world.reactor.run_once(-1);  // sleeps from deadline to deadline, in no time
  CHECK(rang == std::vector<std::uint32_t>{5, 100, 70'000});
}

TEST_CASE("a task may wait for longer than a timer can, up to 49 days") {
  World world;
  std::vector<std::uint32_t> rang;
  const std::vector<std::uint32_t> delays{max_timer_ms, max_timer_ms + 1, 3'000'000'000u, ~std::uint32_t{0}};
  for (const std::uint32_t delay : delays) {
    world.reactor.after(delay, [&] { rang.push_back(world.reactor.now_ms()); });
  }
  for (int i = 0; i < 1000 && rang.size() < delays.size(); i++) world.reactor.run_once(-1);
  CHECK(rang == delays);
}

TEST_CASE("a deadline set in a handler counts from the turn that called it") {
  World world;
  Peer peer = world.simulation.connect(*world.listener);
  world.turn();
  Record& record = world.records[0];
  record.on_receive = [](Probe& probe, MutableBytes, Owner*) { probe.set_timer(10); };
  world.simulation.advance_ms(60'000);
  peer.write("x");
  world.turn(3);
  CHECK(record.timers == 0);
  world.simulation.advance_ms(9);
  world.turn();
  CHECK(record.timers == 0);
  world.simulation.advance_ms(1);
  world.turn();
  CHECK(record.timers == 1);
}

TEST_CASE("memory of a turn is poisoned at its end, unless somebody refers to it") {
  World world;
  Peer peer = world.simulation.connect(*world.listener);
  world.turn();
  MutableBytes received, kept;
  OwnerRef reference;
  std::uint8_t* reserved = nullptr;
  world.records[0].on_receive = [&](Probe& probe, MutableBytes bytes, Owner* memory) {
    if (received.empty()) {
      received = bytes;
      reserved = probe.reserve(4);
      std::fill_n(reserved, 4, std::uint8_t{'r'});
      CHECK(to_text(bytes) == "first");
    } else {
      kept = bytes;
      reference = OwnerRef::share(memory);
    }
  };
  peer.write("first");
  world.turn();
  CHECK(received[0] == SimulatedBackend::poison);
  CHECK(reserved[3] == SimulatedBackend::poison);
  peer.write("second");
  world.turn(2);
  CHECK(to_text(kept) == "second");
}

TEST_CASE("a simulated watch is called while its descriptor is readable") {
  World world;
  int calls = 0;
  auto* watch = world.reactor.add<Watch>(
      world.simulation.watchable(), [](void* count, Watch&) { ++*static_cast<int*>(count); }, &calls);
  world.turn();
  CHECK(calls == 0);
  world.simulation.set_readable(*watch, true);
  world.turn(2);
  CHECK(calls == 2);
  world.simulation.set_readable(*watch, false);
  world.turn();
  CHECK(calls == 2);
}

TEST_CASE("simulated descriptors are used again and unknown to the kernel") {
  World world;
  Peer first = world.simulation.connect(*world.listener);
  world.turn();
  const int fd = world.records[0].probe->native_fd();
  CHECK(fd >= SimulatedBackend::first_descriptor);
  CHECK(fcntl(fd, F_GETFD) == -1);
  CHECK(errno == EBADF);
  world.records[0].probe->close();
  world.turn();
  Peer second = world.simulation.connect(*world.listener);
  second.write("new");
  world.turn(2);
  CHECK(world.records[1].probe->native_fd() == fd);
  CHECK(second.read() == "new");
  first.write("old");
  world.turn();
  CHECK(world.records[1].received == "new");
}

TEST_CASE("a large message is received directly in the simulation too") {
  World world;
  Peer peer = world.simulation.connect(*world.listener);
  world.turn();
  Record& record = world.records[0];
  std::vector<std::uint8_t> memory(5000);
  std::size_t filled = 0;
  record.target = [&] { return ReceiveTarget{MutableBytes(memory).subspan(filled), nullptr}; };
  record.on_receive = [&](Probe& probe, MutableBytes bytes, Owner* owner) {
    CHECK(owner == nullptr);
    CHECK(bytes.data() == memory.data() + filled);
    filled += bytes.size();
    if (filled == memory.size()) probe.receive_directly(false);
  };
  record.probe->receive_directly(true);
  world.simulation.options().cut_one_in = 1;
  const std::string text = pattern(5000);
  peer.write(text);
  world.turn(100);
  CHECK(to_text(memory) == text);
}

TEST_CASE("with every fault that a connection survives all bytes come back, for many seeds") {
  for (std::uint64_t seed = 1; seed <= 40; seed++) {
    CAPTURE(seed);
    exchange(rough(seed), true);
  }
}

TEST_CASE("the same seed replays the same operations and another seed others") {
  const std::string log = exchange(rough(7), true);
  CHECK(log == exchange(rough(7), true));
  CHECK(log != exchange(rough(8), true));
  CHECK(log.size() > 1000);
}

TEST_CASE("resets at any time cost no other connection a byte") {
  for (std::uint64_t seed = 1; seed <= 40; seed++) {
    CAPTURE(seed);
    SimulationOptions options = rough(seed);
    options.reset_one_in = 30;
    exchange(options, false);
  }
}

TEST_CASE("the failure of any one operation is survived") {
  std::uint64_t count = 0;
  {
    World world;
    Peer peer = world.simulation.connect(*world.listener);
    peer.write("1");
    world.turn(2);
    peer.write("2");
    peer.shut_down();
    world.turn(3);
    count = world.simulation.operations();
  }
  REQUIRE(count >= 7);
  for (std::uint64_t n = 1; n <= count; n++) {
    for (const int failure : {ECONNRESET, EPIPE, EMFILE, ETIMEDOUT}) {
      CAPTURE(n);
      World world({.failing_operation = n, .failure = failure});
      if (world.listener == nullptr) {
        CHECK(n == 1);
        continue;
      }
      Peer peer = world.simulation.connect(*world.listener);
      peer.write("1");
      world.turn(2);
      peer.write("2");
      peer.shut_down();
      for (int i = 0; i < 5; i++) world.reactor.run_once(200);  // a listener's pause passes, too
      CHECK(peer.closed());
      CHECK(world.reactor.endpoints() == 1);
      CHECK(world.reactor.segments().in_use() == 0);
    }
  }
}
