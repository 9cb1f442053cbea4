// The send queue: what it costs to queue frames, hand them to the kernel and let them go; and what it costs when the
// kernel takes nothing and they have to be copied to memory of their own, beside memcpy of as many bytes.
#include <sys/uio.h>
#include <array>
#include <cstring>
#include <vector>

#include <levada/bench/micro/micro.h>
#include <levada/core/block_pool.h>
#include <levada/net/send_queue.h>

namespace {

using namespace levada;
using namespace levada::net;

struct Memory {
  explicit Memory(const benchmark::State& state)
      : frame(static_cast<std::size_t>(state.range(0))),
        count(static_cast<std::size_t>(state.range(1))),
        bytes(count * stride(), 'x') {}

  // Adjacent views become one segment; a byte between them keeps them apart.
  std::size_t stride() const { return frame + 1; }
  Bytes view(std::size_t index) const { return {bytes.data() + index * stride(), frame}; }

  std::size_t frame, count;
  std::vector<std::uint8_t> bytes;
};

// Hands all that is queued to a kernel that takes everything.
void send_all(SendQueue& queue, SegmentPool& pool) {
  std::array<iovec, 64> vectors;
  while (!queue.empty()) {
    std::size_t total = 0;
    benchmark::DoNotOptimize(queue.gather(vectors.data(), vectors.size(), total));
    queue.advance(pool, total);
  }
}

// Views one after the other in memory, as the replies of one turn are.
void adjacent(benchmark::State& state) {
  const Memory memory(state);
  SegmentPool pool;
  SendQueue queue;
  bench::measure(state, bench::Allocates::nothing, state.range(1), [&] {
    for (std::size_t i = 0; i < memory.count; i++) {
      queue.append(pool, {memory.bytes.data() + i * memory.frame, memory.frame});
    }
    send_all(queue, pool);
  });
}

void scattered(benchmark::State& state) {
  const Memory memory(state);
  SegmentPool pool;
  SendQueue queue;
  bench::measure(state, bench::Allocates::nothing, state.range(1), [&] {
    for (std::size_t i = 0; i < memory.count; i++) queue.append(pool, memory.view(i));
    send_all(queue, pool);
  });
}

// With a reference on the memory, as a broadcast's frames are.
void owned(benchmark::State& state) {
  const Memory memory(state);
  BlockPool blocks(1 << 20);
  Block* block = blocks.allocate(memory.frame);
  SegmentPool pool;
  SendQueue queue;
  bench::measure(state, bench::Allocates::nothing, state.range(1), [&] {
    for (std::size_t i = 0; i < memory.count; i++) {
      block->add_reference();
      queue.append(pool, {block->data(), memory.frame}, block);
    }
    send_all(queue, pool);
  });
  block->drop_reference();
}

void spilled(benchmark::State& state) {
  const Memory memory(state);
  BlockPool blocks(std::size_t{16} << 20);
  SegmentPool pool;
  SendQueue queue;
  bench::measure(state, bench::Allocates::nothing, state.range(1), [&] {
    for (std::size_t i = 0; i < memory.count; i++) queue.append(pool, memory.view(i));
    queue.spill(pool, blocks);
    send_all(queue, pool);
  });
}

void copy_of(benchmark::State& state) {
  const Memory memory(state);
  std::vector<std::uint8_t> to(memory.bytes.size());
  bench::measure(state, bench::Allocates::nothing, state.range(1), [&] {
    for (std::size_t i = 0; i < memory.count; i++) {
      std::memcpy(to.data() + i * memory.frame, memory.view(i).data(), memory.frame);
    }
    benchmark::ClobberMemory();
  });
}

// Bytes of a frame, frames queued before they are sent.
void workloads(benchmark::internal::Benchmark* benchmark) {
  benchmark->Args({16, 1})->Args({16, 64})->Args({512, 64})->Args({4096, 16})->Args({65536, 4});
}

BENCHMARK(adjacent)->Apply(workloads);
BENCHMARK(scattered)->Apply(workloads);
BENCHMARK(owned)->Apply(workloads);
BENCHMARK(spilled)->Apply(workloads);
BENCHMARK(copy_of)->Name("memcpy")->Apply(workloads);

}  // namespace
