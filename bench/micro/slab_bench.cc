// Slots of endpoints and blocks of a pool, beside malloc and free of as many bytes. `find` is what every event of the
// kernel pays to learn whose it is, among few connections and among a hundred thousand; `limit/index` reads a word of as
// many elements of an array, without a check of whether they are still the same.
#include <cstdlib>
#include <vector>

#include <levada/bench/micro/micro.h>
#include <levada/core/block_pool.h>
#include <levada/core/random.h>
#include <levada/core/slab.h>

namespace {

using namespace levada;

using Slots = Slab<128>;

std::vector<SlotId> fill(Slots& slots, std::int64_t count) {
  std::vector<SlotId> ids;
  for (std::int64_t i = 0; i < count; i++) ids.push_back(slots.allocate());
  return ids;
}

void find(benchmark::State& state) {
  Slots slots;
  const std::vector<SlotId> ids = fill(slots, state.range(0));
  SeededRandom random(1);
  bench::measure(state, [&] { benchmark::DoNotOptimize(slots.find(ids[random.below(ids.size())])); });
}

void index(benchmark::State& state) {
  struct alignas(128) Slot {
    std::uint64_t word = 1;
  };
  const std::vector<Slot> slots(static_cast<std::size_t>(state.range(0)));
  SeededRandom random(1);
  bench::measure(state, [&] { benchmark::DoNotOptimize(slots[random.below(slots.size())].word); });
}

void allocate_and_release(benchmark::State& state) {
  Slots slots;
  fill(slots, state.range(0));
  slots.release(slots.allocate().index);
  bench::measure(state, [&] {
    const SlotId id = slots.allocate();
    benchmark::DoNotOptimize(slots.at(id.index));
    slots.release(id.index);
  });
}

void block(benchmark::State& state) {
  BlockPool blocks(std::size_t{1} << 22);
  const auto size = static_cast<std::size_t>(state.range(0));
  bench::measure(state, [&] {
    Block* const block = blocks.allocate(size);
    benchmark::DoNotOptimize(block->data());
    block->drop_reference();
  });
}

void malloc_and_free(benchmark::State& state) {
  const auto size = static_cast<std::size_t>(state.range(0));
  bench::measure(state, bench::Allocates::freely, 1, [&] {
    void* memory = std::malloc(size);
    benchmark::DoNotOptimize(memory);
    std::free(memory);
  });
}

BENCHMARK(index)->Name("limit/index")->Arg(100)->Arg(100'000);
BENCHMARK(find)->Arg(100)->Arg(100'000);
BENCHMARK(allocate_and_release)->Arg(100)->Arg(100'000);
BENCHMARK(block)->Arg(512)->Arg(16384)->Arg(1 << 20);
BENCHMARK(malloc_and_free)->Arg(128)->Arg(512)->Arg(16384)->Arg(1 << 20);

}  // namespace
