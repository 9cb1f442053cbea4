// Masking of hot payloads, beside memcpy of as many bytes between hot buffers. Payloads start 6 bytes after a
// cache line does, as behind the header of a short client frame; `unaligned` goes through every alignment and phase of
// the key. The largest do not fit into a cache.
#include <algorithm>
#include <cstring>
#include <string>
#include <vector>

#include <levada/bench/micro/micro.h>
#include <levada/ws/mask.h>

namespace {

using namespace levada;

constexpr std::size_t headroom = 6;
constexpr std::int64_t sizes[] = {0,   1,    16,   64,    65,    125,   126,     127,     128,     256,
                                  512, 1024, 4096, 16384, 65535, 65536, 1 << 20, 4 << 20, 64 << 20};

// Payloads of one size, each `offset` bytes after a cache line, taken in turn: 16 KiB of them if they are
// that small. With one short payload only, each round would load bytes still in the store buffer, where the
// overlap of two stores costs a stall that bytes received from a socket never see.
class Payloads {
 public:
  explicit Payloads(std::size_t size, std::size_t offset = headroom)
      : size_(size),
        stride_((offset + size + 63) / 64 * 64),
        count_(std::max<std::size_t>(16384 / stride_, 1)) {
    memory_.resize(count_ * stride_ + 64, 'x');
    const auto address = reinterpret_cast<std::uintptr_t>(memory_.data());
    first_ = (64 - address % 64) % 64 + offset;
  }

  MutableBytes next() {
    at_ = at_ + 1 == count_ ? 0 : at_ + 1;
    return {memory_.data() + first_ + at_ * stride_, size_};
  }

 private:
  std::size_t size_;
  std::size_t stride_;  // from one payload to the next
  std::size_t count_;
  std::size_t first_ = 0;
  std::size_t at_ = 0;
  std::vector<std::uint8_t> memory_;
};

template <class Work>
void run(benchmark::State& state, Work work) {
  Payloads from(static_cast<std::size_t>(state.range(0)));
  Payloads to(static_cast<std::size_t>(state.range(0)));
  ws::MaskKey key = 0x3dfa2137;
  bench::measure(state, [&] {
    benchmark::DoNotOptimize(key);
    work(to, from, key);
    benchmark::ClobberMemory();
  });
  state.SetBytesProcessed(static_cast<std::int64_t>(state.iterations()) * state.range(0));
}

void copy(benchmark::State& state) {
  run(state, [](Payloads& to, Payloads& from, ws::MaskKey) {
    const MutableBytes source = from.next();
    std::memcpy(to.next().data(), source.data(), source.size());
  });
}

void mask_in_place(benchmark::State& state) {
  run(state, [](Payloads& to, Payloads&, ws::MaskKey key) { ws::mask_in_place(to.next(), key); });
}

// Arguments: bytes after a 64-byte boundary, position in the payload.
void unaligned(benchmark::State& state) {
  constexpr std::size_t size = 1024;
  Payloads payloads(size, static_cast<std::size_t>(state.range(0)));
  ws::MaskKey key = 0x3dfa2137;
  bench::measure(state, [&] {
    benchmark::DoNotOptimize(key);
    ws::mask_in_place(payloads.next(), key, static_cast<std::size_t>(state.range(1)));
    benchmark::ClobberMemory();
  });
  state.SetBytesProcessed(state.iterations() * static_cast<std::int64_t>(size));
}
BENCHMARK(unaligned)->ArgsProduct({benchmark::CreateDenseRange(0, 15, 1),
                                   benchmark::CreateDenseRange(0, 3, 1)});

void mask_copy(benchmark::State& state) {
  run(state, [](Payloads& to, Payloads& from, ws::MaskKey key) {
    ws::mask_copy(to.next().data(), from.next(), key);
  });
}

void kernel(benchmark::State& state, const ws::MaskKernel& kernel) {
  run(state, [&](Payloads& to, Payloads&, ws::MaskKey key) {
    const MutableBytes data = to.next();
    benchmark::DoNotOptimize(kernel.run(data.data(), data.data(), data.size(), key));
  });
}

const bool registered = [] {
  for (const std::int64_t size : sizes) {
    benchmark::RegisterBenchmark("memcpy", copy)->Arg(size);
    benchmark::RegisterBenchmark("mask_in_place", mask_in_place)->Arg(size);
    benchmark::RegisterBenchmark("mask_copy", mask_copy)->Arg(size);
    if (size < static_cast<std::int64_t>(ws::mask_kernel_min)) continue;
    for (const ws::MaskKernel& each : ws::mask_kernels()) {
      const std::string name = std::string("kernel/") + to_string(each.tier);
      benchmark::RegisterBenchmark(name.c_str(), kernel, each)->Arg(size);
    }
  }
  return true;
}();

}  // namespace
