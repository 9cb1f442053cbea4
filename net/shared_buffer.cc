#include <levada/net/shared_buffer.h>

#include <sys/socket.h>
#include <algorithm>
#include <cerrno>
#include <utility>

namespace levada::net {

SharedBuffer::SharedBuffer(BlockPool& pool, std::size_t bytes)
    : pool_(pool),
      bytes_(bytes == 0 ? default_bytes : std::max(bytes, min_receive_bytes)),
      buffer_(pool.allocate(bytes_)) {}

Receipt SharedBuffer::receive(Stream& stream) {
  Receipt receipt{.bytes = {buffer_->data() + used_, bytes_ - used_}, .memory = buffer_};
  if (stream.direct_) {
    receipt = {.bytes = stream.receive_target().bytes};
  } else if (stream.little_) {
    receipt.bytes = receipt.bytes.first(Stream::little_receive_bytes);
  }
  const std::size_t room = receipt.bytes.size();
  const ssize_t got = recv(stream.fd_, receipt.bytes.data(), room, MSG_DONTWAIT);
  if (got <= 0) {
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return {};
    return {.error = got == 0 ? Error{Errc::end_of_stream, "recv"} : Error::from_os("recv", errno)};
  }
  const auto size = static_cast<std::size_t>(got);
  receipt.bytes = receipt.bytes.first(size);
  receipt.filled = size == room;
  if (receipt.memory != nullptr) used_ += size;
  return receipt;
}

void SharedBuffer::restart() {
  const std::size_t used = std::exchange(used_, 0);
  if (buffer_->references() == 1) return;
  buffer_->note_used(used);  // somebody keeps a part of it
  buffer_->drop_reference();
  buffer_ = pool_.allocate(bytes_);
}

}  // namespace levada::net
