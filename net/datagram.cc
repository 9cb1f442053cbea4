#include <levada/net/datagram.h>

#include <sys/socket.h>
#include <algorithm>
#include <cerrno>

namespace levada::net {

Datagram::Datagram(Reactor& reactor, Received received, void* context, std::size_t buffer_bytes)
    : reactor_(reactor),
      received_(received),
      context_(context),
      buffer_bytes_(buffer_bytes),
      memory_(std::make_unique<std::uint8_t[]>(batch * buffer_bytes)),
      messages_(std::make_unique<mmsghdr[]>(batch)),
      vectors_(std::make_unique<iovec[]>(batch)),
      senders_(std::make_unique<Address[]>(batch)) {
  for (unsigned i = 0; i < batch; i++) {
    vectors_[i] = {memory_.get() + i * buffer_bytes_, buffer_bytes_};
    messages_[i].msg_hdr.msg_iov = &vectors_[i];
    messages_[i].msg_hdr.msg_iovlen = 1;
    messages_[i].msg_hdr.msg_name = senders_[i].get();
  }
}

Result<std::unique_ptr<Datagram>> Datagram::bind(Reactor& reactor, const Address& address, Received received,
                                                 void* context, std::size_t buffer_bytes) {
  auto fd = bind_datagram(address);
  if (!fd) return fd.error();
  buffer_bytes = std::clamp<std::size_t>(buffer_bytes, 1, max_bytes);
  std::unique_ptr<Datagram> datagram(new Datagram(reactor, received, context, buffer_bytes));
  auto readable = [](void* self, Watch&) { static_cast<Datagram*>(self)->receive(); };
  const Watch* watch = reactor.add<Watch>(std::move(*fd), readable, datagram.get());
  if (watch == nullptr) return reactor.last_error();
  datagram->watch_ = watch->id();
  datagram->fd_ = watch->native_fd();
  return datagram;
}

void Datagram::receive() {
  for (unsigned i = 0; i < batch; i++) messages_[i].msg_hdr.msg_namelen = sizeof(sockaddr_storage);
  const int count = recvmmsg(fd_, messages_.get(), batch, MSG_DONTWAIT, nullptr);
  // An error is one that an earlier datagram met (ECONNREFUSED), reported here once and gone.
  for (int i = 0; i < count && fd_ >= 0; i++) {
    const auto at = static_cast<std::size_t>(i);
    senders_[at].set_size(messages_[at].msg_hdr.msg_namelen);
    received_(context_, *this, {memory_.get() + at * buffer_bytes_, messages_[at].msg_len}, senders_[at]);
  }
}

Error Datagram::send_to(Bytes bytes, const Address& to) {
  ssize_t sent = 0;
  do {
    sent = sendto(fd_, bytes.data(), bytes.size(), MSG_DONTWAIT | MSG_NOSIGNAL, to.get(), to.size());
  } while (sent < 0 && errno == EINTR);
  return sent < 0 ? Error::from_os("sendto", errno) : Error{};
}

void Datagram::close() {
  fd_ = -1;
  if (Endpoint* watch = reactor_.find(watch_)) watch->close();
}

}  // namespace levada::net
