#include <levada/net/io_uring_buffers.h>

#include <algorithm>
#include <bit>
#include <cstdlib>
#include <cstring>
#include <string_view>
#include <utility>

#include <levada/net/io_uring.h>
#include <levada/net/reactor.h>

namespace levada::net {

void ReceiveBuffer::give_back(Owner* owner) {
  auto* buffer = static_cast<ReceiveBuffer*>(owner);
  buffer->ring_.take_back(buffer);
}

namespace {

// The environment can ask for what kernels before 6.12 do, to try it on others.
bool incremental_is_forbidden() {
  const char* text = std::getenv("LEVADA_INCREMENTAL");
  return text != nullptr && std::string_view(text) == "0";
}

}  // namespace

Error ReceiveRing::make(io_uring& uring) {
  uring_ = &uring;
  incremental_ = io_uring_abilities().incremental && !incremental_is_forbidden();
  const ReactorOptions& options = reactor_.options();
  // Used up one message at a time, buffers have to be many; used up incrementally, they may be few and large.
  const unsigned default_count = incremental_ ? 32 : 256;
  const std::size_t default_bytes = incremental_ ? 32 * 1024 : 4096;
  count_ =
      std::bit_ceil(std::min(options.receive_buffers == 0 ? default_count : options.receive_buffers, 32768u));
  buffer_bytes_ = options.receive_buffer_bytes == 0 ? default_bytes : options.receive_buffer_bytes;
  int result = 0;
  ring_ = make_buffer_ring(uring, count_, group, incremental_, result);
  if (ring_ == nullptr) return Error::from_os("register buffer ring", -result);
  memory_ = reactor_.blocks().allocate(count_ * buffer_bytes_);
  // Resident from the start: no page fault while receiving, and a footprint that does not creep up with use.
  std::memset(memory_->data(), 0, count_ * buffer_bytes_);
  for (unsigned i = 0; i < count_; i++) {
    buffers_.push_back(std::make_unique<ReceiveBuffer>(*this, memory_->data() + i * buffer_bytes_,
                                                       static_cast<std::uint16_t>(i)));
    provide(*buffers_.back());
  }
  finished_.reserve(count_);
  return {};
}

void ReceiveRing::free() {
  if (ring_ != nullptr) free_buffer_ring(*uring_, std::exchange(ring_, nullptr), count_, group);
}

ReceiveRing::~ReceiveRing() {
  if (memory_ != nullptr) memory_->drop_reference();
}

MutableBytes ReceiveRing::take(std::int32_t result, std::uint32_t flags, Owner*& memory) {
  if ((flags & IORING_CQE_F_BUFFER) == 0) return {};
  ReceiveBuffer& buffer = *buffers_[flags >> IORING_CQE_BUFFER_SHIFT];
  const auto size = static_cast<std::size_t>(std::max(result, 0));
  const MutableBytes bytes{buffer.data_ + buffer.used_, size};
  buffer.used_ += size;
  if (!incremental_ || (flags & completion_buffer_more) == 0) {
    finished_.push_back(&buffer);
    in_ring_--;
  }
  memory = &buffer;
  return bytes;
}

bool ReceiveRing::can_lend() const {
  const auto lent = std::count_if(buffers_.begin(), buffers_.end(), [](const auto& buffer) {
    return buffer->references() > 1 || buffer->lent_;
  });
  return static_cast<unsigned>(lent) < count_ / 2;
}

void ReceiveRing::provide(ReceiveBuffer& buffer) {
  buffer.used_ = 0;
  buffer.lent_ = false;
  io_uring_buf_ring_add(ring_, buffer.data_, static_cast<unsigned>(buffer_bytes_), buffer.number_,
                        io_uring_buf_ring_mask(count_), 0);
  io_uring_buf_ring_advance(ring_, 1);
  in_ring_++;
}

bool ReceiveRing::retire() {
  bool provided = false;
  for (ReceiveBuffer* buffer : finished_) {
    if (buffer->references() == 1) {
      provide(*buffer);
      provided = true;
    } else {
      buffer->lent_ = true;
      buffer->drop_reference();  // comes back through take_back()
    }
  }
  finished_.clear();
  ReceiveBuffer* buffer = returned_.exchange(nullptr, std::memory_order_acquire);
  while (buffer != nullptr) {
    provide(*std::exchange(buffer, buffer->next_));
    provided = true;
  }
  return provided;
}

void ReceiveRing::take_back(ReceiveBuffer* buffer) {
  ReceiveBuffer* head = returned_.load(std::memory_order_relaxed);
  do {
    buffer->next_ = head;
  } while (
      !returned_.compare_exchange_weak(head, buffer, std::memory_order_release, std::memory_order_relaxed));
  // Only the first has to say so: the reactor takes them all.
  if (head == nullptr && !reactor_.on_own_thread()) reactor_.backend().wake();
}

}  // namespace levada::net
