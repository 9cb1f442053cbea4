#include <levada/ws/router.h>

#include <algorithm>

namespace levada::ws {
namespace {

// Takes the first segment off `rest`, which is what follows a '/'. Afterwards `rest` begins with the next
// '/', or is empty after the last segment.
std::string_view take_segment(std::string_view& rest) {
  const std::string_view segment = rest.substr(0, rest.find('/'));
  rest.remove_prefix(segment.size());
  return segment;
}

bool is_parameter(std::string_view segment) {
  return segment.starts_with(':');
}
bool is_wildcard(std::string_view segment) {
  return segment.starts_with('*');
}

// The name under which a segment's value is found; empty for literal text.
std::string_view name_of(std::string_view segment) {
  if (is_wildcard(segment)) return segment;
  return is_parameter(segment) ? segment.substr(1) : std::string_view();
}

}  // namespace

std::string_view Params::find(std::string_view name) const {
  const Param* found =
      std::find_if(begin(), end(), [name](const Param& param) { return param.name == name; });
  return found == end() ? std::string_view() : found->value;
}

bool RouteTable::is_valid(std::string_view pattern) {
  std::array<std::string_view, Params::capacity> names;
  std::size_t count = 0;
  if (!pattern.starts_with('/')) return false;
  while (!pattern.empty()) {
    pattern.remove_prefix(1);
    const std::string_view segment = take_segment(pattern);
    if (is_wildcard(segment) && (segment != "*" || !pattern.empty())) return false;
    if (!is_wildcard(segment) && !is_parameter(segment)) continue;
    const std::string_view name = name_of(segment);
    const auto end = names.begin() + static_cast<std::ptrdiff_t>(count);
    if (name.empty() || count == names.size() || std::find(names.begin(), end, name) != end) return false;
    names[count++] = name;
  }
  return true;
}

std::uint32_t RouteTable::make_node() {
  nodes_.emplace_back();
  return static_cast<std::uint32_t>(nodes_.size() - 1);
}

// The node that `segment` of a pattern leads to, made when it is not there yet.
std::uint32_t RouteTable::descend(std::uint32_t node, std::string_view segment) {
  if (is_parameter(segment)) {
    if (nodes_[node].parameter == none) {
      const std::uint32_t made = make_node();
      nodes_[node].parameter = made;
    }
    return nodes_[node].parameter;
  }
  for (const auto& [text, child] : nodes_[node].literals) {
    if (text == segment) return child;
  }
  const std::uint32_t made = make_node();
  nodes_[node].literals.emplace_back(segment, made);
  return made;
}

std::size_t RouteTable::add(std::string_view pattern) {
  if (!is_valid(pattern)) return no_route;
  std::uint32_t node = 0;
  bool wildcard = false;
  std::vector<std::string> names;
  while (!pattern.empty()) {
    pattern.remove_prefix(1);
    const std::string_view segment = take_segment(pattern);
    if (const std::string_view name = name_of(segment); !name.empty()) names.emplace_back(name);
    wildcard = is_wildcard(segment);
    if (!wildcard) node = descend(node, segment);
  }
  std::uint32_t& slot = wildcard ? nodes_[node].wildcard_route : nodes_[node].route;
  if (slot != none) return no_route;
  slot = static_cast<std::uint32_t>(routes_.size());
  routes_.push_back(std::move(names));
  return slot;
}

std::size_t RouteTable::match(std::string_view path, Params& params) const {
  params.size_ = 0;
  if (!path.starts_with('/')) return no_route;
  const std::uint32_t route = search(0, path, params);
  if (route == none) return no_route;
  const std::vector<std::string>& names = routes_[route];
  assert(names.size() == params.size_);
  for (std::size_t i = 0; i < names.size(); ++i) params.params_[i].name = names[i];
  return route;
}

// The route under `node` for `rest`, which is empty or begins with '/'. On failure `params` is as it was. The
// depth of the recursion is bounded by the longest pattern, not by the path.
std::uint32_t RouteTable::search(std::uint32_t index, std::string_view rest, Params& params) const {
  const Node& node = nodes_[index];
  if (rest.empty()) return node.route;
  std::string_view after = rest.substr(1);
  const std::string_view tail = after;
  const std::string_view segment = take_segment(after);
  std::uint32_t route = search_literals(node, segment, after, params);
  if (route == none) route = search_parameter(node, segment, after, params);
  if (route == none && node.wildcard_route != none) {
    params.params_[params.size_++].value = tail;
    route = node.wildcard_route;
  }
  return route;
}

std::uint32_t RouteTable::search_literals(const Node& node, std::string_view segment, std::string_view after,
                                          Params& params) const {
  for (const auto& [text, child] : node.literals) {
    if (text == segment) return search(child, after, params);
  }
  return none;
}

std::uint32_t RouteTable::search_parameter(const Node& node, std::string_view segment, std::string_view after,
                                           Params& params) const {
  if (node.parameter == none || segment.empty()) return none;
  params.params_[params.size_++].value = segment;
  const std::uint32_t route = search(node.parameter, after, params);
  if (route == none) --params.size_;
  return route;
}

}  // namespace levada::ws
