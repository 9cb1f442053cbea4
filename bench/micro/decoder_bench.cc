// Decoding pipelined frames: header, check, unmasking, validation of text, and the call of a handler through
// a pointer. `limit/memcpy` copies the same bytes in as many pieces as there are frames.
//
// The key's bytes have no high bit, so that unmasking the same ASCII payload again and again leaves it valid
// text.
#include <algorithm>
#include <cstring>
#include <vector>

#include <levada/bench/micro/micro.h>
#include <levada/ws/decoder.h>
#include <levada/ws/encoder.h>

namespace {

using namespace levada;

constexpr ws::MaskKey key = 0x11223344;
constexpr std::size_t elsewhere = 2112;  // of a page, so that a copy's loads do not wait for its stores

std::vector<std::uint8_t> frames(ws::Opcode opcode, std::size_t size, std::size_t count) {
  const std::vector<std::uint8_t> payload(size, 'a');
  const std::size_t frame = ws::frame_size(size, true);
  std::vector<std::uint8_t> bytes(count * frame);
  for (std::size_t i = 0; i < count; i++) {
    ws::write_masked_frame(bytes.data() + i * frame, opcode, payload, key);
  }
  return bytes;
}

std::uint64_t seen = 0;
void handle(void*, ws::Opcode opcode, MutableBytes payload) {
  seen += payload.size() + static_cast<unsigned>(opcode);
}

void decode(benchmark::State& state, ws::Opcode opcode) {
  BlockPool blocks(1 << 20);
  const ws::DecoderOptions options;
  ws::Decoder decoder(options, blocks);
  const std::size_t count = std::max<std::size_t>(1, 16384 / static_cast<std::size_t>(state.range(0) + 6));
  std::vector<std::uint8_t> bytes = frames(opcode, static_cast<std::size_t>(state.range(0)), count);
  void (*handler)(void*, ws::Opcode, MutableBytes) = handle;
  benchmark::DoNotOptimize(handler);
  bench::measure(state, bench::Allocates::nothing, static_cast<std::int64_t>(count), [&] {
    MutableBytes in = bytes;
    for (;;) {
      const ws::Decoded decoded = decoder.next(in);
      if (decoded.event == ws::DecoderEvent::none) break;
      handler(nullptr, decoded.opcode, decoded.payload);
    }
  });
}

void copy_of(benchmark::State& state) {
  const std::size_t frame = ws::frame_size(static_cast<std::size_t>(state.range(0)), true);
  const std::size_t count = std::max<std::size_t>(1, 16384 / static_cast<std::size_t>(state.range(0) + 6));
  const std::vector<std::uint8_t> from(elsewhere + count * frame, 'a');
  std::vector<std::uint8_t> to(count * frame);
  bench::measure(state, bench::Allocates::nothing, static_cast<std::int64_t>(count), [&] {
    for (std::size_t at = 0; at < to.size(); at += frame) {
      std::memcpy(to.data() + at, from.data() + elsewhere + at, frame);
      benchmark::DoNotOptimize(to.data());
      benchmark::ClobberMemory();
    }
  });
}

void BM_decode_binary(benchmark::State& state) {
  decode(state, ws::Opcode::binary);
}
void BM_decode_text(benchmark::State& state) {
  decode(state, ws::Opcode::text);
}

void sizes(benchmark::internal::Benchmark* benchmark) {
  for (const int size : {0, 1, 16, 125, 126, 127, 1024, 4096, 16384, 65535, 65536, 1 << 20})
    benchmark->Arg(size);
}

BENCHMARK(copy_of)->Name("limit/memcpy")->Apply(sizes);
BENCHMARK(BM_decode_binary)->Apply(sizes);
BENCHMARK(BM_decode_text)->Apply(sizes);

}  // namespace
