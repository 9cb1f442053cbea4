#include <levada/ws/url.h>

#include <string>

#include <doctest/doctest.h>

#include <levada/core/random.h>

using namespace levada;
using namespace levada::ws;

namespace {

Url parse(std::string_view text, UserInfo user_info = UserInfo::refuse) {
  Url url;
  CHECK_MESSAGE(parse_url(text, url, user_info) == UrlError::none, std::string(text));
  return url;
}

UrlError refuse(std::string_view text, UserInfo user_info = UserInfo::refuse) {
  Url url;
  return parse_url(text, url, user_info);
}

}  // namespace

TEST_CASE("a URL is split into the parts of RFC 6455 section 3") {
  const Url url = parse("ws://example.com:9001/chat/room?user=1&x=%20");
  CHECK(url.scheme == UrlScheme::ws);
  CHECK(url.authority.host == "example.com");
  CHECK(url.port() == 9001);
  CHECK(url.path == "/chat/room");
  CHECK(url.query == "user=1&x=%20");
  CHECK(url.request_target() == "/chat/room?user=1&x=%20");
  CHECK(url.host_field() == "example.com:9001");
  CHECK_FALSE(url.authority.has_user_info);
}

TEST_CASE("what a URL leaves out has a default") {
  CHECK(parse("ws://h").port() == 80);
  CHECK(parse("wss://h").port() == 443);
  CHECK(parse("wss://h").scheme == UrlScheme::wss);
  CHECK(parse("ws://h:/").port() == 80);
  CHECK(parse("ws://h").request_target() == "/");
  CHECK(parse("ws://h?").request_target() == "/?");
  CHECK(parse("ws://h?a=b").request_target() == "/?a=b");
  CHECK(parse("ws://h?a=/b?c").request_target() == "/?a=/b?c");
}

TEST_CASE("the Host field leaves out the port that is the default of the scheme, and only that") {
  CHECK(parse("ws://h:80/").host_field() == "h");
  CHECK(parse("ws://h:080/").host_field() == "h");
  CHECK(parse("ws://h:/").host_field() == "h");
  CHECK(parse("ws://h:443/").host_field() == "h:443");
  CHECK(parse("wss://h:443/").host_field() == "h");
  CHECK(parse("wss://h:80/").host_field() == "h:80");
  CHECK(parse("ws://[::1]:80/").host_field() == "[::1]");
  CHECK(parse("ws://[::1]:81/").host_field() == "[::1]:81");
}

TEST_CASE("schemes are read without regard to case") {
  CHECK(parse("WS://h").scheme == UrlScheme::ws);
  CHECK(parse("wSs://h").scheme == UrlScheme::wss);
  CHECK(parse("WS+Unix:/x").scheme == UrlScheme::ws_unix);
}

TEST_CASE("an IPv6 address stands in brackets, and has to be one") {
  const Url url = parse("ws://[2001:db8::7]:9001/x");
  CHECK(url.authority.host == "2001:db8::7");
  CHECK(url.authority.is_ipv6);
  CHECK(url.port() == 9001);
  CHECK(parse("ws://[::ffff:192.0.2.1]").authority.host == "::ffff:192.0.2.1");
  for (const char* text : {"ws://[", "ws://[]", "ws://[::1", "ws://[::1]x", "ws://[::1]x:1/", "ws://[:::]",
                           "ws://[1]", "ws://[v1.x]", "ws://[fe80::1%25eth0]", "ws://[::1]]", "ws://[/]"}) {
    CHECK_MESSAGE(refuse(text) == UrlError::bad_host, text);
  }
  CHECK(refuse(std::string("ws://[::1\0]", 11)) == UrlError::bad_host);
  CHECK(refuse("ws://[" + std::string(5000, ':') + "]") == UrlError::bad_host);
}

