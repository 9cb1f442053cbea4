// The proof that echoing and connecting allocate nothing in the steady state: every allocation of the
// reactor's thread is counted while the reactor runs.
#include <levada/ws/service.h>

#include <malloc.h>
#include <algorithm>
#include <cstdlib>
#include <memory>
#include <new>
#include <string>
#include <thread>
#include <vector>

#include <doctest/doctest.h>

#include <levada/tests/support/count_alloc.h>
#include <levada/tests/support/world.h>

using namespace levada;
using namespace levada::ws;
using namespace levada::ws::test;

namespace {

// The compiler must not see through it, or it leaves the allocation out.
template <class T>
T* opaque(T* pointer) {
  asm volatile("" : "+r"(pointer) : : "memory");
  return pointer;
}

// Allocations of what `run` does.
template <class Run>
std::uint64_t counted(Run&& run) {
  const std::uint64_t before = levada::test::allocations();
  run();
  return levada::test::allocations() - before;
}

template <class Run>
std::uint64_t freed(Run&& run) {
  const std::uint64_t before = levada::test::releases();
  run();
  return levada::test::releases() - before;
}

struct PlainEcho {
  void on_open(Connection&) { opened++; }
  void on_message(Connection& connection, Opcode opcode, Bytes payload) { connection.send(opcode, payload); }
  void on_close(Connection&, const CloseInfo&) { closed++; }
  int opened = 0, closed = 0;
};

// A blocking peer on the same thread: what it does lies outside of what is counted.
struct Bench {
  explicit Bench(const Kind& kind) : world(kind), handler(world.serve<PlainEcho>()) {}

  void run() {
    allocated += counted([&] { world.reactor().run_once(0); });
  }

