// Services: sockets that they take over, what they know of their connections, and a lack of descriptors.
#include <levada/ws/service.h>

#include <fcntl.h>
#include <sys/resource.h>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include <levada/tests/support/world.h>

using namespace levada;
using namespace levada::ws;
using namespace levada::ws::test;

namespace {

constexpr auto text = static_cast<unsigned>(Opcode::text);

}  // namespace

TEST_CASE("a socket is adopted before its handshake, with the bytes already read") {
  in_every_world([](World& world) {
    Echo& handler = world.make_handler<Echo>();
    Service& service = world.service(handler);
    int data = 0;
    const std::string wire = Client::request() + client_frame(Opcode::text, "glued") +
                             client_frame(Opcode::binary, random_bytes(5000));
    for (const std::size_t read :
         {std::size_t{0}, std::size_t{40}, Client::request().size(), Client::request().size() + 3,
          Client::request().size() + 40, wire.size()}) {
      CAPTURE(read);
      auto [fd, client] = world.pair();
      std::string already = wire.substr(0, read);
      Connection* connection = service.adopt(std::move(fd), to_bytes(already), &data);
      REQUIRE(connection != nullptr);
      CHECK(connection->user_data() == &data);
      already.assign(already.size(), 'x');
      client->write(wire.substr(read));
      CHECK(client->answer().status == 101);
      CHECK(client->frame() == Frame{text, "glued"});
      CHECK(client->frame().payload == random_bytes(5000));
      client->close();
      CHECK(world.is_empty());
    }
    CHECK(handler.opened == 6);
    CHECK(handler.closes.size() == 6);
  });
}

TEST_CASE("a socket is adopted after its handshake, with the bytes already read") {
  in_every_world([](World& world) {
    Echo& handler = world.make_handler<Echo>();
    Service& service = world.service(handler);
    const std::string wire = client_frame(Opcode::text, "one") +
                             client_frame(Opcode::binary, random_bytes(70'000)) +
                             client_frame(Opcode::text, "three");
    for (const std::size_t read :
         {std::size_t{0}, std::size_t{1}, std::size_t{9}, std::size_t{20}, std::size_t{5000}, wire.size()}) {
      CAPTURE(read);
      auto [fd, client] = world.pair();
      std::string already = wire.substr(0, read);
      REQUIRE(service.adopt_upgraded(std::move(fd), to_bytes(already)) != nullptr);
      already.assign(already.size(), 'x');
      client->write(wire.substr(read));
      CHECK(client->frame() == Frame{text, "one"});
      CHECK(client->frame().payload == random_bytes(70'000));
      CHECK(client->frame() == Frame{text, "three"});
      client->send(Opcode::close, "");
      CHECK(client->is_closed_with(""));
      client->close();
      CHECK(world.is_empty());
    }
  });
}

TEST_CASE("a bound on what is queued that a queue could not count to is lowered to what it can") {
  World world({"simulated", net::BackendKind::simulated});
  Recorder& handler = world.make_handler<Recorder>();
  constexpr std::size_t most = (std::size_t{1} << 32) - 1 - control_reserve_bytes;
  const auto bound = [&](std::size_t asked) {
    return world.service(handler, {.max_buffered_bytes = asked}).options().max_buffered_bytes;
  };
  CHECK(bound(most - 1) == most - 1);
  CHECK(bound(most) == most);
  CHECK(bound(most + 1) == most);
  CHECK(bound(~std::size_t{0}) == most);
}

TEST_CASE("a handler may adopt another socket while it is shown a message") {
  in_every_world([](World& world) {
    Echo& handler = world.make_handler<Echo>();
    Service& service = world.service(handler);
    auto [first_fd, first] = world.pair();
    auto [second_fd, second] = world.pair();
    const std::string payload = random_letters(2000), other = random_letters(3000, 9);
    const std::string glued =
        client_frame(Opcode::text, other, {.fin = false}) + client_frame(Opcode::continuation, other);
    Fd waiting = std::move(second_fd);
    handler.receiving = [&](Connection& connection, Opcode opcode, MutableBytes shown) {
      if (waiting) service.adopt_upgraded(std::move(waiting), to_bytes(glued));
      connection.send(opcode, shown);
    };
    service.adopt_upgraded(std::move(first_fd));
    first->write(client_frame(Opcode::text, payload, {.fin = false}) +
                 client_frame(Opcode::continuation, payload) + client_frame(Opcode::text, "next"));
    CHECK(first->frame() == Frame{text, payload + payload});
    CHECK(first->frame() == Frame{text, "next"});
    CHECK(second->frame() == Frame{text, other + other});
    second->send(Opcode::text, "second");
    CHECK(second->frame() == Frame{text, "second"});
  });
}

TEST_CASE("for_each visits the open connections of its own service") {
  in_every_world([](World& world) {
    Echo& handler = world.serve<Echo>();
    Service& service = world.last_service();
    std::vector<Client*> clients;
    for (int i = 0; i < 5; i++) clients.push_back(&world.open());
    world.connect().write("GET / HT");  // not open yet
    Echo& other = world.make_handler<Echo>();
    auto [fd, alone] = world.pair();
    world.service(other).adopt_upgraded(std::move(fd));
    clients[0]->send(Opcode::close, "");
    CHECK(clients[0]->is_closed_with(""));
    world.settle();
    int visited = 0;
    service.for_each([&](Connection& connection) {
      visited++;
      CHECK(connection.is_open());
      CHECK(&connection.service() == &service);
    });
    CHECK(visited == 4);
    CHECK(handler.opened == 5);
    CHECK(other.opened == 1);
  });
}

TEST_CASE("a reactor that ends closes its connections, and on_close is called") {
  for (const Kind& kind : all_kinds()) {
    CAPTURE(kind.name);
    int closed = 0;
    {
      World world(kind);
      Echo& handler = world.serve<Echo>();
      for (int i = 0; i < 5; i++) world.open().send(Opcode::text, "half", {.fin = false});
      REQUIRE(world.until([&] { return handler.opened == 5; }));
      handler.closing = [&closed](Connection&) { closed++; };
    }
    CHECK(closed == 5);
  }
}

TEST_CASE("without descriptors accepting pauses, others go on, and it recovers") {
  in_every_world(
      [](World& world) {
        rlimit old{};
        REQUIRE(getrlimit(RLIMIT_NOFILE, &old) == 0);
        const rlimit low{static_cast<rlim_t>(Fd(dup(0)).get()) + 20, old.rlim_max};
        REQUIRE(setrlimit(RLIMIT_NOFILE, &low) == 0);  // before it listens: io_uring looks only then
        world.serve<Echo>();
        Client& before = world.open();
        Client& waits = world.connect();
        Client& waits_too = world.connect();
        std::vector<Fd> all;
        do all.emplace_back(dup(0));
        while (all.back());
        waits.upgrade();
        waits_too.upgrade();
        for (int i = 0; i < 20; i++) {
          before.send(Opcode::text, "go on");
          CHECK(before.frame() == Frame{text, "go on"});
        }
        CHECK(world.until([&] { return world.listener().failures() > 0; }));
        CHECK(world.listener().failures() < 20);  // it does not spin
        CHECK(waits_too.in.empty());
        CHECK(world.listener().last_error().code == Errc::descriptor_limit);
        all.clear();
        CHECK(waits.answer().status == 101);
        CHECK(waits_too.answer().status == 101);
        waits_too.send(Opcode::text, "at last");
        CHECK(waits_too.frame() == Frame{text, "at last"});
        REQUIRE(setrlimit(RLIMIT_NOFILE, &old) == 0);
      },
      real_kinds());
}
