#include <levada/tools/load/payload.h>

#include <initializer_list>
#include <set>
#include <string>

#include <doctest/doctest.h>

namespace levada::load {
namespace {

std::string message(const Payloads& payloads, std::uint32_t connection, std::uint64_t sequence) {
  const Payloads::Stamp stamp = payloads.stamp(connection, sequence);
  std::string text(to_text(Bytes(stamp).first(payloads.stamp_size())));
  return text.append(to_text(payloads.body(connection, sequence)));
}

TEST_CASE("a payload has its size and matches itself at every length") {
  for (const std::size_t size :
       std::initializer_list<std::size_t>{0, 1, 2, 7, 8, 9, 15, 16, 17, 125, 126, 4096, 70'000}) {
    const Payloads payloads(size, 100, 1);
    for (const std::uint64_t sequence : {0u, 1u, 63u, 64u, 4096u, 0x3FFFFFFu, 0x4000000u}) {
      const std::string text = message(payloads, 42, sequence);
      CHECK(text.size() == size);
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
  for (const std::size_t size : std::initializer_list<std::size_t>{1, 7, 8, 9, 16, 200}) {
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

TEST_CASE("another seed makes other payloads") {
  const Payloads one(16, 100, 1), two(16, 100, 2);
  const std::string text = message(one, 3, 4);
  CHECK_FALSE(two.matches(to_bytes(text), 3, 4));
  CHECK_FALSE(two.origin(to_bytes(text)));
}

}  // namespace
}  // namespace levada::load
