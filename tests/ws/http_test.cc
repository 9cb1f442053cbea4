// The rules of RFC 9112 for heads, one by one. Every vector is also cut at every byte: each proper beginning
// has to be incomplete or refused with the status that the whole gets.
#include <levada/ws/http.h>

#include <doctest/doctest.h>

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include <levada/core/bytes.h>

using namespace levada;
using namespace levada::ws;

namespace {

// The bytes in memory of exactly their size, so that a sanitizer sees every read beyond them.
struct Exact {
  explicit Exact(std::string_view text)
      : size(text.size()), data(std::make_unique<std::uint8_t[]>(text.size())) {
    std::copy(text.begin(), text.end(), data.get());
  }
  Bytes bytes() const { return {data.get(), size}; }
  std::string_view text() const { return to_text(bytes()); }

  std::size_t size;
  std::unique_ptr<std::uint8_t[]> data;
};

template <class Head>
ParseResult parse_everywhere(std::string_view text, const HttpLimits& limits = {}) {
  Head head;
  const Exact whole(text);
  const ParseResult expected = head.parse(whole.bytes(), limits);
  bool decided = false;
  for (std::size_t size = 0; size < text.size(); ++size) {
    const Exact part(text.substr(0, size));
    Head cut;
    const ParseResult result = cut.parse(part.bytes(), limits);
    CAPTURE(size);
    if (result.state == ParseState::incomplete) {
      CHECK_FALSE(decided);
      if (expected.state == ParseState::complete) CHECK(size < expected.consumed);
    } else {
      decided = true;
      CHECK(result.state == expected.state);
      CHECK(result.http_status == expected.http_status);
      CHECK(result.consumed == expected.consumed);
    }
  }
  return expected;
}

ParseResult parse_request(std::string_view text, const HttpLimits& limits = {}) {
  return parse_everywhere<HttpRequest>(text, limits);
}

// The status that refuses `text`; 0 when it is complete, 1 when it is incomplete.
unsigned status_of(std::string_view text, const HttpLimits& limits = {}) {
  const ParseResult result = parse_request(text, limits);
  if (result.state == ParseState::incomplete) return 1;
  return result.state == ParseState::complete ? 0 : result.http_status;
}

// A request with these field lines.
std::string with_fields(std::string_view lines) {
  return "GET / HTTP/1.1\r\n" + std::string(lines) + "\r\n";
}

std::string with_target(std::string_view target) {
  return "GET " + std::string(target) + " HTTP/1.1\r\n\r\n";
}

// A complete request together with its bytes.
struct Parsed : HttpRequest {
  explicit Parsed(std::string bytes) : text(std::move(bytes)) {
    REQUIRE(parse(to_bytes(text)).state == ParseState::complete);
  }
  Parsed(const Parsed&) = delete;

  std::string text;
};

}  // namespace

TEST_CASE("a request is taken apart into method, target, version and fields") {
  const std::string text =
      "GET /chat/room?user=a&b=%20 HTTP/1.1\r\nHost: example.com\r\nX-Empty:\r\nX-Spaced: \t a b \t "
      "\r\n\r\nrest";
  CHECK(parse_request(text).consumed == text.size() - 4);
  const Parsed request(text);
  CHECK(request.method() == "GET");
  CHECK(request.target() == "/chat/room?user=a&b=%20");
  CHECK(request.path() == "/chat/room");
  CHECK(request.query() == "user=a&b=%20");
  CHECK(request.minor_version() == 1);
  REQUIRE(request.fields().size() == 3);
  CHECK(request.fields()[0].name == "Host");
  CHECK(request.fields()[0].value == "example.com");
  CHECK(request.fields()[1].value == "");
  CHECK(request.fields()[2].value == "a b");
  CHECK(request.host() == "example.com");
}

TEST_CASE("views point into the bytes that were parsed") {
  const Parsed request(with_fields("Host: h\r\n"));
  CHECK(request.find("host").data() == request.text.data() + request.text.find("h\r\n"));
}

