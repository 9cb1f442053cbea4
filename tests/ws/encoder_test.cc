// Frames written into the caller's memory.
#include <levada/ws/encoder.h>

#include <string>
#include <vector>

#include <doctest/doctest.h>

#include <levada/tests/support/frames.h>

using namespace levada;
using namespace levada::ws;
using namespace levada::ws::test;

namespace {

const std::vector<std::size_t> sizes = {0, 1, 125, 126, 127, 65535, 65536, 100000};

// Runs `write` on exactly `size` bytes with a guard behind them.
template <class Write>
std::string written(std::size_t size, Write write) {
  std::vector<std::uint8_t> out(size + 1, 0xEE);
  REQUIRE(write(out.data()) == size);
  CHECK(out[size] == 0xEE);
  return std::string(to_text(Bytes(out).first(size)));
}

}  // namespace

TEST_CASE("an unmasked frame is written at each boundary of its length") {
  for (const std::size_t size : sizes) {
    for (const bool fin : {true, false}) {
      const std::string payload = random_bytes(size);
      const std::string frame = written(frame_size(size, false), [&](std::uint8_t* out) {
        return write_frame(out, Opcode::text, to_bytes(payload), fin, 4);
      });
      CHECK(frame == server_frame(Opcode::text, payload, {.fin = fin, .rsv = 4}));
    }
  }
}

TEST_CASE("a masked frame is written at each boundary of its length") {
  MaskKey key;
  std::memcpy(&key, mask_bytes, 4);
  for (const std::size_t size : sizes) {
    for (const bool fin : {true, false}) {
      const std::string payload = random_bytes(size);
      const std::string frame = written(frame_size(size, true), [&](std::uint8_t* out) {
        return write_masked_frame(out, Opcode::binary, to_bytes(payload), key, fin, 1);
      });
      CHECK(frame == client_frame(Opcode::binary, payload, {.fin = fin, .rsv = 1}));
    }
  }
}

TEST_CASE("a payload is framed where it lies and nothing else is written") {
  for (const std::size_t size : sizes) {
    const std::string payload = random_bytes(size);
    std::vector<std::uint8_t> memory(max_header_bytes + size + 1, 0xEE);
    std::uint8_t* const at = memory.data() + max_header_bytes;
    std::copy(payload.begin(), payload.end(), at);
    const Bytes frame = frame_in_place(at, size, Opcode::binary, false, 2);
    CHECK(to_text(frame) == server_frame(Opcode::binary, payload, {.fin = false, .rsv = 2}));
    CHECK(frame.data() + frame.size() == at + size);
    CHECK(memory.back() == 0xEE);
    for (const std::uint8_t* byte = memory.data(); byte < frame.data(); byte++) CHECK(*byte == 0xEE);
  }
}

TEST_CASE("an answer's header fits into the bytes of the request's") {
  for (const std::size_t size : sizes) CHECK(header_size_for(size, false) + 4 == header_size_for(size, true));
}
