// A timer wheel that holds few timers beside one that holds a million: what an operation costs must not depend on that.
// `expire` counts everything from setting a timer to its call, with the moves from level to level in between.
// `limit/touch` is what memory alone asks for: a random delay, and three random timers written to, which are the one that
// is moved and the neighbours that it leaves.
#include <cstdint>
#include <vector>

#include <levada/bench/micro/micro.h>
#include <levada/core/random.h>
#include <levada/net/timer_wheel.h>

namespace {

using namespace levada;
using namespace levada::net;

constexpr std::uint32_t longest_ms = 600'000;  // idle times and the like

std::uint32_t random_delay(SeededRandom& random) {
  return 1 + static_cast<std::uint32_t>(random.below(longest_ms));
}

// A wheel with `count` timers that are set.
struct Full {
  explicit Full(std::int64_t count) : timers(static_cast<std::size_t>(count)) {
    for (Timer& timer : timers) wheel.set(timer, wheel.now() + random_delay(random));
  }
  Timer& any() { return timers[random.below(timers.size())]; }

  SeededRandom random{1};
  TimerWheel wheel;
  std::vector<Timer> timers;
};

void move(benchmark::State& state) {
  Full full(state.range(0));
  bench::measure(state, [&] { full.wheel.set(full.any(), full.wheel.now() + random_delay(full.random)); });
}

void touch(benchmark::State& state) {
  struct alignas(Timer) Like {
    std::uint8_t bytes[sizeof(Timer)] = {};
  };
  SeededRandom random(1);
  std::vector<Like> timers(static_cast<std::size_t>(state.range(0)));
  bench::measure(state, [&] {
    benchmark::DoNotOptimize(random_delay(random));
    for (int i = 0; i < 3; i++) timers[random.below(timers.size())].bytes[0]++;
    benchmark::ClobberMemory();
  });
}

void cancel_and_set(benchmark::State& state) {
  Full full(state.range(0));
  bench::measure(state, [&] {
    Timer& timer = full.any();
    full.wheel.cancel(timer);
    full.wheel.set(timer, full.wheel.now() + random_delay(full.random));
  });
}

void expire(benchmark::State& state) {
  Full full(state.range(0));
  constexpr std::int64_t batch = 1000;
  std::int64_t expired = 0, wanted = 0;
  bench::measure(state, bench::Allocates::nothing, batch, [&] {
    wanted += batch;
    while (expired < wanted) {
      full.wheel.advance(full.wheel.now() + full.wheel.next_event_ms(), [&](Timer& timer) {
        expired++;
        full.wheel.set(timer, full.wheel.now() + random_delay(full.random));
      });
    }
  });
}

BENCHMARK(touch)->Name("limit/touch")->Arg(1000)->Arg(1'000'000);
BENCHMARK(move)->Arg(1000)->Arg(1'000'000);
BENCHMARK(cancel_and_set)->Arg(1000)->Arg(1'000'000);
BENCHMARK(expire)->Arg(1000)->Arg(1'000'000);

}  // namespace
