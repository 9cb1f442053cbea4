#include <levada/core/base64.h>

#include <string>

#include <doctest/doctest.h>

using namespace levada;

namespace {

std::string encode(std::string_view text) {
  std::string out(base64_size(text.size()), '?');
  encode_base64(to_bytes(text), out.data());
  return out;
}

}  // namespace

TEST_CASE("the examples of RFC 4648 section 10 are encoded as it says") {
  CHECK(encode("") == "");
  CHECK(encode("f") == "Zg==");
  CHECK(encode("fo") == "Zm8=");
  CHECK(encode("foo") == "Zm9v");
  CHECK(encode("foob") == "Zm9vYg==");
  CHECK(encode("fooba") == "Zm9vYmE=");
  CHECK(encode("foobar") == "Zm9vYmFy");
}

TEST_CASE("the last characters of the alphabet are + and /") {
  CHECK(encode("\xfb\xff\xbf") == "+/+/");
  CHECK(encode(std::string(3, '\0')) == "AAAA");
}