TEST_CASE("a field that is not there has a null value, an empty one has not") {
  const Parsed request(with_fields("Host:\r\nX-Empty:\r\n"));
  CHECK(request.find(FieldId::host).data() != nullptr);
  CHECK(request.find("x-empty").data() != nullptr);
  CHECK(request.find(FieldId::origin).data() == nullptr);
  CHECK(request.find("x-none").data() == nullptr);
}

TEST_CASE("names are found whatever their case, and the first of several is taken") {
  const Parsed request(with_fields("x-A: 1\r\nX-a: 2\r\nCONNECTION: x\r\ncOnnection: y\r\n"));
  CHECK(request.find("X-A") == "1");
  CHECK(request.count("X-A") == 2);
  CHECK(request.find("connection") == "x");
  CHECK(request.count("Connection") == 2);
  CHECK(request.count(FieldId::connection) == 2);
  CHECK(request.count("other") == 0);
}

TEST_CASE("tokens are looked for in the list that all fields of a name make up") {
  const Parsed request(with_fields(
      "Connection: keep-alive,, \tUpgrade\t\r\nX: a, b\r\nConnection: te\r\nX: c\r\nY: \"a,b\", c\r\n"));
  for (const char* token : {"keep-alive", "upgrade", "TE"}) CHECK(request.has_token("connection", token));
  for (const char* token : {"a", "B", "c"}) CHECK(request.has_token("x", token));
  CHECK(request.has_token(FieldId::connection, "UPGRADE"));
  CHECK_FALSE(request.has_token("connection", "keep"));
  CHECK_FALSE(request.has_token("connection", ""));
  CHECK_FALSE(request.has_token("x", "a, b"));
  CHECK_FALSE(request.has_token("none", "a"));
  CHECK(request.has_token("y", "\"a,b\""));
  CHECK_FALSE(request.has_token("y", "b\""));
}

TEST_CASE("an escaped quote does not end a quoted string") {
  std::string_view list = R"("a\",b" , "\\",c, "open,d)";
  std::string_view item;
  std::vector<std::string_view> items;
  while (next_list_item(list, item)) items.push_back(item);
  CHECK(items == std::vector<std::string_view>{R"("a\",b")", R"("\\")", "c", "\"open,d"});
}

TEST_CASE("every field that the engine reads is recognised, and nothing that looks like it") {
  struct Known {
    std::string name;
    FieldId id;
  };
  const std::vector<Known> known = {
      {"Host", FieldId::host},
      {"Origin", FieldId::origin},
      {"Upgrade", FieldId::upgrade},
      {"Connection", FieldId::connection},
      {"Content-Length", FieldId::content_length},
      {"Transfer-Encoding", FieldId::transfer_encoding},
      {"Sec-WebSocket-Key", FieldId::sec_websocket_key},
      {"Sec-WebSocket-Version", FieldId::sec_websocket_version},
      {"Sec-WebSocket-Protocol", FieldId::sec_websocket_protocol},
      {"Sec-WebSocket-Extensions", FieldId::sec_websocket_extensions},
      {"Sec-WebSocket-Accept", FieldId::sec_websocket_accept},
  };
  CHECK(known.size() + 1 == field_id_count);
  for (const Known& field : known) {
    const std::string& name = field.name;
    const FieldId id = field.id;
    CAPTURE(name);
    CHECK(identify(name) == id);
    for (std::size_t i = 0; i < name.size(); ++i) {
      std::string other = name;
      const bool upper = other[i] >= 'A' && other[i] <= 'Z';
      if (other[i] != '-') {
        other[i] = static_cast<char>(upper ? other[i] | 0x20 : other[i] & ~0x20);
        CHECK(identify(other) == id);
      }
      other[i] = name[i] == '_' ? '-' : '_';
      CHECK(identify(other) == FieldId::other);
    }
  }
  for (const char* name : {"", "a", "Hos", "Hosts", "X-Sec-WebSocket-Key"})
    CHECK(identify(name) == FieldId::other);
}

