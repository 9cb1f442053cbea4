#include <levada/core/random.h>

#include <array>
#include <set>

#include <doctest/doctest.h>

using namespace levada;

TEST_CASE("the same seed gives the same numbers and another seed others") {
  SeededRandom a(42), b(42), c(43);
  bool differs = false;
  for (int i = 0; i < 100; i++) {
    const std::uint64_t value = a.next();
    CHECK(value == b.next());
    differs |= value != c.next();
  }
  CHECK(differs);
}

TEST_CASE("SplitMix64 gives the published first values for the seed 1234567") {
  SeededRandom random(1234567);
  CHECK(random.next() == 6457827717110365317u);
  CHECK(random.next() == 3203168211198807973u);
}

TEST_CASE("bounded numbers stay below the bound and reach each value") {
  SeededRandom random(7);
  std::array<int, 10> counts{};
  for (int i = 0; i < 10000; i++) counts.at(random.below(10))++;
  for (const int count : counts) CHECK((count > 800 && count < 1200));
  int hits = 0;
  for (int i = 0; i < 10000; i++) hits += random.one_in(4);
  CHECK((hits > 2200 && hits < 2800));
}

TEST_CASE("the secure source does not repeat itself over several refills") {
  SecureRandom random;
  std::set<std::uint64_t> seen;
  for (int i = 0; i < 5000; i++) seen.insert((std::uint64_t{random.next_u32()} << 32) | random.next_u32());
  CHECK(seen.size() == 5000);
}

TEST_CASE("fill_random fills all of a buffer, and nothing beside it") {
  std::array<std::uint8_t, 1002> bytes{};
  fill_random(MutableBytes(bytes).subspan(1, 1000));
  CHECK(bytes.front() == 0);
  CHECK(bytes.back() == 0);
  int zeros = 0;
  for (const std::uint8_t byte : MutableBytes(bytes).subspan(1, 1000)) zeros += byte == 0;
  CHECK(zeros < 50);
  fill_random({});
}
