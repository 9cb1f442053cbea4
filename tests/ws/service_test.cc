// Services: sockets that they take over, what they know of their connections, and a lack of descriptors.
#include <levada/ws/service.h>

#include <fcntl.h>
#include <netinet/tcp.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
#include <algorithm>
#include <atomic>
#include <csignal>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
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

TEST_CASE("a connection that on_close adopts or dials while the reactor ends is refused") {
  in_every_world([](World& world) {
    Echo& handler = world.make_handler<Echo>();
    Service& service = world.service(handler);
    Recorder& caller = world.make_handler<Recorder>();
    Service& calls = world.service(caller, {}, Role::client);
    auto [fd, client] = world.pair();
    Fd next = std::move(world.pair().first);
    REQUIRE(service.adopt_upgraded(std::move(fd)) != nullptr);
    int closed = 0;
    handler.closing = [&](Connection&) {
      closed++;
      CHECK(service.adopt_upgraded(std::move(next)) == nullptr);
      CHECK(service.last_error().code == Errc::canceled);
      CHECK(calls.dial(*net::Address::ip("127.0.0.1", 9), {.host = "x"}) == nullptr);
    };
    world.reactor().close_all();
    CHECK(closed == 1);
    CHECK(service.connections() == 0);
    CHECK(calls.connections() == 0);
    handler.closing = {};
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

TEST_CASE("at the limit of connections accepting pauses, and those that wait come when others have gone") {
  in_every_world([](World& world) {
    Echo& handler = world.make_handler<Echo>();
    Echo& routed = world.make_handler<Echo>();
    Service& other = world.service(routed);
    Service& service = world.service(handler, {.max_connections = 3});
    service.add_route("/other", other);
    world.listen(service);
    std::vector<Client*> clients;
    for (int i = 0; i < 8; i++) {
      clients.push_back(&world.connect());
      clients.back()->upgrade(i % 2 == 0 ? "/" : "/other");
      world.settle(2);
    }
    const auto answered = [&] {
      std::size_t count = 0;
      for (const Client* client : clients) count += client->in.empty() ? 0 : 1;
      return count;
    };
    REQUIRE(world.until([&] { return answered() == 3; }));
    for (std::size_t i = 0; i < clients.size(); i++) {
      world.settle(20);
      CHECK(answered() == std::min<std::size_t>(i + 3, 8));
      CHECK(service.connections() + other.connections() <= 3);
      clients[i]->close();
      REQUIRE(world.until([&] { return answered() == std::min<std::size_t>(i + 4, 8); }));
    }
    CHECK(world.is_empty());
    CHECK(service.counters().accept_pauses.value() >= 2);
    CHECK(handler.opened + routed.opened == 8);
  });
}

TEST_CASE("adopted connections count and are not refused; shutting down refuses those that wait") {
  in_every_world([](World& world) {
    Echo& handler = world.make_handler<Echo>();
    Service& service = world.service(handler, {.max_connections = 1});
    world.listen(service);
    std::vector<Client*> adopted;
    for (int i = 0; i < 2; i++) {
      auto [fd, client] = world.pair();
      REQUIRE(service.adopt_upgraded(std::move(fd)) != nullptr);
      adopted.push_back(client);
    }
    Client& waits = world.connect();
    world.settle(20);
    adopted[0]->close();
    world.settle(20);
    waits.upgrade();
    world.settle(20);
    CHECK(waits.in.empty());
    CHECK(service.connections() == 1);
    adopted[1]->close();
    CHECK(waits.answer().status == 101);
  });
}

TEST_CASE("accepted sockets have the options of the listening one, which the service sets") {
  in_every_world(
      [](World& world) {
        Echo& handler = world.make_handler<Echo>();
        Service& service = world.service(handler, {.notsent_lowat_bytes = 12345});
        Fd listening(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
        const net::Address any = *net::Address::ip("127.0.0.1", 0);
        REQUIRE(bind(listening.get(), any.get(), any.size()) == 0);
        REQUIRE(listen(listening.get(), 1) == 0);
        world.address = *net::Address::of_socket(listening.get());
        REQUIRE(!service.listen(std::move(listening)));
        world.open();
        int no_delay = 0, lowat = 0;
        socklen_t size = sizeof no_delay;
        const int fd = handler.last.get()->native_fd();
        REQUIRE(getsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &no_delay, &size) == 0);
        REQUIRE(getsockopt(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &lowat, &size) == 0);
        CHECK(no_delay == 1);
        CHECK(lowat == 12345);
      },
      real_kinds());
}

TEST_CASE("an exception that leaves a handler ends the process") {
  struct Throwing {
    void on_unreachable(const Unreachable&) { throw 1; }
  };
  struct Nothing {};
  const pid_t child = fork();
  if (child == 0) {
    signal(SIGABRT, SIG_DFL);
    close(STDERR_FILENO);
    try {
      Throwing handler;
      Nothing nothing;
      handler_table<Throwing>.unreachable(&handler, reinterpret_cast<const Unreachable&>(nothing));
    } catch (...) {
    }
    _exit(0);
  }
  int status = 0;
  REQUIRE(waitpid(child, &status, 0) == child);
  CHECK(WIFSIGNALED(status));
}

// ---- The order in which things end ----

TEST_CASE("a service that ends before its reactor closes its connections at once, and tells them") {
  in_every_world([](World& world) {
    int closed = 0;
    Client* open = nullptr;
    Client* half = nullptr;
    Client* asked = nullptr;
    Client* left = nullptr;
    {
      Echo handler;
      Service service(world.reactor(), Role::server, handler);
      world.listen(service);
      handler.closing = [&closed](Connection&) { closed++; };
      open = &world.open();
      half = &world.open();
      half->send(Opcode::text, random_letters(100'000), {.fin = false});
      left = &world.open();
      asked = &world.connect();
      asked->write("GET / HT");
      world.settle();
      left->send(Opcode::close, "");
      REQUIRE(world.until([&] { return closed == 1; }));
      handler.last.get()->send_text("lost");
      REQUIRE(service.connections() == 4);
    }
    CHECK(closed == 3);
    for (Client* client : {open, half, asked, left}) {
      CHECK(world.until([&] { return client->ended || client->was_reset; }));
    }
    world.settle();
    CHECK(world.reactor().endpoints() == 0);
    CHECK(world.reactor().segments().in_use() == 0);
  });
}

TEST_CASE("a service that only listens may end before its reactor, or after it") {
  for (const Kind& kind : real_kinds()) {
    CAPTURE(kind.name);
    for (const bool service_first : {true, false}) {
      Echo handler;
      auto reactor = net::Reactor::create({.backend = kind.backend});
      REQUIRE(reactor);
      auto service = std::make_unique<Service>(**reactor, Role::server, handler);
      auto fd = net::listen_stream(*net::Address::ip("127.0.0.1", 0));
      const net::Address address = *net::Address::of_socket(fd->get());
      REQUIRE(!service->listen(std::move(*fd)));
      (*reactor)->run_once(0);
      if (service_first) {
        service.reset();
        (*reactor)->run_once(0);
        CHECK((*reactor)->endpoints() == 0);
        Fd late(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
        CHECK(::connect(late.get(), address.get(), address.size()) != 0);
      }
      reactor->reset();
    }
  }
}

TEST_CASE("what tells of a service's end may come in the turn in which its connections have closed") {
  in_every_world([](World& world) {
    Echo& handler = world.make_handler<Echo>();
    auto service = std::make_unique<Service>(world.reactor(), Role::server, handler);
    auto [fd, client] = world.pair();
    service->adopt_upgraded(std::move(fd));
    world.settle();
    world.reactor().post([&] {
      handler.last.get()->terminate();  // told at the end of the turn, or by the service
      service.reset();
      CHECK(handler.closes.size() == 1);
    });
    CHECK(world.until([&] { return service == nullptr && world.reactor().endpoints() == 0; }));
    CHECK(handler.closes.size() == 1);
  });
}

// ---- Handles ----

namespace {

std::vector<SendStatus> statuses;
void note_status(Handle, SendStatus status) {
  statuses.push_back(status);
}

int told_gone(const Handle& handle) {
  int gone = 0;
  handle.run([&gone](Connection* connection) { gone += connection == nullptr ? 1 : 100; });
  handle.send(Opcode::text, to_bytes("x"), note_status);
  handle.close();
  return gone;
}

}  // namespace

TEST_CASE("a handle of nothing answers at once") {
  statuses.clear();
  CHECK(told_gone({}) == 1);
  CHECK(statuses == std::vector{SendStatus::closed});
  CHECK(Handle().get() == nullptr);
}

TEST_CASE("a handle may be used when its reactor is gone, and what waited then is told so") {
  for (const Kind& kind : all_kinds()) {
    CAPTURE(kind.name);
    statuses.clear();
    Handle handle;
    int gone = 0;
    {
      World world(kind);
      Echo& handler = world.make_handler<Echo>();
      auto [fd, client] = world.pair();
      world.service(handler).adopt_upgraded(std::move(fd));
      handle = handler.last;
      REQUIRE(handle.get() != nullptr);
      handle.run([&gone](Connection* connection) { gone += connection == nullptr ? 1 : 100; });
      handle.send(Opcode::text, to_bytes("never"), note_status);
      CHECK(gone == 0);
    }
    CHECK(gone == 1);
    CHECK(statuses == std::vector{SendStatus::closed});
    CHECK(told_gone(handle) == 1);
    CHECK(handle.get() == nullptr);
    // Nor is it taken for one of another reactor.
    World world(kind);
    Echo& handler = world.make_handler<Echo>();
    auto [fd, client] = world.pair();
    world.service(handler).adopt_upgraded(std::move(fd));
    CHECK(handler.last != handle);
    CHECK(told_gone(handle) == 1);
    CHECK(statuses == std::vector{SendStatus::closed, SendStatus::closed, SendStatus::closed});
  }
}

TEST_CASE("threads may go on using handles while reactors come and go") {
  std::mutex mutex;
  Handle shared;
  std::atomic<bool> done{false};
  std::atomic<int> called{0}, asked{0};
  std::thread user([&] {
    while (!done) {
      const Handle handle = [&] {
        const std::lock_guard lock(mutex);
        return shared;
      }();
      asked++;
      handle.run([&called](Connection*) { called++; });
      handle.send(Opcode::text, to_bytes("hello"));
    }
  });
  for (int i = 0; i < 100; i++) {
    for (const Kind& kind : real_kinds()) {
      World world(kind);
      Echo& handler = world.make_handler<Echo>();
      auto [fd, client] = world.pair();
      world.service(handler).adopt_upgraded(std::move(fd));
      {
        const std::lock_guard lock(mutex);
        shared = handler.last;
      }
      if (i % 4 == 0) CHECK(client->frame() == Frame{text, "hello"});
    }
  }
  done = true;
  user.join();
  CHECK(called == asked);
}