TEST_CASE("every byte is judged by its class in a field name, wherever it stands") {
  const std::string allowed = "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
  for (unsigned c = 0; c < 256; ++c) {
    if (c == ':') continue;
    for (const std::size_t place :
         {std::size_t{0}, std::size_t{3}, std::size_t{15}, std::size_t{16}, std::size_t{20}}) {
      std::string name = "abcdefghijklmnopqrstu";
      name[place] = static_cast<char>(c);
      const bool good = allowed.find(static_cast<char>(c)) != std::string::npos;
      CAPTURE(c);
      CAPTURE(place);
      CHECK(status_of(with_fields(name + ": a value that is longer than a vector\r\n")) == (good ? 0 : 400));
    }
  }
}

TEST_CASE("every byte is judged by its class in a field value, wherever it stands") {
  for (unsigned c = 0; c < 256; ++c) {
    for (const std::size_t place : {std::size_t{1}, std::size_t{15}, std::size_t{16}, std::size_t{38}}) {
      std::string value = "a value that is longer than two vectors";
      value[place] = static_cast<char>(c);
      const bool good = c == '\t' || (c >= 0x20 && c != 0x7f);
      CAPTURE(c);
      CAPTURE(place);
      CHECK(status_of(with_fields("A: " + value + "\r\nB: c\r\n")) == (good ? 0 : 400));
    }
  }
}

TEST_CASE("every byte is judged by its class in a target: a path is strict, a query is what browsers send") {
  const std::string never = "\"#<>";
  const std::string not_in_paths = "%[\\]^`{|}";
  for (unsigned c = 0; c < 256; ++c) {
    CAPTURE(c);
    const auto is_one_of = [c](const std::string& set) { return set.find(static_cast<char>(c)) != set.npos; };
    const bool in_query = c > 0x20 && c < 0x7f && !is_one_of(never);
    const std::string target = std::string("/a") + static_cast<char>(c) + "g";
    CHECK(status_of(with_target(target)) == (in_query && !is_one_of(not_in_paths) ? 0 : 400));
    CHECK(status_of(with_target("/?" + target)) == (in_query ? 0 : 400));
    CHECK(is_request_target("/?" + target) == in_query);
    CHECK(is_request_target(target) == (in_query && !is_one_of(not_in_paths)));
  }
}

TEST_CASE("an escape in a path is a percent sign and two hexadecimal digits") {
  for (const char* good : {"/%20", "/a%aF%09b", "/%00", "http://h/%7e?%"})
    CHECK(status_of(with_target(good)) == 0);
  for (const char* bad : {"/%", "/%4", "/%zz", "/%4g", "/%g4", "/a%20%", "/%%20", "http://h/%?20"}) {
    CAPTURE(bad);
    CHECK(status_of(with_target(bad)) == 400);
  }
}

TEST_CASE("lines end in CRLF and in nothing else") {
  CHECK(status_of("GET / HTTP/1.1\nHost: h\n\n") == 400);
  CHECK(status_of("GET / HTTP/1.1\r\nHost: h\n\r\n") == 400);
  CHECK(status_of("GET / HTTP/1.1\r\nHost: h\r\n\n") == 400);
  CHECK(status_of("GET / HTTP/1.1\rHost: h\r\r") == 400);
  CHECK(status_of("GET / HTTP/1.1\r\nHost: h\r\r\n\r\n") == 400);
}

TEST_CASE("white space before a colon, folded lines and nameless fields are refused") {
  CHECK(status_of(with_fields("Host : h\r\n")) == 400);
  CHECK(status_of(with_fields("Host\t: h\r\n")) == 400);
  CHECK(status_of(with_fields("Host: h\r\n folded\r\n")) == 400);
  CHECK(status_of(with_fields("Host: h\r\n\tfolded\r\n")) == 400);
  CHECK(status_of(with_fields(" Host: h\r\n")) == 400);
  CHECK(status_of(with_fields(": h\r\n")) == 400);
  CHECK(status_of(with_fields("Host\r\n")) == 400);
}

TEST_CASE("the request line has exactly two spaces and a version") {
  for (const char* line :
       {"GET  / HTTP/1.1", "GET / HTTP/1.1 ", "GET /  HTTP/1.1", " GET / HTTP/1.1", "GET\t/\tHTTP/1.1",
        "GET /", "GET", "GET / ", "GET  HTTP/1.1", "GET / HTTP/1", "GET / HTTP/1.10", "GET / http/1.1",
        "GET / HTTP/1,1", "GET / HTTP/x.1", "GET / HTTP/1.x", "GET / HTTPS/1.1", "G(T / HTTP/1.1"}) {
    CAPTURE(line);
    CHECK(status_of(std::string(line) + "\r\n\r\n") == 400);
  }
}

