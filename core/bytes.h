// Bytes: views over memory that somebody else owns.
//
// A view never owns and never frees. Every function that hands one out says how long it lives.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

namespace levada {

using Bytes = std::span<const std::uint8_t>;
using MutableBytes = std::span<std::uint8_t>;

// The same memory, seen as bytes; lives as long as `text` does.
inline Bytes to_bytes(std::string_view text) {
  return {reinterpret_cast<const std::uint8_t*>(text.data()), text.size()};
}

// The same memory, seen as text; nothing is validated. Lives as long as `bytes` does.
inline std::string_view to_text(Bytes bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

}  // namespace levada
