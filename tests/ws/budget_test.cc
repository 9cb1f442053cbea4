// The memory budget of an engine: what happens to connections and listeners beyond it.
#include <levada/core/memory_budget.h>

#include <sys/resource.h>
#include <unistd.h>
#include <algorithm>
#include <cstdio>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include <levada/tests/support/resident.h>
#include <levada/tests/support/world.h>

using namespace levada;
using namespace levada::ws;
using namespace levada::ws::test;

namespace {

using Closed = Recorder::Closed;

constexpr auto text = static_cast<unsigned>(Opcode::text);
constexpr std::size_t mib = std::size_t{1} << 20;

// Runs `test(World&, MemoryBudget&)` on each backend, each with a budget of its own.
template <class Test>
void with_budget(std::size_t limit, BudgetPolicy policy, Test&& test,
                 const std::vector<Kind>& kinds = all_kinds()) {
  for (const Kind& kind : kinds) {
    CAPTURE(kind.name);
    auto budget = std::make_shared<MemoryBudget>(limit, policy);
    {
      net::ReactorOptions options;
      options.budget = budget;
      World world(kind, options);
      test(world, *budget);
    }
    CHECK(budget->used_bytes() == 0);
  }
}

struct Line {
  Connection& connection;
  Client& client;
  Handle handle;
};

Line adopt(World& world, Service& service) {
  auto [fd, client] = world.pair();
  Connection* connection = service.adopt_upgraded(std::move(fd));
  REQUIRE(connection != nullptr);
  return {*connection, *client, connection->handle()};
}

// The beginning of a message of 16 MiB, at most.
void begin_message(World& world, Client& client, std::size_t size) {
  client.write(raw_frame(2, random_bytes(size), true, {.length = 16 * mib}));
  REQUIRE(world.until([&client] { return client.unsent() == 0 || client.ended || client.was_reset; }));
  world.settle(4);
}

}  // namespace

