// What all microbenchmarks share: a measuring loop that counts allocations, and a main (micro.cc).
//
// Model: measure() runs the work a few times to warm up, then in Google Benchmark's loop, and reads the allocation counters of
// tests/support/count_alloc.h right before and right after that loop: every iteration is counted, none is sampled. The
// case gets the counters `allocs/op` and `bytes/op`. A case that allocates although it must not fails, and with it the
// program. So does a program whose controls are off: an empty loop has to read 0, a loop with one malloc exactly 1.
#pragma once

#include <benchmark/benchmark.h>

#include <cstdint>

#include <levada/bench/micro/require.h>
#include <levada/tests/support/count_alloc.h>

namespace levada::bench {

// `nothing`: the engine's own work in the steady state. `freely`: what it is compared with, or what is meant to allocate.
enum class Allocates : std::uint8_t { nothing, freely };

// Enters the counts of a case, which has run `ops` operations.
void report(benchmark::State& state, Allocates allowed, std::int64_t ops, std::uint64_t allocations,
            std::uint64_t bytes);

inline constexpr int warm_up_runs = 3;

// Warms `work` up, then measures it. One run of it is `ops` operations.
template <class Work>
void measure(benchmark::State& state, Allocates allowed, std::int64_t ops, Work work) {
  for (int i = 0; i < warm_up_runs; i++) work();
  const std::uint64_t allocations = test::allocations(), bytes = test::allocated_bytes();
  for ([[maybe_unused]] auto _ : state) work();
  const std::uint64_t allocations_now = test::allocations(), bytes_now = test::allocated_bytes();
  report(state, allowed, ops * state.iterations(), allocations_now - allocations, bytes_now - bytes);
}

// The same for one operation a run that allocates nothing.
template <class Work>
void measure(benchmark::State& state, Work work) {
  measure(state, Allocates::nothing, 1, work);
}

}  // namespace levada::bench
