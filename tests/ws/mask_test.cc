#include <levada/ws/mask.h>

#include <doctest/doctest.h>

#include <algorithm>
#include <cstring>
#include <random>
#include <string_view>
#include <vector>

using namespace levada;
using namespace levada::ws;

namespace {

constexpr std::uint8_t key_bytes[4] = {0x37, 0xfa, 0x21, 0x3d};

MaskKey wire_key() {
  MaskKey key;
  std::memcpy(&key, key_bytes, 4);
  return key;
}

std::vector<std::uint8_t> random_bytes(std::size_t size) {
  static std::minstd_rand random(1);
  std::vector<std::uint8_t> bytes(size);
  for (auto& byte : bytes) byte = static_cast<std::uint8_t>(random() >> 8);
  return bytes;
}

// The RFC's formula, word for word: transformed-octet-i = original-octet-i XOR masking-key-octet-(i MOD 4).
std::vector<std::uint8_t> masked(Bytes from, std::size_t offset) {
  std::vector<std::uint8_t> to(from.begin(), from.end());
  for (std::size_t i = 0; i < to.size(); ++i) to[i] ^= key_bytes[(i + offset) % 4];
  return to;
}

std::vector<std::size_t> test_sizes() {
  std::vector<std::size_t> sizes;
  for (std::size_t size = 0; size <= 300; ++size) sizes.push_back(size);
  for (const std::size_t large : {1023u, 1024u, 1025u, 1056u, 1151u, 4096u, 5003u, 65535u})
    sizes.push_back(large);
  return sizes;
}

// Runs `mask(to, from, size)` on memory at `alignment` within a cache line and checks what is written, and
// that nothing else is.
template <class Mask>
bool masks_exactly(std::size_t alignment, std::size_t size, std::size_t offset, bool in_place, Mask mask) {
  constexpr std::size_t margin = 64;
  const std::vector<std::uint8_t> original = random_bytes(size + 2 * margin + 64);
  std::vector<std::uint8_t> memory(original.size() + 64);
  std::uint8_t* line = memory.data() + (64 - reinterpret_cast<std::uintptr_t>(memory.data()) % 64) % 64;
  std::copy(original.begin(), original.end(), line);

  const std::size_t at = margin + alignment;
  std::vector<std::uint8_t> expected = original;
  const std::vector<std::uint8_t> source(original.begin() + static_cast<std::ptrdiff_t>(at),
                                         original.begin() + static_cast<std::ptrdiff_t>(at + size));
  std::ranges::copy(masked(source, offset), expected.begin() + static_cast<std::ptrdiff_t>(at));
  mask(line + at, in_place ? line + at : source.data(), size);
  return std::equal(expected.begin(), expected.end(), line);
}

}  // namespace

TEST_CASE("masking gives the bytes of the RFC's example") {
  std::uint8_t text[] = {'H', 'e', 'l', 'l', 'o'};
  mask_in_place(text, wire_key());
  const std::uint8_t expected[] = {0x7f, 0x9f, 0x4d, 0x51, 0x58};  // RFC 6455 section 5.7
  CHECK(std::ranges::equal(text, expected));
  mask_in_place(text, wire_key());
  CHECK(to_text(text) == "Hello");
}

TEST_CASE("a rotated key begins with the key byte of the offset") {
  for (std::size_t offset = 0; offset < 9; ++offset) {
    const MaskKey key = rotate(wire_key(), offset);
    std::uint8_t bytes[4];
    std::memcpy(bytes, &key, 4);
    for (std::size_t i = 0; i < 4; ++i) CHECK(bytes[i] == key_bytes[(offset + i) % 4]);
  }
}

TEST_CASE("masking in place is right at every size, alignment and phase and touches nothing else") {
  for (const std::size_t size : test_sizes()) {
    for (std::size_t alignment = 0; alignment < 64; ++alignment) {
      const std::size_t offset = (size + alignment) % 7;  // every phase meets every size
      const bool right = masks_exactly(alignment, size, offset, true,
                                       [&](std::uint8_t* to, const std::uint8_t*, std::size_t) {
                                         mask_in_place({to, size}, wire_key(), offset);
                                       });
      REQUIRE_MESSAGE(right, "size ", size, " alignment ", alignment, " offset ", offset);
    }
  }
}

TEST_CASE("masking while copying is right at every size, alignment and phase and touches nothing else") {
  for (const std::size_t size : test_sizes()) {
    for (std::size_t alignment = 0; alignment < 64; ++alignment) {
      const std::size_t offset = (size + alignment) % 7;
      const bool right = masks_exactly(alignment, size, offset, false,
                                       [&](std::uint8_t* to, const std::uint8_t* from, std::size_t) {
                                         mask_copy(to, {from, size}, wire_key(), offset);
                                       });
      REQUIRE_MESSAGE(right, "size ", size, " alignment ", alignment, " offset ", offset);
    }
  }
}

TEST_CASE("each mask kernel is right at every size, alignment and phase and touches nothing else") {
  for (const MaskKernel& kernel : mask_kernels()) {
    CAPTURE(to_string(kernel.tier));
    for (const std::size_t size : test_sizes()) {
      if (size < mask_kernel_min) continue;
      for (std::size_t alignment = 0; alignment < 64; ++alignment) {
        for (std::size_t phase = 0; phase < 4; ++phase) {
          if (size > 300 && phase != alignment % 4) continue;
          const bool in_place = (alignment + size + phase / 2) % 2 == 0;
          const bool right = masks_exactly(alignment, size, phase, in_place,
                                           [&](std::uint8_t* to, const std::uint8_t* from, std::size_t) {
                                             kernel.run(to, from, size, rotate(wire_key(), phase));
                                           });
          REQUIRE_MESSAGE(right, "size ", size, " alignment ", alignment, " phase ", phase);
        }
      }
    }
  }
}

TEST_CASE("masking in two parts with the offset equals masking the whole at every split") {
  for (const std::size_t size : {1u, 7u, 33u, 150u, 1200u}) {
    const std::vector<std::uint8_t> original = random_bytes(size);
    const std::vector<std::uint8_t> expected = masked(original, 0);
    for (std::size_t split = 0; split <= size; ++split) {
      std::vector<std::uint8_t> data = original;
      const MutableBytes whole(data);
      mask_in_place(whole.first(split), wire_key());
      mask_in_place(whole.subspan(split), wire_key(), split);
      REQUIRE_MESSAGE(data == expected, "size ", size, " split ", split);
    }
  }
}

TEST_CASE("each mask kernel says whether what it wrote is ASCII, wherever the other byte is") {
  for (const MaskKernel& kernel : mask_kernels()) {
    CAPTURE(to_string(kernel.tier));
    for (const std::size_t size : {64u, 65u, 100u, 128u, 129u, 200u, 257u, 1024u, 1100u, 1300u}) {
      for (std::size_t bad = 0; bad <= size; ++bad) {  // `size`: none
        std::vector<std::uint8_t> text(size, 'a');
        if (bad < size) text[bad] = 0x80;
        // One byte after a boundary of 32, so that a kernel that aligns its stores has a head to mask.
        std::vector<std::uint8_t> memory(size + 64);
        const auto address = reinterpret_cast<std::uintptr_t>(memory.data());
        std::uint8_t* data = memory.data() + (32 - address % 32) + 1;
        std::ranges::copy(masked(text, 0), data);
        const bool ascii = kernel.run(data, data, size, wire_key());
        REQUIRE_MESSAGE(ascii == (bad == size), "size ", size, " at ", bad);
      }
    }
  }
}
