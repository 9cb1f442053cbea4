// Decoder: bytes as they come, messages and control frames out (RFC 6455 sections 5 and 6.2).
//
// Model: the caller owns the input and gives it as a view that next() eats from the front. A message that is
// whole in the input is unmasked and delivered where it lies. One that is not, because its bytes or fragments
// come later, is assembled once in a block of the decoder's own; or, streaming, each piece is delivered as it
// comes and nothing is kept. Control frames may come between fragments.
//
// Invariants: a decoder that is idle() equals a new one, so that a connection between messages needs none.
// How the input is cut never changes the events (streaming: only the cuts between the pieces). An error is
// final.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include <levada/core/block_pool.h>
#include <levada/core/bytes.h>
#include <levada/ws/frame.h>
#include <levada/ws/utf8.h>

namespace levada::ws {

struct DecoderOptions {
  Role role = Role::server;                                   // our side
  std::uint64_t max_message_bytes = std::uint64_t{16} << 20;  // beyond it: 1009, as soon as a header says so
  std::uint32_t max_fragments = 131072;                       // beyond it: 1008
  bool check_utf8 = true;                                     // of text messages and close reasons
  bool streaming = false;                                     // deliver pieces, assemble nothing
  std::uint8_t allowed_rsv = 0;                               // bits that extensions use
  // Of these, the one that says that a message is compressed (RFC 7692 section 6): such a message is delivered in
  // pieces as they come, its text is not checked and its limit is `max_compressed_bytes` and, for what ends each
  // piece of its sender, 64 for each frame.
  static constexpr std::uint8_t compressed_rsv = 4;
  static constexpr std::uint64_t compressed_frame_bytes = 64;
  std::uint64_t max_compressed_bytes = std::uint64_t{16} << 20;  // beyond it 1009, too
};

enum class DecoderEvent : std::uint8_t {
  none,      // more input is needed
  message,   // a whole text or binary message
  fragment,  // streaming: the next piece of one; `fin` with the last
  ping,
  pong,
  close,  // a valid close frame; parse_close(payload) tells what it says
  error,  // the connection has to be failed with close_code(error)
};

struct Decoded {
  DecoderEvent event = DecoderEvent::none;
  Opcode opcode = Opcode::binary;  // of the message: text or binary
  bool fin = true;
  bool compressed = false;  // a piece of a compressed message
  FrameError error = FrameError::none;
  // Unmasked. Lives until the next call, in the input or, if `owner` is set, in a block that a reference on
  // it keeps.
  MutableBytes payload = {};
  // Bytes before the payload in the same memory that nobody needs any more: room for a header.
  std::size_t headroom = 0;
  Owner* owner = nullptr;
};

// One connection's decoding. One thread. Neither copied nor moved while it is not idle, except by the move
// constructor, which leaves an idle decoder behind.
class Decoder {
 public:
  // Room before an assembled message for the largest unmasked header.
  static constexpr std::size_t assembly_headroom = 16;

  // `options` and `blocks` must outlive the decoder.
  Decoder(const DecoderOptions& options, BlockPool& blocks) : blocks_(&blocks) { use(options); }
  Decoder(Decoder&& other) noexcept;
  Decoder& operator=(Decoder&&) = delete;
  ~Decoder() { reset(); }

  // Takes the next event from the front of `in`, of which it may change bytes that it takes. `none` means
  // that all of `in` was taken. After `error` it must not be called again but for reset().
  Decoded next(MutableBytes& in) {
    Decoded decoded;  // one object on every path: returned without a copy
    if (at_boundary_ && (decode_short(in, decoded) || in.empty())) return decoded;
    decoded = next_general(in);
    return decoded;
  }

  // Other options, while it is idle; they must outlive it, too.
  void use(const DecoderOptions& options);

  // Whether nothing has to be remembered between two inputs.
  bool idle() const { return at_boundary_; }

  // Where the rest of the frame that is being assembled would go: receiving there saves a copy. The bytes
  // received are then given to next() as they lie. Empty unless an assembly is under way. Valid until next().
  MutableBytes assembly_target();
  Owner* assembly_owner() { return block_; }
  // How much of a message has been assembled so far.
  std::size_t assembled_bytes() const { return assembled_; }

