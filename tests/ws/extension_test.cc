#include <levada/ws/extension.h>

#include <doctest/doctest.h>

#include <string>
#include <string_view>

using namespace levada;
using namespace levada::ws;

namespace {

// "name(p q=value)..." of what the cursor gives; "!" at its end where the text is no list.
std::string walk(ExtensionCursor cursor) {
  std::string text;
  for (Extension extension; cursor.next(extension);) {
    text += std::string(extension.name) + "(";
    std::string separator;
    for (ExtensionParameter parameter; extension.parameters.next(parameter); separator = " ") {
      text += separator + std::string(parameter.name);
      if (!parameter.value.present()) continue;
      for (const std::string_view value : {"value", "8", "15", "a,b", "x"}) {
        if (parameter.value == value) text += "=" + std::string(value);
      }
    }
    CHECK(extension.parameters.valid());
    text += ")";
  }
  return text + (cursor.valid() ? "" : "!");
}

std::string walk(std::string_view value) {
  return walk(ExtensionCursor(value));
}

HttpRequest parse(std::string_view fields, std::string& text) {
  text = "GET / HTTP/1.1\r\nHost: h\r\n" + std::string(fields) + "\r\n";
  HttpRequest request;
  REQUIRE(request.parse(to_bytes(text)).state == ParseState::complete);
  return request;
}

bool is_list(std::string_view value) {
  return ExtensionCursor(value).valid();
}

int number(std::string_view value) {
  const std::string text = "e; p=" + std::string(value);
  ExtensionCursor cursor{std::string_view(text)};
  Extension extension;
  ExtensionParameter parameter;
  REQUIRE(cursor.next(extension));
  REQUIRE(extension.parameters.next(parameter));
  return parameter.value.number();
}

}  // namespace

TEST_CASE("extensions, parameters and values are walked in order") {
  CHECK(walk("foo") == "foo()");
  CHECK(walk("foo, bar; baz=value") == "foo()bar(baz=value)");  // RFC 6455 section 9.1
  CHECK(walk("foo; a; b=8; c=x, foo") == "foo(a b=8 c=x)foo()");
  CHECK(walk("permessage-deflate; client_max_window_bits; server_max_window_bits=15, x") ==
        "permessage-deflate(client_max_window_bits server_max_window_bits=15)x()");
}

TEST_CASE("white space may stand between any two parts, and empty items are skipped") {
  CHECK(walk("  foo ;\ta = 8 ; b\t,bar ") == "foo(a=8 b)bar()");
  CHECK(walk("foo;a=8;b,bar") == "foo(a=8 b)bar()");
  CHECK(walk(", ,foo,,bar, ,") == "foo()bar()");
}

TEST_CASE("a quoted value is the token that it is when it is unescaped") {
  CHECK(walk("e; p=\"value\"") == "e(p=value)");
  CHECK(walk("e; p=\"v\\al\\ue\"; q = \"8\" , f") == "e(p=value q=8)f()");
  CHECK(walk("e; p=\"\\1\\5\"") == "e(p=15)");
}

TEST_CASE("what is not by the grammar is told from what nobody knows") {
  for (const char* good : {"x", "never-heard-of; of=this", "a;a;a", "a; b=!#$%&'*+-.^_`|~", "a,a,a"}) {
    CAPTURE(good);
    CHECK(is_list(good));
  }
  for (const char* bad : {"",
                          " ",
                          ",",
                          ", ,\t,",
                          ";",
                          "foo;",
                          "foo; ",
                          "foo;;a",
                          "foo; =8",
                          "foo; a=",
                          "foo; a=;b",
                          "foo bar",
                          "foo; a b",
                          "foo; a=1 2",
                          "foo, b@r",
                          "foo; a=\"",
                          "foo; a=\"x",
                          "foo; \"a\"",
                          "\"foo\"",
                          "foo; a=\"\"",
                          "foo; a=\"x y\"",
                          "a; b=\"c,d\"",
                          "a; b=\"\\\"\"",
                          "a; b=\"\\\\\"",
                          "a; b=\"x\"y",
                          "a; b=\"x\" y",
                          "a; b=\"x\\",
                          "a; b==c",
                          "foo; a=1=2",
                          "foo=1",
                          "(foo)",
                          "foo, \x80",
                          "foo; a=\xc3\xa9",
                          "foo, ;",
                          "fo\"o, bar\"; x",
                          "a; b=\\x"}) {
    CAPTURE(bad);
    CHECK(!is_list(bad));
  }
}

TEST_CASE("the cursor stops at what is no extension, and valid() looks at all of the list") {
  CHECK(walk("foo, b@r, baz") == "foo()!");
  ExtensionCursor cursor(std::string_view("foo, bar; =, baz"));
  CHECK(!cursor.valid());
  Extension extension;
  CHECK(cursor.next(extension));
  CHECK(!cursor.next(extension));
  CHECK(!cursor.valid());
  CHECK(!parse_extension("a; b=", extension));
  CHECK(parse_extension(" a ; b ", extension));
}

TEST_CASE("all fields of a head are one list; a head without any has none") {
  std::string text;
  CHECK(walk(ExtensionCursor(
            parse("Sec-WebSocket-Extensions: a; x=8, b\r\nX: c\r\nsec-websocket-extensions: d\r\n", text))) ==
        "a(x=8)b()d()");
  CHECK(walk(ExtensionCursor(parse("X: y\r\n", text))).empty());
  CHECK(walk(ExtensionCursor(parse("Sec-WebSocket-Extensions:\r\n", text))) == "!");
  CHECK(walk(ExtensionCursor(
            parse("Sec-WebSocket-Extensions: ,\r\nSec-WebSocket-Extensions: a\r\n", text))) == "a()");
  CHECK(walk(ExtensionCursor(
            parse("Sec-WebSocket-Extensions: a\r\nSec-WebSocket-Extensions: b;\r\n", text))) == "a()!");
  // A quoted string does not go on in the next field.
  CHECK(walk(ExtensionCursor(
            parse("Sec-WebSocket-Extensions: a; b=\"c\r\nSec-WebSocket-Extensions: d\"\r\n", text))) == "!");
}

TEST_CASE("a value is a number only as the RFC writes one") {
  CHECK(number("0") == 0);
  CHECK(number("8") == 8);
  CHECK(number("15") == 15);
  CHECK(number("\"1\\0\"") == 10);
  CHECK(number("999999") == 999'999);
  for (const char* bad : {"1000000", "99999999999999999999999", "08", "00", "+8", "-8", "8x", "x", "1.0"}) {
    CAPTURE(bad);
    CHECK(number(bad) == -1);
  }
  CHECK(ExtensionValue().number() == -1);
  CHECK(!(ExtensionValue() == std::string_view()));
}
