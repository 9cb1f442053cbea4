#include <levada/tools/load/sources.h>

#include <doctest/doctest.h>

namespace levada::load {
namespace {

TEST_CASE("a network gives an address for each 16 000 connections, from its second one on") {
  Sources sources;
  std::string why;
  CHECK(sources.empty());
  REQUIRE(sources.parse("127.0.0.0/8", why));
  CHECK_FALSE(sources.empty());
  CHECK(sources.address(0).to_string() == "127.0.0.2:0");
  CHECK(sources.address(15'999).to_string() == "127.0.0.2:0");
  CHECK(sources.address(16'000).to_string() == "127.0.0.3:0");
  CHECK(sources.address(4'000'000).to_string() == "127.0.0.252:0");
}

TEST_CASE("a small network begins again when it is used up") {
  Sources sources;
  std::string why;
  REQUIRE(sources.parse("10.1.2.8/29", why));
  CHECK(sources.address(0).to_string() == "10.1.2.10:0");
  CHECK(sources.address(4 * 16'000).to_string() == "10.1.2.14:0");
  CHECK(sources.address(5 * 16'000).to_string() == "10.1.2.10:0");
}

TEST_CASE("a list gives its addresses in turn") {
  Sources sources;
  std::string why;
  REQUIRE(sources.parse("127.0.0.9,::1", why));
  CHECK(sources.address(0).to_string() == "127.0.0.9:0");
  CHECK(sources.address(1).to_string() == "[::1]:0");
  CHECK(sources.address(2).to_string() == "127.0.0.9:0");
}

TEST_CASE("what are no addresses is refused") {
  for (const char* text : {"", ",", "127.0.0.1,", ",127.0.0.1", "nobody", "127.0.0.0/", "127.0.0.0/33",
                           "127.0.0.0/31", "::/64", "1.2.3/8", "127.0.0.0/8x"}) {
    Sources sources;
    std::string why;
    // A comma at the end is no address more.
    const bool trailing = std::string_view(text) == "127.0.0.1,";
    CHECK_MESSAGE(sources.parse(text, why) == trailing, text);
    CHECK_MESSAGE(why.empty() == trailing, text);
  }
}

}  // namespace
}  // namespace levada::load
