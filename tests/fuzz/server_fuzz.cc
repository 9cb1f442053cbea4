// libFuzzer target: the whole server over the simulated backend. The input decides everything that the simulator leaves
// open (tests/simulation): what peers and users do, where bytes are cut, faults, the clock. The rules are the
// simulator's. The first byte says how many random bytes, made from the next two, follow the input (in units of 16): so
// that a short input, and a fuzzer that begins with nothing, gets far.
#include <cstdio>
#include <cstdlib>
#include <vector>

#include <levada/core/random.h>
#include <levada/tests/simulation/simulator.h>

using namespace levada;
using namespace levada::ws::test;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  constexpr int most_steps = 1000;
  if (size < 3) return 0;
  std::vector<std::uint8_t> script(data + 3, data + size);
  SeededRandom random(data[1] * 256u + data[2]);
  for (unsigned left = data[0] * 16u; left > 0; left--)
    script.push_back(static_cast<std::uint8_t>(random.next()));
  Simulator simulator{Choices(Bytes(script))};
  bool good = true;
  for (int steps = 0; good && !simulator.exhausted() && steps < most_steps; steps++) good = simulator.step();
  if (simulator.finish()) return 0;
  std::fprintf(stderr, "broken: %s\nbefore that:\n%s", simulator.journal().problem().c_str(),
               simulator.journal().text().c_str());
  std::abort();
}
