#include <levada/net/epoll.h>

#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <cerrno>
#include <utility>

#include <levada/core/clock.h>
#include <levada/net/reactor.h>
#include <levada/net/socket.h>

namespace levada::net {
namespace {

constexpr std::uint64_t wake_id = ~std::uint64_t{0};
// Accepting stops after this many calls in a row, so that a listener cannot starve the others.
constexpr int max_accepts = 64;
constexpr int epoll_segments = 64;

}  // namespace

std::unique_ptr<Backend> EpollBackend::make(Reactor& reactor) {
  Fd epoll(epoll_create1(EPOLL_CLOEXEC));
  Fd event(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
  if (!epoll || !event) return nullptr;
  epoll_event interest{.events = EPOLLIN, .data = {.u64 = wake_id}};
  if (epoll_ctl(epoll.get(), EPOLL_CTL_ADD, event.get(), &interest) != 0) return nullptr;
  return std::unique_ptr<Backend>(new EpollBackend(reactor, std::move(epoll), std::move(event)));
}

EpollBackend::EpollBackend(Reactor& reactor, Fd epoll, Fd event)
    : reactor_(reactor),
      epoll_(std::move(epoll)),
      event_(std::move(event)),
      buffer_(reactor.blocks(), reactor.options().receive_buffer_bytes) {}

std::uint64_t EpollBackend::now_ns() {
  return monotonic_ns();
}

std::string EpollBackend::describe() const {
  return "level-triggered, one receive buffer of " + std::to_string(buffer_.bytes() / 1024) + " KiB";
}

void EpollBackend::wake() {
  const std::uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = write(event_.get(), &one, sizeof one);
}

std::uint32_t EpollBackend::interest(const Endpoint& endpoint) const {
  std::uint32_t events = 0;
  if (endpoint.armed_receive_ && !endpoint.paused_ && !endpoint.connecting_) events |= EPOLLIN;
  if (endpoint.armed_writable_) events |= EPOLLOUT;
  return events;
}

Error EpollBackend::start(Endpoint& endpoint) {
  endpoint.armed_receive_ = true;
  endpoint.armed_writable_ = endpoint.connecting_;
  epoll_event event{.events = interest(endpoint), .data = {.u64 = endpoint.id().packed()}};
  // One listening socket may be shared by several reactors (Unix sockets cannot be bound twice): wake one of
  // them.
  if (endpoint.kind() == EndpointKind::listener) event.events |= EPOLLEXCLUSIVE;
  if (epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, endpoint.fd_, &event) == 0) return {};
  return Error::from_os("epoll_ctl", errno);
}

void EpollBackend::stop(Endpoint& endpoint) {
  // The descriptor may have been duplicated, so that closing it does not take it out of the epoll set.
  epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, endpoint.fd_, nullptr);
  ::close(endpoint.fd_);
  endpoint.fd_ = -1;
}

Fd EpollBackend::release(Stream& stream) {
  epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, stream.fd_, nullptr);
  return Fd(std::exchange(stream.fd_, -1));
}

void EpollBackend::update(Endpoint& endpoint) {
  epoll_event event{.events = interest(endpoint), .data = {.u64 = endpoint.id().packed()}};
  if (endpoint.kind() == EndpointKind::listener) {  // EPOLLEXCLUSIVE forbids EPOLL_CTL_MOD
    epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, endpoint.fd_, nullptr);
    if (event.events == 0) return;
    event.events |= EPOLLEXCLUSIVE;
    epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, endpoint.fd_, &event);
  } else if (epoll_ctl(epoll_.get(), EPOLL_CTL_MOD, endpoint.fd_, &event) != 0 && errno == ENOENT &&
             event.events != 0) {  // it was taken out after a failure that nobody asked for
    epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, endpoint.fd_, &event);
  }
}

void EpollBackend::poll(int timeout_ms) {
  const int count = epoll_wait(epoll_.get(), events_.data(), max_events, timeout_ms);
  reactor_.begin_turn();
  for (int i = 0; i < count; i++) handle(events_[static_cast<std::size_t>(i)]);
}

