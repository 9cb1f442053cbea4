#include <levada/tools/load/payload.h>

#include <initializer_list>
#include <set>
#include <string>

#include <doctest/doctest.h>

namespace levada::load {
namespace {

std::string message(const Payloads& payloads, std::uint32_t connection, std::uint64_t sequence) {
  const Payloads::Stamp stamp = payloads.stamp(connection, sequence);
  const std::size_t size = payloads.size(connection, sequence);
  std::string text(to_text(Bytes(stamp).first(payloads.stamp_size(size))));
  return text.append(to_text(payloads.body(connection, sequence, size)));
}

TEST_CASE("a payload has its size and matches itself at every length") {
  for (const std::size_t size :
       std::initializer_list<std::size_t>{0, 1, 2, 7, 8, 9, 15, 16, 17, 125, 126, 4096, 70'000}) {
    const Payloads payloads(size, 100, 1);
    for (const std::uint64_t sequence : {0u, 1u, 63u, 64u, 4096u, 0x3FFFFFFu, 0x4000000u}) {
      const std::string text = message(payloads, 42, sequence);
      CHECK(text.size() == size);
      Payloads::Short whole;
      if (size <= whole.size()) CHECK(to_text(payloads.write(whole, 42, sequence, size)) == text);
      CHECK(payloads.matches(to_bytes(text), 42, sequence));
    }
  }
}

TEST_CASE("every byte of a payload is printable ASCII") {
  const Payloads payloads(300, 100, 99);
  for (std::uint64_t sequence = 0; sequence < 1000; sequence++) {
    for (const char c : message(payloads, 17, sequence)) CHECK((c > ' ' && c <= '~'));
  }
}

TEST_CASE("a change of any bit of a payload is found") {
  for (const std::size_t size : std::initializer_list<std::size_t>{1, 7, 8, 9, 15, 16, 17, 23, 24, 25, 200}) {
    const Payloads payloads(size, 100, 1);
    std::string text = message(payloads, 3, 12345);
    for (std::size_t bit = 0; bit < size * 8; bit++) {
      text[bit / 8] = static_cast<char>(text[bit / 8] ^ (1 << bit % 8));
      CHECK_FALSE(payloads.matches(to_bytes(text), 3, 12345));
      text[bit / 8] = static_cast<char>(text[bit / 8] ^ (1 << bit % 8));
    }
    CHECK(payloads.matches(to_bytes(text), 3, 12345));
  }
}

TEST_CASE("a payload that is cut or prolonged is found") {
  const Payloads payloads(20, 100, 1);
  const std::string text = message(payloads, 3, 5);
  CHECK_FALSE(payloads.matches(to_bytes(text.substr(0, 19)), 3, 5));
  CHECK_FALSE(payloads.matches(to_bytes(text + "0"), 3, 5));
  CHECK_FALSE(payloads.matches({}, 3, 5));
}

TEST_CASE("the next 64 messages of a connection differ even in one byte") {
  const Payloads payloads(1, 100, 1);
  std::set<std::string> seen;
  for (std::uint64_t sequence = 0; sequence < 64; sequence++) seen.insert(message(payloads, 5, sequence));
  CHECK(seen.size() == 64);
}

TEST_CASE("a stray payload tells whose it is") {
  for (const std::size_t size : std::initializer_list<std::size_t>{8, 9, 16, 5000}) {
    const Payloads payloads(size, Payloads::max_connections, 77);
    for (const std::uint32_t connection : {0u, 1u, 49u, 100'000u, Payloads::max_connections - 1}) {
      for (const std::uint64_t sequence : {std::uint64_t{0}, std::uint64_t{5}, Payloads::sequence_mask}) {
        const auto origin = payloads.origin(to_bytes(message(payloads, connection, sequence)));
        REQUIRE(origin.has_value());
        CHECK(origin->connection == connection);
        CHECK(origin->sequence == sequence);
      }
    }
  }
}

TEST_CASE("bytes that are nobody's payload have no owner") {
  const Payloads payloads(16, 100, 1);
  CHECK_FALSE(payloads.origin(to_bytes("0123456789abcdef")));
  CHECK_FALSE(payloads.origin(to_bytes("short")));
  std::string text = message(payloads, 99, 7);
  CHECK(payloads.origin(to_bytes(text)));
  text.back() = static_cast<char>(text.back() ^ 1);
  CHECK_FALSE(payloads.origin(to_bytes(text)));
  const Payloads more(16, 101, 1);
  CHECK_FALSE(payloads.origin(to_bytes(message(more, 100, 7))));  // a connection that does not exist
}

TEST_CASE("sizes are one, some in turn, or any of a range") {
  CHECK(Sizes::parse("16")->of(1, 2, 3) == 16);
  const Sizes turn = *Sizes::parse("16,1024,4Ki");
  CHECK(turn.least() == 16);
  CHECK(turn.most() == 4096);
  for (std::uint32_t connection = 0; connection < 3; connection++) {
    std::set<std::size_t> seen;
    for (std::uint64_t i = 0; i < 3; i++) seen.insert(turn.of(1, connection, i));
    CHECK(seen == std::set<std::size_t>{16, 1024, 4096});
  }
  CHECK(turn.of(1, 0, 0) != turn.of(1, 1, 0));
  const Sizes range = *Sizes::parse("16-1024");
  double sum = 0;
  for (std::uint64_t i = 0; i < 100'000; i++) {
    const std::size_t size = range.of(7, 3, i);
    if (size < 16 || size > 1024) FAIL_CHECK(size);
    CHECK(size == range.of(7, 3, i));
    sum += static_cast<double>(size);
  }
  CHECK(sum / 100'000 == doctest::Approx(520).epsilon(0.02));
  for (const char* text : {"", "16-", "-16", "9-8", "16,,17", "16,", "1-2-3", "1-2,3"})
    CHECK_MESSAGE(!Sizes::parse(text), text);
}

TEST_CASE("payloads of different sizes are told apart and name their owner") {
  for (const char* sizes : {"1,8,9,300", "0-70", "8-4096"}) {
    const Payloads payloads(*Sizes::parse(sizes), 100, 1);
    for (std::uint64_t sequence = 0; sequence < 200; sequence++) {
      std::string text = message(payloads, 42, sequence);
      CHECK(text.size() == payloads.size(42, sequence));
      CHECK(payloads.matches(to_bytes(text), 42, sequence));
      if (text.size() >= 8) {
        const auto origin = payloads.origin(to_bytes(text));
        REQUIRE(origin);
        CHECK(origin->connection == 42);
        CHECK(origin->sequence == sequence);
      }
      text.push_back('x');
      CHECK_FALSE(payloads.matches(to_bytes(text), 42, sequence));
      CHECK_FALSE(payloads.origin(to_bytes(text)));
    }
  }
}

TEST_CASE("JSON payloads are text that repeats itself") {
  const Payloads payloads(400, 100, 1, PayloadText::json);
  const std::string text = message(payloads, 1, 2);
  CHECK(text.size() == 400);
  CHECK(text.find("\"price\":") != std::string::npos);
  CHECK(payloads.matches(to_bytes(text), 1, 2));
  CHECK(payloads.origin(to_bytes(text))->sequence == 2);
}

TEST_CASE("another seed makes other payloads") {
  const Payloads one(16, 100, 1), two(16, 100, 2);
  const std::string text = message(one, 3, 4);
  CHECK_FALSE(two.matches(to_bytes(text), 3, 4));
  CHECK_FALSE(two.origin(to_bytes(text)));
}

}  // namespace
}  // namespace levada::load
