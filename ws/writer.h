// Writer: text into the caller's bytes, for the functions that write heads.
#pragma once

#include <algorithm>
#include <charconv>
#include <cstddef>
#include <cstring>
#include <string_view>

#include <levada/core/bytes.h>

namespace levada::ws::detail {

// Appends to the caller's bytes; beyond their end it only counts, so that the same code writes and measures.
class Writer {
 public:
  explicit Writer(MutableBytes out) : out_(out) {}

  void put(std::string_view text) {
    if (text.size() <= out_.size() - std::min(size_, out_.size()) && !text.empty()) {
      std::memcpy(out_.data() + size_, text.data(), text.size());
    }
    size_ += text.size();
  }

  void put_number(std::size_t number) {
    char digits[20];
    const auto end = std::to_chars(digits, digits + sizeof digits, number).ptr;
    put({digits, static_cast<std::size_t>(end - digits)});
  }

  void put_field(std::string_view name, std::string_view value) {
    put(name);
    put(": ");
    put(value);
    put("\r\n");
  }

  std::size_t size() const { return size_; }
  std::size_t written() const { return size_ <= out_.size() ? size_ : 0; }

 private:
  MutableBytes out_;
  std::size_t size_ = 0;
};

}  // namespace levada::ws::detail
