// Compressed echoes through the whole engine in user space, from received bytes to the send queue, beside zlib and
// libdeflate alone that inflate and deflate the same messages.
//
//   shared       each message stands alone; one context for all connections
//   dedicated    what is sent refers to the messages before (context takeover)
//   final        as shared, with final blocks: libdeflate
//
// items_per_second counts messages and bytes_per_second uncompressed bytes, per second of CPU time.
#include <levada/bench/micro/deflated_echo.h>
#include <levada/bench/micro/micro.h>

namespace {

using namespace levada;
using namespace levada::bench::deflated;

void run(benchmark::State& state, auto& echo) {
  bench::measure(state, bench::Allocates::nothing, message_count, [&] { echo.turn(); });
  const std::int64_t messages = state.iterations() * static_cast<std::int64_t>(message_count);
  state.SetItemsProcessed(messages);
  state.SetBytesProcessed(messages * state.range(0));
}

std::size_t size_of(const benchmark::State& state) {
  return static_cast<std::size_t>(state.range(0));
}

void levada_echo(benchmark::State& state, ws::DeflateContext context, bool final_blocks) {
  EngineEcho echo(size_of(state), context, final_blocks);
  run(state, echo);
}

void zlib_echo(benchmark::State& state, bool takeover) {
  ZlibEcho echo(size_of(state), takeover);
  run(state, echo);
}

void libdeflate_echo(benchmark::State& state) {
  LibdeflateEcho echo(size_of(state));
  run(state, echo);
}

constexpr auto shared = ws::DeflateContext::shared, dedicated = ws::DeflateContext::dedicated;

BENCHMARK_CAPTURE(levada_echo, shared, shared, false)->Arg(128)->Arg(1024)->Arg(16384);
BENCHMARK_CAPTURE(zlib_echo, shared, false)->Arg(128)->Arg(1024)->Arg(16384);
BENCHMARK_CAPTURE(levada_echo, dedicated, dedicated, false)->Arg(128)->Arg(1024)->Arg(16384);
BENCHMARK_CAPTURE(zlib_echo, dedicated, true)->Arg(128)->Arg(1024)->Arg(16384);
BENCHMARK_CAPTURE(levada_echo, final, shared, true)->Arg(128)->Arg(1024)->Arg(16384);
BENCHMARK(libdeflate_echo)->Arg(128)->Arg(1024)->Arg(16384);

}  // namespace
