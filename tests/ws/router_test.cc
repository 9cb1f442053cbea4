#include <levada/ws/router.h>

#include <doctest/doctest.h>

#include <algorithm>
#include <string>
#include <vector>

using namespace levada::ws;

namespace {

RouteTable make_table(const std::vector<std::string>& patterns) {
  RouteTable table;
  for (std::size_t i = 0; i < patterns.size(); ++i) REQUIRE(table.add(patterns[i]) == i);
  return table;
}

// The pattern that serves `path` and the values, as "pattern name=value ...", or "none".
std::string match(const std::vector<std::string>& patterns, std::string_view path) {
  const RouteTable table = make_table(patterns);
  Params params;
  const std::size_t route = table.match(path, params);
  if (route == RouteTable::no_route) {
    CHECK(params.size() == 0);
    return "none";
  }
  std::string text = patterns[route];
  for (const auto& [name, value] : params) text += " " + std::string(name) + "=" + std::string(value);
  return text;
}

}  // namespace

TEST_CASE("a literal route serves exactly its path") {
  const std::vector<std::string> patterns = {"/", "/a", "/a/b", "/a/"};
  for (const std::string& pattern : patterns) CHECK(match(patterns, pattern) == pattern);
  for (const char* path : {"", "a", "/A", "/b", "/a/b/", "/a/b/c", "//", "/a//b", "/ab"}) {
    CAPTURE(path);
    CHECK(match(patterns, path) == "none");
  }
}

TEST_CASE("a parameter stands for one segment that is not empty") {
  const std::vector<std::string> patterns = {"/rooms/:room", "/rooms/:room/members/:member"};
  CHECK(match(patterns, "/rooms/7") == "/rooms/:room room=7");
  CHECK(match(patterns, "/rooms/a%2Fb") == "/rooms/:room room=a%2Fb");
  CHECK(match(patterns, "/rooms/7/members/x") == "/rooms/:room/members/:member room=7 member=x");
  for (const char* path : {"/rooms", "/rooms/", "/rooms/7/", "/rooms//members/x", "/rooms/7/members/"}) {
    CAPTURE(path);
    CHECK(match(patterns, path) == "none");
  }
}

TEST_CASE("a wildcard stands for the rest of the path") {
  const std::vector<std::string> patterns = {"/files/*"};
  CHECK(match(patterns, "/files/") == "/files/* *=");
  CHECK(match(patterns, "/files/a") == "/files/* *=a");
  CHECK(match(patterns, "/files/a//b/") == "/files/* *=a//b/");
  CHECK(match(patterns, "/files") == "none");
  CHECK(match({"/*"}, "/") == "/* *=");
  CHECK(match({"/*"}, "") == "none");
}

TEST_CASE("literal text beats a parameter and a parameter beats a wildcard in every order of adding") {
  std::vector<std::string> patterns = {"/*", "/:a", "/x", "/:a/y", "/x/*"};
  std::sort(patterns.begin(), patterns.end());
  do {
    CHECK(match(patterns, "/x") == "/x");
    CHECK(match(patterns, "/z") == "/:a a=z");
    CHECK(match(patterns, "/z/y") == "/:a/y a=z");
    CHECK(match(patterns, "/x/y") == "/x/* *=y");
    CHECK(match(patterns, "/z/z") == "/* *=z/z");
    CHECK(match(patterns, "/") == "/* *=");
  } while (std::next_permutation(patterns.begin(), patterns.end()));
}

TEST_CASE("a way that ends nowhere is taken back with its parameters") {
  const std::vector<std::string> patterns = {"/a/:x/c", "/:p/b/:q", "/*"};
  CHECK(match(patterns, "/a/b/c") == "/a/:x/c x=b");
  CHECK(match(patterns, "/a/b/d") == "/:p/b/:q p=a q=d");
  CHECK(match(patterns, "/a/e/d") == "/* *=a/e/d");
}

TEST_CASE("routes may name a parameter at the same place differently") {
  const std::vector<std::string> patterns = {"/:a/x", "/:b/y"};
  CHECK(match(patterns, "/1/x") == "/:a/x a=1");
  CHECK(match(patterns, "/1/y") == "/:b/y b=1");
}

TEST_CASE("values are views into the path and are found by name") {
  const RouteTable table = make_table({"/:a/:b/*"});
  const std::string path = "/1/22/3/4";
  Params params;
  REQUIRE(table.match(path, params) == 0);
  CHECK(params.find("a").data() == path.data() + 1);
  CHECK(params.find("b") == "22");
  CHECK(params.find("*") == "3/4");
  CHECK(params.find("c").data() == nullptr);
  CHECK(params[1].name == "b");
  CHECK(table.match("/1", params) == RouteTable::no_route);
  CHECK(params.size() == 0);
}

TEST_CASE("patterns that cannot work are refused") {
  RouteTable table;
  for (const char* bad : {"", "a", "*", ":a", "/:", "/a/:/b", "/*/a", "/*a", "/a/*/", "/:a/:a",
                          "/:a/:b/:c/:d/:e/:f/:g/:h/:i"}) {
    CAPTURE(bad);
    CHECK_FALSE(RouteTable::is_valid(bad));
    CHECK(table.add(bad) == RouteTable::no_route);
  }
  CHECK(table.size() == 0);
  CHECK(table.add("/:a/:b/:c/:d/:e/:f/:g/:h") == 0);
  CHECK(table.add("/:a/:b/:c/:d/:e/:f/:g/*") == 1);
  CHECK(table.add("/a:b/c*") == 2);
}

TEST_CASE("a pattern that matches what an earlier one does is refused") {
  RouteTable table = make_table({"/a", "/:x", "/b/*"});
  CHECK(table.add("/a") == RouteTable::no_route);
  CHECK(table.add("/:y") == RouteTable::no_route);
  CHECK(table.add("/b/*") == RouteTable::no_route);
  CHECK(table.size() == 3);
  Params params;
  CHECK(table.match("/q", params) == 1);
  CHECK(params.find("x") == "q");
}

TEST_CASE("the depth of a path costs no stack") {
  const RouteTable table = make_table({"/a/*", "/:a"});
  Params params;
  std::string path = "/a";
  for (int i = 0; i < 1'000'000; ++i) path += "/a";
  CHECK(table.match(path, params) == 0);
  CHECK(params.find("*").size() == path.size() - 3);
}

TEST_CASE("a router hands out the value of the route") {
  Router<std::string> router;
  CHECK(router.add("/a", "first"));
  CHECK(router.add("/:b", "second"));
  CHECK_FALSE(router.add("/a", "again"));
  CHECK(router.size() == 2);
  Params params;
  REQUIRE(router.match("/a", params) != nullptr);
  CHECK(*router.match("/a", params) == "first");
  *router.match("/z", params) += "!";
  CHECK(*router.match("/z", params) == "second!");
  CHECK(router.match("/a/b", params) == nullptr);
}
