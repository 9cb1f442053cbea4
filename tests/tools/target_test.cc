#include <levada/tools/load/target.h>

#include <doctest/doctest.h>

namespace levada::load {
namespace {

Target parse(std::string_view url) {
  Target target;
  std::string why;
  const bool parsed = parse_target(url, target, why);
  CHECK_MESSAGE(parsed, why);
  return target;
}

std::string refuse(std::string_view url) {
  Target target;
  std::string why;
  CHECK_FALSE(parse_target(url, target, why));
  return why;
}

TEST_CASE("a ws URL names host, port, path and query") {
  const Target target = parse("ws://example.com:9001/chat/room?user=1");
  CHECK(target.url == "ws://example.com:9001/chat/room?user=1");
  CHECK(target.host == "example.com");
  CHECK(target.port == 9001);
  CHECK(target.request_target == "/chat/room?user=1");
  CHECK(target.host_field == "example.com:9001");
}

TEST_CASE("port 80 and path / are what a URL leaves out") {
  CHECK(parse("ws://example.com").port == 80);
  CHECK(parse("ws://example.com").request_target == "/");
  CHECK(parse("ws://example.com").host_field == "example.com");
  CHECK(parse("ws://example.com:80/").host_field == "example.com");
  CHECK(parse("ws://example.com?a=b").request_target == "/?a=b");
}

TEST_CASE("an IPv6 address stands in brackets") {
  const Target target = parse("ws://[::1]:9001/x");
  CHECK(target.host == "::1");
  CHECK(target.port == 9001);
  CHECK(target.host_field == "[::1]:9001");
  CHECK(parse("ws://[::1]").port == 80);
}

TEST_CASE("a Unix socket's URL names its path and perhaps a request target") {
  CHECK(parse("ws+unix:/run/a.sock").unix_path == "/run/a.sock");
  CHECK(parse("ws+unix:/run/a.sock").request_target == "/");
  CHECK(parse("ws+unix:/run/a.sock").host_field == "localhost");
  CHECK(parse("ws+unix:/run/a.sock:/chat").unix_path == "/run/a.sock");
  CHECK(parse("ws+unix:/run/a.sock:/chat").request_target == "/chat");
  CHECK(parse("ws+unix:///run/a.sock").unix_path == "/run/a.sock");
  CHECK(parse("ws+unix:@name").unix_path == "@name");
}

TEST_CASE("a wss URL is secure and has a port of its own") {
  CHECK(parse("wss://example.com/").secure);
  CHECK(parse("wss://example.com/").port == 443);
  CHECK(!parse("ws://example.com/").secure);
}

TEST_CASE("URLs that cannot be served are refused with a reason") {
  CHECK(refuse("http://example.com/").find("must begin with ws://") != std::string::npos);
  CHECK(refuse("example.com:9001").find("must begin with ws://") != std::string::npos);
  CHECK(refuse("ws://example.com/#top").find("fragment") != std::string::npos);
  CHECK(refuse("ws://user@example.com/").find("user name") != std::string::npos);
  for (const char* url : {"ws://", "ws:///path", "ws://:9001/", "ws://::1/"}) {
    CHECK_MESSAGE(refuse(url).find("no host") != std::string::npos, url);
  }
  for (const char* url : {"ws://[::1", "ws://[::1]x:1/"}) {
    CHECK_MESSAGE(refuse(url).find("in brackets") != std::string::npos, url);
  }
  for (const char* url : {"ws://h:0/", "ws://h:65536/", "ws://h:x/", "ws://h:1x/"}) {
    CHECK_MESSAGE(refuse(url).find("port") != std::string::npos, url);
  }
  for (const char* url : {"ws+unix:", "ws+unix:/", "ws+unix:relative"}) {
    CHECK_MESSAGE(refuse(url).find("Unix socket") != std::string::npos, url);
  }
  CHECK(refuse("ws://h/a b").find("space") != std::string::npos);
  CHECK(refuse("ws://h/a\r\nX: y").find("control") != std::string::npos);
}

TEST_CASE("addresses are found for numbers, names and Unix sockets") {
  std::vector<net::Address> addresses;
  std::string why;
  CHECK(resolve(parse("ws://127.0.0.1:9001/"), addresses, why));
  CHECK(addresses.front().to_string() == "127.0.0.1:9001");
  CHECK(resolve(parse("ws://[::1]:9001/"), addresses, why));
  CHECK(addresses.front().to_string() == "[::1]:9001");
  CHECK(resolve(parse("ws://localhost:9001/"), addresses, why));
  CHECK(addresses.front().to_string() == "127.0.0.1:9001");
  CHECK(resolve(parse("ws+unix:/run/a.sock"), addresses, why));
  CHECK(addresses.front().to_string() == "unix:/run/a.sock");
  CHECK_FALSE(resolve(parse("ws://name.invalid:1/"), addresses, why));
  CHECK(why.find("cannot resolve name.invalid") != std::string::npos);
  CHECK_FALSE(resolve(parse("ws+unix:/" + std::string(200, 'x')), addresses, why));
  CHECK(why.find("too long") != std::string::npos);
}

}  // namespace
}  // namespace levada::load
