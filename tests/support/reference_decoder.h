// A decoder that is easy to believe: byte by byte, copying everything, after the text of RFC 6455 section 5.
// It says after each byte which events must have come by then, so that it also tells what "as soon as it is
// known" means.
#pragma once

#include <string>
#include <vector>

#include <levada/ws/close.h>
#include <levada/ws/decoder.h>

namespace levada::ws::test {

struct Event {
  DecoderEvent event = DecoderEvent::none;
  Opcode opcode = Opcode::binary;
  std::string payload = {};
  FrameError error = FrameError::none;

  bool operator==(const Event&) const = default;
};

// UTF-8 after RFC 3629, with the code point in hand.
class SlowUtf8 {
 public:
  bool feed(unsigned char byte) {
    if (missing_ == 0) return begin(byte);
    if ((byte & 0xC0) != 0x80) return false;
    point_ = point_ << 6 | (byte & 0x3Fu);
    missing_--;
    // The smallest and the largest point that can still come of it.
    const unsigned lowest = point_ << (6 * missing_);
    const unsigned highest = lowest | ((1u << (6 * missing_)) - 1);
    if (highest < least_ || lowest > 0x10FFFF) return false;
    return !(lowest >= 0xD800 && highest <= 0xDFFF);
  }
  bool complete() const { return missing_ == 0; }

 private:
  bool begin(unsigned char byte) {
    if (byte < 0x80) return true;
    missing_ = byte >= 0xF0 ? 3 : byte >= 0xE0 ? 2 : 1;
    point_ = byte & (0x3Fu >> missing_);
    least_ = missing_ == 3 ? 0x10000 : missing_ == 2 ? 0x800 : 0x80;
    return byte >= 0xC2 && byte <= 0xF4;
  }

  int missing_ = 0;
  unsigned point_ = 0, least_ = 0;
};

class ReferenceDecoder {
 public:
  explicit ReferenceDecoder(const DecoderOptions& options) : options_(options) {}

  // False after the error.
  bool feed(unsigned char byte) {
    if (failed_) return false;
    if (!in_frame_) {
      header_ += static_cast<char>(byte);
      take_header();
    } else {
      take_payload(byte);
    }
    if (!failed_ && in_frame_ && payload_.size() == length_) end_frame();
    return !failed_;
  }

  const std::vector<Event>& events() const { return events_; }
  bool failed() const { return failed_; }
  // What has come of the message that is not finished.
  std::string partial() const {
    if (!in_message_) return {};
    return in_frame_ && opcode_ < 8 ? message_ + payload_ : message_;
  }
  bool idle() const { return !failed_ && header_.empty() && !in_frame_ && !in_message_; }

 private:
  unsigned at(std::size_t i) const { return static_cast<unsigned char>(header_[i]); }

  void fail(FrameError error) {
    failed_ = true;
    events_.push_back({.event = DecoderEvent::error, .error = error});
  }

  void take_header() {
    if (header_.size() == 2) check_first_bytes();
    if (failed_ || header_.size() < 2) return;
    const unsigned short_length = at(1) & 127;
    const std::size_t extra = short_length == 126 ? 2 : short_length == 127 ? 8 : 0;
    const bool has_mask = (at(1) & 128) != 0;
    if (header_.size() < 2 + extra + (has_mask ? 4 : 0)) return;
    length_ = extra == 0 ? short_length : 0;
    for (std::size_t i = 0; i < extra; i++) length_ = length_ << 8 | at(2 + i);
    mask_ = has_mask ? header_.substr(2 + extra) : std::string(4, '\0');
    if (length_ >> 63 != 0) return fail(FrameError::length_too_large);
    if ((extra == 2 && length_ < 126) || (extra == 8 && length_ < 65536))
      return fail(FrameError::length_not_minimal);
    begin_frame();
  }

  void check_first_bytes() {
    fin_ = (at(0) & 128) != 0;
    opcode_ = at(0) & 15;
    const unsigned length = at(1) & 127;
    const bool has_mask = (at(1) & 128) != 0;
    if ((at(0) & 0x70) != 0) return fail(FrameError::reserved_bits);
    if ((opcode_ >= 3 && opcode_ <= 7) || opcode_ >= 11) return fail(FrameError::reserved_opcode);
    if (options_.role == Role::server && !has_mask) return fail(FrameError::not_masked);
    if (options_.role == Role::client && has_mask) return fail(FrameError::masked);
    if (opcode_ >= 8) {
      if (!fin_) return fail(FrameError::control_fragmented);
      if (length > 125) return fail(FrameError::control_too_long);
    } else if (opcode_ == 0 && !in_message_) {
      return fail(FrameError::nothing_to_continue);
    } else if (opcode_ != 0 && in_message_) {
      return fail(FrameError::message_not_finished);
    }
  }

  void begin_frame() {
    header_.clear();
    in_frame_ = true;
    payload_.clear();
    if (opcode_ >= 8) return;
    if (opcode_ != 0) {
      in_message_ = true;
      message_opcode_ = static_cast<Opcode>(opcode_);
      message_.clear();
      fragments_ = 0;
      utf8_ = {};
    }
    if (++fragments_ > options_.max_fragments) return fail(FrameError::too_many_fragments);
    if (length_ > options_.max_message_bytes - message_.size()) return fail(FrameError::message_too_big);
  }

  void take_payload(unsigned char byte) {
    const char plain = static_cast<char>(static_cast<char>(byte) ^ mask_[payload_.size() % 4]);
    payload_ += plain;
    if (opcode_ < 8 && checks_text() && !utf8_.feed(static_cast<unsigned char>(plain)))
      fail(FrameError::bad_text);
  }

  void end_frame() {
    in_frame_ = false;
    if (opcode_ >= 8) return end_control();
    message_ += payload_;
    if (!fin_) return;
    in_message_ = false;
    if (checks_text() && !utf8_.complete()) return fail(FrameError::bad_text);
    events_.push_back({.event = DecoderEvent::message, .opcode = message_opcode_, .payload = message_});
  }

  void end_control() {
    const DecoderEvent kinds[] = {DecoderEvent::close, DecoderEvent::ping, DecoderEvent::pong};
    if (opcode_ == 8 && !payload_.empty()) {
      if (payload_.size() == 1) return fail(FrameError::bad_close_payload);
      const unsigned code =
          static_cast<unsigned char>(payload_[0]) * 256u + static_cast<unsigned char>(payload_[1]);
      const bool known = (code >= 1000 && code <= 1014 && code != 1004 && code != 1005 && code != 1006);
      if (!known && (code < 3000 || code > 4999)) return fail(FrameError::bad_close_code);
      SlowUtf8 reason;
      for (std::size_t i = 2; options_.check_utf8 && i < payload_.size(); i++) {
        if (!reason.feed(static_cast<unsigned char>(payload_[i]))) return fail(FrameError::bad_text);
      }
      if (!reason.complete()) return fail(FrameError::bad_text);
    }
    events_.push_back({.event = kinds[opcode_ - 8], .payload = payload_});
  }

  bool checks_text() const { return message_opcode_ == Opcode::text && options_.check_utf8; }

  DecoderOptions options_;
  std::vector<Event> events_;
  std::string header_, payload_, message_, mask_;
  bool failed_ = false, in_frame_ = false, in_message_ = false, fin_ = true;
  unsigned opcode_ = 0;
  Opcode message_opcode_ = Opcode::binary;
  std::uint64_t length_ = 0;
  std::uint32_t fragments_ = 0;
  SlowUtf8 utf8_;
};

}  // namespace levada::ws::test
