// Sizes: how long each message is, as a function of (seed, connection, sequence).
//
//   16               all alike
//   16,1024,4Ki      in turn; each connection begins with another one
//   16-1024          any of these, all alike likely
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include <levada/tools/load/units.h>

namespace levada::load {

class Sizes {
 public:
  // All alike.
  Sizes(std::size_t bytes = 16) : least_(bytes), most_(bytes) {}

  // nullopt: that is none of the above.
  static std::optional<Sizes> parse(std::string_view text) {
    if (const std::size_t dash = text.find('-'); dash != std::string_view::npos) {
      const auto low = parse_size(text.substr(0, dash)), high = parse_size(text.substr(dash + 1));
      if (!low || !high || *low > *high) return std::nullopt;
      Sizes sizes(*low);
      sizes.most_ = *high;
      return sizes;
    }
    Sizes sizes;
    for (bool more = true; more;) {
      const std::size_t comma = text.find(',');
      const auto size = parse_size(text.substr(0, comma));
      if (!size) return std::nullopt;
      sizes.in_turn_.push_back(*size);
      more = comma != std::string_view::npos;
      if (more) text.remove_prefix(comma + 1);
    }
    const auto [least, most] = std::minmax_element(sizes.in_turn_.begin(), sizes.in_turn_.end());
    sizes.least_ = *least;
    sizes.most_ = *most;
    return sizes;
  }

  std::size_t least() const { return least_; }
  std::size_t most() const { return most_; }

  // How long that message is.
  std::size_t of(std::uint64_t seed, std::uint32_t connection, std::uint64_t sequence) const {
    if (least_ == most_) return most_;
    if (!in_turn_.empty()) return in_turn_[(connection + sequence) % in_turn_.size()];
    std::uint64_t mixed = seed ^ (std::uint64_t{connection} << 32) ^ sequence * 0x9E3779B97F4A7C15u;
    mixed = (mixed ^ mixed >> 30) * 0xBF58476D1CE4E5B9u;
    mixed = (mixed ^ mixed >> 27) * 0x94D049BB133111EBu;
    return least_ + (mixed ^ mixed >> 31) % (most_ - least_ + 1);
  }

 private:
  std::size_t least_;
  std::size_t most_;
  std::vector<std::size_t> in_turn_;
};

}  // namespace levada::load
