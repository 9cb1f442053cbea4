// Input: what was read and is not a message yet.
//
// Model: bytes are appended as they are read; next() takes messages off the front. As text a message is a line without
// its end ("\n" or "\r\n"), and what stands behind the last line end is one when the input has ended; as binary it is
// whatever is there. A line longer than the limit is seen as soon as it is.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace levada::cat {

class Input {
 public:
  enum class Next : unsigned char { message, nothing, too_long };

  Input(bool binary, std::size_t max_bytes) : binary_(binary), max_bytes_(max_bytes) {}

  void append(std::string_view bytes) {
    text_.erase(0, begin_);
    begin_ = 0;
    text_.append(bytes);
  }
  void end() { ended_ = true; }
  bool ended() const { return ended_; }

  // `message` lives until the next append().
  Next next(std::string_view& message) {
    const std::string_view rest = std::string_view(text_).substr(begin_);
    if (rest.empty()) return Next::nothing;
    const std::size_t line_end = binary_ ? rest.size() : rest.find('\n', seen_);
    const bool whole = line_end != rest.npos;
    message = rest.substr(0, line_end);
    if (!binary_ && whole && message.ends_with('\r')) message.remove_suffix(1);
    if (binary_) message = message.substr(0, max_bytes_);
    if (message.size() > max_bytes_) return Next::too_long;
    seen_ = whole ? 0 : rest.size();
    if (!whole && !ended_) return Next::nothing;
    begin_ += binary_ ? message.size() : whole ? line_end + 1 : rest.size();
    return Next::message;
  }

 private:
  bool binary_;
  std::size_t max_bytes_;
  bool ended_ = false;
  std::string text_;
  std::size_t begin_ = 0;  // of what was not taken
  std::size_t seen_ = 0;   // bytes behind it that have no line end
};

}  // namespace levada::cat
