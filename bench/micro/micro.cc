#include <levada/bench/micro/micro.h>

#include <cstdio>
#include <cstdlib>
#include <string>

namespace levada::bench {
namespace {

bool failed = false;

void fail(const std::string& what) {
  std::fprintf(stderr, "%s\n", what.c_str());
  failed = true;
}

// A control: `work` allocates exactly `wanted` times in each iteration.
template <class Work>
void control(benchmark::State& state, double wanted, Work work) {
  measure(state, Allocates::freely, 1, work);
  const double counted = state.counters["allocs/op"].value / static_cast<double>(state.iterations());
  if (counted != wanted) {
    fail("the control that allocates " + std::to_string(wanted) + " times an iteration read " +
         std::to_string(counted));
  }
}

void control_empty(benchmark::State& state) {
  control(state, 0, [] {});
}
BENCHMARK(control_empty)->Name("control/empty")->Iterations(10'000);

void control_one_malloc(benchmark::State& state) {
  control(state, 1, [] {
    void* memory = std::malloc(32);
    benchmark::DoNotOptimize(memory);
    std::free(memory);
  });
}
BENCHMARK(control_one_malloc)->Name("control/one_malloc")->Iterations(10'000);

// Shows nothing.
class Silence : public benchmark::BenchmarkReporter {
 public:
  bool ReportContext(const Context&) override { return true; }
  void ReportRuns(const std::vector<Run>&) override {}
};

}  // namespace

void report(benchmark::State& state, Allocates allowed, std::int64_t ops, std::uint64_t allocations,
            std::uint64_t bytes) {
  state.SetItemsProcessed(ops);
  const double per_run = static_cast<double>(state.iterations()) / static_cast<double>(ops);
  state.counters["allocs/op"] = {static_cast<double>(allocations) * per_run,
                                 benchmark::Counter::kAvgIterations};
  state.counters["bytes/op"] = {static_cast<double>(bytes) * per_run, benchmark::Counter::kAvgIterations};
  if (allowed == Allocates::freely || allocations == 0) return;
  fail(std::to_string(allocations) + " allocations in " + std::to_string(ops) +
       " operations that must not allocate");
  state.SkipWithError("allocates");
}

}  // namespace levada::bench

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;
  levada::bench::Silence silence;
  benchmark::RunSpecifiedBenchmarks(&silence, "^control/");  // whatever is chosen below
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
  return levada::bench::failed ? 1 : 0;
}
