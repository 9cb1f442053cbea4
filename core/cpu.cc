#include <levada/core/cpu.h>

#include <cstdlib>

namespace levada {
namespace {

constexpr std::array<const char*, 5> tier_names = {"scalar", "sse2", "avx2", "avx512", "neon"};

SimdTier machine_tier() {
#if defined(__x86_64__)
  __builtin_cpu_init();  // may run before the C++ runtime's own constructors
  const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512vl");
  if (avx512) return SimdTier::avx512;
  if (__builtin_cpu_supports("avx2")) return SimdTier::avx2;
  return SimdTier::sse2;
#elif defined(__aarch64__)
  return SimdTier::neon;
#else
  return SimdTier::scalar;
#endif
}

}  // namespace

const char* to_string(SimdTier tier) {
  return tier_names[static_cast<std::size_t>(tier)];
}

SimdTier limit_simd_tier(SimdTier best, std::string_view name) {
  for (std::size_t tier = 0; tier < static_cast<std::size_t>(best); ++tier) {
    if (name == tier_names[tier]) return static_cast<SimdTier>(tier);
  }
  return best;
}

SimdTier best_simd_tier() {
  static const SimdTier tier = [] {
    const char* name = std::getenv("LEVADA_SIMD");
    return limit_simd_tier(machine_tier(), name == nullptr ? std::string_view{} : name);
  }();
  return tier;
}

}  // namespace levada
