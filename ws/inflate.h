// Inflater: the payload of permessage-deflate in, messages out (RFC 7692 section 7.2.2).
//
// Model: like the Decoder, whose pieces of compressed messages it is given. The caller owns the input, next()
// eats it from the front and says what came of it. A message is inflated into a block of the pool that follows
// what was really inflated; or, streaming, each piece is delivered as it comes out and nothing is kept.
//
//   Bytes in = piece;                                // of the frames of one message, unmasked
//   for (;;) {
//     const Inflated out = inflater.next(in, last);  // last: no more bytes of this message follow `in`
//     if (is_text && !utf8.feed(out.fresh)) fail(FrameError::bad_text);
//     if (out.event == InflateEvent::error) fail(out.error);
//     if (out.event == InflateEvent::message) {
//       if (is_text && !utf8.complete()) fail(FrameError::bad_text);
//       show(out.payload);
//       inflater.release();
//     }
//     if (out.event != InflateEvent::fragment) break;  // `more`: keep `in` and come back in the next turn
//   }
//
// Limits, for a compressed message may be a bomb: a call inflates at most slice_bytes, and takes at most an eighth of
// that from its input, for blocks that inflate to nothing take their time, too; a message of more than
// max_message_bytes is an error as soon as its first byte too many comes out; the memory written to stays below
// that limit and 64 KiB, window and all. A block that is full grows to four times its size, or to the full size, of
// which the kernel makes resident what is written to (BlockPool::grow()).
//
// What is taken, strictly by the RFC: blocks of any type, final ones too, in any order, the next beginning at a
// byte's boundary behind a final one. When the 4 bytes 00 00 ff ff have been put behind the message it must end
// where a block ends; all else is bad_deflate. One indulgence: a message of no bytes at all is empty. Windows are
// not policed: without takeover a message may refer to all of its last 32 KiB, whatever was agreed on. A message
// whose Huffman codes name symbols that DEFLATE does not have is an error to zlib, but libdeflate, which inflates
// some messages that come in one piece, may take it.
//
// Memory comes from a BlockPool with the first message, see memory_bytes(); after that nothing is allocated but
// blocks. Only in a library built with zlib, as the Deflater.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>

#include <levada/core/block_pool.h>
#include <levada/core/bytes.h>
#include <levada/ws/deflate_negotiation.h>
#include <levada/ws/frame.h>

struct z_stream_s;

namespace levada::ws {

struct InflaterOptions {
  std::uint8_t window_bits = max_window_bits;  // 8 to 15
  bool takeover = false;
  bool streaming = false;                                     // deliver pieces
  std::uint64_t max_message_bytes = std::uint64_t{16} << 20;  // inflated; beyond it message_too_big
  std::uint32_t max_ratio = 0;          // see DeflateOptions; beyond it inflates_too_much
  std::size_t slice_bytes = 64 * 1024;  // inflated by one call, at most
};

// The decompressor that an agreement asks for. Without takeover it has the full window, whatever the agreement:
// one of them can then serve all connections of a reactor.
inline InflaterOptions inflater_options(const DeflateOptions& options, const DeflateAgreement& agreement,
                                        std::uint64_t max_message_bytes, bool streaming) {
  return {.window_bits = agreement.peer_takeover ? agreement.peer_window_bits : max_window_bits,
          .takeover = agreement.peer_takeover,
          .streaming = streaming,
          .max_message_bytes = max_message_bytes,
          .max_ratio = options.max_ratio,
          .slice_bytes = options.slice_bytes};
}

enum class InflateEvent : std::uint8_t {
  none,      // all of the input was taken, more of the message is needed
  message,   // a whole message
  fragment,  // streaming: the next piece of one; `fin` with the last
  more,      // the slice is used up: call again with what is left of the input, even if that is nothing
  error,     // the connection has to be failed with close_code(error)
};

struct Inflated {
  InflateEvent event = InflateEvent::none;
  bool fin = true;  // of a fragment
  FrameError error = FrameError::none;
  // What this call inflated, to be validated if it is text. Not to be kept.
  Bytes fresh = {};
  // What this call took, counted in inflated bytes: those, or input_weight for each byte of the input where that is more.
  std::size_t cost = 0;
  // The message or fragment, in memory that a reference on `owner` keeps; else until the next call or release().
  // Before it `headroom` bytes for a frame's header.
  MutableBytes payload = {};
  std::size_t headroom = 0;
  Owner* owner = nullptr;
};

// One direction's decompression. One thread: that of `blocks`. `blocks` must outlive it.
class Inflater {
 public:
  static constexpr std::size_t headroom_bytes = 16;         // before what is delivered
  static constexpr std::size_t fragment_bytes = 16 * 1024;  // streaming: the most that one has
  // A compressed byte counts as much as so many inflated ones: it may be part of a block that has Huffman codes and nothing
  // else, which takes zlib 100 ns for each byte.
  static constexpr std::size_t input_weight = 8;

