// What a message to very many subscribers costs that do not read: the message once, and a little for each.
#include <malloc.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
#include <algorithm>
#include <csignal>
#include <cstdio>
#include <string>

#include <doctest/doctest.h>

#include <levada/tests/support/resident.h>
#include <levada/tests/support/world.h>

using namespace levada;
using namespace levada::ws;
using namespace levada::ws::test;

namespace {

constexpr std::size_t message_bytes = 64 * 1024, most_for_each = 200;

// A process of its own, for its descriptors: connects `count` times, asks for the upgrade and never reads.
class Subscribers {
 public:
  Subscribers(const net::Address& address, std::size_t count) : child_(fork()) {
    REQUIRE(child_ >= 0);
    if (child_ == 0) subscribe(address, count);
  }
  Subscribers(const Subscribers&) = delete;
  ~Subscribers() {
    kill(child_, SIGKILL);
    waitpid(child_, nullptr, 0);
  }

 private:
  [[noreturn]] static void subscribe(const net::Address& address, std::size_t count) {
    const std::string request = Client::request();
    for (std::size_t i = 0; i < count; i++) {
      const int fd = socket(address.family(), SOCK_STREAM | SOCK_CLOEXEC, 0);
      if (fd < 0 || connect(fd, address.get(), address.size()) != 0) _exit(1);
      if (send(fd, request.data(), request.size(), MSG_NOSIGNAL) != static_cast<ssize_t>(request.size()))
        _exit(1);
    }
    for (;;) pause();
  }

  pid_t child_;
};

struct Idle {
  void on_open(Connection&) {}
};

}  // namespace

TEST_CASE("a prepared message of 64 KiB to 10 000 stalled subscribers is kept once, and 200 bytes for each") {
  rlimit old{};
  REQUIRE(getrlimit(RLIMIT_NOFILE, &old) == 0);
  const rlimit files{old.rlim_max, old.rlim_max};
  REQUIRE(setrlimit(RLIMIT_NOFILE, &files) == 0);
  constexpr std::size_t wanted = 10'000;
  const std::size_t count = std::min<std::size_t>(wanted, static_cast<std::size_t>(old.rlim_max) - 100);
  if (count < wanted)
    MESSAGE("ONLY " << count << " of " << wanted
                    << " subscribers: this process may have no more descriptors");
  in_every_world(
      [count](World& world) {
        const net::Address address = *net::Address::unix_path("@levada-stalled-" + std::to_string(getpid()));
        Fd listening = std::move(*net::listen_stream(address));
        const int smallest = 1;  // so that the kernel takes but a part of the message
        REQUIRE(setsockopt(listening.get(), SOL_SOCKET, SO_SNDBUF, &smallest, sizeof smallest) == 0);
        Idle handler;
        Service service(world.reactor(), Role::server, handler);
        REQUIRE(!service.listen(std::move(listening)));
        {
          const Subscribers subscribers(address, count);
          REQUIRE(world.until([&] { return service.counters().opened.value() == count; }));
          service.for_each([smallest](Connection& connection) {
            setsockopt(connection.native_fd(), SOL_SOCKET, SO_SNDBUF, &smallest, sizeof smallest);
          });
          world.settle();
          malloc_trim(0);  // what earlier tests have freed would hide what is allocated now
          const std::size_t before = levada::test::resident_bytes();
          std::size_t queued = 0;
          world.reactor().post([&] {
            const PreparedMessage message(Opcode::binary, to_bytes(random_bytes(message_bytes)));
            service.for_each([&](Connection& connection) {
              queued += connection.send(message) == SendStatus::queued ? 1 : 0;
            });
          });
          REQUIRE(world.until([&] { return queued == count; }));
          world.settle();
          const std::size_t grown = levada::test::resident_bytes() - before;
          std::size_t stalled = 0;
          service.for_each([&](Connection& connection) {
            stalled += connection.blocked() && connection.buffered() > message_bytes / 2 ? 1 : 0;
          });
          MESSAGE(world.kind().name << ": " << stalled << " stalled subscribers, " << grown
                                    << " bytes more are resident, "
                                    << static_cast<double>(grown - std::min(grown, message_bytes)) /
                                           static_cast<double>(count)
                                    << " for each beside the message");
          CHECK(stalled == count);
          if (levada::test::resident_is_exact) CHECK(grown <= message_bytes + most_for_each * count);
        }
        REQUIRE(world.until([&] { return service.connections() == 0; }));
        CHECK(world.reactor().segments().in_use() == 0);
        world.reactor().for_each([](net::Endpoint& endpoint) { endpoint.close(); });
        world.settle(2);
      },
      real_kinds());
  setrlimit(RLIMIT_NOFILE, &old);
}
