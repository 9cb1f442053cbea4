// The whole path of an echo in user space, from received bytes to the send queue, with the kernel taken out:
// a backend that delivers the same pipelined frames in every turn and takes all that is queued.
#include <fcntl.h>
#include <vector>

#include <levada/bench/micro/micro.h>
#include <levada/bench/micro/take_all.h>
#include <levada/ws/encoder.h>
#include <levada/ws/service.h>

namespace {

using namespace levada;

struct Echo {
  void on_message(ws::Connection& connection, ws::Opcode opcode, Bytes payload) {
    connection.send(opcode, payload);
  }
};

// An in-place echo writes its header over the key, so the frames are laid out anew for each turn; that copy
// is timed alone as `BM_lay_out`, to be taken off.
void BM_echo(benchmark::State& state) {
  const auto size = static_cast<std::size_t>(state.range(0));
  const auto count = static_cast<std::size_t>(state.range(1));
  const std::vector<std::uint8_t> payload(size, 'a');
  const std::size_t frame = ws::frame_size(size, true);
  std::vector<std::uint8_t> original(count * frame);
  for (std::size_t i = 0; i < count; i++) {
    ws::write_masked_frame(original.data() + i * frame, ws::Opcode::binary, payload, 0x11223344);
  }
  std::vector<std::uint8_t> received = original;
  Echo echo;
  net::Reactor reactor({}, &bench::TakeAll::make, nullptr);
  auto& backend = static_cast<bench::TakeAll&>(reactor.backend());
  backend.input = received;
  ws::Service service(reactor, ws::Role::server, echo);
  ws::Connection* connection = service.adopt_upgraded(Fd(open("/dev/null", O_RDWR | O_CLOEXEC)));
  bench::measure(state, bench::Allocates::nothing, static_cast<std::int64_t>(count), [&] {
    std::copy(original.begin(), original.end(), received.begin());
    reactor.run_once(0);
  });
  connection->terminate();
  backend.input = {};
  reactor.run_once(0);
}

void BM_lay_out(benchmark::State& state) {
  const auto size = ws::frame_size(static_cast<std::size_t>(state.range(0)), true);
  const std::vector<std::uint8_t> original(size * static_cast<std::size_t>(state.range(1)));
  std::vector<std::uint8_t> received = original;
  bench::measure(state, bench::Allocates::nothing, state.range(1), [&] {
    std::copy(original.begin(), original.end(), received.begin());
    benchmark::ClobberMemory();
  });
}

void workloads(benchmark::internal::Benchmark* benchmark) {
  benchmark->Args({16, 1})->Args({16, 16})->Args({125, 16})->Args({512, 1})->Args({4096, 1})->Args(
      {65536, 1});
}

BENCHMARK(BM_echo)->Apply(workloads);
BENCHMARK(BM_lay_out)->Apply(workloads);

}  // namespace
