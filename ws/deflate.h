// Deflater: messages in, the payload of permessage-deflate out (RFC 7692 section 7.2.1).
//
// Model: a message is compressed to DEFLATE blocks that end with an empty stored one, whose last 4 bytes
// (00 00 ff ff) are left out; the whole goes into the caller's memory. A message may come in pieces, each of
// which the peer can inflate when it arrives; only the last leaves the 4 bytes out.
//
// With takeover a Deflater belongs to one connection and one direction. Without, each message stands alone, and
// one Deflater serves all connections of a reactor, but for a message in pieces: until its last piece it occupies
// the Deflater.
//
// Memory comes from a BlockPool when the first message is compressed: 2^(window_bits + 2) +
// 2^(memory_level + 9) + 8 Ki bytes, to be seen in memory_bytes(). After that nothing is allocated. With
// final_blocks, libdeflate takes its own 100 to 1000 KB from malloc, once.
//
// Only in a library that was built with zlib (deflate_available()); without it nothing is ever agreed on, and
// making a Deflater ends the program.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include <levada/core/block_pool.h>
#include <levada/core/bytes.h>
#include <levada/ws/deflate_negotiation.h>

namespace levada::ws {

inline constexpr std::uint8_t deflate_rsv =
    4;  // RSV1: on the first frame of a compressed message (section 6)

struct DeflaterOptions {
  std::uint8_t window_bits =
      max_window_bits;  // 8 to 15; 8 is done with zlib's 9, which keeps within 256 bytes
  bool takeover = false;
  std::uint8_t level = 1;         // 1 to 9
  std::uint8_t memory_level = 8;  // 1 to 9
  bool final_blocks = false;      // see DeflateOptions

  bool operator==(const DeflaterOptions&) const = default;
};

// The compressor that an agreement asks for.
inline DeflaterOptions deflater_options(const DeflateOptions& options, const DeflateAgreement& agreement) {
  return {.window_bits = agreement.own_window_bits,
          .takeover = agreement.own_takeover,
          .level = options.level,
          .memory_level = options.memory_level,
          .final_blocks = options.final_blocks};
}

// One direction's compression. One thread: that of `blocks`. `blocks` must outlive it.
class Deflater {
 public:
  Deflater(const DeflaterOptions& options, BlockPool& blocks);
  Deflater(const Deflater&) = delete;
  Deflater& operator=(const Deflater&) = delete;
  ~Deflater();

  const DeflaterOptions& options() const { return options_; }

  // The most that compress() writes for a piece of `bytes`; saturates.
  static constexpr std::size_t bound(std::size_t bytes) {
    const std::size_t more = bytes / 8 + bytes / 64 + 64;
    return bytes > ~std::size_t{0} - more ? ~std::size_t{0} : bytes + more;
  }

  // Compresses a message, or its next piece, `last` with the last of it. `out` has at least bound(piece.size())
  // bytes (asserted) and does not overlap `piece`. Returns the bytes written, which may be more than went in: a
  // whole message without takeover may then as well be sent as it is. With takeover what was compressed has to be
  // sent, in the order in which it was compressed.
  std::size_t compress(Bytes piece, bool last, MutableBytes out);

  // Whether no message is under way.
  bool idle() const { return !in_message_; }

  // Forgets everything: as new, for another connection.
  void reset();

  // What it holds of the pool, in bytes.
  std::size_t memory_bytes() const;

 private:
  struct State;

  std::size_t compress_stream(Bytes piece, MutableBytes out);

  DeflaterOptions options_;
  bool in_message_ = false;
  bool fresh_ = true;  // nothing was compressed since the stream was made or reset
  std::unique_ptr<State> state_;
};

}  // namespace levada::ws
