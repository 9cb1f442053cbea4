#include <levada/ws/proxy.h>

#include <map>
#include <string>

#include <doctest/doctest.h>

#include <levada/core/random.h>

using namespace levada;
using namespace levada::ws;

namespace {

using Variables = std::map<std::string, std::string>;

const char* look_up(void* context, const char* name) {
  const auto& variables = *static_cast<const Variables*>(context);
  const auto found = variables.find(name);
  return found == variables.end() ? nullptr : found->second.c_str();
}

// "none", "error", or kind host:port.
std::string choose(std::string_view text, Variables variables, const ProxyOptions& options = {}) {
  Url url;
  REQUIRE(parse_url(text, url) == UrlError::none);
  const ProxyChoice choice = choose_proxy(url, options, look_up, &variables);
  if (choice.error != UrlError::none) return "error";
  const char* const kinds[] = {"none", "http", "https", "socks5"};
  const std::string kind = kinds[static_cast<int>(choice.proxy.kind)];
  if (choice.proxy.kind == ProxyKind::none) return kind;
  return kind + " " + std::string(choice.proxy.authority.host) + ":" + std::to_string(choice.proxy.port);
}

std::string connect_text(const ConnectRequest& request) {
  std::string text(connect_request_size(request), '?');
  const MutableBytes out(reinterpret_cast<std::uint8_t*>(text.data()), text.size());
  CHECK(write_connect_request(out, request) == text.size());
  if (!text.empty()) CHECK(write_connect_request(out.first(text.size() - 1), request) == 0);
  return text;
}

ConnectAnswer answer(std::string_view text) {
  HttpResponse response;
  REQUIRE(response.parse(to_bytes(text)).state == ParseState::complete);
  return check_connect_response(response);
}

}  // namespace

TEST_CASE("a proxy's URL has a scheme, a default port and perhaps a user") {
  Proxy proxy;
  CHECK(parse_proxy("http://proxy:3128/", proxy) == UrlError::none);
  CHECK(proxy.kind == ProxyKind::http);
  CHECK(proxy.authority.host == "proxy");
  CHECK(proxy.port == 3128);
  CHECK(parse_proxy("proxy", proxy) == UrlError::none);
  CHECK(proxy.kind == ProxyKind::http);
  CHECK(proxy.port == 80);
  CHECK(parse_proxy("proxy:8080", proxy) == UrlError::none);
  CHECK(proxy.port == 8080);
  CHECK(parse_proxy("HTTPS://[::1]", proxy) == UrlError::none);
  CHECK(proxy.kind == ProxyKind::https);
  CHECK(proxy.authority.host == "::1");
  CHECK(proxy.port == 443);
  CHECK(parse_proxy("socks5h://me:se%3Acret@proxy", proxy) == UrlError::none);
  CHECK(proxy.kind == ProxyKind::socks5);
  CHECK(proxy.port == 1080);
  CHECK(proxy.authority.user == "me");
  CHECK(proxy.authority.password == "se%3Acret");
  CHECK(parse_proxy("socks4://proxy", proxy) == UrlError::bad_scheme);
  CHECK(parse_proxy("ftp://proxy", proxy) == UrlError::bad_scheme);
  CHECK(parse_proxy("http://", proxy) == UrlError::no_host);
  CHECK(parse_proxy("", proxy) == UrlError::no_host);
  CHECK(parse_proxy("http://proxy:0", proxy) == UrlError::bad_port);
  CHECK(parse_proxy("http://proxy/path", proxy) == UrlError::bad_character);
  CHECK(parse_proxy("http://pro xy", proxy) == UrlError::bad_character);
}

TEST_CASE("the environment names a proxy by scheme, then one for all; lower case first") {
  CHECK(choose("ws://h", {}) == "none");
  CHECK(choose("ws://h", {{"http_proxy", "a:1"}, {"HTTP_PROXY", "b:2"}}) == "http a:1");
  CHECK(choose("ws://h", {{"HTTP_PROXY", "b:2"}, {"HTTPS_PROXY", "c:3"}}) == "http b:2");
  CHECK(choose("wss://h", {{"HTTP_PROXY", "b:2"}, {"HTTPS_PROXY", "c:3"}}) == "http c:3");
  CHECK(choose("wss://h", {{"https_proxy", "a:1"}, {"HTTPS_PROXY", "c:3"}}) == "http a:1");
  CHECK(choose("wss://h", {{"HTTP_PROXY", "b:2"}}) == "none");
  CHECK(choose("wss://h", {{"ALL_PROXY", "socks5://s"}}) == "socks5 s:1080");
  CHECK(choose("ws://h", {{"all_proxy", "socks5://s"}, {"HTTP_PROXY", "b:2"}}) == "http b:2");
  CHECK(choose("ws://h", {{"http_proxy", ""}, {"HTTP_PROXY", ""}, {"all_proxy", "s:4"}}) == "http s:4");
  CHECK(choose("ws+unix:/run/x", {{"all_proxy", "s:4"}}) == "none");
  CHECK(choose("ws://h", {{"http_proxy", "socks4://x"}}) == "error");
}