TEST_CASE("minor versions are recognised and other major versions get 505") {
  for (unsigned minor = 0; minor < 10; ++minor) {
    const std::string text = "GET / HTTP/1." + std::to_string(minor) + "\r\n\r\n";
    CHECK(status_of(text) == 0);
    CHECK(Parsed(text).minor_version() == minor);
  }
  for (const char* version : {"0.9", "2.0", "3.0", "9.9"}) {
    CHECK(status_of("GET / HTTP/" + std::string(version) + "\r\n\r\n") == 505);
  }
  CHECK(status_of("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n") == 505);
}

TEST_CASE("four empty lines before the request are forgiven, a fifth one is not") {
  CHECK(parse_request("\r\nGET / HTTP/1.1\r\n\r\n").consumed == 20);
  CHECK(parse_request("\r\n\r\n\r\n\r\nGET / HTTP/1.1\r\n\r\n").consumed == 26);
  CHECK(status_of("\r\n\r\n\r\n\r\n\r\nGET / HTTP/1.1\r\n\r\n") == 400);
  CHECK(status_of("\nGET / HTTP/1.1\r\n\r\n") == 400);
  CHECK(status_of("\rGET / HTTP/1.1\r\n\r\n") == 400);
}

TEST_CASE("the four forms of a target are told apart") {
  struct Vector {
    const char *target, *path, *query, *host;
  };
  for (const Vector& v : std::initializer_list<Vector>{
           {"/", "/", "", "field"},
           {"//x//y", "//x//y", "", "field"},
           {"/a?", "/a", "", "field"},
           {"/a?b?c=/d", "/a", "b?c=/d", "field"},
           {"http://h.example:81/a/b?q", "/a/b", "q", "h.example:81"},
           {"WSS://[::1]:8/a", "/a", "", "[::1]:8"},
           {"ws://h", "/", "", "h"},
           {"https://h?q=1", "/", "q=1", "h"},
       }) {
    CAPTURE(v.target);
    const std::string text = "GET " + std::string(v.target) + " HTTP/1.1\r\nHost: field\r\n\r\n";
    CHECK(status_of(text) == 0);
    const Parsed request(text);
    CHECK(request.path() == v.path);
    CHECK(request.query() == v.query);
    CHECK(request.host() == v.host);
  }
  for (const char* bad :
       {"a", "*", "h:80", "http://", "http:///a", "http://u@h/", "ftp://h/", "://h/", "http:/a", "?a"}) {
    CAPTURE(bad);
    CHECK(status_of(with_target(bad)) == 400);
  }
  CHECK(status_of("OPTIONS * HTTP/1.1\r\n\r\n") == 0);
  for (const char* good : {"h:80", "[::1]:65535", "h:000080", "1.2.3.4:1"}) {
    CHECK(status_of("CONNECT " + std::string(good) + " HTTP/1.1\r\n\r\n") == 0);
  }
  for (const char* bad : {"/a", "h", "h:", "h:0", "h:65536", "h:8a", ":80", "u@h:80", "http://h:80"}) {
    CAPTURE(bad);
    CHECK(status_of("CONNECT " + std::string(bad) + " HTTP/1.1\r\n\r\n") == 400);
  }
}

