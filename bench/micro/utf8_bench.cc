// Validation of hot texts, and unmasking with validation, beside memcpy of as many bytes. `unmask_then_feed`
// is what `unmask_utf8` has to beat: two passes over the whole payload.
#include <cstring>
#include <string>
#include <vector>

#include <levada/bench/micro/micro.h>
#include <levada/bench/micro/samples.h>
#include <levada/ws/utf8.h>

namespace {

using namespace levada;
using bench::Script;
using bench::scripts;

constexpr std::int64_t sizes[] = {0,   1,    16,   64,    125,   126,   127,     128,
                                  256, 1024, 4096, 16384, 65535, 65536, 1 << 20, 64 << 20};

template <class Work>
void run(benchmark::State& state, const Script& script, Work work) {
  std::vector<std::uint8_t> text = bench::text_of(script, static_cast<std::size_t>(state.range(0)));
  bool good = true;
  bench::measure(state, [&] {
    benchmark::DoNotOptimize(text.data());
    good &= work(text);
    benchmark::ClobberMemory();
  });
  bench::require(good);
  state.SetBytesProcessed(static_cast<std::int64_t>(state.iterations()) * state.range(0));
}

void copy(benchmark::State& state) {
  std::vector<std::uint8_t> to(static_cast<std::size_t>(state.range(0)) + 1);
  run(state, scripts[0], [&](Bytes text) {
    if (!text.empty()) std::memcpy(to.data(), text.data(), text.size());
    benchmark::DoNotOptimize(to.data());
    return true;
  });
}

void feed(benchmark::State& state, const Script& script) {
  run(state, script, ws::is_utf8);
}

void kernel(benchmark::State& state, const Script& script, const ws::Utf8Kernel& kernel) {
  run(state, script, [&](Bytes text) {
    return kernel.run(ws::utf8_boundary, text.data(), text.size()) == ws::utf8_boundary;
  });
}

// The key is zero, so that the text is the same in every round; no kernel looks at the key's value.
ws::MaskKey zero_key() {
  ws::MaskKey key = 0;
  benchmark::DoNotOptimize(key);
  return key;
}

void unmask_utf8(benchmark::State& state, const Script& script) {
  run(state, script, [key = zero_key()](MutableBytes text) {
    ws::Utf8Validator validator;
    return ws::unmask_utf8(text, key, 0, validator) && validator.complete();
  });
}

void unmask_then_feed(benchmark::State& state, const Script& script) {
  run(state, script, [key = zero_key()](MutableBytes text) {
    ws::mask_in_place(text, key);
    return ws::is_utf8(text);
  });
}

const bool registered = [] {
  for (const std::int64_t size : sizes) {
    benchmark::RegisterBenchmark("memcpy", copy)->Arg(size);
    for (const Script& script : scripts) {
      const auto named = [&](const char* what) { return std::string(what) + "/" + script.name; };
      benchmark::RegisterBenchmark(named("is_utf8").c_str(), feed, script)->Arg(size);
      benchmark::RegisterBenchmark(named("unmask_utf8").c_str(), unmask_utf8, script)->Arg(size);
      benchmark::RegisterBenchmark(named("unmask_then_feed").c_str(), unmask_then_feed, script)->Arg(size);
      for (const ws::Utf8Kernel& each : ws::utf8_kernels()) {
        const std::string name = std::string("kernel/") + to_string(each.tier);
        benchmark::RegisterBenchmark(named(name.c_str()).c_str(), kernel, script, each)->Arg(size);
      }
    }
  }
  return true;
}();

}  // namespace
