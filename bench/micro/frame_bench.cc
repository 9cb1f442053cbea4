// Frames: the header alone, and what a peer library calls reading and writing a frame, beside memcpy of as many bytes.
//
//   parse_header, write_header   each header form, with its check
//   read_frame                   copied in, as the kernel would, then decoded and unmasked in place
//   write_frame                  an unmasked frame laid out in memory, as a server's
//   write_masked_frame           the same with a fresh key from the engine's generator, as a client's
#include <algorithm>
#include <cstring>
#include <vector>

#include <levada/bench/micro/micro.h>
#include <levada/core/random.h>
#include <levada/ws/decoder.h>
#include <levada/ws/encoder.h>

namespace {

using namespace levada;

constexpr ws::MaskKey key = 0x3dfa2137;

// Large vectors begin at the same place of a page, where a copy from one to another has its loads wait for its stores
// (4K aliasing). What a peer has sent lies elsewhere.
constexpr std::size_t elsewhere = 2112;

// Frames as a socket delivers them: as many at once as fit into 16 KiB. Unmasking bytes that were copied a moment ago would
// wait for the copy's stores, which no bytes received from a socket do.
std::vector<std::uint8_t> masked_frames(ws::Opcode opcode, std::size_t size, std::size_t& count) {
  const std::size_t frame = ws::frame_size(size, true);
  count = std::max<std::size_t>(1, 16384 / frame);
  std::vector<std::uint8_t> frames(count * frame);
  const std::vector<std::uint8_t> payload(size, 'a');
  for (std::size_t i = 0; i < count; i++)
    ws::write_masked_frame(frames.data() + i * frame, opcode, payload, key);
  return frames;
}

void parse_header(benchmark::State& state) {
  std::vector<std::uint8_t> bytes(ws::max_header_bytes);
  ws::write_header(bytes.data(),
                   {.masked = true, .key = key, .length = static_cast<std::uint64_t>(state.range(0))});
  bench::measure(state, [&] {
    ws::FrameHeader header;
    benchmark::DoNotOptimize(bytes.data());
    benchmark::ClobberMemory();
    bench::require(ws::parse_header(bytes, header) != 0);
    bench::require(ws::check_header(header, ws::Role::server, false) == ws::FrameError::none);
    benchmark::DoNotOptimize(header);
  });
}

void write_header(benchmark::State& state) {
  std::vector<std::uint8_t> bytes(ws::max_header_bytes);
  ws::FrameHeader header{.masked = true, .key = key, .length = static_cast<std::uint64_t>(state.range(0))};
  bench::measure(state, [&] {
    benchmark::DoNotOptimize(header);
    benchmark::DoNotOptimize(ws::write_header(bytes.data(), header));
    benchmark::ClobberMemory();
  });
}

void copy_of(benchmark::State& state) {
  const auto size = static_cast<std::size_t>(state.range(0));
  const std::vector<std::uint8_t> from(elsewhere + size, 'a');
  std::vector<std::uint8_t> to(size + 1);
  bench::measure(state, [&] {
    std::memcpy(to.data(), from.data() + elsewhere, size);
    benchmark::DoNotOptimize(to.data());
    benchmark::ClobberMemory();
  });
  state.SetBytesProcessed(state.iterations() * state.range(0));
}

void read_frame(benchmark::State& state, ws::Opcode opcode) {
  BlockPool blocks(1 << 20);
  const ws::DecoderOptions options;
  ws::Decoder decoder(options, blocks);
  std::size_t count = 0;
  std::vector<std::uint8_t> sent = masked_frames(opcode, static_cast<std::size_t>(state.range(0)), count);
  std::vector<std::uint8_t> received(sent.size());
  sent.insert(sent.begin(), elsewhere, 0);
  bench::measure(state, bench::Allocates::nothing, static_cast<std::int64_t>(count), [&] {
    std::memcpy(received.data(), sent.data() + elsewhere, received.size());
    MutableBytes in = received;
    benchmark::DoNotOptimize(in);
    for (std::size_t i = 0; i < count; i++) {
      const ws::Decoded decoded = decoder.next(in);
      bench::require(decoded.event == ws::DecoderEvent::message);
      benchmark::DoNotOptimize(decoded.payload.data());
      benchmark::ClobberMemory();
    }
  });
  state.SetBytesProcessed(state.iterations() * static_cast<std::int64_t>(count) * state.range(0));
}

template <class Write>
void write(benchmark::State& state, Write write) {
  const std::vector<std::uint8_t> payload(elsewhere + static_cast<std::size_t>(state.range(0)), 'a');
  std::vector<std::uint8_t> out(ws::frame_size(payload.size(), true));
  bench::measure(state, [&] {
    Bytes in = Bytes(payload).subspan(elsewhere);
    benchmark::DoNotOptimize(in);
    benchmark::DoNotOptimize(write(out.data(), in));
    benchmark::ClobberMemory();
  });
  state.SetBytesProcessed(state.iterations() * state.range(0));
}

void write_frame(benchmark::State& state) {
  write(state,
        [](std::uint8_t* out, Bytes payload) { return ws::write_frame(out, ws::Opcode::binary, payload); });
}

void write_masked_frame(benchmark::State& state) {
  SecureRandom random;
  write(state, [&random](std::uint8_t* out, Bytes payload) {
    return ws::write_masked_frame(out, ws::Opcode::binary, payload, random.next_u32());
  });
}

void headers(benchmark::internal::Benchmark* benchmark) {
  for (const int length : {125, 126, 65535, 65536}) benchmark->Arg(length);
}
void sizes(benchmark::internal::Benchmark* benchmark) {
  for (const int size : {0, 1, 125, 126, 127, 1024, 4096, 16384, 65535, 65536, 1 << 20}) benchmark->Arg(size);
}

BENCHMARK(parse_header)->Apply(headers);
BENCHMARK(write_header)->Apply(headers);
BENCHMARK(copy_of)->Name("memcpy")->Apply(sizes);
BENCHMARK_CAPTURE(read_frame, binary, ws::Opcode::binary)->Apply(sizes);
BENCHMARK_CAPTURE(read_frame, text, ws::Opcode::text)->Apply(sizes);
BENCHMARK(write_frame)->Apply(sizes);
BENCHMARK(write_masked_frame)->Apply(sizes);

}  // namespace
