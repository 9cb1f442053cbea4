// Routes: which handler serves a path.
//
// A pattern is a path whose segments are literal text, ":name" (one segment that is not empty) or, as the
// last one,
// "*" (the rest of the path, slashes included, possibly empty):
//   /chat                  /rooms/:room/members/:member                  /files/*
//
// Model: the patterns form a tree of segments. Where several match, the first segment that differs decides:
// literal text beats a parameter, a parameter beats the wildcard, whatever the order in which they were
// added. A path leads to any node of the tree in one way only, so a match costs at most one visit per node.
//
// Paths are compared byte by byte as they were sent, without the query: "/a" and "/a/" differ, and
// percent-decoding is the caller's, for literals as well as for parameter values.
//
// Routes are added at start-up (which allocates); after that matching allocates nothing and any thread may do
// it.
#pragma once

#include <array>
#include <cassert>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace levada::ws {

// What a pattern's parameters stood for. Names live as long as the router; values are views into the matched
// path.
class Params {
 public:
  static constexpr std::size_t capacity = 8;

  struct Param {
    std::string_view name;
    std::string_view value;
  };

  const Param* begin() const { return params_.data(); }
  const Param* end() const { return params_.data() + size_; }
  std::size_t size() const { return size_; }
  const Param& operator[](std::size_t i) const {
    assert(i < size_);
    return params_[i];
  }

  // The value of a parameter, the wildcard's under "*"; a null view when the pattern has no such name.
  std::string_view find(std::string_view name) const;

 private:
  friend class RouteTable;

  std::array<Param, capacity> params_{};
  std::size_t size_ = 0;
};

// Patterns, numbered from 0 in the order in which they were added.
class RouteTable {
 public:
  static constexpr std::size_t no_route = static_cast<std::size_t>(-1);

  // A pattern begins with '/', has at most Params::capacity parameters, all with different names that are not
  // empty, and a segment that begins with '*' is "*" and the last.
  static bool is_valid(std::string_view pattern);

  // The number of the new route, or no_route when the pattern is not valid or matches exactly what an earlier
  // one does
  // ("/:a" after "/:b"). Copies the pattern.
  std::size_t add(std::string_view pattern);

  // The number of the route for `path` and its parameters, or no_route and `params` empty.
  std::size_t match(std::string_view path, Params& params) const;

  std::size_t size() const { return routes_.size(); }

 private:
  static constexpr std::uint32_t none = UINT32_MAX;

  // One position in a path. Indexes instead of pointers, because the vectors grow.
  struct Node {
    std::vector<std::pair<std::string, std::uint32_t>> literals;  // segment, node
    std::uint32_t parameter = none;                               // node
    std::uint32_t wildcard_route = none;
    std::uint32_t route = none;  // the pattern that ends here
  };

  std::uint32_t make_node();
  std::uint32_t descend(std::uint32_t node, std::string_view segment);
  std::uint32_t search(std::uint32_t node, std::string_view rest, Params& params) const;
  std::uint32_t search_literals(const Node& node, std::string_view segment, std::string_view after,
                                Params& params) const;
  std::uint32_t search_parameter(const Node& node, std::string_view segment, std::string_view after,
                                 Params& params) const;

  std::vector<Node> nodes_{1};
  std::vector<std::vector<std::string>> routes_;  // the names of each route's parameters, in order
};

// A RouteTable with a value for every route: a handler, an index, a function.
template <class T>
class Router {
 public:
  // False, and nothing is added, where RouteTable::add() answers no_route.
  bool add(std::string_view pattern, T value) {
    if (table_.add(pattern) == RouteTable::no_route) return false;
    values_.push_back(std::move(value));
    return true;
  }

  // The value of the route for `path`, or null. It lives as long as the router and until the next add().
  const T* match(std::string_view path, Params& params) const {
    const std::size_t route = table_.match(path, params);
    return route == RouteTable::no_route ? nullptr : &values_[route];
  }
  T* match(std::string_view path, Params& params) {
    return const_cast<T*>(std::as_const(*this).match(path, params));
  }

  std::size_t size() const { return table_.size(); }

 private:
  RouteTable table_;
  std::vector<T> values_;
};

}  // namespace levada::ws
