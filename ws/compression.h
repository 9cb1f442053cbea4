// Compression: permessage-deflate (RFC 7692) of the connections of one reactor.
//
// Model: what a connection agreed on fits two bytes that it keeps. Contexts that serve any connection, because nothing is
// taken over from message to message, belong to the reactor, whatever the service; those that are a connection's own are
// in a table here, made when they are first needed. An inflater that has begun a message belongs to its connection until
// the message ends, so there are as many of them as messages under way; so does the deflater of a message in fragments.
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

namespace levada::net {
class Reactor;
}

namespace levada::ws {

// What a connection agreed on.
class DeflateState {
 public:
  DeflateState() = default;
  explicit DeflateState(const DeflateAgreement& agreement)
      : agreed_(true),
        own_takeover_(agreement.own_takeover),
        peer_takeover_(agreement.peer_takeover),
        own_window_((agreement.own_window_bits - min_window_bits) & 7u),
        peer_window_((agreement.peer_window_bits - min_window_bits) & 7u) {}

  bool agreed() const { return agreed_; }
  bool own_takeover() const { return own_takeover_; }
  bool peer_takeover() const { return peer_takeover_; }
  std::uint8_t own_window_bits() const { return static_cast<std::uint8_t>(own_window_ + min_window_bits); }
  DeflateAgreement agreement() const {
    return {.own_takeover = own_takeover_,
            .peer_takeover = peer_takeover_,
            .own_window_bits = own_window_bits(),
            .peer_window_bits = static_cast<std::uint8_t>(peer_window_ + min_window_bits)};
  }

  // The message that is being sent in fragments is compressed.
  bool in_fragments : 1 = false;

 private:
  bool agreed_ : 1 = false;
  bool own_takeover_ : 1 = false;
  bool peer_takeover_ : 1 = false;
  std::uint8_t own_window_ : 3 = 0;
  std::uint8_t peer_window_ : 3 = 0;
};

static_assert(sizeof(DeflateState) == 2);

// What the connections of one service have in common.
struct CompressionOptions {
  DeflateOptions deflate = {};
  std::uint64_t max_message_bytes = std::uint64_t{16} << 20;
  bool streaming = false;
};

class Compression {
 public:
  // What contexts that wait for a message may hold, those of each kind: some hundred inflaters, 15 of the largest
  // deflaters. More messages at once than that is rare, and costs an allocation each.
  static constexpr std::size_t max_free_bytes = std::size_t{4} << 20;

  // The one of a reactor, made when it is first asked for; it lives as long as the reactor.
  static Compression& of(net::Reactor& reactor);

  // `blocks` must outlive it.
  explicit Compression(BlockPool& blocks) : blocks_(blocks) {}

  // A connection that agreed is there.
  void add() { connections_++; }
  // It is gone. With the last one all memory is given back.
  void remove(SlotId connection);

  // What compresses the connection's next message or, with `fragments`, a message in pieces: until its end a deflater
  // of the connection's own.
  Deflater& deflater(const DeflateOptions& options, SlotId connection, const DeflateState& state,
                     bool fragments);
  // The last piece of a message in pieces was compressed.
  void end_fragments(SlotId connection, const DeflateState& state);

  // What inflates the message that begins now; to be given back when it has ended or will not.
  Inflater& take_inflater(const CompressionOptions& options, SlotId connection, const DeflateState& state);
  void give_inflater(Inflater& inflater);

  // ---- Slices ----
  //
  // A message that did not fit its first slice goes on in the turns that follow. There, all messages for which that holds
  // have a quarter of a slice together: those that wait longest get it first, and who used his share up and needs more
  // waits again. A message that has to be inflated whole may take more, up to a slice: then the turns that follow have
  // less. So many bombs take no more of a turn than one, and not most of it.

  // What a connection may inflate now, in what Inflated::cost counts.
  std::size_t slice_bytes(const DeflateOptions& options) const {
    const std::size_t share = share_of(options);
    if (in_slices_turn_) return share > used_ ? share - used_ : 0;
    return is_waiting() ? share : options.slice_bytes;
  }
  // A connection has inflated that much.
  void use(std::size_t cost) {
    if (in_slices_turn_) used_ += cost;
  }

  // Lets a connection wait for its next slice. Returns whether it is the first, for which a turn has to be asked for.
  bool wait(SlotId connection);
  bool is_waiting() const { return first_waiting_ < waiting_.size(); }
  std::size_t waiting() const { return waiting_.size() - first_waiting_; }
  // Who waits longest. It may be gone meanwhile.
  SlotId longest_waiting() const { return waiting_[first_waiting_]; }
  void end_wait();

  bool in_slices_turn() const { return in_slices_turn_; }
  void begin_slices_turn() {
    in_slices_turn_ = true;
    used_ -= std::min(used_, share_);
  }
  void end_slices_turn() { in_slices_turn_ = false; }
  // Whether enough of the turn's share is left for a slice of a connection with these options.
  bool begin_slice(const DeflateOptions& options) {
    share_ = share_of(options);
    return !is_used_up(options);
  }
  bool is_used_up(const DeflateOptions& options) const {
    return used_ > 0 && slice_bytes(options) < std::min(options.slice_bytes, least_slice_bytes);
  }

 private:
  // Whether one more of them is kept. What libdeflate has beside the pool is counted as 16 KiB.
  template <class Context>
  static bool keeps(std::size_t free, const Context& context) {
    return (free + 1) * std::max(context.memory_bytes(), std::size_t{16} << 10) <= max_free_bytes;
  }

  static constexpr std::size_t least_slice_bytes = 2048;
  static std::size_t share_of(const DeflateOptions& options) {
    return std::min(options.slice_bytes, std::max(options.slice_bytes / 4, least_slice_bytes));
  }

  struct Own {
    std::unique_ptr<Deflater> deflater;
    std::unique_ptr<Inflater> inflater;
  };
  // By SlotId::packed(). A free one waits with its table's entry.
  using InFragments = std::unordered_map<std::uint64_t, std::unique_ptr<Deflater>>;
  struct Deflaters {
    DeflaterOptions options;
    std::unique_ptr<Deflater> shared;               // of whole messages
    std::vector<InFragments::node_type> fragments;  // of messages in pieces, free
  };

  Deflaters& deflaters(const DeflaterOptions& options);
  Deflater& begin_fragments(SlotId connection, const DeflaterOptions& options);
  void free_fragments(InFragments::node_type node);
  void clear();

  BlockPool& blocks_;
  std::size_t connections_ = 0;
  std::vector<Deflaters> deflaters_;                       // a few: by window, and what services differ in
  std::vector<std::unique_ptr<Inflater>> free_inflaters_;  // those in use belong to who took them
  InFragments in_fragments_;
  std::unordered_map<std::uint64_t, Own> own_;  // by SlotId::packed()

  std::vector<SlotId> waiting_;  // from first_waiting_ on
  std::size_t first_waiting_ = 0;
  bool in_slices_turn_ = false;
  std::size_t share_ = 0;  // of all that wait, in a turn
  std::size_t used_ = 0;   // of it; what is beyond it is taken off the next turns
};

}  // namespace levada::ws
