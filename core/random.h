// Random numbers: one source that cannot be predicted, one that can be repeated.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include <levada/core/bytes.h>

namespace levada {

// Fills `out` from the kernel's CSPRNG. Blocks only before the kernel's pool is first seeded. Any thread.
void fill_random(MutableBytes out);

// The kernel's CSPRNG, drawn in blocks so that a 4-byte mask key costs no system call (RFC 6455 5.3 and 10.3
// ask for keys that a peer cannot predict). Bytes are wiped as they are used. One thread at a time.
class SecureRandom {
 public:
  std::uint32_t next_u32() {
    if (used_ + sizeof(std::uint32_t) > block_.size()) refill();
    std::uint32_t value;
    std::memcpy(&value, block_.data() + used_, sizeof value);
    std::memset(block_.data() + used_, 0, sizeof value);
    used_ += sizeof value;
    return value;
  }

 private:
  void refill();

  std::array<std::uint8_t, 4096> block_{};
  std::size_t used_ = sizeof block_;
};

// SplitMix64: the same seed gives the same sequence on every machine. For tests, simulation and load
// schedules.
class SeededRandom {
 public:
  explicit SeededRandom(std::uint64_t seed) : state_(seed) {}

  std::uint64_t next() {
    state_ += 0x9E3779B97F4A7C15u;
    std::uint64_t mixed = state_;
    mixed = (mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9u;
    mixed = (mixed ^ (mixed >> 27)) * 0x94D049BB133111EBu;
    return mixed ^ (mixed >> 31);
  }

  // A number from 0 to bound - 1; `bound` is at least 1.
  std::uint64_t below(std::uint64_t bound) { return next() % bound; }

  // True about once in `n` calls.
  bool one_in(std::uint64_t n) { return below(n) == 0; }

 private:
  std::uint64_t state_;
};

}  // namespace levada
