// Frames: the header alone, and what a peer library calls reading and writing a frame, beside memcpy of as many bytes.
//
//   parse_header, write_header   each header form, with its check
//   read_frame                   copied in, as the kernel would, then decoded and unmasked in place
//   write_frame                  an unmasked frame laid out in memory, as a server's
//   write_masked_frame           the same with a fresh key from the engine's generator, as a client's
#include <cstring>
#include <vector>

#include <levada/bench/micro/micro.h>
#include <levada/core/random.h>
#include <levada/ws/decoder.h>
#include <levada/ws/encoder.h>

namespace {

using namespace levada;

constexpr ws::MaskKey key = 0x3dfa2137;

std::vector<std::uint8_t> masked_frame(ws::Opcode opcode, std::size_t size) {
  std::vector<std::uint8_t> frame(ws::frame_size(size, true));
  ws::write_masked_frame(frame.data(), opcode, std::vector<std::uint8_t>(size, 'a'), key);
  return frame;
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
  const std::vector<std::uint8_t> from(static_cast<std::size_t>(state.range(0)) + 1, 'a');
  std::vector<std::uint8_t> to(from.size());
  bench::measure(state, [&] {
    std::memcpy(to.data(), from.data(), from.size() - 1);
    benchmark::DoNotOptimize(to.data());
    benchmark::ClobberMemory();
  });
  state.SetBytesProcessed(state.iterations() * state.range(0));
}

void read_frame(benchmark::State& state, ws::Opcode opcode) {
  BlockPool blocks(1 << 20);
  const ws::DecoderOptions options;
  ws::Decoder decoder(options, blocks);
  const std::vector<std::uint8_t> sent = masked_frame(opcode, static_cast<std::size_t>(state.range(0)));
  std::vector<std::uint8_t> received(sent.size());
  bench::measure(state, [&] {
    std::memcpy(received.data(), sent.data(), sent.size());
    MutableBytes in = received;
    benchmark::DoNotOptimize(in);
    const ws::Decoded decoded = decoder.next(in);
    bench::require(decoded.event == ws::DecoderEvent::message);
    benchmark::DoNotOptimize(decoded.payload.data());
    benchmark::ClobberMemory();
  });
  state.SetBytesProcessed(state.iterations() * state.range(0));
}

template <class Write>
void write(benchmark::State& state, Write write) {
  const std::vector<std::uint8_t> payload(static_cast<std::size_t>(state.range(0)), 'a');
  std::vector<std::uint8_t> out(ws::frame_size(payload.size(), true));
  bench::measure(state, [&] {
    Bytes in = payload;
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