TEST_CASE("a user and a password are refused, or taken") {
  CHECK(refuse("ws://user@h/") == UrlError::user_info);
  CHECK(refuse("ws://@h/") == UrlError::user_info);
  const Authority authority = parse("ws://us%20er:p:w@h:1/", UserInfo::take).authority;
  CHECK(authority.user == "us%20er");
  CHECK(authority.password == "p:w");
  CHECK(authority.host == "h");
  CHECK(authority.port == 1);
  CHECK(authority.host_port == "h:1");
  CHECK(parse("ws://user@h", UserInfo::take).authority.password.empty());
  CHECK(parse("ws://user@h", UserInfo::take).host_field() == "h");
  CHECK(refuse("ws://user@", UserInfo::take) == UrlError::no_host);
  CHECK(refuse("ws://a@b@h", UserInfo::take) == UrlError::bad_character);
  CHECK(refuse("ws://a%@h", UserInfo::take) == UrlError::bad_escape);
  CHECK(parse("ws://h/a@b").authority.host == "h");
}

TEST_CASE("a Unix socket's URL names its path and perhaps a request target") {
  CHECK(parse("ws+unix:/run/a.sock").socket_path == "/run/a.sock");
  CHECK(parse("ws+unix:/run/a.sock").request_target() == "/");
  CHECK(parse("ws+unix:/run/a.sock").host_field() == "localhost");
  CHECK(parse("ws+unix:/run/a.sock").port() == 0);
  CHECK(parse("ws+unix:/run/a.sock:/chat?x=y").socket_path == "/run/a.sock");
  CHECK(parse("ws+unix:/run/a.sock:/chat?x=y").request_target() == "/chat?x=y");
  CHECK(parse("ws+unix:/run/a.sock?x=:/y").request_target() == "/?x=:/y");
  CHECK(parse("ws+unix:///run/a.sock").socket_path == "/run/a.sock");
  CHECK(parse("ws+unix:@name:/chat").socket_path == "@name");
  CHECK(parse("ws+unix:@name:/chat").path == "/chat");
  for (const char* text :
       {"ws+unix:", "ws+unix:/", "ws+unix:@", "ws+unix:relative", "ws+unix:?x", "ws+unix::/x"}) {
    CHECK_MESSAGE(refuse(text) == UrlError::no_socket, text);
  }
  CHECK(refuse("ws+unix:/run/a%00b") == UrlError::bad_escape);
}

TEST_CASE("what is no WebSocket URL is refused with its reason") {
  for (const char* text :
       {"", ":", "ws", "://h", "http://h/", "h:9001", "ws+tls://h", "1ws://h", " ws://h"}) {
    CHECK_MESSAGE(refuse(text) == UrlError::bad_scheme, text);
  }
  for (const char* text :
       {"ws:", "ws:/", "ws:/h", "ws:h", "ws://", "ws:///path", "ws://:9001/", "ws://?x", "ws://::1/"}) {
    CHECK_MESSAGE(refuse(text) == UrlError::no_host, text);
  }
  for (const char* text : {"ws://h:0/", "ws://h:00", "ws://h:65536/", "ws://h:x/", "ws://h:1x/", "ws://h:-1",
                           "ws://h:+1", "ws://h:99999999999999999999999", "ws://h:1:2", "ws://1:2:3"}) {
    CHECK_MESSAGE(refuse(text) == UrlError::bad_port, text);
  }
  CHECK(refuse("ws://h/#") == UrlError::fragment);
  CHECK(refuse("ws://h#top") == UrlError::fragment);
  CHECK(refuse("ws+unix:/x#top") == UrlError::fragment);
}

TEST_CASE("characters that have to be percent-encoded are refused wherever they stand") {
  for (const char* text :
       {"ws://h/a b", "ws://h/a\r\nX: y", "ws://h/\x7f", "ws://h/\xc3\xa9", "ws://h/\"", "ws://h/<",
        "ws://h/\\", "ws://h/^", "ws://h/`", "ws://h/{x}", "ws://h/|", "ws://h/[1]", "ws://h?a b",
        "ws://h?\n", "ws://a b/", "ws://a\tb", "ws://h\\x", "ws+unix:/a b"}) {
    CHECK_MESSAGE(refuse(text) == UrlError::bad_character, text);
  }
  CHECK(refuse(std::string("ws://h/\0", 8)) == UrlError::bad_character);
  CHECK(refuse(std::string("ws://h\0", 7)) == UrlError::bad_character);
  CHECK(parse("ws://h/-._~!$&'()*+,;=:@/a%2Fb?-._~!$&'()*+,;=:@/?").path == "/-._~!$&'()*+,;=:@/a%2Fb");
}

