#include <levada/ws/byte_stream.h>

#include <algorithm>
#include <cassert>
#include <cstring>

#include <levada/ws/service.h>

namespace levada::ws {

namespace {

bool drops_messages(const Connection& connection) {
  const OutputPolicy policy = connection.service().options().output_policy;
  return policy == OutputPolicy::drop_newest || policy == OutputPolicy::drop_oldest;
}

}  // namespace

ByteStream::ByteStream(Connection& connection, ByteStreamOptions options)
    : connection_(connection.handle()), pool_(connection.reactor().blocks()), options_(options) {
  assert(options.max_unread_bytes > 0 && options.max_message_bytes > 0);
  assert(options.max_message_bytes + max_header_bytes <= connection.service().options().max_buffered_bytes);
}

ByteStream::~ByteStream() {
  for (Block* block : blocks_) block->drop_reference();
}

bool ByteStream::is_open() const {
  const Connection* connection = connection_.get();
  return connection != nullptr && connection->is_open();
}

// ---- Receiving ----

// Copies what was not read to the end of the kept bytes.
void ByteStream::keep_rest() {
  while (!shown_.empty()) {
    if (blocks_.empty() || end_ == blocks_.back()->capacity()) {
      blocks_.push_back(pool_.allocate(block_bytes));
      end_ = 0;
    }
    Block& last = *blocks_.back();
    const std::size_t size = std::min(shown_.size(), last.capacity() - end_);
    std::memcpy(last.data() + end_, shown_.data(), size);
    shown_ = shown_.subspan(size);
    end_ += size;
    kept_ += size;
  }
  if (kept_ < options_.max_unread_bytes) return;
  paused_ = true;
  if (Connection* connection = connection_.get()) connection->pause();
}

std::size_t ByteStream::read(MutableBytes out) {
  std::size_t size = take_kept(out);
  size += take_shown(out.subspan(size));
  if (paused_) resume_if_low();
  return size;
}

std::size_t ByteStream::take_kept(MutableBytes out) {
  std::size_t taken = 0;
  while (kept_ > 0 && taken < out.size()) {
    Block& first = *blocks_.front();
    const std::size_t filled = blocks_.size() == 1 ? end_ : first.capacity();
    const std::size_t size = std::min(out.size() - taken, filled - begin_);
    std::memcpy(out.data() + taken, first.data() + begin_, size);
    taken += size;
    begin_ += size;
    kept_ -= size;
    if (begin_ < filled) break;
    first.drop_reference();
    blocks_.erase(blocks_.begin());
    begin_ = 0;
  }
  return taken;
}

std::size_t ByteStream::take_shown(MutableBytes out) {
  const std::size_t size = std::min(out.size(), shown_.size());
  if (size > 0) std::memcpy(out.data(), shown_.data(), size);
  shown_ = shown_.subspan(size);
  return size;
}

void ByteStream::resume_if_low() {
  if (unread() > options_.max_unread_bytes / 2) return;
  paused_ = false;
  if (Connection* connection = connection_.get()) connection->resume();
}

// ---- Sending ----

std::size_t ByteStream::write(Bytes bytes) {
  Connection* const connection = connection_.get();
  if (connection != nullptr && drops_messages(*connection)) return 0;
  std::size_t written = 0;
  while (connection != nullptr && written < bytes.size()) {
    const Bytes piece = bytes.subspan(written, std::min(bytes.size() - written, options_.max_message_bytes));
    if (connection->send(Opcode::binary, piece) != SendStatus::queued) break;
    written += piece.size();
  }
  return written;
}

void ByteStream::close(CloseCode code) {
  if (Connection* connection = connection_.get()) connection->close(code);
}

}  // namespace levada::ws
