#include <levada/ws/decoder.h>

#include <algorithm>
#include <cassert>
#include <cstring>
#include <utility>

#include <levada/ws/close.h>
#include <levada/ws/frame_tracer.h>

namespace levada::ws {
namespace {

// Copying and validating go in steps that stay in the first-level cache.
constexpr std::size_t step_bytes = 16 * 1024;

}  // namespace

Decoder::Decoder(Decoder&& other) noexcept
    : options_(other.options_),
      blocks_(other.blocks_),
      short_bytes_(other.short_bytes_),
      at_boundary_(other.at_boundary_),
      in_frame_(other.in_frame_),
      in_message_(other.in_message_),
      compressed_(other.compressed_),
      delivered_(other.delivered_),
      message_opcode_(other.message_opcode_),
      utf8_(other.utf8_),
      header_have_(other.header_have_),
      headroom_(other.headroom_),
      fragments_(other.fragments_),
      frame_(other.frame_),
      received_(other.received_),
      message_bytes_(other.message_bytes_),
      block_(std::exchange(other.block_, nullptr)),
      assembled_(other.assembled_),
      header_(other.header_),
      control_(other.control_) {
  other.reset();
}

void Decoder::use(const DecoderOptions& options) {
  assert(idle());
  options_ = &options;
  short_bytes_ = static_cast<std::uint16_t>(std::min<std::uint64_t>(options.max_message_bytes, 0xFFFF));
}

void Decoder::reset() {
  if (block_ != nullptr) std::exchange(block_, nullptr)->drop_reference();
  at_boundary_ = true;
  in_frame_ = in_message_ = delivered_ = false;
  header_have_ = 0;
  assembled_ = 0;
  message_bytes_ = 0;
  fragments_ = 0;
  utf8_.reset();
}

Decoded Decoder::fail(FrameError error) {
  at_boundary_ = false;
  return {.event = DecoderEvent::error, .error = error};
}

void Decoder::release_delivered() {
  if (!delivered_) return;
  std::exchange(block_, nullptr)->drop_reference();
  delivered_ = false;
  assembled_ = 0;
}

Decoded Decoder::next_general(MutableBytes& in) {
  release_delivered();
  while (!in.empty()) {
    Decoded decoded;
    if (!in_frame_ && !take_header(in, decoded)) return decoded;
    decoded = is_control(frame_.opcode) ? take_control(in) : take_data(in);
    if (decoded.event == DecoderEvent::none) continue;
    at_boundary_ = !in_frame_ && !in_message_ && !delivered_;
    return decoded;
  }
  at_boundary_ = !in_frame_ && !in_message_ && header_have_ == 0;
  headroom_ = 0;  // a header that was taken does not lie before what comes next
  return {};
}

// ---- Headers ----

// True when a header was taken and allowed; else `decoded` is an error or, when bytes are missing, `none`.
bool Decoder::take_header(MutableBytes& in, Decoded& decoded) {
  std::size_t size = header_have_ == 0 ? parse_header(in, frame_) : 0;
  if (size != 0) {
    in = in.subspan(size);
    headroom_ = static_cast<std::uint8_t>(size);
  } else {
    size = collect_header(in);
    headroom_ = 0;
  }
  if (size == 0 && header_have_ < 2) {
    at_boundary_ = false;
    return false;
  }
  FrameError error = check_header(frame_, options_->role, in_message_, options_->allowed_rsv, size != 0);
  if (error == FrameError::none && size != 0) error = begin_frame();
  if (error != FrameError::none) decoded = fail(error);
  at_boundary_ = false;
  const bool taken = error == FrameError::none && size != 0;
  if (taken) trace_frame(frame_);
  return taken;
}

// Gathers a header that came in pieces. Returns its size when it is whole.
std::size_t Decoder::collect_header(MutableBytes& in) {
  for (;;) {
    const std::size_t want = header_have_ < 2 ? 2 : header_size(header_[1]);
    const std::size_t take = std::min(want - header_have_, in.size());
    std::copy_n(in.begin(), take, header_.begin() + header_have_);
    header_have_ = static_cast<std::uint8_t>(header_have_ + take);
    in = in.subspan(take);
    const std::size_t size = parse_header({header_.data(), header_have_}, frame_);
    if (size != 0) header_have_ = 0;
    if (size != 0 || in.empty()) return size;
  }
}

FrameError Decoder::begin_frame() {
  in_frame_ = true;
  received_ = 0;
  if (!frame_.masked) frame_.key = 0;
  if (is_control(frame_.opcode)) return FrameError::none;
  if (!in_message_) {
    in_message_ = true;
    message_opcode_ = frame_.opcode;
    compressed_ = (frame_.rsv & DecoderOptions::compressed_rsv) != 0;
    message_bytes_ = 0;
    fragments_ = 0;
    utf8_.reset();
  }
  if (++fragments_ > options_->max_fragments) return FrameError::too_many_fragments;
  if (frame_.length > most_message_bytes() - message_bytes_) return FrameError::message_too_big;
  return FrameError::none;
}

std::uint64_t Decoder::most_message_bytes() const {
  if (!compressed_) return options_->max_message_bytes;
  const std::uint64_t of_frames = DecoderOptions::compressed_frame_bytes * fragments_;
  const std::uint64_t most = options_->max_compressed_bytes + of_frames;
  return most < of_frames ? ~std::uint64_t{0} : most;
}

// ---- Control frames ----

Decoded Decoder::take_control(MutableBytes& in) {
  const auto length = static_cast<std::size_t>(frame_.length);
  const std::size_t take = std::min(length - static_cast<std::size_t>(received_), in.size());
  const MutableBytes piece = in.first(take);
  in = in.subspan(take);
  if (take == length) {
    if (frame_.masked) mask_in_place(piece, frame_.key);
    return finish_control(piece);
  }
  mask_copy(control_.data() + received_, piece, frame_.key, static_cast<std::size_t>(received_));
  received_ += take;
  return received_ == length ? finish_control({control_.data(), length}) : Decoded{};
}

Decoded Decoder::finish_control(MutableBytes payload) {
  in_frame_ = false;
  Decoded decoded{.payload = payload};
  if (frame_.opcode == Opcode::ping) {
    decoded.event = DecoderEvent::ping;
  } else if (frame_.opcode == Opcode::pong) {
    decoded.event = DecoderEvent::pong;
  } else {
    decoded.event = DecoderEvent::close;
    if (payload.size() == 1) return fail(FrameError::bad_close_payload);
    const ClosePayload close = parse_close(payload);
    if (!payload.empty() && !is_valid_on_wire(close.code)) return fail(FrameError::bad_close_code);
    if (options_->check_utf8 && !is_utf8(to_bytes(close.reason))) return fail(FrameError::bad_text);
  }
  return decoded;
}

// ---- Data frames ----

Decoded Decoder::take_data(MutableBytes& in) {
  const std::uint64_t missing = frame_.length - received_;
  const std::size_t take = missing < in.size() ? static_cast<std::size_t>(missing) : in.size();
  // The header was the last of the input: no memory for the message before its first byte.
  if (take == 0 && missing != 0 && block_ == nullptr) return {};
  const MutableBytes piece = in.first(take);
  in = in.subspan(take);
  if (options_->streaming || compressed_) return stream(piece);
  const bool whole = take == frame_.length && frame_.fin && frame_.opcode != Opcode::continuation;
  return whole ? deliver_in_place(piece) : assemble(piece);
}

void Decoder::end_frame() {
  in_frame_ = false;
  message_bytes_ += frame_.length;
  if (frame_.fin) in_message_ = false;
}

// Unmasks the next bytes of this frame where they lie. False if they cannot be part of a text.
bool Decoder::unmask(MutableBytes bytes) {
  const auto offset = static_cast<std::size_t>(received_ % 4);
  if (is_text()) return unmask_utf8(bytes, frame_.key, offset, utf8_);
  if (frame_.masked) mask_in_place(bytes, frame_.key, offset);
  return true;
}

// The same while they are copied.
bool Decoder::unmask_to(std::uint8_t* to, MutableBytes from) {
  auto offset = static_cast<std::size_t>(received_ % 4);
  while (!from.empty()) {
    const std::size_t size = std::min(step_bytes, from.size());
    mask_copy(to, from.first(size), frame_.key, offset);
    if (is_text() && !utf8_.feed({to, size})) return false;
    to += size;
    offset += size;
    from = from.subspan(size);
  }
  return true;
}

Decoded Decoder::deliver_in_place(MutableBytes payload) {
  if (!unmask(payload) || (is_text() && !utf8_.complete())) return fail(FrameError::bad_text);
  end_frame();
  return {
      .event = DecoderEvent::message, .opcode = message_opcode_, .payload = payload, .headroom = headroom_};
}

Decoded Decoder::stream(MutableBytes piece) {
  if (!unmask(piece)) return fail(FrameError::bad_text);
  const std::size_t headroom = received_ == 0 ? headroom_ : 0;
  received_ += piece.size();
  const bool frame_done = received_ == frame_.length;
  const bool last = frame_done && frame_.fin;
  if (last && is_text() && !utf8_.complete()) return fail(FrameError::bad_text);
  if (frame_done) end_frame();
  if (piece.empty() && !last) return {};
  return {.event = DecoderEvent::fragment,
          .opcode = message_opcode_,
          .fin = last,
          .compressed = compressed_,
          .payload = piece,
          .headroom = headroom};
}

Decoded Decoder::assemble(MutableBytes piece) {
  make_room();
  block_->note_used(assembly_headroom + assembled_ + piece.size());
  std::uint8_t* to = block_->data() + assembly_headroom + assembled_;
  const bool text_so_far = piece.data() == to ? unmask(piece) : unmask_to(to, piece);
  if (!text_so_far) return fail(FrameError::bad_text);
  assembled_ += piece.size();
  received_ += piece.size();
  if (received_ < frame_.length) return {};
  end_frame();
  if (in_message_) return {};
  if (is_text() && !utf8_.complete()) return fail(FrameError::bad_text);
  delivered_ = true;
  return {.event = DecoderEvent::message,
          .opcode = message_opcode_,
          .payload = {block_->data() + assembly_headroom, assembled_},
          .headroom = assembly_headroom,
          .owner = block_};
}

// Makes the block large enough for this frame. Only pages that bytes were received into become resident, so a
// declared length costs address space; the block of a message in many fragments doubles, so that copying
// stays linear.
void Decoder::make_room() {
  const std::size_t needed =
      assembly_headroom + assembled_ + static_cast<std::size_t>(frame_.length - received_);
  if (block_ != nullptr && block_->capacity() >= needed) return;
  const std::size_t doubled = block_ == nullptr ? 0 : 2 * assembled_;
  Block* larger = blocks_->allocate(std::max(needed, doubled));
  if (block_ != nullptr) {
    std::memcpy(larger->data() + assembly_headroom, block_->data() + assembly_headroom, assembled_);
    block_->drop_reference();
  }
  block_ = larger;
}

MutableBytes Decoder::assembly_target() {
  if (!in_frame_ || block_ == nullptr || is_control(frame_.opcode) || options_->streaming) return {};
  return {block_->data() + assembly_headroom + assembled_,
          static_cast<std::size_t>(frame_.length - received_)};
}

}  // namespace levada::ws
