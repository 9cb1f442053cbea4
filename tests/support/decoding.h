// Runs a Decoder over cut input beside the reference decoder and tells the first difference.
#pragma once

#include <algorithm>
#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <levada/tests/support/reference_decoder.h>
#include <levada/ws/decoder.h>

namespace levada::ws::test {

enum class Feed {
  copied,    // each piece in memory of its own
  moved,     // and the decoder is moved after each
  directly,  // what belongs to an assembly is received where it goes
};

// A decoder and what came out of it. Every payload is overwritten after it was looked at, and so is the room
// before it: the decoder must not need them any more.
class Decoding {
 public:
  Decoding(const DecoderOptions& options, BlockPool& pool, Feed feed)
      : streaming_(options.streaming), feed_(feed), decoder_(std::make_unique<Decoder>(options, pool)) {}

  void feed(std::string_view piece) {
    while (feed_ == Feed::directly && !piece.empty() && !decoder_->assembly_target().empty()) {
      const MutableBytes target = decoder_->assembly_target();
      const std::size_t size = std::min(target.size(), piece.size());
      std::memcpy(target.data(), piece.data(), size);
      direct_bytes_ += size;
      take({target.data(), size}, true);
      piece.remove_prefix(size);
      if (failed_) return;
    }
    if (piece.empty()) return;
    // Exactly as large as the piece, so that a sanitizer sees a step outside of it.
    const std::unique_ptr<std::uint8_t[]> memory(new std::uint8_t[piece.size()]);
    std::memcpy(memory.get(), piece.data(), piece.size());
    take({memory.get(), piece.size()}, false);
    if (feed_ == Feed::moved && !failed_) move();
  }

  const std::vector<Event>& events() const { return events_; }
  const std::string& partial() const { return partial_; }  // streaming: of the message that is not finished
  const std::string& problem() const { return problem_; }
  std::size_t direct_bytes() const { return direct_bytes_; }
  bool idle() const { return decoder_->idle(); }
  Decoder& decoder() { return *decoder_; }

 private:
  void take(MutableBytes in, bool direct) {
    const MutableBytes all = in;
    for (;;) {
      const Decoded decoded = decoder_->next(in);
      if (decoded.event == DecoderEvent::none) break;
      record(decoded);
      failed_ = decoded.event == DecoderEvent::error;
      if (failed_) return;
      const bool message = decoded.event == DecoderEvent::message || decoded.event == DecoderEvent::fragment;
      if (message && !direct && decoded.owner == nullptr) check_place(decoded, all);
      std::uint8_t* const first = decoded.payload.data() - decoded.headroom;
      if (message) std::fill_n(first, decoded.headroom + decoded.payload.size(), std::uint8_t{0xEE});
    }
    if (!in.empty()) problem_ = "input was left";
  }

  void check_place(const Decoded& decoded, MutableBytes all) {
    if (decoded.payload.data() < all.data() + decoded.headroom ||
        decoded.payload.data() + decoded.payload.size() > all.data() + all.size()) {
      problem_ = "a payload without an owner is not in the input";
    }
  }

  void record(const Decoded& decoded) {
    const std::string payload(to_text(decoded.payload));
    if (decoded.event != DecoderEvent::fragment) {
      events_.push_back({decoded.event, decoded.opcode, payload, decoded.error});
      const bool data = decoded.event == DecoderEvent::message;
      if (!data) events_.back().opcode = Opcode::binary;
      if (data && (streaming_ || !decoded.fin))
        problem_ = "a whole message while streaming, or without its end";
      return;
    }
    if (!streaming_) problem_ = "a fragment although not streaming";
    if (payload.empty() && !decoded.fin) problem_ = "an empty piece before the last";
    partial_ += payload;
    if (decoded.fin) events_.push_back({DecoderEvent::message, decoded.opcode, std::exchange(partial_, {})});
  }

  void move() {
    const bool was_idle = decoder_->idle();
    auto moved = std::make_unique<Decoder>(std::move(*decoder_));
    if (!decoder_->idle()) problem_ = "a decoder that was moved from is not idle";
    if (moved->idle() != was_idle) problem_ = "a move changed idle()";
    decoder_ = std::move(moved);
  }

  bool streaming_;
  Feed feed_;
  std::unique_ptr<Decoder> decoder_;
  std::vector<Event> events_;
  std::string partial_, problem_;
  std::size_t direct_bytes_ = 0;
  bool failed_ = false;
};

// Decodes `wire` cut at the given positions (ascending). Empty if after each piece everything is as the
// reference says, else what is not.
inline std::string difference(const DecoderOptions& options, std::string_view wire,
                              const std::vector<std::size_t>& cuts, Feed feed = Feed::copied) {
  BlockPool pool(1 << 20);
  std::string problem;
  {
    Decoding decoding(options, pool, feed);
    ReferenceDecoder reference(options);
    std::size_t from = 0;
    for (std::size_t i = 0; i <= cuts.size() && problem.empty() && !reference.failed(); i++) {
      const std::size_t to = i < cuts.size() ? std::min(cuts[i], wire.size()) : wire.size();
      const std::string_view piece = wire.substr(from, to - from);
      from = to;
      decoding.feed(piece);
      for (const char byte : piece) {
        if (!reference.feed(static_cast<unsigned char>(byte))) break;
      }
      problem = decoding.problem();
      if (decoding.events() != reference.events()) problem = "events differ";
      if (reference.failed() || !problem.empty()) break;
      if (decoding.idle() != reference.idle()) problem = "idle() differs";
      if (options.streaming && decoding.partial() != reference.partial()) problem = "pieces differ";
      if (decoding.idle() && pool.blocks_in_use() != 0) problem = "idle, but a block is in use";
    }
    if (!problem.empty()) problem += " after byte " + std::to_string(from);
  }
  if (problem.empty() && pool.blocks_in_use() != 0) problem = "a block was not given back";
  return problem;
}

}  // namespace levada::ws::test