  // Forgets everything.
  void reset();

 private:
  bool decode_short(MutableBytes& in, Decoded& decoded);
  Decoded next_general(MutableBytes& in);

  Decoded fail(FrameError error);
  bool take_header(MutableBytes& in, Decoded& decoded);
  std::size_t collect_header(MutableBytes& in);
  FrameError begin_frame();
  std::uint64_t most_message_bytes() const;
  Decoded take_control(MutableBytes& in);
  Decoded finish_control(MutableBytes payload);
  Decoded take_data(MutableBytes& in);
  Decoded deliver_in_place(MutableBytes payload);
  Decoded stream(MutableBytes piece);
  Decoded assemble(MutableBytes piece);
  bool unmask(MutableBytes bytes);
  bool unmask_to(std::uint8_t* to, MutableBytes from);
  void end_frame();
  void make_room();
  void release_delivered();
  bool is_text() const { return message_opcode_ == Opcode::text && options_->check_utf8 && !compressed_; }

  const DecoderOptions* options_ = nullptr;
  BlockPool* blocks_;

  std::uint16_t short_bytes_ = 0;  // the longest message that decode_short() takes
  bool at_boundary_ = true;        // no frame, no message, no delivered block: idle
  bool in_frame_ = false;          // the header is known, payload is missing
  bool in_message_ = false;
  bool compressed_ = false;  // the message
  bool delivered_ = false;   // block_ was handed out by the last call
  Opcode message_opcode_ = Opcode::binary;
  Utf8Validator utf8_;
  std::uint8_t header_have_ = 0;  // bytes in header_
  std::uint8_t headroom_ = 0;     // header bytes right before the payload of this frame in the input
  std::uint32_t fragments_ = 0;
  FrameHeader frame_;
  std::uint64_t received_ = 0;       // of this frame's payload
  std::uint64_t message_bytes_ = 0;  // of this message before this frame
  Block* block_ = nullptr;           // the message's assembly
  std::size_t assembled_ = 0;
  std::array<std::uint8_t, max_header_bytes> header_{};
  std::array<std::uint8_t, max_control_bytes> control_{};
};

// The case that matters: a whole message of less than 64 KiB, within the limit, in one frame, at the front of the
// input.
inline bool Decoder::decode_short(MutableBytes& in, Decoded& decoded) {
  if (in.size() < 2) return false;
  std::uint8_t* at = in.data();
  const unsigned opcode = at[0] ^ 0x80u;  // FIN set, RSV clear, else it is above 15
  const bool masked = options_->role == Role::server;
  std::size_t length = at[1] ^ (masked ? 0x80u : 0u);  // the mask bit as it has to be, else above 127
  std::size_t header = masked ? 6 : 2;
  if (length >= 126) {
    if (length > 126 || in.size() < 4) return false;
    length = detail::from_big_endian(detail::load<std::uint16_t>(at + 2));
    if (length < 126) return false;  // not the shortest form
    header += 2;
  }
  if ((opcode != 1 && opcode != 2) || length > short_bytes_ || in.size() < header + length) return false;
  const MutableBytes payload{at + header, length};
  const bool text = opcode == 1 && options_->check_utf8;
  if (text) {
    Utf8Validator utf8;
    const MaskKey key = masked ? detail::load<std::uint32_t>(at + header - 4) : 0;
    if (!unmask_utf8(payload, key, 0, utf8) || !utf8.complete()) {
      decoded = fail(FrameError::bad_text);
      return true;
    }
  } else if (masked) {
    mask_in_place(payload, detail::load<std::uint32_t>(at + header - 4));
  }
  in = in.subspan(header + length);
  decoded.event = options_->streaming ? DecoderEvent::fragment : DecoderEvent::message;
  decoded.opcode = static_cast<Opcode>(opcode);
  decoded.payload = payload;
  decoded.headroom = header;
  return true;
}

}  // namespace levada::ws
