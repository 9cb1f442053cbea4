// libFuzzer target: the decoder agrees with the reference decoder after every piece of the input, whole and
// streaming, as a server and as a client. The first bytes of the input choose the options and how the rest is
// cut.
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include <levada/core/random.h>
#include <levada/tests/support/decoding.h>

using namespace levada;
using namespace levada::ws;
using namespace levada::ws::test;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size < 4) return 0;
  DecoderOptions options;
  options.role = (data[0] & 1) != 0 ? Role::client : Role::server;
  options.check_utf8 = (data[0] & 2) == 0;
  options.max_message_bytes = (data[0] & 4) != 0 ? data[1] : 100'000u;
  options.max_fragments = (data[0] & 8) != 0 ? 3 : 1000;
  const std::string wire(to_text({data + 4, size - 4}));
  SeededRandom random(static_cast<std::uint64_t>(data[2]) << 8 | data[3]);
  const std::uint64_t longest = 1 + (data[2] & 63u);
  std::vector<std::size_t> cuts;
  for (std::size_t at = 0; (at += 1 + random.below(longest)) < wire.size();) cuts.push_back(at);
  for (const bool streaming : {false, true}) {
    options.streaming = streaming;
    for (const Feed feed : {Feed::copied, Feed::moved, Feed::directly}) {
      std::string problem = difference(options, wire, cuts, feed);
      if (problem.empty()) problem = difference(options, wire, {}, feed);
      if (problem.empty()) continue;
      std::fprintf(stderr, "%s\n", problem.c_str());
      std::abort();
    }
  }
  return 0;
}