TEST_CASE("HTTP_PROXY that a request may have set is ignored") {
  CHECK(choose("ws://h", {{"HTTP_PROXY", "evil:1"}, {"REQUEST_METHOD", "GET"}}) == "none");
  CHECK(choose("ws://h", {{"http_proxy", "good:1"}, {"REQUEST_METHOD", "GET"}}) == "http good:1");
  CHECK(choose("wss://h", {{"HTTPS_PROXY", "good:1"}, {"REQUEST_METHOD", ""}}) == "http good:1");
}

TEST_CASE("options go before the environment") {
  CHECK(choose("ws://h", {{"http_proxy", "a:1"}}, {.url = "b:2"}) == "http b:2");
  CHECK(choose("ws://h", {{"http_proxy", "a:1"}}, {.use_environment = false}) == "none");
  CHECK(choose("ws://h", {{"no_proxy", "h"}}, {.url = "b:2"}) == "none");
  CHECK(choose("ws://h", {{"no_proxy", "h"}}, {.url = "b:2", .use_environment = false}) == "http b:2");
  CHECK(choose("ws://h", {{"no_proxy", "h"}}, {.url = "b:2", .no_proxy = "other"}) == "http b:2");
  CHECK(choose("ws://h", {{"http_proxy", "a:1"}}, {.no_proxy = "h"}) == "none");
}

TEST_CASE("NO_PROXY of the environment keeps destinations away from the proxy") {
  CHECK(choose("ws://h", {{"http_proxy", "a:1"}, {"NO_PROXY", "x,h"}}) == "none");
  CHECK(choose("ws://h", {{"http_proxy", "a:1"}, {"NO_PROXY", "h"}, {"no_proxy", "x"}}) == "http a:1");
  CHECK(choose("ws://h:81", {{"http_proxy", "a:1"}, {"NO_PROXY", "h:80"}}) == "http a:1");
  CHECK(choose("ws://h", {{"http_proxy", "a:1"}, {"NO_PROXY", "h:80"}}) == "none");
  CHECK(choose("wss://h", {{"https_proxy", "a:1"}, {"NO_PROXY", "h:443"}}) == "none");
  CHECK(choose("ws://[::1]", {{"http_proxy", "a:1"}, {"NO_PROXY", "::1"}}) == "none");
}

TEST_CASE("a list names hosts, those below them, ports, addresses and networks") {
  struct Case {
    const char* list;
    const char* host;
    std::uint16_t port;
    bool listed;
  };
  const Case cases[] = {
      {"*", "anything", 80, true},
      {"a, *", "anything", 80, true},
      {"", "h", 80, false},
      {" , ,", "h", 80, false},
      {"example.com", "example.com", 80, true},
      {"Example.COM", "eXample.com", 80, true},
      {"example.com", "example.com.", 80, true},
      {"example.com", "www.example.com", 80, true},
      {"example.com", "wwwexample.com", 80, false},
      {"example.com", "example.com.org", 80, false},
      {"example.com", "com", 80, false},
      {".example.com", "example.com", 80, false},
      {".example.com", "www.example.com", 80, true},
      {".example.com", "a.b.example.com", 80, true},
      {".example.com", "wwwexample.com", 80, false},
      {"*.example.com", "www.example.com", 80, true},
      {"*.example.com", "example.com", 80, false},
      {".", "a.b", 80, false},
      {"example.com:8080", "example.com", 8080, true},
      {"example.com:8080", "www.example.com", 8080, true},
      {"example.com:8080", "example.com", 80, false},
      {"example.com:", "example.com", 80, false},
      {"example.com:x", "example.com", 80, false},
      {"example.com:0", "example.com", 80, false},
      {":80", "h", 80, false},
      {"a b\tc", "b", 80, true},
      {"a b\tc", "c", 80, true},
      {"192.0.2.1", "192.0.2.1", 80, true},
      {"192.0.2.1", "192.0.2.10", 80, false},
      {"192.0.2.1", "1.192.0.2.1", 80, false},
      {"192.0.2.1:81", "192.0.2.1", 81, true},
      {"192.0.2.1:81", "192.0.2.1", 80, false},
      {"::1", "::1", 80, true},
      {"::1", "0:0:0:0:0:0:0:1", 80, true},
      {"[::1]", "::1", 80, true},
      {"[::1]:81", "::1", 81, true},
      {"[::1]:81", "::1", 80, false},
      {"2001:DB8::1", "2001:db8:0::1", 80, true},
      {"192.0.2.1", "::ffff:192.0.2.1", 80, true},
      {"10.0.0.0/8", "10.255.1.2", 80, true},
      {"10.0.0.0/8", "11.0.0.0", 80, false},
      {"10.1.2.3/8", "10.9.9.9", 80, true},
      {"192.0.2.128/25", "192.0.2.200", 80, true},
      {"192.0.2.128/25", "192.0.2.127", 80, false},
      {"0.0.0.0/0", "198.51.100.7", 80, true},
      {"0.0.0.0/0", "2001:db8::1", 80, false},
      {"0.0.0.0/0", "name", 80, false},
      {"10.0.0.0/33", "10.0.0.0", 80, false},
      {"10.0.0.0/", "10.0.0.0", 80, false},
      {"10.0.0.0/-1", "10.0.0.0", 80, false},
      {"fd00::/8", "fd12:3456::1", 80, true},
      {"fd00::/8", "fe80::1", 80, false},
      {"2001:db8::/33", "2001:db8:7fff::1", 80, true},
      {"2001:db8::/33", "2001:db8:8000::1", 80, false},
      {"::/0", "192.0.2.1", 80, true},
      {"::/129", "::1", 80, false},
  };
  for (const Case& one : cases) {
    const std::string name = std::string(one.list) + " | " + one.host + ":" + std::to_string(one.port);
    CHECK_MESSAGE(is_listed(one.list, one.host, one.port) == one.listed, name);
  }
}

