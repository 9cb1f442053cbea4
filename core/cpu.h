// The SIMD instructions of the machine that the program runs on, and how a function with one kernel per tier
// picks its own.
//
// Model: a kernel table lists implementations in ascending tiers and starts with `scalar`, which every
// machine runs. The tier of the machine is found once; a table's runnable part is a prefix of it, and its
// last kernel is the one to use.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

namespace levada {

// Ascending on each architecture: scalar < sse2 < avx2 < avx512 on x86-64, scalar < neon on AArch64. `avx512`
// means F, BW and VL. `scalar` is what a compiler emits without being asked, which on both may well be vector
// code.
enum class SimdTier : std::uint8_t { scalar, sse2, avx2, avx512, neon };

// The name as LEVADA_SIMD spells it; static storage.
const char* to_string(SimdTier tier);

// The highest tier of this machine, lowered by the environment variable LEVADA_SIMD (`scalar`, `sse2`,
// `avx2`, ...) if it is set. Found at the first call and fixed from then on. Any thread.
SimdTier best_simd_tier();

// `best`, or the tier that `name` names if that is lower. An unknown name changes nothing.
SimdTier limit_simd_tier(SimdTier best, std::string_view name);

// One implementation of `Function`, and the tier that it needs.
template <class Function>
struct SimdKernel {
  SimdTier tier;
  Function* run;
};

// The kernels of `table` that this machine runs, at least the first; the last is the best. Lives as long as
// `table` does.
template <class Function, std::size_t Size>
std::span<const SimdKernel<Function>> runnable(const std::array<SimdKernel<Function>, Size>& table) {
  static_assert(Size > 0);
  std::size_t count = 1;
  while (count < Size && table[count].tier <= best_simd_tier()) ++count;
  return {table.data(), count};
}

}  // namespace levada