namespace {

constexpr const char* good_authorities[] = {
    "a",        "A.b-c.D", "a:80",     "a:",         "a:99999", "a_b",  "a,b", "!$&'()*+;=~",      "[::1]",
    "[::1]:80", "[::1]:",  "[v1.x:y]", "[VaF.!:]:1", "1.2.3.4", "a%41", "%aF", "[::ffff:1.2.3.4]", "a%41:8",
};
constexpr const char* bad_authorities[] = {
    "",          ":80",     "a:b",      "a:80:80",  "a:80a",
    "a:-1",      "::1",     "[::1",     "::1]",     "[::1]80",
    "[::1]:x",   "[]",      "[zz]",     "[::1]]",   "a[b]",
    "a%zz",      "a%",      "a%4",      "a%4:8",    "[v.x]",
    "[v1.]",     "[v1]",    "[vg.x]",   "[v1.%41]", "[fe80::1%25eth0]",
    "[1.2.3.4]", "[[::1]]", "a b",      "a/b",      "u@h",
    "a?b",       "a\\b",    "a\"b",     "a{b",      "a|b",
    "a^b",       "\xe9",    "http://a", "<a>",      "a#b",
};

}  // namespace

TEST_CASE("an authority is a host by the grammar of URIs, and a port of digits") {
  for (const char* good : good_authorities) {
    CAPTURE(good);
    CHECK(is_authority(Exact(good).text()));
    CHECK(status_of(with_target("http://" + std::string(good) + "/")) == 0);
  }
  for (const char* bad : bad_authorities) {
    CAPTURE(bad);
    CHECK_FALSE(is_authority(Exact(bad).text()));
    if (std::string_view(bad).find_first_of("/?") == std::string_view::npos) {
      CHECK(status_of(with_target("http://" + std::string(bad) + "/")) == 400);
    }
  }
}

TEST_CASE("garbage is refused with its first wrong byte, not at the limit") {
  HttpRequest request;
  const auto status = [&request](std::string_view text) { return request.parse(to_bytes(text)).http_status; };
  CHECK(status("\x16") == 400);  // a TLS ClientHello
  CHECK(status(std::string(1, '\0')) == 400);
  CHECK(status("\x81") == 400);  // a frame
  CHECK(status("GET\x01") == 400);
  CHECK(status("GET x") == 0);  // may become an absolute target
  CHECK(status("GET / X") == 400);
  CHECK(status("GET / HTTQ") == 400);
  CHECK(status("GET / HTTP/1.1\r\nHost ") == 400);
  CHECK(status("GET / HTTP/1.1\r\nHost: \x01") == 400);
  CHECK(status("SSH-2.0-OpenSSH_9.2\r") == 400);
  CHECK(status(std::string(32, 'A')) == 0);
  CHECK(status(std::string(33, 'A')) == 501);
}

TEST_CASE("a head beyond its limits gets 431, an endless request line 414") {
  const std::string text = with_fields("A: b\r\nC: d\r\n");
  CHECK(status_of(text, {.max_bytes = text.size()}) == 0);
  CHECK(status_of(text, {.max_bytes = text.size() - 1}) == 431);
  CHECK(status_of(text, {.max_bytes = 20}) == 431);
  CHECK(status_of(text, {.max_bytes = 10}) == 414);
  CHECK(status_of(text, {.max_fields = 2}) == 0);
  CHECK(status_of(text, {.max_fields = 1}) == 431);
  CHECK(status_of(text, {.max_fields = 0}) == 431);
  const HttpLimits limits;
  CHECK(status_of("GET /" + std::string(limits.max_bytes, 'a')) == 414);
  CHECK(status_of("GET / HTTP/1.1\r\nA: " + std::string(limits.max_bytes, 'a')) == 431);
  CHECK(status_of("GET / HTTP/1.1\r\n" + std::string(limits.max_bytes, 'a')) == 431);
}

TEST_CASE("the number of fields is bounded by the object's capacity whatever the limit says") {
  const auto many = [](std::size_t count) {
    std::string lines;
    for (std::size_t i = 0; i < count; ++i) lines += "a:b\r\n";
    return with_fields(lines);
  };
  const HttpLimits limits = {.max_bytes = 1 << 20, .max_fields = 1 << 20};
  CHECK(status_of(many(HttpHead::field_capacity), limits) == 0);
  CHECK(status_of(many(HttpHead::field_capacity + 1), limits) == 431);
  HttpRequest request;
  const std::string text = many(HttpHead::field_capacity);
  REQUIRE(request.parse(to_bytes(text), limits).state == ParseState::complete);
  CHECK(request.count("a") == HttpHead::field_capacity);
}