void EpollBackend::handle(const epoll_event& event) {
  if (event.data.u64 == wake_id) {
    std::uint64_t ignored;
    [[maybe_unused]] const ssize_t got = read(event_.get(), &ignored, sizeof ignored);
    return;
  }
  Endpoint* endpoint = reactor_.find(SlotId::unpack(event.data.u64));
  if (endpoint == nullptr) return;
  switch (endpoint->kind()) {
    case EndpointKind::listener:
      return accept(static_cast<Listener&>(*endpoint));
    case EndpointKind::watch:
      return reactor_.readable(static_cast<Watch&>(*endpoint));
    case EndpointKind::alarm:
      return;
    case EndpointKind::stream:
      break;
  }
  auto& stream = static_cast<Stream&>(*endpoint);
  if (stream.connecting_) return finish_connecting(stream);
  // A failure is reported whether or not anything is asked for. Receiving or sending finds out what it was;
  // when neither is wanted it would be reported for ever, so the descriptor leaves the set until update()
  // wants something.
  const bool failed = (event.events & (EPOLLERR | EPOLLHUP)) != 0;
  if (failed && interest(stream) == 0) {
    epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, stream.fd_, nullptr);
    return;
  }
  if (((event.events & EPOLLIN) != 0 || failed) && (interest(stream) & EPOLLIN) != 0) receive(stream);
  if (((event.events & EPOLLOUT) != 0 || failed) && !stream.closed() && stream.armed_writable_) {
    stream.armed_writable_ = false;
    update(stream);
    reactor_.writable(stream);
  }
}

void EpollBackend::accept(Listener& listener) {
  for (int i = 0; i < max_accepts && !listener.closed() && !listener.paused_; i++) {
    Fd fd(accept4(listener.fd_, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
    if (fd) {
      reactor_.accepted(listener, std::move(fd));
    } else if (errno == EAGAIN) {
      return;
    } else if (accepting_is_impossible(errno)) {
      return reactor_.accept_failed(listener, Error::from_os("accept4", errno));
    }  // else: that one connection failed before it was accepted
  }
}

void EpollBackend::finish_connecting(Stream& stream) {
  const Error error = take_socket_error(stream.fd_, "connect");
  if (error) return reactor_.ended(stream, error);
  stream.armed_writable_ = false;
  reactor_.connected(stream);
  if (!stream.closed()) update(stream);
}

void EpollBackend::receive(Stream& stream) {
  for (int i = 0; i < SharedBuffer::max_receives; i++) {
    if (!receive_once(stream) || stream.closed() || stream.paused_) return;
  }
}

// Returns whether the kernel probably has more.
bool EpollBackend::receive_once(Stream& stream) {
  if (buffer_.is_low()) flush();
  if (stream.closed() || stream.paused_) return false;
  const Receipt receipt = buffer_.receive(stream);
  if (!receipt.bytes.empty()) reactor_.received(stream, receipt.bytes, receipt.memory);
  if (!receipt.error) return receipt.filled;
  stream.armed_receive_ = false;
  reactor_.ended(stream, receipt.error);
  if (!stream.closed()) update(stream);
  return false;
}

void EpollBackend::flush() {
  while (Stream* stream = reactor_.take_dirty()) flush(*stream);
  end_turn();
}

void EpollBackend::flush(Stream& stream) {
  if (stream.blocked_ || stream.connecting_) return reactor_.spill(stream);
  while (!stream.queue_.empty()) {
    iovec vectors[epoll_segments];
    std::size_t total = 0;
    msghdr message{};
    message.msg_iov = vectors;
    message.msg_iovlen = static_cast<std::size_t>(stream.queue_.gather(vectors, epoll_segments, total));
    const ssize_t result =
        message.msg_iovlen == 1
            ? ::send(stream.fd_, vectors[0].iov_base, vectors[0].iov_len, MSG_NOSIGNAL | MSG_DONTWAIT)
            : sendmsg(stream.fd_, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (result < 0 && errno == EINTR) continue;
    if (result < 0 && errno != EAGAIN) return reactor_.ended(stream, Error::from_os("send", errno));
    const std::size_t taken = result < 0 ? 0 : static_cast<std::size_t>(result);
    if (taken < total) {
      stream.armed_writable_ = true;
      update(stream);
      return reactor_.sent(stream, taken, true);
    }
    reactor_.sent(stream, taken, false);
  }
  reactor_.sending_done(stream);
}

void EpollBackend::end_turn() {
  reactor_.end_turn();
  buffer_.restart();
}

void EpollBackend::shut_down(Stream& stream) {
  ::shutdown(stream.fd_, SHUT_WR);
}

}  // namespace levada::net