  Inflater(const InflaterOptions& options, BlockPool& blocks);
  Inflater(const Inflater&) = delete;
  Inflater& operator=(const Inflater&) = delete;
  ~Inflater();

  const InflaterOptions& options() const { return options_; }
  // Other options, while it is idle() and nothing is taken over; the window stays what it is (asserted).
  void use(const InflaterOptions& options);

  // Inflates from the front of `in`, which is not changed but for being shortened, and no more than `most_bytes` where
  // that is less than slice_bytes; of the input it takes no more than an eighth of that (input_weight). A message that
  // libdeflate inflates whole has a slice in any case: see Inflated::cost. `last` tells that the message ends with `in`.
  // After `error` only reset() may be called. Errors: bad_deflate (1007), message_too_big and inflates_too_much (1009).
  Inflated next(Bytes& in, bool last, std::size_t most_bytes = ~std::size_t{0});

  // Lets go of what was delivered: an Inflater between messages then holds its window only.
  void release();

  // Whether no message is under way.
  bool idle() const { return !in_message_; }

  // Forgets everything: as new, for another connection.
  void reset();

  // How much of the message that is under way it holds, in bytes.
  std::size_t message_bytes() const { return filled_; }

  // What it holds of the pool, in bytes: the window and zlib's own, and the block of a message that is under way
  // or was delivered.
  std::size_t memory_bytes() const;

 private:
  enum class Step : std::uint8_t { room_used, input_used, done, bad };
  static constexpr std::size_t joined_bytes =
      512;  // below it the input is copied, to have its ending behind it
  static constexpr std::uint8_t least_whole_ratio = 8, most_whole_ratio = 64;
  struct State;

  void begin();
  Step inflate_slice(Bytes& in, bool last, std::size_t most);
  bool inflate_whole(Bytes& in);
  Step inflate_into(MutableBytes out, Bytes& in, bool last);
  Bytes source(Bytes in, bool last, std::array<std::uint8_t, joined_bytes>& joined) const;
  void take(Bytes& in, std::size_t bytes);
  Inflated finish_call(std::size_t from, Step step);
  FrameError check_size() const;
  void add_output(std::size_t size);
  z_stream_s& prepare_stream();
  std::uint8_t* first_byte() const;
  std::size_t block_bytes() const;
  MutableBytes room(std::size_t guess, std::size_t until);
  std::size_t block_for(std::size_t bytes) const;
  void grow();

  InflaterOptions options_;
  BlockPool* blocks_;
  bool in_message_ = false;
  bool delivered_ = false;              // block_ was handed out
  bool fresh_ = true;                   // zlib's stream was made or reset and not used since
  bool at_boundary_ = false;            // zlib's stream is where a block may begin, and a byte
  std::uint8_t ending_used_ = 0;        // of the 4 bytes behind the message
  std::uint64_t compressed_bytes_ = 0;  // of this message so far
  std::uint64_t inflated_bytes_ = 0;
  Block* block_ = nullptr;
  std::size_t filled_ = 0;  // bytes in block_ behind the headroom
  // How much room libdeflate gets for each byte, and how many messages it is not asked about: where it has found too little
  // room it has worked for nothing.
  std::uint8_t whole_ratio_ = least_whole_ratio;
  std::uint8_t whole_skips_ = 0;
  std::unique_ptr<State> state_;
};

}  // namespace levada::ws