TEST_CASE("what follows the head is not looked at") {
  const std::string head = with_fields("A: b\r\n");
  CHECK(parse_request(head + std::string("\x81\x80\0\0", 4)).consumed == head.size());
  CHECK(status_of(head + std::string(100, 'x'), {.max_bytes = head.size()}) == 0);
}

TEST_CASE("content is announced by Transfer-Encoding or a Content-Length above zero") {
  CHECK_FALSE(Parsed(with_fields("")).has_body());
  CHECK_FALSE(Parsed(with_fields("Content-Length: 0\r\n")).has_body());
  CHECK_FALSE(Parsed(with_fields("Content-Length: 000\r\n")).has_body());
  CHECK(Parsed(with_fields("Content-Length: 10\r\n")).has_body());
  CHECK(Parsed(with_fields("Content-Length: 7\r\nContent-Length: 7\r\n")).has_body());
  CHECK(Parsed(with_fields("Transfer-Encoding: chunked\r\n")).has_body());
}

TEST_CASE("chunked is the last transfer coding, once, and no other one is understood") {
  const auto status = [](std::string_view value) {
    return status_of(with_fields("Transfer-Encoding: " + std::string(value) + "\r\n"));
  };
  for (const char* good : {"chunked", "Chunked", ",chunked,"}) CHECK(status(good) == 0);
  for (const char* bad : {"", ",", "gzip", "identity", "chunked, gzip", "chunked, chunked",
                          "chunked\r\nTransfer-Encoding: chunked", "chunked;x=y", "\"chunked\"", "xchunked",
                          "gzip\r\nTransfer-Encoding: x"}) {
    CAPTURE(bad);
    CHECK(status(bad) == 400);
  }
  for (const char* other : {"gzip, chunked", "x\r\nTransfer-Encoding: chunked"}) CHECK(status(other) == 501);
  HttpResponse response;
  CHECK(response.parse(to_bytes("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n")).state ==
        ParseState::complete);
}

TEST_CASE("a content length that cannot be trusted gets 400") {
  for (const char* length : {"", "-1", "+1", "0x1", "1 2", "1, 1", "1a", "1.0"}) {
    CAPTURE(length);
    CHECK(status_of(with_fields("Content-Length: " + std::string(length) + "\r\n")) == 400);
  }
  CHECK(status_of(with_fields("Content-Length: 1\r\nContent-Length: 2\r\n")) == 400);
  CHECK(status_of(with_fields("Content-Length: 1\r\nTransfer-Encoding: chunked\r\n")) == 400);
}

TEST_CASE("a connection is kept by default from HTTP/1.1 on and on request before") {
  CHECK(Parsed(with_fields("")).keep_alive());
  CHECK_FALSE(Parsed(with_fields("Connection: x, Close\r\n")).keep_alive());
  CHECK_FALSE(Parsed("GET / HTTP/1.0\r\n\r\n").keep_alive());
  CHECK(Parsed("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n").keep_alive());
}

TEST_CASE("an object forgets the head before") {
  HttpRequest request;
  REQUIRE(request.parse(to_bytes("GET /a?b HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\n")).http_status ==
          0);
  REQUIRE(request.parse(to_bytes("GET / HTTP/1.0\r\n\r\n")).state == ParseState::complete);
  CHECK(request.fields().empty());
  CHECK(request.count(FieldId::host) == 0);
  CHECK(request.host() == "");
  CHECK(request.query() == "");
  CHECK_FALSE(request.has_body());
  CHECK(request.minor_version() == 0);
  REQUIRE(request.parse({}).state == ParseState::incomplete);
  CHECK(request.method() == "");
  CHECK(request.target() == "");
}

TEST_CASE("an incomplete head shows the lines that are complete") {
  HttpRequest request;
  REQUIRE(request.parse(to_bytes("GET /a HTTP/1.1\r\nHost: h\r\nOrig")).state == ParseState::incomplete);
  CHECK(request.method() == "GET");
  REQUIRE(request.fields().size() == 1);
  CHECK(request.find(FieldId::host) == "h");
  REQUIRE(request.parse(to_bytes("GET /a HTTP/1.1\r")).state == ParseState::incomplete);
  CHECK(request.method() == "");
}

