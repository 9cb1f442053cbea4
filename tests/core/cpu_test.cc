#include <levada/core/cpu.h>

#include <doctest/doctest.h>

#include <cstdlib>
#include <string_view>

using namespace levada;

TEST_CASE("each SIMD tier has the name that lowers to it") {
  for (const SimdTier tier :
       {SimdTier::scalar, SimdTier::sse2, SimdTier::avx2, SimdTier::avx512, SimdTier::neon}) {
    CHECK(limit_simd_tier(SimdTier::neon, to_string(tier)) == tier);
  }
  CHECK(std::string_view(to_string(SimdTier::avx2)) == "avx2");
}

TEST_CASE("a named SIMD tier lowers the machine's and never raises it") {
  CHECK(limit_simd_tier(SimdTier::avx2, "scalar") == SimdTier::scalar);
  CHECK(limit_simd_tier(SimdTier::avx2, "sse2") == SimdTier::sse2);
  CHECK(limit_simd_tier(SimdTier::avx2, "avx2") == SimdTier::avx2);
  CHECK(limit_simd_tier(SimdTier::avx2, "avx512") == SimdTier::avx2);
  CHECK(limit_simd_tier(SimdTier::avx2, "") == SimdTier::avx2);
  CHECK(limit_simd_tier(SimdTier::avx2, "AVX") == SimdTier::avx2);
}

TEST_CASE("the best SIMD tier does not change and obeys the environment") {
  const SimdTier best = best_simd_tier();
  CHECK(best == best_simd_tier());
  if (const char* name = std::getenv("LEVADA_SIMD")) CHECK(limit_simd_tier(best, name) == best);
}

TEST_CASE("the runnable kernels are the table's beginning up to the machine's tier") {
  constexpr std::array<SimdKernel<int()>, 3> table = {{
      {SimdTier::scalar, [] { return 0; }},
      {SimdTier::sse2, [] { return 1; }},
      {SimdTier::avx512, [] { return 2; }},
  }};
  const auto kernels = runnable(table);
  REQUIRE(!kernels.empty());
  CHECK(kernels.data() == table.data());
  for (const auto& kernel : kernels)
    CHECK((kernel.tier == SimdTier::scalar || kernel.tier <= best_simd_tier()));
  if (kernels.size() < table.size()) CHECK(table[kernels.size()].tier > best_simd_tier());
}
