#include <levada/net/tls_layer.h>

#include <sys/socket.h>
#include <algorithm>
#include <cstring>

#include <levada/net/reactor.h>

namespace levada::net {
namespace {

// Encrypted at a time: the rest waits until the kernel has taken this.
constexpr std::size_t encrypt_ahead_bytes = 256 * 1024;
// What OpenSSL answers by itself, to key updates and renegotiation, may wait behind it.
constexpr std::size_t max_answer_bytes = 64 * 1024;
constexpr std::size_t max_controls = 1024;  // the same, when the kernel makes the records
// What the kernel does with what it has taken it does not tell, so it is asked again: after 1 ms, 2 ms, 4 ms, ... 64 ms.
constexpr unsigned longest_rest = 6;

}  // namespace

TlsLayer::~TlsLayer() {
  clear();
}

void TlsLayer::clear() {
  send_no_more();
  if (kernel_ != nullptr) kernel_->drop_controls();
}

// But for what is with the session or the kernel already.
void TlsLayer::send_no_more() {
  close_sent_ = true;
  plain_.clear(stream_.reactor().segments());
}

Error TlsLayer::accept(const TlsContext& context) {
  auto session = TlsSession::accept(context, output());
  if (!session) return session.error();
  session_ = std::move(*session);
  return {};
}

Error TlsLayer::connect(const TlsContext& context, std::string_view host, std::uint16_t port) {
  auto session = TlsSession::connect(context, host, port, output());
  if (!session) return session.error();
  session_ = std::move(*session);
  return {};
}

// Records that OpenSSL has made: they are gone when this returns.
void TlsLayer::write(void* self, Bytes records) {
  Stream& stream = static_cast<TlsLayer*>(self)->stream_;
  std::uint8_t* copy = stream.reserve(records.size());
  std::memcpy(copy, records.data(), records.size());
  stream.send_raw({copy, records.size()});
}

// The keys for what is sent from here on. What was written before has to leave as it is, so if it cannot, OpenSSL goes on.
const char* TlsLayer::offload(void* self, const void* keys) {
  TlsLayer& layer = *static_cast<TlsLayer*>(self);
  Stream& stream = layer.stream_;
  if (stream.reactor().backend().kind() == BackendKind::simulated) return "the connection is simulated";
  if (!layer.send_now()) return "the handshake could not leave at once";
  const char* why_not = nullptr;
  layer.kernel_ = TlsKernel::begin(stream.fd_, keys, why_not);
  stream.ktls_ = layer.kernel_ != nullptr;
  return stream.ktls_ ? nullptr : why_not;
}

// Whether the kernel has taken all of the stream's queue.
bool TlsLayer::send_now() {
  if (stream_.in_flight_ || stream_.blocked_) return false;
  while (!stream_.queue_.empty()) {
    iovec vectors[8];
    std::size_t total = 0;
    msghdr message{};
    message.msg_iov = vectors;
    message.msg_iovlen = static_cast<std::size_t>(stream_.queue_.gather(vectors, 8, total));
    const ssize_t sent = sendmsg(stream_.fd_, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent <= 0) return false;
    stream_.reactor().sent(stream_, static_cast<std::size_t>(sent), false);
  }
  return true;
}

void TlsLayer::control(void* self, std::uint8_t type, Bytes content) {
  TlsLayer& layer = *static_cast<TlsLayer*>(self);
  layer.kernel_->add_control(type, content);
  layer.stream_.mark_dirty();
}

void TlsLayer::receive(MutableBytes bytes, Owner* memory) {
  if (failed_) return;
  for (;;) {
    const TlsRead read =
        direct_ ? read_directly(bytes) : session_->read(bytes, stream_.reactor().turn_memory());
    switch (read.event) {
      case TlsEvent::none:
        return check_answers();
      case TlsEvent::established:
        if (!plain_.empty()) stream_.mark_dirty();
        stream_.on_secured();
        break;
      case TlsEvent::data:
        stream_.on_receive(read.plaintext, read.in_place ? memory : nullptr);
        break;
      case TlsEvent::ended:
        return stream_.reactor().ended(stream_, {.code = Errc::end_of_stream, .operation = "TLS"});
      case TlsEvent::failed:
        return fail(session_->error());
    }
    if (stream_.closed() || stream_.ended_ || failed_) return;
  }
}

// A peer that asks on and takes no answers would fill the queue with them.
void TlsLayer::check_answers() {
  const bool controls_fit = kernel_ == nullptr || kernel_->controls() <= max_controls;
  if (controls_fit && (!stream_.spilled_ || stream_.queue_.bytes() <= encrypt_ahead_bytes + max_answer_bytes))
    return;
  fail({.code = Errc::protocol,
        .operation = "TLS",
        .detail = "the peer does not take the answers it asks for"});
}

// As much as there is input and room for: what came after that is told by the next call.
TlsRead TlsLayer::read_directly(MutableBytes& input) {
  const MutableBytes target = stream_.receive_target().bytes;
  Bytes rest = input;
  std::size_t filled = 0;
  TlsRead next;
  do {
    next = session_->read_into(rest, target.subspan(filled));
    filled += next.plaintext.size();
  } while (next.event == TlsEvent::data && filled < target.size());
  input = input.last(rest.size());
  if (filled > 0) return {TlsEvent::data, target.first(filled), false};
  return next;
}

// The alert that tells the peer is queued, and may leave if the stream lets it. What the peer still sends is read and
// dropped meanwhile: closing a socket with unread bytes would reset the connection, and take the alert with it.
void TlsLayer::fail(const Error& error) {
  send_no_more();
  failed_ = true;
  stream_.on_end(error);
}

bool TlsLayer::must_close() const {
  return stream_.finishing_ && !close_sent_;
}

// The first bytes of what waits, at most so many.
Error TlsLayer::encrypt(std::size_t most) {
  Reactor& reactor = stream_.reactor();
  const std::size_t size = std::min(most, plain_.bytes());
  encrypted_ = std::min(encrypted_, stream_.queue_.bytes()) + size;
  TlsPieces pieces(*session_, reactor.turn_memory());
  plain_.visit(size, [&pieces](Bytes piece) { pieces.add(piece); });
  const Error error = pieces.finish();
  plain_.advance(reactor.segments(), size);
  return error;
}

// The same, for the kernel to encrypt.
void TlsLayer::hand_over(std::size_t most) {
  const std::size_t size = std::min(most, plain_.bytes());
  encrypted_ = std::min(encrypted_, stream_.queue_.bytes()) + size;
  kernel_->count(size);
  plain_.move(stream_.reactor().segments(), size, stream_.queue_);
}

// What is queued before them leaves first. What the kernel does not take now waits for it to have room.
void TlsLayer::send_controls() {
  if (!has_controls() || !stream_.queue_.empty() || stream_.in_flight_ || resting_) return;
  if (const Error error = kernel_->send_controls(stream_.fd_)) {
    stream_.reactor().ended(stream_, error);
  } else if (has_controls()) {
    rest();
  }
}

bool TlsLayer::all_sent() const {
  if (!plain_.empty()) return false;
  if (kernel_ == nullptr) return true;
  return !has_controls() && (!stream_.finishing_ || kernel_->is_through(stream_.fd_));
}

void TlsLayer::wait_for_kernel() {
  if (kernel_ != nullptr && plain_.empty() && !resting_) rest();
}

void TlsLayer::rest() {
  resting_ = true;
  Reactor& reactor = stream_.reactor();
  const std::uint32_t delay_ms = 1u << rests_;
  if (rests_ < longest_rest) rests_++;
  reactor.after(delay_ms, [&reactor, id = stream_.id()] {
    auto* stream = static_cast<Stream*>(reactor.find(id));
    if (stream == nullptr) return;
    reactor.tls_layer(*stream).resting_ = false;
    stream->mark_dirty();
  });
}

std::size_t TlsLayer::buffered() const {
  return plain_.bytes() + std::min(encrypted_, stream_.queue_.bytes());
}

void TlsLayer::flush() {
  Reactor& reactor = stream_.reactor();
  if (has_controls()) send_controls();
  const std::size_t ahead = stream_.queue_.bytes();
  if (session_->is_open() && !stream_.blocked_ && !plain_.empty() && ahead < encrypt_ahead_bytes &&
      !has_controls()) {
    if (kernel_ != nullptr) {
      hand_over(encrypt_ahead_bytes - ahead);
    } else if (const Error error = encrypt(encrypt_ahead_bytes - ahead)) {
      return fail(error);
    }
  }
  if (!plain_.empty()) return plain_.spill(reactor.segments(), reactor.blocks());
  if (session_->is_open() && must_close()) {
    close_sent_ = true;
    session_->close();
    send_controls();
  }
}

}  // namespace levada::net