  Fd connect() {
    Fd fd(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    if (::connect(fd.get(), world.address.get(), world.address.size()) != 0) REQUIRE(errno == EINPROGRESS);
    net::set_no_delay(fd.get());
    return fd;
  }

  // Sends all of `request` and reads `answer_bytes`, with the reactor running whenever that has to wait.
  void exchange(int fd, std::string_view request, std::size_t answer_bytes, std::string& answer) {
    answer.resize(answer_bytes);
    std::size_t sent = 0, got = 0;
    const std::uint64_t limit = monotonic_ns() + 10 * nanoseconds_per_second;
    while (got < answer_bytes) {
      if (sent < request.size()) {
        const ssize_t n = send(fd, request.data() + sent, request.size() - sent, MSG_NOSIGNAL);
        if (n > 0) sent += static_cast<std::size_t>(n);
      }
      run();
      const ssize_t n = recv(fd, answer.data() + got, answer_bytes - got, 0);
      if (n > 0) got += static_cast<std::size_t>(n);
      REQUIRE(n != 0);
      REQUIRE(monotonic_ns() < limit);
    }
  }

  World world;
  PlainEcho& handler;
  std::uint64_t allocated = 0;
};

std::string handshake_answer() {
  return "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
         "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
}

}  // namespace

TEST_CASE("every way to allocate is counted once") {
  CHECK(counted([] {}) == 0);
  CHECK(counted([] { std::free(opaque(std::malloc(10))); }) == 1);
  CHECK(counted([] { std::free(opaque(std::calloc(2, 10))); }) == 1);
  CHECK(counted([] { std::free(opaque(std::realloc(nullptr, 10))); }) == 1);
  CHECK(counted([] { std::free(opaque(std::aligned_alloc(64, 64))); }) == 1);
  CHECK(counted([] { std::free(opaque(memalign(64, 64))); }) == 1);
  CHECK(counted([] {
          void* memory = nullptr;
          if (posix_memalign(&memory, 64, 64) == 0) std::free(opaque(memory));
        }) == 1);
  struct alignas(128) Aligned {
    char bytes[128];
  };
  CHECK(counted([] { delete opaque(new int); }) == 1);
  CHECK(counted([] { delete[] opaque(new int[9]); }) == 1);
  CHECK(counted([] { delete opaque(new (std::nothrow) int); }) == 1);
  CHECK(counted([] { delete[] opaque(new (std::nothrow) int[9]); }) == 1);
  CHECK(counted([] { delete opaque(new Aligned); }) == 1);
  CHECK(counted([] { delete[] opaque(new Aligned[3]); }) == 1);
  CHECK(counted([] { delete opaque(new (std::nothrow) Aligned); }) == 1);
  CHECK(counted([] {
          std::string text(opaque("x"), 1);
          text.resize(1000);
        }) == 1);
  CHECK(freed([] { std::free(opaque(std::malloc(10))); }) == 1);
  CHECK(freed([] { delete opaque(new Aligned); }) == 1);
  CHECK(freed([] { std::free(opaque(static_cast<void*>(nullptr))); }) == 0);
}

TEST_CASE("another thread's allocations are not counted here") {
  std::uint64_t theirs = 0;
  std::unique_ptr<std::thread> thread;
  thread = std::make_unique<std::thread>(
      [&theirs] { theirs = counted([] { std::free(opaque(std::malloc(10))); }); });
  const std::uint64_t here = counted([&] { thread->join(); });
  CHECK(theirs == 1);
  CHECK(here == 0);
}

TEST_CASE("100 000 echoes allocate nothing") {
  struct Load {
    std::size_t bytes;
    int pipelined, rounds;
  };
  // 100 000 in all, on each backend.
  const Load loads[] = {{16, 1, 4000},   {16, 50, 1200},  {125, 1, 4000},  {125, 10, 2000},
                        {4096, 1, 4000}, {4096, 7, 1000}, {65536, 1, 700}, {200'000, 1, 300}};
  for (const Kind& kind : real_kinds()) {
    CAPTURE(kind.name);
    Bench bench(kind);
    std::string answer;
    int echoes = 0;
    std::vector<Fd> sockets;
    for (int i = 0; i < 4; i++) {
      sockets.push_back(bench.connect());
      bench.exchange(sockets.back().get(), Client::request(), handshake_answer().size(), answer);
      REQUIRE(answer == handshake_answer());
    }
    // All at once, so that what grows with the events of one turn has grown.
    const std::string burst = client_frame(Opcode::binary, random_bytes(150'000));
    for (const Fd& fd : sockets) {
      REQUIRE(send(fd.get(), burst.data(), burst.size(), MSG_NOSIGNAL) == static_cast<ssize_t>(burst.size()));
    }
    for (const Fd& fd : sockets) bench.exchange(fd.get(), {}, burst.size() - 4, answer);
    for (const bool warm_up : {true, false}) {
      bench.allocated = 0;
      for (const Load& load : loads) {
        const std::string payload = random_letters(load.bytes);
        for (const Opcode opcode : {Opcode::text, Opcode::binary}) {
          std::string request, wanted;
          for (int i = 0; i < load.pipelined; i++) {
            request += client_frame(opcode, payload);
            wanted += server_frame(opcode, payload);
          }
          const int rounds = warm_up ? std::min(load.rounds / 2, 200) : load.rounds / 2;
          for (int round = 0; round < rounds; round++) {
            const int fd = sockets[static_cast<std::size_t>(round) % sockets.size()].get();
            bench.exchange(fd, request, wanted.size(), answer);
            if (round < 10) REQUIRE(answer == wanted);
            if (!warm_up) echoes += load.pipelined;
          }
        }
      }
    }
    CHECK(echoes == 100'000);
    CHECK(bench.allocated == 0);
  }
}

TEST_CASE("1 000 connections with their handshake, an echo and their end allocate nothing") {
  for (const Kind& kind : real_kinds()) {
    CAPTURE(kind.name);
    Bench bench(kind);
    std::string answer;
    const std::string message = client_frame(Opcode::text, "hello"),
                      echoed = server_frame(Opcode::text, "hello");
    const std::string close = client_frame(Opcode::close, close_payload(1000));
    const auto cycle = [&](int number) {
      const Fd fd = bench.connect();
      const std::string request = Client::request();
      if (number % 3 == 0) {  // the request in two pieces
        REQUIRE(send(fd.get(), request.data(), 50, MSG_NOSIGNAL) == 50);
        for (int i = 0; i < 3; i++) bench.run();
        bench.exchange(fd.get(), request.substr(50), handshake_answer().size(), answer);
      } else {
        bench.exchange(fd.get(), request, handshake_answer().size(), answer);
      }
      REQUIRE(answer == handshake_answer());
      bench.exchange(fd.get(), message, echoed.size(), answer);
      REQUIRE(answer == echoed);
      bench.exchange(fd.get(), close, 4, answer);
      REQUIRE(answer == server_frame(Opcode::close, close_payload(1000)));
    };
    for (int i = 0; i < 100; i++) cycle(i);
    bench.allocated = 0;
    for (int i = 0; i < 1000; i++) cycle(i);
    CHECK(bench.allocated == 0);
    const std::uint64_t limit = monotonic_ns() + 10 * nanoseconds_per_second;
    while (bench.handler.closed < 1100 && monotonic_ns() < limit) bench.run();
    CHECK(bench.handler.opened == 1100);
    CHECK(bench.handler.closed == 1100);
  }
}
