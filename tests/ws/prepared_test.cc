// Messages that are encoded once.
#include <levada/ws/prepared.h>

#include <string>
#include <thread>
#include <vector>

#include <doctest/doctest.h>

#include <levada/tests/support/frames.h>

using namespace levada;
using namespace levada::ws;
using namespace levada::ws::test;

TEST_CASE("a prepared message is the whole frame") {
  for (const std::size_t size : {0u, 1u, 125u, 126u, 65535u, 65536u}) {
    const std::string payload = random_bytes(size);
    CHECK(to_text(PreparedMessage(Opcode::binary, to_bytes(payload)).frame()) ==
          server_frame(Opcode::binary, payload));
  }
  CHECK(to_text(PreparedMessage(Opcode::ping, to_bytes("hey")).frame()) == server_frame(Opcode::ping, "hey"));
}

TEST_CASE("copies of a prepared message share its bytes and outlive it") {
  auto first = std::make_unique<PreparedMessage>(Opcode::text, to_bytes("shared"));
  PreparedMessage second = *first;
  PreparedMessage third(Opcode::text, to_bytes("other"));
  third = second;
  CHECK(second.frame().data() == first->frame().data());
  CHECK(third.frame().data() == first->frame().data());
  Owner* owner = second.share();
  CHECK(owner->references() == 4);
  first.reset();
  const PreparedMessage moved = std::move(second);
  CHECK(owner->references() == 3);
  owner->drop_reference();
  CHECK(to_text(moved.frame()) == server_frame(Opcode::text, "shared"));
  PreparedMessage& same = third;
  third = same;
  CHECK(to_text(third.frame()) == server_frame(Opcode::text, "shared"));
}

TEST_CASE("threads copy and drop a prepared message at the same time") {
  const PreparedMessage message(Opcode::text, to_bytes("shared"));
  Owner* owner = message.share();
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; i++) {
    threads.emplace_back([&message] {
      for (int turn = 0; turn < 2000; turn++) {
        const PreparedMessage copy = message;
        if (copy.frame().size() != 8) std::abort();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(owner->references() == 2);
  owner->drop_reference();
}