TEST_CASE("any list can be asked") {
  constexpr std::string_view pieces[] = {"*", ".", ",",   " ", ":",        "[", "]",
                                         "/", "8", "::1", "h", "10.0.0.1", "-"};
  SeededRandom random(5);
  for (int round = 0; round < 20'000; round++) {
    std::string list;
    for (std::uint64_t n = random.below(8); n > 0; n--) list += pieces[random.below(std::size(pieces))];
    const bool listed = is_listed(list, "10.0.0.1", 8);
    if (list.find("10.0.0.1") == list.npos && list.find_first_of("*:/") == list.npos) CHECK_FALSE(listed);
  }
}

TEST_CASE("Basic credentials are made of what the escapes stand for") {
  CHECK(basic_credentials("Aladdin", "open%20sesame") == "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
  CHECK(basic_credentials("user", "") == "Basic dXNlcjo=");
  CHECK(basic_credentials("user", "a%3Ab") == "Basic dXNlcjphOmI=");
  CHECK(basic_credentials("us%3Aer", "x").empty());
  CHECK(basic_credentials("user", "a%0D%0Ab").empty());
  CHECK(basic_credentials("user%00", "").empty());
}

TEST_CASE("a CONNECT request names the destination with its port") {
  CHECK(connect_text({.host = "example.com", .port = 80}) ==
        "CONNECT example.com:80 HTTP/1.1\r\nHost: example.com:80\r\n\r\n");
  const HttpField fields[] = {{"User-Agent", "x"}, {"Host", "evil"}, {"a b", "c"}, {"d", "e\r\nf"}};
  CHECK(connect_text({.host = "::1", .port = 443, .authorization = "Basic eA==", .fields = fields}) ==
        "CONNECT [::1]:443 HTTP/1.1\r\nHost: [::1]:443\r\nProxy-Authorization: Basic eA==\r\nUser-Agent: "
        "x\r\n\r\n");
}

TEST_CASE("a CONNECT request that would say something else is not written") {
  CHECK(connect_text({.host = "", .port = 80}).empty());
  CHECK(connect_text({.host = "h", .port = 0}).empty());
  CHECK(connect_text({.host = "h\r\nX: y", .port = 80}).empty());
  CHECK(connect_text({.host = "h/", .port = 80}).empty());
  CHECK(connect_text({.host = "[::1]", .port = 80}).empty());
  CHECK(connect_text({.host = "h:1", .port = 80}).empty());
  CHECK(connect_text({.host = "h", .port = 80, .authorization = "a\r\nb"}).empty());
}

TEST_CASE("only a 2xx opens the tunnel, whatever it says about content") {
  CHECK(answer("HTTP/1.1 200 Connection established\r\n\r\n") == ConnectAnswer::tunnel);
  CHECK(answer("HTTP/1.0 204 x\r\nContent-Length: 7\r\n\r\n") == ConnectAnswer::tunnel);
  CHECK(answer("HTTP/1.1 100 Continue\r\n\r\n") == ConnectAnswer::interim);
  CHECK(answer("HTTP/1.1 407 x\r\n\r\n") == ConnectAnswer::authentication_required);
  CHECK(answer("HTTP/1.1 403 x\r\n\r\n") == ConnectAnswer::refused);
  CHECK(answer("HTTP/1.1 302 x\r\n\r\n") == ConnectAnswer::refused);
  CHECK(answer("HTTP/1.1 502 x\r\n\r\n") == ConnectAnswer::refused);
}