TEST_CASE("the end of a head is found across any cut") {
  for (const std::string empty_lines : {"", "\r\n", "\r\n\r\n\r\n\r\n"}) {
    const std::string text = empty_lines + "GET / HTTP/1.1\r\nA: b\r\n\r\n";
    const std::string longer = text + "rest\r\n\r\n";
    for (std::size_t size = 0; size <= longer.size(); ++size) {
      for (std::size_t from = 0; from <= std::min(size, text.size() - 1); ++from) {
        const Exact part(longer.substr(0, size));
        CHECK(find_header_end(part.bytes(), from) == (size >= text.size() ? text.size() : 0));
      }
    }
  }
}

TEST_CASE("parsing again is worth it when a line has ended, at first and at the limit") {
  const HttpLimits limits = {.max_bytes = 10};
  CHECK(worth_parsing(to_bytes("G"), 0, limits));
  CHECK_FALSE(worth_parsing(to_bytes("GET"), 1, limits));
  CHECK_FALSE(worth_parsing(to_bytes("GET"), 3, limits));
  CHECK(worth_parsing(to_bytes("GET\n"), 3, limits));
  CHECK_FALSE(worth_parsing(to_bytes("GET\n/"), 4, limits));
  CHECK(worth_parsing(to_bytes("0123456789"), 9, limits));
}

TEST_CASE("a response is taken apart into version, status, reason and fields") {
  const std::string text = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n\x81";
  CHECK(parse_everywhere<HttpResponse>(text).consumed == text.size() - 1);
  HttpResponse response;
  REQUIRE(response.parse(to_bytes(text)).state == ParseState::complete);
  CHECK(response.status() == 101);
  CHECK(response.reason() == "Switching Protocols");
  CHECK(response.has_token(FieldId::upgrade, "WebSocket"));
  REQUIRE(response.parse(to_bytes("HTTP/1.0 404 \r\n\r\n")).state == ParseState::complete);
  CHECK(response.status() == 404);
  CHECK(response.reason() == "");
  CHECK(response.minor_version() == 0);
  REQUIRE(response.parse(to_bytes("HTTP/1.1 200\r\n\r\n")).state == ParseState::complete);
  CHECK(response.status() == 200);
}

TEST_CASE("malformed responses are refused") {
  const auto status = [](std::string_view text) { return parse_everywhere<HttpResponse>(text).http_status; };
  for (const char* line :
       {"HTTP/1.1 99 a", "HTTP/1.1 1000 a", "HTTP/1.1 099 a", "HTTP/1.1  200 OK", "HTTP/1.1 2x0 OK",
        "HTTP/1.1", "http/1.1 200 OK", "200 OK", "HTTP/1.1 200 O\x01K", "\r\nHTTP/1.1 200 OK"}) {
    CAPTURE(line);
    CHECK(status(std::string(line) + "\r\n\r\n") == 400);
  }
  CHECK(status("HTTP/2.0 200 OK\r\n\r\n") == 505);
  CHECK(status("HTTP/1.1 200 OK\r\nA : b\r\n\r\n") == 400);
  CHECK(parse_everywhere<HttpResponse>("HTTP/1.1 200 OK\r\n\r\n", {.max_bytes = 10}).http_status == 431);
}

namespace {

// What parse_final() makes of a text that arrives whole, or in two parts into the same memory, wherever it is cut.
struct Final {
  ParseResult result;
  unsigned status = 0;
  std::string fields;  // name=value;
  std::string bytes;   // what became of the text

  static Final of(const std::string& text, const HttpLimits& limits = {}) {
    const Final whole = cut_at(text, 0, limits);
    for (std::size_t cut = 1; cut < text.size(); ++cut) {
      CAPTURE(cut);
      const Final other = cut_at(text, cut, limits);
      CHECK(other.result.state == whole.result.state);
      CHECK(other.result.http_status == whole.result.http_status);
      CHECK(other.result.consumed == whole.result.consumed);
      CHECK(other.status == whole.status);
      CHECK(other.fields == whole.fields);
      if (whole.result.state == ParseState::complete) CHECK(other.bytes == whole.bytes);
    }
    return whole;
  }

