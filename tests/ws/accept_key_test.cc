#include <levada/ws/accept_key.h>

#include <doctest/doctest.h>

#include <array>
#include <string>
#include <string_view>

using namespace levada::ws;

namespace {

std::string accept_text(std::string_view key, Sha1Tier tier) {
  const AcceptKey accept = accept_key(key, tier);
  return {accept.data(), accept.size()};
}

}  // namespace

TEST_CASE("the accept key is the hash that RFC 6455 asks for, by every implementation") {
  // The first is the example of RFC 6455 section 1.3; the others were computed with another SHA-1.
  struct Vector {
    const char *key, *accept;
  };
  for (const Sha1Tier tier : {Sha1Tier::scalar, Sha1Tier::sha_ni}) {
    if (!is_available(tier)) continue;
    for (const Vector& v : std::initializer_list<Vector>{
             {"dGhlIHNhbXBsZSBub25jZQ==", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="},
             {"AAAAAAAAAAAAAAAAAAAAAA==", "ICX+Yqv66kxgM0FcWaLWlFLwTAI="},
             {"/////////////////////w==", "XXpj4jYzLM2yUE0C7TIgMwTQh2g="},
             {"x3JJHMbDL1EzLkh9GBhXDw==", "HSmrc0sMlYUkAGmm5OPpG2HaGWk="},
             {"AQIDBAUGBwgJCgsMDQ4PEA==", "C/0nmHhBztSRGR1CwL6Tf4ZjwpY="},
             {"+/+/+/+/+/+/+/+/+/+/+w==", "M0DUs3om0SqzerhOhYSMM7WQuBQ="},
         }) {
      CAPTURE(v.key);
      CHECK(accept_text(v.key, tier) == v.accept);
    }
  }
}

TEST_CASE("all implementations agree on a million bits of keys, and the default is one of them") {
  std::array<std::uint8_t, 16> random{};
  std::uint32_t seed = 1;
  for (int i = 0; i < 8192; ++i) {
    for (auto& byte : random) {
      seed = seed * 1664525 + 1013904223;
      byte = static_cast<std::uint8_t>(seed >> 24);
    }
    const WebSocketKey key = make_key(random);
    const std::string_view text(key.data(), key.size());
    const std::string expected = accept_text(text, Sha1Tier::scalar);
    const AcceptKey by_default = accept_key(text);
    REQUIRE(std::string_view(by_default.data(), by_default.size()) == expected);
    if (is_available(Sha1Tier::sha_ni)) REQUIRE(accept_text(text, Sha1Tier::sha_ni) == expected);
  }
}

TEST_CASE("a key is made of 16 bytes in base64") {
  const auto text = [](std::array<std::uint8_t, 16> bytes) {
    const WebSocketKey key = make_key(bytes);
    return std::string(key.data(), key.size());
  };
  CHECK(text({}) == "AAAAAAAAAAAAAAAAAAAAAA==");
  CHECK(text({255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255}) ==
        "/////////////////////w==");
  CHECK(text({'t', 'h', 'e', ' ', 's', 'a', 'm', 'p', 'l', 'e', ' ', 'n', 'o', 'n', 'c', 'e'}) ==
        "dGhlIHNhbXBsZSBub25jZQ==");
  CHECK(is_websocket_key(text({1, 2, 3})));
}

TEST_CASE("a key is 22 characters of the base64 alphabet and two paddings") {
  const std::string good = "dGhlIHNhbXBsZSBub25jZQ==";
  CHECK(is_websocket_key(good));
  CHECK(is_websocket_key("++++++++++++++++//////=="));
  for (const char* bad : {"", "==", "dGhlIHNhbXBsZSBub25jZQ", "dGhlIHNhbXBsZSBub25jZQ=",
                          "dGhlIHNhbXBsZSBub25jZQ===", "dGhlIHNhbXBsZSBub25jZQ=a", "dGhlIHNhbXBsZSBub25jZQAA",
                          "dGhlIHNhbXBsZSBub25jZ===", "dGhlIHNhbXBsZSBub25jZQ== "}) {
    CAPTURE(bad);
    CHECK_FALSE(is_websocket_key(bad));
  }
  const std::string_view alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  for (std::size_t place = 0; place < 22; ++place) {
    for (unsigned c = 0; c < 256; ++c) {
      std::string key = good;
      key[place] = static_cast<char>(c);
      CAPTURE(place);
      CAPTURE(c);
      CHECK(is_websocket_key(key) == (alphabet.find(static_cast<char>(c)) != alphabet.npos));
    }
  }
}
