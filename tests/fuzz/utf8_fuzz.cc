// libFuzzer target: the validator agrees with itself. Every kernel reaches the state that the scalar one
// reaches byte by byte, and so does the validator fed in pieces, masked or not. The input's first byte
// chooses the length of the pieces.
#include <algorithm>
#include <cstdlib>
#include <vector>

#include <levada/ws/utf8.h>

using namespace levada;

namespace {

void require(bool condition) {
  if (!condition) std::abort();
}

ws::Utf8State byte_by_byte(Bytes text) {
  const ws::Utf8Kernel& scalar = ws::utf8_kernels().front();
  ws::Utf8State state = ws::utf8_boundary;
  for (const std::uint8_t byte : text) state = scalar.run(state, &byte, 1);
  return state;
}

void check_kernels(Bytes text, ws::Utf8State expected) {
  for (const ws::Utf8Kernel& kernel : ws::utf8_kernels()) {
    require(kernel.run(ws::utf8_boundary, text.data(), text.size()) == expected);
  }
}

void check_pieces(Bytes text, std::size_t piece, ws::Utf8State expected) {
  constexpr ws::MaskKey key = 0x80c3e137;
  std::vector<std::uint8_t> data(text.size());
  ws::mask_copy(data.data(), text, key);
  ws::Utf8Validator plain, masked;
  bool plain_good = true, masked_good = true;
  for (std::size_t at = 0; at < text.size(); at += piece) {
    const std::size_t size = std::min(piece, text.size() - at);
    plain_good = plain.feed(text.subspan(at, size));
    masked_good = ws::unmask_utf8(MutableBytes(data).subspan(at, size), key, at, masked);
    require(plain_good == masked_good);
  }
  require(plain_good == (expected != ws::utf8_error));
  require(plain.complete() == (expected == ws::utf8_boundary) && masked.complete() == plain.complete());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const Bytes text(data + 1, size - 1);
  const ws::Utf8State expected = byte_by_byte(text);
  check_kernels(text, expected);
  check_pieces(text, std::size_t{data[0]} + 1, expected);
  return 0;
}
