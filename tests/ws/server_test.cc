// Servers on threads of their own: ports, Unix sockets, several reactors, stopping.
#include <levada/ws/server.h>

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include <doctest/doctest.h>

#include <levada/core/clock.h>
#include <levada/net/io_uring.h>
#include <levada/net/thread.h>
#include <levada/tests/support/blocking_client.h>
#include <levada/tests/support/thread_limit.h>

using namespace levada;
using namespace levada::ws;
using namespace levada::ws::test;

namespace {

constexpr auto text = static_cast<unsigned>(Opcode::text);

struct Counts {
  std::atomic<int> opened{0}, closed{0};
  std::mutex mutex;
  std::set<int> reactors;  // that opened a connection
  std::set<std::thread::id> threads;
  std::vector<Handle> handles;

  std::set<int> seen_reactors() {
    const std::lock_guard lock(mutex);
    return reactors;
  }
  std::size_t seen_threads() {
    const std::lock_guard lock(mutex);
    return threads.size();
  }
};

struct Echo {
  Counts* counts;
  int reactor = 0;

  void on_open(Connection& connection) {
    const std::lock_guard lock(counts->mutex);
    counts->reactors.insert(reactor);
    counts->threads.insert(std::this_thread::get_id());
    counts->handles.push_back(connection.handle());
    counts->opened++;
  }
  void on_message(Connection& connection, Opcode opcode, Bytes payload) { connection.send(opcode, payload); }
  void on_close(Connection&, const CloseInfo&) { counts->closed++; }
};

struct Named {
  const char* name;
  void on_message(Connection& connection, Opcode, Bytes) { connection.send_text(name); }
};

std::vector<net::BackendKind> backends() {
  std::vector<net::BackendKind> kinds{net::BackendKind::epoll};
  if (net::io_uring_abilities().sufficient()) kinds.push_back(net::BackendKind::io_uring);
  return kinds;
}

template <class Test>
void on_each_backend(Test&& test) {
  for (const net::BackendKind kind : backends()) {
    CAPTURE(std::string(net::to_string(kind)));
    ServerOptions options;
    options.reactor.backend = kind;
    test(options);
  }
}

net::Address address_of(const Server& server) {
  return *net::Address::ip("127.0.0.1", server.port());
}

void add_echo(Server& server, Counts& counts) {
  server.route("", [&counts](int reactor) { return Echo{&counts, reactor}; });
}

void check_echo(BlockingClient& client, std::string_view payload = "hello") {
  client.send(Opcode::text, payload);
  CHECK(client.frame() == Frame{text, std::string(payload)});
}

}  // namespace

