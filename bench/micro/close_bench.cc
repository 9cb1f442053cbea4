// Close: the payload read and written, and a close frame through the decoder with the checks of code and reason, beside
// memcpy of as many bytes.
#include <array>
#include <cstring>
#include <string_view>
#include <vector>

#include <levada/bench/micro/micro.h>
#include <levada/ws/close.h>
#include <levada/ws/decoder.h>
#include <levada/ws/encoder.h>

namespace {

using namespace levada;

constexpr std::string_view longest =
    "the longest reason that a close frame may carry has one hundred and twenty-three bytes, which this "
    "sentence "
    "is cut down to, to the byte.";
static_assert(longest.size() >= ws::max_close_reason_bytes);

std::string_view reason_of(const benchmark::State& state) {
  return longest.substr(0, static_cast<std::size_t>(state.range(0)));
}

void write_close(benchmark::State& state) {
  std::array<std::uint8_t, ws::max_control_bytes> out;
  std::string_view reason = reason_of(state);
  bench::measure(state, [&] {
    benchmark::DoNotOptimize(reason);
    benchmark::DoNotOptimize(ws::write_close(out.data(), ws::CloseCode::going_away, reason));
    benchmark::ClobberMemory();
  });
}

void parse_close(benchmark::State& state) {
  std::array<std::uint8_t, ws::max_control_bytes> out;
  const std::size_t size = ws::write_close(out.data(), ws::CloseCode::going_away, reason_of(state));
  bench::measure(state, [&] {
    Bytes payload = Bytes(out).first(size);
    benchmark::DoNotOptimize(payload);
    benchmark::DoNotOptimize(ws::parse_close(payload));
  });
}

void decode_close(benchmark::State& state) {
  std::array<std::uint8_t, ws::max_control_bytes> payload;
  const std::size_t size = ws::write_close(payload.data(), ws::CloseCode::going_away, reason_of(state));
  std::vector<std::uint8_t> sent(ws::frame_size(size, true));
  ws::write_masked_frame(sent.data(), ws::Opcode::close, Bytes(payload).first(size), 0x3dfa2137);
  std::vector<std::uint8_t> received(sent.size());
  BlockPool blocks(1 << 20);
  const ws::DecoderOptions options;
  ws::Decoder decoder(options, blocks);
  bench::measure(state, [&] {
    std::memcpy(received.data(), sent.data(), sent.size());
    MutableBytes in = received;
    benchmark::DoNotOptimize(in);
    bench::require(decoder.next(in).event == ws::DecoderEvent::close);
    decoder.reset();
  });
}

void copy_of(benchmark::State& state) {
  std::array<std::uint8_t, ws::max_control_bytes> out;
  std::string_view reason = reason_of(state);
  bench::measure(state, [&] {
    benchmark::DoNotOptimize(reason);
    std::memcpy(out.data() + 2, reason.data(), reason.size());
    benchmark::DoNotOptimize(out);
  });
}

BENCHMARK(copy_of)->Name("limit/memcpy")->Arg(0)->Arg(16)->Arg(123);
BENCHMARK(write_close)->Arg(0)->Arg(16)->Arg(123);
BENCHMARK(parse_close)->Arg(0)->Arg(16)->Arg(123);
BENCHMARK(decode_close)->Arg(0)->Arg(16)->Arg(123);

}  // namespace
