#include <levada/net/send_queue.h>

#include <algorithm>
#include <cassert>
#include <cstring>

namespace levada::net {

void SegmentPool::grow() {
  constexpr std::size_t count = 512;
  auto chunk = std::make_unique<Segment[]>(count);
  for (std::size_t i = 0; i < count; i++) {
    chunk[i].next = free_;
    free_ = &chunk[i];
  }
  chunks_.push_back(std::move(chunk));
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
  Segment* segment = head_;
  head_ = segment->next;
  if (head_ == nullptr) tail_ = nullptr;
  if (segment->owner != nullptr) segment->owner->drop_reference();
  pool.release(segment);
}

void SendQueue::append_new(SegmentPool& pool, Bytes view, Owner* owner) {
  OwnerRef reference = OwnerRef::adopt(owner);
  while (view.size() > max_segment_bytes) {
    append_part(pool, view.first(max_segment_bytes), OwnerRef::share(owner));
    view = view.subspan(max_segment_bytes);
  }
  if (!view.empty()) append_part(pool, view, std::move(reference));
}

void SendQueue::append_part(SegmentPool& pool, Bytes part, OwnerRef reference) {
  assert(part.size() <= ~bytes_);
  bytes_ += static_cast<std::uint32_t>(part.size());
  if (tail_ != nullptr && tail_->owner == reference.get() && tail_->data + tail_->size == part.data() &&
      tail_->size + part.size() <= max_segment_bytes) {
    tail_->size += static_cast<std::uint32_t>(part.size());
    return;
  }
  Segment* segment = pool.allocate();
  segment->data = part.data();
  segment->size = static_cast<std::uint32_t>(part.size());
  segment->room = 0;
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
      head_->data += size;
      head_->size -= static_cast<std::uint32_t>(size);
      return;
    }
    size -= head_->size;
    pop(pool);
  }
}

void SendQueue::spill(SegmentPool& pool, BlockPool& blocks) {
  Segment* segment = head_;
  std::size_t left = bytes_;  // of this segment and all behind it
  head_ = tail_ = nullptr;
  while (segment != nullptr) {
    Segment* next = segment->next;
    const std::uint32_t size = segment->size;
    if (segment->owner == nullptr && tail_ != nullptr && tail_->room >= size) {
      std::memcpy(const_cast<std::uint8_t*>(tail_->data) + tail_->size, segment->data, size);
      tail_->size += size;
      tail_->room -= size;
      pool.release(segment);
    } else {
      if (segment->owner == nullptr) {
        // One block for what is left of this turn, but not for what others own.
        constexpr std::size_t usual_bytes = 4096;
        Block* block = blocks.allocate(std::max<std::size_t>(size, std::min(left, usual_bytes)));
        std::memcpy(block->data(), segment->data, size);
        segment->data = block->data();
        segment->owner = block;
        segment->room = static_cast<std::uint32_t>(block->capacity() - size);
      }
      push(segment);
    }
    left -= size;
    segment = next;
  }
}

}  // namespace levada::net
