#include <levada/net/tls_layer.h>

#include <algorithm>
#include <cstring>

#include <levada/net/reactor.h>

namespace levada::net {
namespace {

// Encrypted at a time: the rest waits until the kernel has taken this.
constexpr std::size_t encrypt_ahead_bytes = 256 * 1024;
// What OpenSSL answers by itself, to key updates and renegotiation, may wait behind it.
constexpr std::size_t max_answer_bytes = 64 * 1024;

}  // namespace

TlsLayer::~TlsLayer() {
  clear();
}

void TlsLayer::clear() {
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
  if (!stream_.spilled_ || stream_.queue_.bytes() <= encrypt_ahead_bytes + max_answer_bytes) return;
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
  clear();
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

std::size_t TlsLayer::buffered() const {
  return plain_.bytes() + std::min(encrypted_, stream_.queue_.bytes());
}

void TlsLayer::flush() {
  Reactor& reactor = stream_.reactor();
  const std::size_t ahead = stream_.queue_.bytes();
  if (session_->is_open() && !stream_.blocked_ && !plain_.empty() && ahead < encrypt_ahead_bytes) {
    if (const Error error = encrypt(encrypt_ahead_bytes - ahead)) return fail(error);
  }
  if (!plain_.empty()) return plain_.spill(reactor.segments(), reactor.blocks());
  if (session_->is_open() && must_close()) {
    close_sent_ = true;
    session_->close();
  }
}

}  // namespace levada::net
