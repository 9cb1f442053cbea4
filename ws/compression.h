// Compression: permessage-deflate (RFC 7692) of the connections of one service.
//
// Model: what a connection agreed on fits a byte that it keeps. Contexts that serve any connection, because nothing is
// taken over from message to message, belong to the service; those that are a connection's own are in a table here, made
// when they are first needed. An inflater that has begun a message belongs to its connection until the message ends, so
// there are as many of them as messages under way.
//
// The reactor's thread only.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <memory>
#include <unordered_map>
#include <vector>

#include <levada/core/block_pool.h>
#include <levada/core/slab.h>
#include <levada/ws/deflate.h>
#include <levada/ws/deflate_negotiation.h>
#include <levada/ws/inflate.h>

namespace levada::ws {

// What a connection agreed on; 0: nothing.
class DeflateState {
 public:
  DeflateState() = default;
  explicit DeflateState(const DeflateAgreement& agreement)
      : agreed_(true),
        own_takeover_(agreement.own_takeover),
        peer_takeover_(agreement.peer_takeover),
        own_window_((agreement.own_window_bits - min_window_bits) & 7u) {}

  bool agreed() const { return agreed_; }
  bool own_takeover() const { return own_takeover_; }
  bool peer_takeover() const { return peer_takeover_; }
  std::uint8_t own_window_bits() const { return static_cast<std::uint8_t>(own_window_ + min_window_bits); }

  // The message that is being sent in fragments is compressed.
  bool in_fragments = false;

 private:
  bool agreed_ : 1 = false;
  bool own_takeover_ : 1 = false;
  bool peer_takeover_ : 1 = false;
  std::uint8_t own_window_ : 3 = 0;
};

class Compression {
 public:
  // What contexts that wait for a message may hold, those of each kind and window: some hundred inflaters, 15 of the
  // largest deflaters. More messages at once than that is rare, and costs an allocation each.
  static constexpr std::size_t max_free_bytes = std::size_t{4} << 20;

  // `blocks` must outlive it.
  Compression(const DeflateOptions& options, std::uint64_t max_message_bytes, bool streaming,
              BlockPool& blocks)
      : options_(options), max_message_bytes_(max_message_bytes), streaming_(streaming), blocks_(blocks) {}

  const DeflateOptions& options() const { return options_; }

  // A connection that agreed on takeover in some direction has contexts of its own from here on.
  void add(SlotId connection, const DeflateAgreement& agreement);
  // The connection is gone.
  void remove(SlotId connection) { own_.erase(connection.packed()); }

  // No connection is left: gives all memory back, for the service may outlive the reactor's pool.
  void clear();

  // What compresses the connection's next message or, with `fragments`, a message in pieces: until its end a deflater
  // of the connection's own.
  Deflater& deflater(SlotId connection, const DeflateState& state, bool fragments);
  // The last piece of a message in pieces was compressed.
  void end_fragments(SlotId connection, const DeflateState& state);

  // What inflates the message that begins now; to be given back when it has ended or will not.
  Inflater& take_inflater(SlotId connection, const DeflateState& state);
  void give_inflater(Inflater& inflater);

  // What a connection may inflate now. A message that did not fit its first slice goes on with a quarter of one in each
  // turn, which all those connections share: many bombs take no more of a turn than one, and not most of it.
  std::size_t slice_bytes() const {
    if (in_slices_ == 0) return options_.slice_bytes;
    return std::min(options_.slice_bytes,
                    std::max(options_.slice_bytes / (4 * in_slices_), least_slice_bytes));
  }
  void begin_slices() { in_slices_++; }
  void end_slices() { in_slices_--; }

 private:
  // Whether one more of them is kept. What libdeflate has beside the pool is counted as 16 KiB.
  template <class Context>
  static bool keeps(const std::vector<std::unique_ptr<Context>>& free, const Context& context) {
    return (free.size() + 1) * std::max(context.memory_bytes(), std::size_t{16} << 10) <= max_free_bytes;
  }

  static constexpr std::size_t least_slice_bytes = 2048;

  struct Own {
    DeflateAgreement agreement;
    std::unique_ptr<Deflater> deflater;
    std::unique_ptr<Deflater> fragments;
    std::unique_ptr<Inflater> inflater;
  };

  DeflateOptions options_;
  std::uint64_t max_message_bytes_;
  bool streaming_;
  BlockPool& blocks_;
  struct Deflaters {
    std::unique_ptr<Deflater> shared;                  // of whole messages
    std::vector<std::unique_ptr<Deflater>> fragments;  // of messages in pieces, free
  };

  Deflaters& deflaters(const DeflateState& state) {
    return deflaters_[state.own_window_bits() - min_window_bits];
  }

  std::array<Deflaters, max_window_bits - min_window_bits + 1> deflaters_;  // by window
  std::vector<std::unique_ptr<Inflater>> free_inflaters_;  // those in use belong to who took them
  std::size_t in_slices_ = 0;                              // connections
  std::unordered_map<std::uint64_t, Own> own_;             // by SlotId::packed()
};

}  // namespace levada::ws