TEST_CASE("the largest message under way is refused with 1013 at the first byte over the budget") {
  constexpr std::size_t received = 200'000;
  const std::vector<Kind> epoll{{"epoll", net::BackendKind::epoll}};  // counts nothing but assemblies
  with_budget(
      received + Decoder::assembly_headroom + 70'000 + Decoder::assembly_headroom, BudgetPolicy::refuse_large,
      [](World& world, MemoryBudget& budget) {
        Recorder& handler = world.make_handler<Recorder>();
        Service& service = world.service(handler);
        Line small = adopt(world, service), largest = adopt(world, service);
        begin_message(world, small.client, 70'000);
        begin_message(world, largest.client, received);
        CHECK(budget.used_bytes() == budget.limit_bytes());
        CHECK(largest.handle.get() != nullptr);
        CHECK(service.counters().shed.value() == 0);
        small.client.write("x");
        CHECK(largest.client.is_closed_with(close_payload(1013)));
        CHECK(handler.closes == std::vector{Closed{CloseCode::try_again_later, "over_budget", ClosedBy::local,
                                                   Errc::over_budget}});
        CHECK(service.counters().shed.value() == 1);
        CHECK(service.counters().closed_by_code[13].value() == 1);
        CHECK(budget.used_bytes() == 70'001 + Decoder::assembly_headroom);
        CHECK(small.connection.is_open());
      },
      epoll);
}

TEST_CASE(
    "refusing large messages takes one after the other until the budget is kept, and the others go on") {
  with_budget(4 * mib, BudgetPolicy::refuse_large, [](World& world, MemoryBudget& budget) {
    Recorder& handler = world.make_handler<Recorder>();
    Service& service = world.service(handler);
    Line lines[] = {adopt(world, service), adopt(world, service), adopt(world, service)};
    begin_message(world, lines[0].client, 3 * mib / 2);
    begin_message(world, lines[1].client, 2 * mib);
    begin_message(world, lines[2].client, 3 * mib / 2);
    CHECK(world.until([&] { return handler.closes.size() == 1; }));
    CHECK(lines[1].client.is_closed_with(close_payload(1013)));
    CHECK(budget.used_bytes() <= 4 * mib);
    lines[0].client.write(random_bytes(16 * mib - 3 * mib / 2));
    CHECK(world.until([&] { return handler.closes.size() == 2; }));  // now it is the largest
    CHECK(lines[0].client.frame() == Frame{8, close_payload(1013)});
    CHECK(lines[2].connection.is_open());
    CHECK(service.counters().shed.value() == 2);
  });
}

TEST_CASE("messages of up to 64 KiB are never refused for the budget") {
  with_budget(100'000, BudgetPolicy::refuse_large, [](World& world, MemoryBudget& budget) {
    Recorder& handler = world.make_handler<Recorder>();
    Service& service = world.service(handler);
    std::vector<Line> lines;
    for (int i = 0; i < 10; i++) lines.push_back(adopt(world, service));
    for (Line& line : lines) begin_message(world, line.client, 60'000);
    CHECK(budget.exceeded());
    for (Line& line : lines) CHECK(line.connection.is_open());
    CHECK(service.counters().shed.value() == 0);
  });
}

TEST_CASE("shedding cuts the connection that holds most, queued and received, and nobody else") {
  with_budget(6 * mib, BudgetPolicy::shed_slowest, [](World& world, MemoryBudget& budget) {
    Recorder& handler = world.make_handler<Recorder>();
    Service& service = world.service(handler, {.pause_above_bytes = 8 * mib});
    Line reads = adopt(world, service), writes = adopt(world, service), both = adopt(world, service);
    both.client.reading = reads.client.reading = false;
    world.reactor().post([&] {
      reads.connection.send(Opcode::binary, to_bytes(random_bytes(2 * mib)));
      both.connection.send(Opcode::binary, to_bytes(random_bytes(2 * mib)));
    });
    world.settle(10);
    CHECK(service.connections() == 3);
    begin_message(world, writes.client, mib / 4);
    CHECK(service.connections() == 3);
    both.client.write(raw_frame(2, random_bytes(3 * mib), true, {.length = 16 * mib}));
    CHECK(world.until([&] { return service.connections() == 2; }));
    CHECK(handler.closes ==
          std::vector{Closed{CloseCode::try_again_later, "over_budget", ClosedBy::local, Errc::over_budget}});
    CHECK(both.handle.get() == nullptr);
    CHECK(service.counters().shed.value() == 1);
    CHECK(budget.used_bytes() < 6 * mib);
    reads.client.reading = true;
    CHECK((reads.client.frame().payload == random_bytes(2 * mib)));
  });
}

TEST_CASE("of several services, the one with the heaviest connection acts, and no other") {
  with_budget(5 * mib / 2, BudgetPolicy::shed_slowest, [](World& world, MemoryBudget&) {
    Recorder& handler = world.make_handler<Recorder>();
    Service& lightest = world.service(handler);
    Service& heaviest = world.service(handler);
    Service& light = world.service(handler);
    Line lines[] = {adopt(world, lightest), adopt(world, heaviest), adopt(world, light)};
    for (Line& line : lines) line.client.reading = false;
    const std::size_t sizes[] = {mib / 2, 2 * mib, mib};
    world.reactor().post([&] {
      for (int i = 0; i < 3; i++) lines[i].connection.send(Opcode::binary, to_bytes(random_bytes(sizes[i])));
    });
    CHECK(world.until([&] { return heaviest.connections() == 0; }));
    world.settle();
    CHECK(handler.closes.size() == 1);
    CHECK(heaviest.counters().shed.value() == 1);
    CHECK(lightest.connections() + light.connections() == 2);
  });
}

TEST_CASE("who only shares a message with others is not shed for it") {
  with_budget(mib, BudgetPolicy::shed_slowest, [](World& world, MemoryBudget&) {
    Recorder& handler = world.make_handler<Recorder>();
    Service& service = world.service(handler);
    const PreparedMessage message(Opcode::binary, to_bytes(random_bytes(2 * mib)));
    std::vector<Line> subscribers;
    for (int i = 0; i < 4; i++) subscribers.push_back(adopt(world, service));
    Line culprit = adopt(world, service);
    for (Line& line : subscribers) line.client.reading = false;
    world.reactor().post([&] {
      for (Line& line : subscribers) line.connection.send(message);
    });
    world.settle();
    culprit.client.write(raw_frame(2, random_bytes(mib + mib / 4), true, {.length = 16 * mib}));
    CHECK(world.until([&] { return culprit.handle.get() == nullptr; }));
    world.settle();
    CHECK(service.connections() == subscribers.size());
    CHECK(service.counters().shed.value() == 1);
    for (Line& line : subscribers) {
      line.client.reading = true;
      CHECK((line.client.frame().payload == random_bytes(2 * mib)));
    }
  });
}

TEST_CASE(
    "unfinished handshakes count, and it is them who go, with 503, before somebody who holds less than all") {
  for (const BudgetPolicy policy : {BudgetPolicy::shed_slowest, BudgetPolicy::refuse_large}) {
    with_budget(mib, policy, [](World& world, MemoryBudget& budget) {
      Recorder& handler = world.make_handler<Recorder>();
      Service& service = world.service(handler);
      Line established = adopt(world, service);
      begin_message(world, established.client, 100'000);
      const std::string head = "GET / HTTP/1.1\r\nHost: x\r\nX: " + std::string(12'000, 'a');
      constexpr int heads = 200;
      std::vector<Client*> unfinished;
      for (int i = 0; i < heads; i++) {
        auto [fd, client] = world.pair();
        REQUIRE(service.adopt(std::move(fd)) != nullptr);
        client->write(head);
        unfinished.push_back(client);
        world.turn(0);
      }
      CHECK(world.until([&] { return !budget.exceeded(); }));
      world.settle();
      CHECK(!budget.exceeded());
      CHECK(established.handle.get() != nullptr);
      CHECK(handler.closes.empty());
      const auto refused = static_cast<std::uint64_t>(std::count_if(
          unfinished.begin(), unfinished.end(), [](const Client* each) { return !each->in.empty(); }));
      CHECK(refused > heads / 4);
      CHECK(refused < heads);
      CHECK(service.counters().shed.value() == refused);
      CHECK(service.counters().rejected.value() == refused);
      for (Client* each : unfinished) {
        if (!each->in.empty()) CHECK(each->answer().status == 503);
      }
    });
  }
}

TEST_CASE("a message of 64 KiB is not large, and one of a byte more is") {
  constexpr std::size_t large = 64 * 1024;
  for (const std::size_t more : {0u, 1u}) {
    with_budget(large / 2, BudgetPolicy::refuse_large, [&](World& world, MemoryBudget& budget) {
      Recorder& handler = world.make_handler<Recorder>();
      Service& service = world.service(handler);
      Line line = adopt(world, service);
      begin_message(world, line.client, large + more);
      if (more == 0) CHECK(budget.exceeded());
      CHECK(service.counters().shed.value() == more);
      CHECK(handler.closes.size() == more);
      if (more != 0) CHECK(line.client.is_closed_with(close_payload(1013)));
    });
  }
}

TEST_CASE("a budget that is used up to its last byte is kept, and one byte more exceeds it") {
  constexpr std::size_t received = 200'000;
  const std::vector<Kind> epoll{{"epoll", net::BackendKind::epoll}};  // counts nothing but assemblies
  for (const BudgetPolicy policy : {BudgetPolicy::shed_slowest, BudgetPolicy::stop_accepting}) {
    with_budget(
        received + Decoder::assembly_headroom, policy,
        [policy](World& world, MemoryBudget& budget) {
          Recorder& handler = world.make_handler<Recorder>();
          Service& service = world.service(handler);
          world.listen(service);
          Line line = adopt(world, service);
          begin_message(world, line.client, received - 1);
          line.client.write("x");
          world.settle();
          CHECK(budget.used_bytes() == budget.limit_bytes());
          CHECK(service.counters().shed.value() == 0);
          CHECK(world.listener().failures() == 0);
          line.client.write("x");
          world.settle();
          const bool sheds = policy == BudgetPolicy::shed_slowest;  // and has what it wants in the same turn
          CHECK(service.counters().shed.value() == (sheds ? 1 : 0));
          CHECK(service.connections() == (sheds ? 0 : 1));
          CHECK(budget.exceeded() == !sheds);
          CHECK(world.listener().failures() == (sheds ? 0 : 1));
        },
        epoll);
  }
}

TEST_CASE("listeners pause over the budget, say so, and go on when it is kept again") {
  with_budget(2 * mib, BudgetPolicy::stop_accepting, [](World& world, MemoryBudget& budget) {
    Echo& handler = world.serve<Echo>();
    Service& service = world.last_service();
    Client& heavy = world.open();
    begin_message(world, heavy, mib);
    CHECK(!budget.exceeded());
    Client& before = world.open();
    CHECK(world.listener().failures() == 0);
    heavy.write(random_bytes(3 * mib / 2));
    REQUIRE(world.until([&] { return budget.exceeded() && heavy.unsent() == 0; }));
    REQUIRE(world.until([&] { return world.listener().failures() > 0; }));
    CHECK(world.listener().last_error().code == Errc::over_budget);
    CHECK(world.reactor().counters().accept_failures.value() > 0);
    world.settle(10);
    const std::size_t connections = service.connections();
    CHECK(connections == 2);
    Client& waits = world.connect();  // the first one behind the bound already
    waits.upgrade();
    for (int i = 0; i < 5; i++) {  // the others are served, and the retries find nothing
      before.send(Opcode::text, "go on");
      CHECK(before.frame() == Frame{text, "go on"});
      if (world.kind().simulated()) world.simulation().advance_ms(net::Listener::retry_ms);
      world.settle();
    }
    CHECK(waits.in.empty());
    CHECK(service.connections() == connections);
    heavy.close();
    CHECK(waits.answer().status == 101);
    CHECK(!budget.exceeded());
    CHECK(handler.opened == 3);
  });
}

TEST_CASE("declared lengths cost nothing until bytes come") {
  rlimit files{};
  REQUIRE(getrlimit(RLIMIT_NOFILE, &files) == 0);
  const rlimit enough{std::max<rlim_t>(files.rlim_cur, std::min<rlim_t>(files.rlim_max, 4000)),
                      files.rlim_max};
  REQUIRE(setrlimit(RLIMIT_NOFILE, &enough) == 0);
  static constexpr std::size_t count = 1000;
  with_budget(
      mib, BudgetPolicy::refuse_large,
      [](World& world, MemoryBudget& budget) {
        Recorder& handler = world.make_handler<Recorder>();
        Service& service = world.service(handler);
        std::vector<Line> lines;
        for (std::size_t i = 0; i < count; i++) lines.push_back(adopt(world, service));
        world.settle(4);
        const std::size_t before = levada::test::resident_bytes();
        for (Line& line : lines) line.client.write(raw_frame(2, "x", true, {.length = 16 * mib}));
        REQUIRE(world.until([&] { return budget.used_bytes() >= count * (Decoder::assembly_headroom + 1); }));
        const std::size_t grown = levada::test::resident_bytes() - before;
        MESSAGE(count << " connections declared " << count * 16
                      << " MiB and sent a byte each: " << grown / 1024 << " KiB became resident");
        if (levada::test::resident_is_exact)
          CHECK(grown < count * 3 * 4096);  // a page for the byte, the message's state, what the test keeps
        CHECK(budget.used_bytes() < mib / 4);
        CHECK(service.counters().shed.value() == 0);
      },
      real_kinds());
  setrlimit(RLIMIT_NOFILE, &files);
}

TEST_CASE("what a held handshake keeps counts") {
  with_budget(64 * mib, BudgetPolicy::stop_accepting, [](World& world, MemoryBudget& budget) {
    Recorder& handler = world.serve<Recorder>({.http = {.max_bytes = 8 * mib}});
    std::vector<UpgradeTicket> tickets;
    handler.upgrading = [&](Upgrade& upgrade) { tickets.push_back(upgrade.hold()); };
    Client& client = world.connect();
    client.upgrade();
    REQUIRE(world.until([&] { return !tickets.empty(); }));
    const std::size_t before = budget.used_bytes();
    begin_message(world, client, 3 * mib);
    CHECK(world.until([&] { return budget.used_bytes() >= before + 3 * mib; }));
  });
}
