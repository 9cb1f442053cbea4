#include <levada/net/send_queue.h>

#include <algorithm>
#include <cassert>
#include <cstring>
#include <utility>

namespace levada::net {
namespace {

constexpr std::uint32_t max_room = (1u << 30) - 1;

bool is(const Segment* segment, Mark mark) {
  return segment->mark == static_cast<unsigned>(mark);
}

}  // namespace

void SegmentPool::grow() {
  constexpr std::size_t count = 512;
  auto chunk = std::make_unique<Segment[]>(count);
  for (std::size_t i = 0; i < count; i++) {
    chunk[i].next = free_;
    free_ = &chunk[i];
  }
  chunks_.push_back(std::move(chunk));
}

std::size_t SendQueue::sole_bytes() const {
  std::size_t sum = 0;
  const Segment* segment = head_;
  while (segment != nullptr) {
    Owner* const owner = segment->owner;
    const Block* const block = Block::of(owner);
    std::uint32_t references = 0;  // of segments, which lie side by side when they share a block
    for (; segment != nullptr && segment->owner == owner; segment = segment->next) {
      references++;
      if (owner == nullptr) sum += segment->size;
    }
    if (block != nullptr && owner->references() == references) sum += block->counted_bytes();
  }
  return sum;
}

void SendQueue::push(Segment* segment) {
  segment->next = nullptr;
  if (tail_ == nullptr) {
    head_ = segment;
  } else {
    tail_->next = segment;
  }
  tail_ = segment;
}

void SendQueue::pop(SegmentPool& pool) {
  remove(pool, head_);
  if (head_ == nullptr) tail_ = nullptr;
}

void SendQueue::append_new(SegmentPool& pool, Bytes view, Owner* owner, Mark mark) {
  OwnerRef reference = OwnerRef::adopt(owner);
  while (view.size() > max_segment_bytes) {
    append_part(pool, view.first(max_segment_bytes), OwnerRef::share(owner), std::exchange(mark, Mark::none));
    view = view.subspan(max_segment_bytes);
  }
  if (!view.empty()) append_part(pool, view, std::move(reference), mark);
}

void SendQueue::append_part(SegmentPool& pool, Bytes part, OwnerRef reference, Mark mark) {
  assert(part.size() <= ~bytes_);
  bytes_ += static_cast<std::uint32_t>(part.size());
  if (mark == Mark::none && tail_ != nullptr && tail_->owner == reference.get() &&
      tail_->data + tail_->size == part.data() && tail_->size + part.size() <= max_segment_bytes) {
    tail_->size += static_cast<std::uint32_t>(part.size());
    return;
  }
  Segment* segment = pool.allocate();
  segment->data = part.data();
  segment->size = static_cast<std::uint32_t>(part.size());
  segment->room = 0;
  segment->mark = static_cast<unsigned>(mark) & 3u;
  segment->owner = reference.release();
  push(segment);
}

int SendQueue::gather(iovec* out, int limit, std::size_t& total) const {
  int count = 0;
  total = 0;
  for (const Segment* segment = head_; segment != nullptr && count < limit; segment = segment->next) {
    out[count++] = {const_cast<std::uint8_t*>(segment->data), segment->size};
    total += segment->size;
  }
  return count;
}

void SendQueue::advance(SegmentPool& pool, std::size_t size) {
  assert(size <= bytes_);
  bytes_ -= static_cast<std::uint32_t>(size);
  while (size > 0) {
    if (size < head_->size) {
      head_->mark = 0;  // a message that has begun to leave has to leave
      head_->data += size;
      head_->size -= static_cast<std::uint32_t>(size);
      return;
    }
    size -= head_->size;
    pop(pool);
  }
}

void SendQueue::move(SegmentPool& pool, std::size_t size, SendQueue& to) {
  while (size > 0) {
    const std::size_t part = std::min<std::size_t>(size, head_->size);
    to.append(pool, {head_->data, part}, OwnerRef::share(head_->owner).release());
    advance(pool, part);
    size -= part;
  }
}

void SendQueue::spill(SegmentPool& pool, BlockPool& blocks) {
  Segment* segment = head_;
  std::size_t left = bytes_;  // of this segment and all behind it
  head_ = tail_ = nullptr;
  while (segment != nullptr) {
    Segment* next = segment->next;
    const std::uint32_t size = segment->size;
    const bool fits_behind_tail = segment->owner == nullptr && tail_ != nullptr && tail_->room >= size;
    if (fits_behind_tail && move_behind_tail(*segment)) {
      pool.release(segment);
    } else {
      // One block for what is left of this turn, but not for what others own.
      constexpr std::size_t usual_bytes = 4096;
      if (segment->owner == nullptr)
        move_to_block(*segment, blocks.allocate(std::max<std::size_t>(size, std::min(left, usual_bytes))));
      push(segment);
    }
    left -= size;
    segment = next;
  }
}

void SendQueue::move_to_block(Segment& segment, Block* block) {
  block->note_used(segment.size);
  std::memcpy(block->data(), segment.data, segment.size);
  segment.data = block->data();
  segment.owner = block;
  segment.room =
      static_cast<std::uint32_t>(std::min<std::size_t>(block->capacity() - segment.size, max_room)) &
      max_room;
}

// Returns whether the last segment has become longer by it; a marked one stays for itself.
bool SendQueue::move_behind_tail(Segment& segment) {
  std::uint8_t* end = const_cast<std::uint8_t*>(tail_->data) + tail_->size;
  std::memcpy(end, segment.data, segment.size);
  const std::uint32_t room = tail_->room - segment.size;
  if (segment.mark == 0) {
    tail_->size += segment.size;
    tail_->room = room & max_room;
    return true;
  }
  segment.data = end;
  segment.owner = OwnerRef::share(tail_->owner).release();
  segment.room = room & max_room;
  tail_->room = 0;
  return false;
}

// Whether messages that may be dropped have `size` bytes.
bool SendQueue::can_drop(std::size_t size) const {
  std::size_t sum = 0;
  bool droppable = false;
  for (const Segment* segment = head_; segment != nullptr && sum < size; segment = segment->next) {
    if (!is(segment, Mark::none)) droppable = is(segment, Mark::message);
    if (droppable) sum += segment->size;
  }
  return sum >= size;
}

std::size_t SendQueue::drop_oldest(SegmentPool& pool, std::size_t size) {
  if (!can_drop(size)) return 0;
  std::size_t dropped = 0;
  std::size_t freed = 0;
  Segment** link = &head_;
  Segment* before = nullptr;
  while (*link != nullptr && freed < size) {
    if (is(*link, Mark::message)) {
      dropped++;
      do freed += remove(pool, *link);
      while (*link != nullptr && is(*link, Mark::none));
    } else {
      before = *link;
      link = &before->next;
    }
  }
  if (*link == nullptr) tail_ = before;
  bytes_ -= static_cast<std::uint32_t>(freed);
  return dropped;
}

// Unlinks the segment that `link` points to. Returns its size.
std::size_t SendQueue::remove(SegmentPool& pool, Segment*& link) {
  Segment* segment = link;
  link = segment->next;
  const std::size_t size = segment->size;
  if (segment->owner != nullptr) segment->owner->drop_reference();
  pool.release(segment);
  return size;
}

}  // namespace levada::net
