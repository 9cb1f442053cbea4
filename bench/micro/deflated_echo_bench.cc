// Compressed echoes through the whole engine in user space, beside zlib and libdeflate alone that inflate and deflate
// the same messages: deflated_echo.h, whose instructions bench/gate compares.
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

template <class Work>
void run(benchmark::State& state, Work& work) {
  bench::measure(state, bench::Allocates::nothing, message_count, [&work] { work.turn(); });
  const std::int64_t messages = state.iterations() * static_cast<std::int64_t>(message_count);
  state.SetItemsProcessed(messages);
  state.SetBytesProcessed(messages * state.range(0));
}

void levada_echo(benchmark::State& state, ws::DeflateContext context, bool final_blocks) {
  LevadaEcho echo(static_cast<std::size_t>(state.range(0)), context, final_blocks);
  run(state, echo);
}

void zlib_echo(benchmark::State& state, bool takeover) {
  ZlibEcho echo(static_cast<std::size_t>(state.range(0)), takeover);
  run(state, echo);
}

void libdeflate_echo(benchmark::State& state) {
  LibdeflateEcho echo(static_cast<std::size_t>(state.range(0)));
  run(state, echo);
}

void all_sizes(benchmark::internal::Benchmark* benchmark) {
  for (const std::size_t size : sizes) benchmark->Arg(static_cast<std::int64_t>(size));
}

constexpr auto shared = ws::DeflateContext::shared, dedicated = ws::DeflateContext::dedicated;

BENCHMARK_CAPTURE(levada_echo, shared, shared, false)->Apply(all_sizes);
BENCHMARK_CAPTURE(zlib_echo, shared, false)->Apply(all_sizes);
BENCHMARK_CAPTURE(levada_echo, dedicated, dedicated, false)->Apply(all_sizes);
BENCHMARK_CAPTURE(zlib_echo, dedicated, true)->Apply(all_sizes);
BENCHMARK_CAPTURE(levada_echo, final, shared, true)->Apply(all_sizes);
BENCHMARK(libdeflate_echo)->Apply(all_sizes);

}  // namespace