TEST_CASE("a server echoes on a port that the kernel chose, and tells its URL") {
  on_each_backend([](ServerOptions options) {
    Counts counts;
    Server server(options);
    add_echo(server, counts);
    REQUIRE(!server.start());
    CHECK(server.port() != 0);
    CHECK(server.url() == "ws://127.0.0.1:" + std::to_string(server.port()));
    CHECK(server.threads() == 1);
    {
      BlockingClient client(address_of(server));
      client.upgrade();
      check_echo(client);
      check_echo(client, random_letters(300'000));
      client.send(Opcode::close, close_payload(1000));
      CHECK(client.frame().payload == close_payload(1000));
      CHECK(client.reaches_end());
    }
    server.stop();
    server.wait();
    CHECK(counts.opened == 1);
    CHECK(counts.closed == 1);
  });
}

TEST_CASE("several reactors share a port, each with a handler and a thread of its own") {
  on_each_backend([](ServerOptions options) {
    options.threads = 3;
    options.pin = true;
    Counts counts;
    Server server(options);
    add_echo(server, counts);
    REQUIRE(!server.start());
    CHECK(server.threads() == 3);
    std::vector<std::unique_ptr<BlockingClient>> clients;
    for (int i = 0; i < 60; i++) {
      clients.push_back(std::make_unique<BlockingClient>(address_of(server)));
      clients.back()->upgrade();
    }
    for (auto& client : clients) check_echo(*client);
    CHECK(counts.seen_reactors() == std::set<int>{0, 1, 2});
    CHECK(counts.seen_threads() == 3);
    for (int i = 0; i < 3; i++) CHECK(!server.reactor(i).on_own_thread());
    server.stop();
    server.wait();
    CHECK(counts.closed == 60);
    for (auto& client : clients) CHECK(client->reaches_end());
  });
}

TEST_CASE("the threads of a pinned server have an allowed CPU each while they serve") {
  const std::vector<int> allowed = net::allowed_cpus();
  on_each_backend([&](ServerOptions options) {
    options.threads = 2;
    options.pin = true;
    std::mutex mutex;
    std::set<std::vector<int>> seen;
    struct Looking {
      std::mutex& mutex;
      std::set<std::vector<int>>& seen;
      void on_open(Connection&) {
        const std::lock_guard lock(mutex);
        seen.insert(net::allowed_cpus());
      }
    };
    Server server(options);
    server.route("", [&](int) { return Looking{mutex, seen}; });
    REQUIRE(!server.start());
    std::vector<std::unique_ptr<BlockingClient>> clients;
    for (int i = 0; i < 60; i++) {
      clients.push_back(std::make_unique<BlockingClient>(address_of(server)));
      clients.back()->upgrade();
    }
    server.stop();
    server.wait();
    std::set<std::vector<int>> expected;
    for (std::size_t i = 0; i < 2; i++) expected.insert({allowed[i % allowed.size()]});
    CHECK(seen == expected);
    CHECK(net::allowed_cpus() == allowed);
  });
}

TEST_CASE("threads send through handles while connections come and go") {
  on_each_backend([](ServerOptions options) {
    options.threads = 2;
    Counts counts;
    Server server(options);
    add_echo(server, counts);
    REQUIRE(!server.start());
    std::atomic<bool> done{false};
    std::atomic<int> sent{0};
    std::vector<std::thread> senders;
    for (int i = 0; i < 2; i++) {
      senders.emplace_back([&, i] {
        const PreparedMessage prepared(Opcode::text, to_bytes(random_letters(2000)));
        while (!done && sent < 20'000) {
          std::vector<Handle> handles;
          {
            const std::lock_guard lock(counts.mutex);
            handles = counts.handles;
          }
          for (const Handle& handle : handles) {
            if (i == 0) handle.send(prepared);
            if (i == 1) handle.send(Opcode::text, to_bytes("pushed"));
            sent++;
          }
          std::this_thread::yield();
        }
      });
    }
    int pushed = 0;
    for (int round = 0; round < 15; round++) {
      BlockingClient client(address_of(server));
      client.upgrade();
      for (int i = 0; i < 20; i++) {
        const std::string mine = "mine " + std::to_string(i);
        client.send(Opcode::text, mine);
        for (;;) {
          const Frame frame = client.frame();
          if (frame.payload == mine) break;
          REQUIRE((frame.payload == "pushed" || frame.payload == random_letters(2000)));
          pushed++;
        }
      }
      if (round % 2 == 0) continue;
      const std::lock_guard lock(counts.mutex);
      counts.handles.clear();
    }
    done = true;
    for (std::thread& thread : senders) thread.join();
    CHECK(pushed > 0);
    CHECK(sent > 0);
    server.stop();
    server.wait();
    CHECK(counts.opened == 15);
    CHECK(counts.closed == 15);
  });
}

TEST_CASE("routes of a server go to their handlers") {
  on_each_backend([](ServerOptions options) {
    Server server(options);
    server.route("/a", [](int) { return Named{"a"}; });
    server.route("/b/:x", [](int) { return Named{"b"}; }, {.max_message_bytes = 3});
    REQUIRE(!server.start());
    BlockingClient a(address_of(server)), b(address_of(server)), lost(address_of(server)),
        plain(address_of(server));
    a.upgrade("/a");
    b.upgrade("/b/1");
    a.send(Opcode::text, "long enough");
    b.send(Opcode::text, "abc");
    CHECK(a.frame().payload == "a");
    CHECK(b.frame().payload == "b");
    b.send(Opcode::text, "abcd");
    CHECK(b.frame().payload == close_payload(1009));
    lost.write(
        "GET /c HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n");
    CHECK(lost.head().starts_with("HTTP/1.1 404"));
    plain.write("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    CHECK(plain.head().starts_with("HTTP/1.1 426"));
  });
}

TEST_CASE("Unix sockets serve several reactors, are taken over and removed") {
  on_each_backend([](ServerOptions options) {
    char folder[] = "/tmp/levada-test-XXXXXX";
    REQUIRE(mkdtemp(folder) != nullptr);
    for (const std::string& path : {std::string(folder) + "/socket", "@" + std::string(folder + 1)}) {
      CAPTURE(path);
      for (int run = 0; run < 2; run++) {
        Counts counts;
        options.unix_path = path;
        options.threads = 2;
        Server server(options);
        add_echo(server, counts);
        REQUIRE(!server.start());
        CHECK(server.url() == "ws+unix:" + path);
        const net::Address address = *net::Address::unix_path(path);
        for (int i = 0; i < 10; i++) {
          BlockingClient client(address);
          client.upgrade();
          check_echo(client);
          check_echo(client, random_letters(100'000));
        }
        Server second(options);
        add_echo(second, counts);
        const Error error = second.start();
        CHECK(error.code == Errc::address_in_use);
        server.stop();
        server.wait();
        CHECK(counts.closed == 10);
        struct stat status;
        if (path[0] == '/') CHECK(stat(path.c_str(), &status) != 0);
      }
    }
    std::filesystem::remove_all(folder);
  });
}

TEST_CASE("sockets are adopted by any thread, before and after their handshake") {
  on_each_backend([](ServerOptions options) {
    options.threads = 2;
    Counts counts;
    Server server(options);
    add_echo(server, counts);
    REQUIRE(!server.start());
    for (int i = 0; i < 8; i++) {
      int ends[2];
      REQUIRE(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0);
      BlockingClient client{Fd(ends[1])};
      const bool upgraded = i % 2 == 1;
      const std::string left = client_frame(Opcode::text, "left over");
      if (upgraded) {
        server.adopt_upgraded(Fd(ends[0]), left);
      } else {
        server.adopt(Fd(ends[0]), "GET / HT");
        client.write(
            "TP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n" +
            left);
        CHECK(client.head().starts_with("HTTP/1.1 101"));
      }
      CHECK(client.frame() == Frame{text, "left over"});
      check_echo(client);
    }
    CHECK(counts.seen_reactors().size() == 2);
  });
}

TEST_CASE("a server that cannot start says why and leaves nothing behind") {
  on_each_backend([](ServerOptions options) {
    Counts counts;
    Server first(options);
    add_echo(first, counts);
    REQUIRE(!first.start());
    const auto error_of = [&](ServerOptions other) {
      Server server(std::move(other));
      add_echo(server, counts);
      const Error error = server.start();
      if (error) CHECK(!error.message().empty());
      return error.code;
    };
    for (const int threads : {1, 2}) {
      ServerOptions taken = options;
      taken.port = first.port();
      taken.threads = threads;
      CHECK(error_of(taken) == Errc::address_in_use);
    }
    ServerOptions nowhere = options;
    nowhere.host = "192.0.2.1";  // a documentation address: nobody's
    CHECK(error_of(nowhere) == Errc::address_not_available);
    ServerOptions bad = options;
    bad.host = "not an address";
    CHECK(error_of(bad) == Errc::invalid_argument);
    for (const DeflateOptions& deflate : {DeflateOptions{.window_bits = 7},
                                          {.window_bits = 16},
                                          {.level = 0},
                                          {.level = 10},
                                          {.memory_level = 0},
                                          {.memory_level = 10},
                                          {.peer_window_bits = 7},
                                          {.peer_window_bits = 16},
                                          {.slice_bytes = 0}}) {
      bad = options;
      bad.service.deflate = deflate;
      CHECK(error_of(bad) == Errc::invalid_argument);
      Server routed(options);
      add_echo(routed, counts);
      routed.route("/deflate", [](int) { return Named{"deflate"}; }, {.deflate = deflate});
      CHECK(routed.start().code == Errc::invalid_argument);
    }
    ServerOptions lost = options;
    lost.unix_path = "/nonexistent/folder/socket";
    CHECK(error_of(lost) == Errc::not_found);
    BlockingClient client(address_of(first));
    client.upgrade();
    check_echo(client);
  });
}

TEST_CASE("a server that may not listen says so") {
  char folder[] = "/tmp/levada-test-XXXXXX";
  REQUIRE(mkdtemp(folder) != nullptr);
  REQUIRE(chmod(folder, 0555) == 0);
  std::thread([&folder] {
    // Root may do everything. The system call, unlike the function, changes this thread only.
    if (geteuid() == 0) REQUIRE(syscall(SYS_setresuid, -1, 65534, -1) == 0);
    ServerOptions options;
    options.unix_path = std::string(folder) + "/socket";
    options.reactor.backend = net::BackendKind::epoll;
    Counts counts;
    Server server(options);
    add_echo(server, counts);
    CHECK(server.start().code == Errc::permission_denied);
  }).join();
  std::filesystem::remove_all(folder);
}

TEST_CASE("a server that may not start all of its threads says so, and may be started again") {
  levada::test::with_few_threads(1, [](auto lift) {
    ServerOptions options{.threads = 4};
    options.reactor.backend = net::BackendKind::epoll;
    Counts counts;
    Server server(options);
    add_echo(server, counts);
    CHECK(server.start().code == Errc::no_memory);
    CHECK(server.threads() == 0);
    CHECK(server.run().code == Errc::no_memory);
    CHECK(server.threads() == 0);
    lift();
    REQUIRE(!server.start());
    BlockingClient client(address_of(server));
    client.upgrade();
    check_echo(client);
  });
}

TEST_CASE("a server stops from a handler, and may be stopped twice") {
  on_each_backend([](ServerOptions options) {
    struct Stopper {
      Server* server;
      void on_message(Connection&, Opcode, Bytes) { server->stop(); }
    };
    Server server(options);
    server.route("", [&server](int) { return Stopper{&server}; });
    REQUIRE(!server.start());
    BlockingClient client(address_of(server));
    client.upgrade();
    client.send(Opcode::text, "stop");
    server.wait();
    CHECK(client.reaches_end());
    server.stop();
    server.wait();
  });
}

// ---- Graceful stops ----

namespace {

// Also answers plain requests, which shows that a connection was accepted.
struct Polite : Echo {
  void on_http(HttpExchange& exchange) { exchange.respond(200, "text/plain", "ok"); }
  void on_message(Connection& connection, Opcode opcode, Bytes payload) {
    if (to_text(payload) == "much") {
      connection.send(Opcode::binary, to_bytes(random_bytes(20'000'000)));
    } else {
      connection.send(opcode, payload);
    }
  }
};

using Clients = std::vector<std::unique_ptr<BlockingClient>>;

Clients connect(const Server& server, int count) {
  Clients clients;
  for (int i = 0; i < count; i++) {
    clients.push_back(std::make_unique<BlockingClient>(address_of(server)));
    clients.back()->upgrade();
    check_echo(*clients.back());
  }
  return clients;
}

void answer_close(BlockingClient& client) {
  CHECK(client.frame() == Frame{8, close_payload(1001)});
  client.send(Opcode::close, close_payload(1001));
  CHECK(client.reaches_end());
}

void check_result(const Server& server, std::uint64_t closed, std::uint64_t cut) {
  CHECK(server.result().closed == closed);
  CHECK(server.result().cut == cut);
}

template <class Work>
double seconds_of(Work&& work) {
  const std::uint64_t began = monotonic_ns();
  work();
  return static_cast<double>(monotonic_ns() - began) / 1e9;
}

}  // namespace

TEST_CASE("a graceful stop ends listening, tells everyone 1001, refuses handshakes with 503, and counts") {
  on_each_backend([](ServerOptions options) {
    for (const int threads : {1, 3}) {
      CAPTURE(threads);
      options.threads = threads;
      Counts counts;
      Server server(options);
      server.route("", [&counts](int reactor) { return Polite{{&counts, reactor}}; });
      REQUIRE(!server.start());
      const net::Address address = address_of(server);
      Clients clients = connect(server, 8);
      BlockingClient half(address);
      half.write("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
      CHECK(half.head().starts_with("HTTP/1.1 200"));
      half.write("GET / HT");
      server.stop(20'000);
      for (auto& client : clients) answer_close(*client);
      CHECK(half.head().find("HTTP/1.1 503") != std::string::npos);  // behind the first answer's body
      clients.clear();
      half.take_fd().reset();
      server.wait();
      check_result(server, 9, 0);
      CHECK(server.result().opened == 8);
      CHECK(server.result().messages == 8);
      CHECK(server.result().payload_bytes == 40);
      CHECK(counts.closed == 8);
      Fd fd(socket(address.family(), SOCK_STREAM | SOCK_CLOEXEC, 0));
      CHECK(::connect(fd.get(), address.get(), address.size()) != 0);
    }
  });
}

TEST_CASE("a graceful stop lets everything that is queued leave first") {
  on_each_backend([](ServerOptions options) {
    Counts counts;
    Server server(options);
    server.route("", [&counts](int) { return Polite{{&counts}}; });
    REQUIRE(!server.start());
    Clients clients = connect(server, 2);
    for (auto& client : clients) client->send(Opcode::text, "much");
    for (auto& client : clients) REQUIRE(client->receive());  // it has begun
    server.stop(20'000);
    for (auto& client : clients) {
      CHECK((client->frame().payload == random_bytes(20'000'000)));
      answer_close(*client);
      client->take_fd().reset();
    }
    server.wait();
    check_result(server, 2, 0);
  });
}

TEST_CASE("who does not answer is cut at the deadline, and counted") {
  on_each_backend([](ServerOptions options) {
    Counts counts;
    options.threads = 2;
    Server server(options);
    add_echo(server, counts);
    REQUIRE(!server.start());
    Clients clients = connect(server, 5);
    const double seconds = seconds_of([&] {
      server.stop(300);
      for (std::size_t i = 0; i < 2; i++) {
        answer_close(*clients[i]);
        clients[i]->take_fd().reset();
      }
      server.wait();
    });
    CHECK(seconds >= 0.299);
    CHECK(seconds < 4);
    check_result(server, 2, 3);
    CHECK(counts.closed == 5);
  });
}

TEST_CASE("who does not answer within the close timeout is cut before the deadline") {
  on_each_backend([](ServerOptions options) {
    Counts counts;
    options.service.close_timeout_ms = 100;
    Server server(options);
    add_echo(server, counts);
    REQUIRE(!server.start());
    Clients clients = connect(server, 3);
    server.stop(60'000);
    CHECK(seconds_of([&] { server.wait(); }) < 30);
    check_result(server, 0, 3);
  });
}

TEST_CASE("a connection whose close handshake is done is not cut, also when its peer leaves TCP open") {
  on_each_backend([](ServerOptions options) {
    Counts counts;
    for (const std::uint32_t close_timeout_ms :
         {100u, 60'000u}) {  // which ends before the deadline, and after
      options.service.close_timeout_ms = close_timeout_ms;
      Server server(options);
      add_echo(server, counts);
      REQUIRE(!server.start());
      Clients clients = connect(server, 1);
      server.stop(close_timeout_ms == 100 ? 60'000 : 200);
      answer_close(*clients[0]);
      server.wait();
      check_result(server, 1, 0);
    }
  });
}

TEST_CASE("a second stop without a deadline ends at once, a later deadline changes nothing") {
  on_each_backend([](ServerOptions options) {
    Counts counts;
    Server server(options);
    add_echo(server, counts);
    REQUIRE(!server.start());
    Clients clients = connect(server, 2);
    server.stop(60'000);
    CHECK(clients[0]->frame() == Frame{8, close_payload(1001)});
    server.stop(120'000);
    clients[0]->send(Opcode::close, close_payload(1001));
    CHECK(clients[0]->reaches_end());
    server.stop();
    CHECK(seconds_of([&] { server.wait(); }) < 30);
    check_result(server, 1, 1);
  });
}

TEST_CASE("of two deadlines of a graceful stop the earlier one holds") {
  on_each_backend([](ServerOptions options) {
    for (const bool shorter_first : {true, false}) {
      Counts counts;
      Server server(options);
      add_echo(server, counts);
      REQUIRE(!server.start());
      Clients clients = connect(server, 1);
      server.stop(shorter_first ? 100 : 60'000);
      CHECK(clients[0]->frame() == Frame{8, close_payload(1001)});
      server.stop(shorter_first ? 60'000 : 100);
      CHECK(seconds_of([&] { server.wait(); }) < 4);  // before the close handshake's own time is over
      check_result(server, 0, 1);
    }
  });
}

TEST_CASE("a server may be stopped by another thread while it starts to listen") {
  on_each_backend([](ServerOptions options) {
    options.threads = 4;
    for (int i = 0; i < 20; i++) {
      Counts counts;
      Server server(options);
      add_echo(server, counts);
      std::atomic<bool> over{false};
      std::thread stopper([&] {
        while (!over.load()) {
          server.stop(1000);
          (void)server.openmetrics();
        }
      });
      CHECK(!server.start());
      server.wait();  // one of those stops came behind listen()
      over = true;
      stopper.join();
    }
  });
}

TEST_CASE(
    "a server without connections stops at once, whatever the deadline, and one that was never started too") {
  on_each_backend([](ServerOptions options) {
    options.threads = 2;
    Counts counts;
    Server server(options);
    add_echo(server, counts);
    REQUIRE(!server.start());
    server.stop(60'000);
    CHECK(seconds_of([&] { server.wait(); }) < 30);
    check_result(server, 0, 0);
    Server listening(options);
    add_echo(listening, counts);
    REQUIRE(!listening.listen());
    listening.stop(60'000);
    Server fresh(options);
    fresh.stop(60'000);
  });
}

TEST_CASE("a socket that is adopted while the server stops is told so too") {
  on_each_backend([](ServerOptions options) {
    Counts counts;
    Server server(options);
    add_echo(server, counts);
    REQUIRE(!server.start());
    Clients clients = connect(server, 1);
    server.stop(300);
    int ends[2];
    REQUIRE(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0);
    server.adopt_upgraded(Fd(ends[0]));
    BlockingClient late{Fd(ends[1])};
    CHECK(late.frame() == Frame{8, close_payload(1001)});
    server.wait();  // neither answers, but only one was there when it began
    CHECK(server.result().cut == 2);
    CHECK(server.result().closed == 0);
    server.adopt(Fd(socket(AF_UNIX, SOCK_STREAM, 0)));  // nobody takes it any more
  });
}

TEST_CASE("a server may be stopped by one thread while another waits, and its counters read") {
  on_each_backend([](ServerOptions options) {
    options.threads = 2;
    for (int i = 0; i < 20; i++) {
      Counts counts;
      Server server(options);
      add_echo(server, counts);
      REQUIRE(!server.start());
      std::thread reader([&server] {
        while (server.openmetrics().size() > 100) {
        }
      });
      std::thread stopper([&server] {
        server.stop(1000);
        server.stop();
      });
      server.wait();
      stopper.join();
      reader.join();
    }
  });
}

TEST_CASE("a task that never ran is dropped while every reactor is there, whose memory it may hold") {
  on_each_backend([](ServerOptions options) {
    struct Witness {
      Witness(std::weak_ptr<int> life, bool& is_dropped, bool& is_in_time)
          : other(std::move(life)), dropped(is_dropped), in_time(is_in_time) {}
      ~Witness() {
        dropped = true;
        in_time = !other.expired();
      }
      std::weak_ptr<int> other;  // lives as long as the first reactor's handler
      bool& dropped;
      bool& in_time;
    };
    struct Posting {
      std::shared_ptr<int> life = std::make_shared<int>();
      std::function<void(Connection&)> closing = {};
      void on_close(Connection& connection, const CloseInfo&) {
        if (closing) closing(connection);
      }
    };
    options.threads = 2;
    bool dropped = false, in_time = false;
    Server server(options);
    std::weak_ptr<int> first;
    server.route("", [&](int reactor) {
      Posting handler;
      if (reactor == 0) {
        first = handler.life;
      } else {
        handler.closing = [&](Connection& connection) {  // the loop has ended: nobody runs this
          auto witness = std::make_unique<Witness>(first, dropped, in_time);
          connection.reactor().post([witness = std::move(witness)] {});
        };
      }
      return handler;
    });
    REQUIRE(!server.start());
    std::vector<Fd> peers;
    for (int i = 0; i < 2; i++) {
      int ends[2];
      REQUIRE(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) == 0);
      peers.emplace_back(ends[1]);
      server.adopt_upgraded(Fd(ends[0]));
      std::atomic<bool> adopted{false};
      server.reactor(i).post([&] { adopted = true; });
      while (!adopted) std::this_thread::yield();
    }
    server.stop();
    server.wait();
    CHECK(dropped);
    CHECK(in_time);
  });
}

TEST_CASE("without a number of threads there is one for each CPU; fewer than none are refused") {
  on_each_backend([](ServerOptions options) {
    const int cpus = std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
    options.threads = 0;
    options.pin = true;
    Server server(options);
    server.route("", [](int) { return Named{"x"}; });
    REQUIRE(!server.start());
    CHECK(server.threads() == cpus);
    options.threads = -1;
    Server none(options);
    CHECK(none.start().code == Errc::invalid_argument);
    CHECK(none.run().code == Errc::invalid_argument);
  });
}

TEST_CASE("a Unix socket that reactors share is closed on exec, and a lack of descriptors is told") {
  char folder[] = "/tmp/levada-XXXXXX";
  REQUIRE(mkdtemp(folder) != nullptr);
  ServerOptions options;
  options.reactor.backend = net::BackendKind::epoll;
  options.unix_path = std::string(folder) + "/socket";
  options.threads = 3;
  {
    const auto inherited = [] {  // by a child
      std::vector<int> all;
      for (int fd = 0; fd < 1000; fd++) {
        const int flags = fcntl(fd, F_GETFD);
        if (flags >= 0 && (flags & FD_CLOEXEC) == 0) all.push_back(fd);
      }
      return all;
    };
    const std::vector<int> before = inherited();
    Server server(options);
    REQUIRE(!server.start());
    CHECK(inherited() == before);
  }
  rlimit old{};
  REQUIRE(getrlimit(RLIMIT_NOFILE, &old) == 0);
  const auto base = static_cast<rlim_t>(Fd(dup(0)).get());
  std::vector<Errc> failures;
  for (rlim_t more = 0; more < 40; more++) {
    const rlimit low{base + more, old.rlim_max};
    REQUIRE(setrlimit(RLIMIT_NOFILE, &low) == 0);
    Server server(options);
    const Error error = server.start();
    if (!error) break;
    failures.push_back(error.code);
  }
  REQUIRE(setrlimit(RLIMIT_NOFILE, &old) == 0);
  CHECK(failures.size() > 5);
  CHECK(failures.size() < 40);
  CHECK(std::count(failures.begin(), failures.end(), Errc::descriptor_limit) ==
        static_cast<std::ptrdiff_t>(failures.size()));
  std::filesystem::remove_all(folder);
}
