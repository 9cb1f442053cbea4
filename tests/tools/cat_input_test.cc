#include <levada/tools/cat/input.h>

#include <doctest/doctest.h>

#include <levada/tools/cat/options.h>

using levada::cat::Input;
using Next = Input::Next;

namespace {

std::string take(Input& input) {
  std::string_view message;
  const Next next = input.next(message);
  return next == Next::message ? std::string(message) : next == Next::nothing ? "(nothing)" : "(too long)";
}

}  // namespace

TEST_CASE("each line is a message, however it was read, and so is the rest at the end") {
  Input input(false, 100);
  CHECK(take(input) == "(nothing)");
  input.append("on");
  CHECK(take(input) == "(nothing)");
  input.append("e\n\ntwo\r\nth\rree");
  CHECK(take(input) == "one");
  CHECK(take(input).empty());
  CHECK(take(input) == "two");
  CHECK(take(input) == "(nothing)");
  input.end();
  CHECK(take(input) == "th\rree");
  CHECK(take(input) == "(nothing)");
}

TEST_CASE("an input that ends with a line end has no message behind it") {
  Input input(false, 100);
  input.append("a\n");
  input.end();
  CHECK(take(input) == "a");
  CHECK(take(input) == "(nothing)");
}

TEST_CASE("a line that is too long is seen before its end") {
  Input input(false, 4);
  input.append("1234\n12345");
  CHECK(take(input) == "1234");
  CHECK(take(input) == "(too long)");
}

TEST_CASE("binary input is taken as it comes, in pieces of at most the limit") {
  Input input(true, 4);
  input.append("a\nb\r\nc");
  CHECK(take(input) == "a\nb\r");
  CHECK(take(input) == "\nc");
  CHECK(take(input) == "(nothing)");
}

TEST_CASE("a header is a name, a colon and a value that can be sent") {
  levada::ws::HttpField field;
  CHECK(levada::cat::parse_header("X-Name:  a: b ", field));
  CHECK(field.name == "X-Name");
  CHECK(field.value == "a: b");
  for (const char* text : {"", "x", ": y", "a b: c", "a: b\r\nc: d"}) {
    CHECK_FALSE_MESSAGE(levada::cat::parse_header(text, field), text);
  }
}