TEST_CASE("escapes are left as they stand, but must be some") {
  CHECK(parse("ws://h%41/%00?%fF").request_target() == "/%00?%fF");
  for (const char* text : {"ws://h/%", "ws://h/%4", "ws://h/%4g", "ws://h/%%41", "ws://h?%", "ws://h%",
                           "ws://h%00", "ws://h%0/"}) {
    CHECK_MESSAGE(refuse(text) == UrlError::bad_escape, text);
  }
  CHECK(decode_percent("a%20b%2fc%") == "a b/c%");
  CHECK(decode_percent("%4g%41") == "%4gA");
  CHECK(decode_percent("%00") == std::string(1, '\0'));
}

TEST_CASE("a host has at most 255 bytes") {
  CHECK(parse("ws://" + std::string(255, 'a') + "/").authority.host.size() == 255);
  CHECK(refuse("ws://" + std::string(256, 'a') + "/") == UrlError::bad_host);
}

TEST_CASE("views of any text stay inside it, and a URL that was taken says the same when it is read again") {
  constexpr std::string_view pieces[] = {"ws",  "wss", ":", "//", "+unix:", "@",  "[",     "]", "::1", "h",
                                         "%41", "%",   "/", "?",  "#",      "80", "65536", " ", "x.y"};
  SeededRandom random(7);
  int taken = 0;
  for (int round = 0; round < 20'000; round++) {
    std::string text = random.one_in(2) ? "ws://" : "";
    for (std::uint64_t n = random.below(8); n > 0; n--) text += pieces[random.below(std::size(pieces))];
    Url url;
    const UrlError error = parse_url(text, url, UserInfo::take);
    for (const std::string_view view : {url.authority.user, url.authority.host, url.socket_path, url.query}) {
      if (!view.empty())
        CHECK((view.data() >= text.data() && view.data() + view.size() <= text.data() + text.size()));
    }
    if (error != UrlError::none || url.scheme == UrlScheme::ws_unix) continue;
    taken++;
    const std::string again = "ws://" + std::string(url.authority.host_port) + url.request_target();
    Url second;
    CHECK_MESSAGE(parse_url(again, second) == UrlError::none, text);
    CHECK(second.authority.host == url.authority.host);
    CHECK(second.request_target() == url.request_target());
  }
  CHECK(taken > 100);
}

TEST_CASE("references are resolved as RFC 3986 section 5.4 has it") {
  Url base;
  REQUIRE(parse_url("wss://a:1/b/c/d;p?q", base) == UrlError::none);
  const std::pair<const char*, const char*> cases[] = {
      {"g", "/b/c/g"},      {"./g", "/b/c/g"},        {"g/", "/b/c/g/"},
      {"/g", "/g"},         {"?y", "/b/c/d;p?y"},     {"g?y", "/b/c/g?y"},
      {";x", "/b/c/;x"},    {"g;x?y", "/b/c/g;x?y"},  {"", "/b/c/d;p?q"},
      {".", "/b/c/"},       {"./", "/b/c/"},          {"..", "/b/"},
      {"../", "/b/"},       {"../g", "/b/g"},         {"../..", "/"},
      {"../../g", "/g"},    {"../../../g", "/g"},     {"/./g", "/g"},
      {"/../g", "/g"},      {"g.", "/b/c/g."},        {"..g", "/b/c/..g"},
      {"./../g", "/b/g"},   {"./g/.", "/b/c/g/"},     {"g/./h", "/b/c/g/h"},
      {"g/../h", "/b/c/h"}, {"g;x=1/../y", "/b/c/y"}, {"g?y/../x", "/b/c/g?y/../x"},
  };
  for (const auto& each : cases) {
    const std::string reference = each.first, path = each.second;
    CAPTURE(reference);
    CHECK(resolve_reference(base, reference) == "wss://a:1" + path);
  }
  CHECK(resolve_reference(base, "//g/h") == "wss://g/h");
  REQUIRE(parse_url("ws://a", base) == UrlError::none);
  CHECK(resolve_reference(base, "g") == "ws://a/g");
  REQUIRE(parse_url("ws+unix:/run/x.sock", base) == UrlError::none);
  CHECK(resolve_reference(base, "/g").empty());
}