  static Final cut_at(const std::string& text, std::size_t cut, const HttpLimits& limits) {
    Exact all(text);
    const MutableBytes in{all.data.get(), all.size};
    HttpResponse response;
    ParseResult result;
    if (cut != 0) result = response.parse_final(in.first(cut), limits);
    if (result.state == ParseState::incomplete) result = response.parse_final(in, limits);
    Final seen{result, response.status(), {}, std::string(all.text())};
    for (const HttpField& field : response.fields()) {
      seen.fields += std::string(field.name) + "=" + std::string(field.value) + ";";
    }
    return seen;
  }
};

}  // namespace

TEST_CASE("interim responses are skipped, up to the final one") {
  const std::string final = "HTTP/1.1 101 x\r\nA: b\r\n\r\n";
  for (const std::string before :
       {"", "HTTP/1.1 100 Continue\r\n\r\n", "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n",
        "HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 199\r\nContent-Length: 3\r\n\r\n"}) {
    CAPTURE(before);
    const Final seen = Final::of(before + final + "\r\n \x81");
    CHECK(seen.status == 101);
    CHECK(seen.fields == "A=b;");
    CHECK(seen.result.consumed == before.size() + final.size());
    CHECK(seen.bytes == before + final + "\r\n \x81");
    const std::size_t size = before.size() + final.size();
    CHECK(Final::of(before + final, {.max_bytes = size}).status == 101);
    CHECK(Final::of(before + final, {.max_bytes = size - 1}).result.http_status == 431);
  }
  CHECK(Final::of("HTTP/1.1 100 x\r\n\r\nHTTP/1.1 403 x\r\n\r\n").status == 403);
  CHECK(Final::of("HTTP/1.1 100 x\r\n\r\nHTTP/2.0 101 x\r\n\r\n").result.http_status == 505);
  CHECK(Final::of("HTTP/1.1 100 x\r\n\r\n").result.state == ParseState::incomplete);
  std::string endless;
  while (endless.size() < 300) endless += "HTTP/1.1 100 x\r\n\r\n";
  CHECK(Final::of(endless, {.max_bytes = 200}).result.http_status == 431);
}

TEST_CASE("folded lines of a response are joined with spaces, and nothing behind its head is touched") {
  const auto fields = [](const std::string& lines) {
    const Final seen = Final::of("HTTP/1.1 101 x\r\n" + lines + "\r\n\r\n \x81");
    CHECK(seen.bytes.ends_with("\r\n\r\n\r\n \x81"));
    return seen.result.state == ParseState::complete ? seen.fields : std::to_string(seen.result.http_status);
  };
  CHECK(fields("A: b\r\n c\r\n") == "A=b   c;");
  CHECK(fields("A: b\r\n\tc\r\n \r\n  d\r\nE: f\r\n") == "A=b  \tc       d;E=f;");
  CHECK(fields("A:\r\n b\r\n") == "A=b;");
  CHECK(fields("A: b\r\n \r\n") == "A=b;");
  CHECK(fields(" A: b\r\n") == "400");  // there is no line yet that could be folded
  CHECK(fields("A\r\n : b\r\n") == "400");
  CHECK(fields("A: b\n c\r\n") == "400");
  CHECK(Final::of("HTTP/1.1 100 x\r\nA: b\r\n c\r\n\r\nHTTP/1.1 101 x\r\n\r\n").status == 101);
}

TEST_CASE("texts are judged before they are written") {
  CHECK(is_token("Sec-WebSocket-Key"));
  CHECK_FALSE(is_token(""));
  CHECK_FALSE(is_token("a b"));
  CHECK(is_field_value("a\tb \x80"));
  CHECK(is_field_value(""));
  CHECK_FALSE(is_field_value("a\r\nb"));
  CHECK_FALSE(is_field_value("a\nb"));
  CHECK_FALSE(is_field_value(std::string_view("a\0b", 3)));
  CHECK(is_authority("[::1]:80"));
  CHECK(is_request_target("/a?b"));
  for (const char* bad : {"", "/a b", "/a#b", "/a\r\n"}) CHECK_FALSE(is_request_target(bad));
}
