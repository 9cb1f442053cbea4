// Send queue: the bytes of one stream that the kernel has not taken yet, in order.
//
// Model: a list of segments, each a view of memory. A segment without an owner lies in the turn's memory
// (TurnMemory, or the receive buffer that is being handled) and is good for this turn only; one with an owner
// holds a reference. After the turn's flush no segment without an owner is left: it was sent, or spill()
// copied it to a block.
//
//   append: [turn][turn][owned]   gather -> iovec[]   kernel takes n bytes   advance(n)   spill:
//   [owned][owned]
//
// Marks say where a frame begins, for queues that may drop whole messages (drop_oldest); others need none.
//
// Invariants: bytes() is the sum of the segments' sizes and below 4 GiB; no segment is empty; segments leave
// in the order they came.
#pragma once

#include <sys/uio.h>
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include <levada/core/block_pool.h>
#include <levada/core/bytes.h>

namespace levada::net {

// What begins with a segment.
enum class Mark : std::uint8_t {
  none,     // nothing: it continues what is before
  kept,     // something that must be sent
  message,  // a whole message, up to the next mark, that may be dropped while none of it was sent
};

struct Segment {
  Segment* next;
  const std::uint8_t* data;
  Owner* owner;  // nullptr: memory of this turn
  std::uint32_t size;
  std::uint32_t room : 30;  // bytes behind the data that belong to nobody else and may be appended to
  std::uint32_t mark : 2;
};
static_assert(sizeof(Segment) == 32);

// Free list of segments for all queues of a reactor. One thread.
class SegmentPool {
 public:
  Segment* allocate() {
    if (free_ == nullptr) grow();
    Segment* segment = free_;
    free_ = segment->next;
    in_use_++;
    return segment;
  }
  void release(Segment* segment) {
    segment->next = free_;
    free_ = segment;
    in_use_--;
  }
  std::size_t in_use() const { return in_use_; }

 private:
  void grow();

  Segment* free_ = nullptr;
  std::size_t in_use_ = 0;
  std::vector<std::unique_ptr<Segment[]>> chunks_;
};

// 20 bytes of state and no memory of its own while it is empty. One thread.
class SendQueue {
 public:
  // One segment holds at most this many bytes; longer views are split.
  static constexpr std::size_t max_segment_bytes = std::size_t{1} << 30;

  bool empty() const { return head_ == nullptr; }
  std::size_t bytes() const { return bytes_; }

  // Queues a view. `owner` nullptr: the memory lives until the end of this turn. Otherwise the caller's
  // reference is taken over. A view without a mark that continues the last segment in memory makes that one longer.
  // Queuing 4 GiB or more in all is the caller's mistake.
  void append(SegmentPool& pool, Bytes view, Owner* owner = nullptr, Mark mark = Mark::none) {
    if (owner == nullptr && mark == Mark::none &&
        continues_tail(view)) {  // small messages of one turn, one after the other
      tail_->size += static_cast<std::uint32_t>(view.size());
      bytes_ += static_cast<std::uint32_t>(view.size());
    } else {
      append_new(pool, view, owner, mark);
    }
  }

  // Drops the oldest messages that may be dropped until `size` bytes are free; none when that is more than all of them
  // have. Returns how many. Not while the kernel holds segments.
  std::size_t drop_oldest(SegmentPool& pool, std::size_t size);

  // Fills `out` with the first segments, at most `limit` of them; returns how many. The views live until the
  // queue changes. `total` receives the sum of their sizes.
  int gather(iovec* out, int limit, std::size_t& total) const;

  // Calls `visit(Bytes)` for the first `size` bytes, segment by segment. They live until the queue changes.
  template <class Visit>
  void visit(std::size_t size, Visit&& visit) const {
    for (const Segment* segment = head_; segment != nullptr && size > 0; segment = segment->next) {
      const std::size_t part = std::min<std::size_t>(segment->size, size);
      visit(Bytes{segment->data, part});
      size -= part;
    }
  }

  // The only segment's view when there is just one, else empty.
  Bytes single() const {
    if (head_ == nullptr || head_->next != nullptr) return {};
    return {head_->data, head_->size};
  }

  // The kernel took the first `size` bytes: their segments are let go.
  void advance(SegmentPool& pool, std::size_t size);

  // Moves the first `size` bytes to the end of `to`; their marks are lost.
  void move(SegmentPool& pool, std::size_t size, SendQueue& to);

  // Copies what lies in the turn's memory into blocks that the queue owns.
  void spill(SegmentPool& pool, BlockPool& blocks);

  // Memory of block pools that would come back if the queue were cleared, and memory of this turn, in bytes; not what
  // others refer to as well. Walks all segments.
  std::size_t sole_bytes() const;

  void clear(SegmentPool& pool) {
    while (head_ != nullptr) pop(pool);
    bytes_ = 0;
  }

 private:
  bool continues_tail(Bytes view) const {
    return tail_ != nullptr && tail_->owner == nullptr && tail_->data + tail_->size == view.data() &&
           tail_->size + view.size() <= max_segment_bytes;
  }
  void append_new(SegmentPool& pool, Bytes view, Owner* owner, Mark mark);
  void append_part(SegmentPool& pool, Bytes part, OwnerRef reference, Mark mark);
  void push(Segment* segment);
  void pop(SegmentPool& pool);
  static std::size_t remove(SegmentPool& pool, Segment*& link);
  bool can_drop(std::size_t size) const;
  static void move_to_block(Segment& segment, Block* block);
  bool move_behind_tail(Segment& segment);

  Segment* head_ = nullptr;
  Segment* tail_ = nullptr;
  std::uint32_t bytes_ = 0;
};

}  // namespace levada::net
