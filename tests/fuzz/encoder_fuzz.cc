// libFuzzer target: whatever is encoded is decoded to the same, by the engine and by the reference. The input
// is a list of frames: a byte for opcode and FIN, a byte for the length, and the payload.
#include <cstdlib>
#include <string>
#include <vector>

#include <levada/tests/support/decoding.h>
#include <levada/ws/encoder.h>

using namespace levada;
using namespace levada::ws;
using namespace levada::ws::test;

namespace {

void require(bool condition) {
  if (!condition) std::abort();
}

void append(std::string& wire, Opcode opcode, Bytes payload, bool fin, bool masked, MaskKey key) {
  std::vector<std::uint8_t> out(frame_size(payload.size(), masked));
  const std::size_t size = masked ? write_masked_frame(out.data(), opcode, payload, key, fin)
                                  : write_frame(out.data(), opcode, payload, fin);
  require(size == out.size());
  if (!masked) {  // the same where it lies
    std::vector<std::uint8_t> memory(max_header_bytes + payload.size());
    std::copy(payload.begin(), payload.end(), memory.begin() + max_header_bytes);
    const Bytes frame = frame_in_place(memory.data() + max_header_bytes, payload.size(), opcode, fin);
    require(std::equal(frame.begin(), frame.end(), out.begin(), out.end()));
  }
  wire += to_text(out);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  Bytes in(data, size);
  if (in.size() < 5) return 0;
  const bool masked = (in[0] & 1) != 0;
  const MaskKey key = detail::load<MaskKey>(in.data() + 1);
  in = in.subspan(5);
  std::string wire, message;
  std::vector<Event> expected;
  bool open = false;
  while (in.size() >= 2) {
    const bool control = (in[0] & 1) != 0, fin = (in[0] & 2) != 0;
    // Lengths around the boundaries too: what the input does not have is filled up.
    const std::size_t length = control ? in[1] % 126 : (in[0] & 4) != 0 ? in[1] * 300u : in[1];
    const std::size_t given = std::min<std::size_t>(in[1], in.size() - 2);
    std::vector<std::uint8_t> payload(in.begin() + 2, in.begin() + 2 + static_cast<std::ptrdiff_t>(given));
    payload.resize(length, in[1]);
    if (control) {
      append(wire, Opcode::ping, payload, true, masked, key);
      expected.push_back({DecoderEvent::ping, Opcode::binary, std::string(to_text(payload))});
    } else {
      append(wire, open ? Opcode::continuation : Opcode::binary, payload, fin, masked, key);
      message += to_text(payload);
      if (fin) expected.push_back({DecoderEvent::message, Opcode::binary, std::exchange(message, {})});
      open = !fin;
    }
    in = in.subspan(2 + given);
  }
  const DecoderOptions options{.role = masked ? Role::server : Role::client};
  BlockPool pool(1 << 20);
  Decoding decoding(options, pool, Feed::copied);
  decoding.feed(wire);
  require(decoding.problem().empty());
  require(decoding.events() == expected);
  std::vector<std::size_t> cuts;
  for (std::size_t at = 0; (at += 1 + (size % 50)) < wire.size();) cuts.push_back(at);
  require(difference(options, wire, cuts).empty());
  return 0;
}
