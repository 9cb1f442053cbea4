#include <levada/ws/tls_transport.h>

#include <algorithm>
#include <utility>

namespace levada::ws {

Result<std::unique_ptr<Transport>> TlsTransport::connect(SocketTransport socket,
                                                         const net::TlsContext& context,
                                                         std::string_view host, std::uint16_t port,
                                                         Deadline deadline) {
  std::unique_ptr<TlsTransport> transport(new TlsTransport(std::move(socket)));
  const auto keep = [](void* out, Bytes records) {
    auto& bytes = *static_cast<std::vector<std::uint8_t>*>(out);
    bytes.insert(bytes.end(), records.begin(), records.end());
  };
  auto session = net::TlsSession::connect(context, host, port, {keep, &transport->out_});
  if (!session) return session.error();
  transport->session_ = std::move(*session);
  if (const Error error = transport->shake_hands(deadline)) return error;
  return std::unique_ptr<Transport>(std::move(transport));
}

Error TlsTransport::shake_hands(Deadline deadline) {
  for (;;) {
    std::uint8_t none = 0;
    const net::TlsRead read = session_->read_into(input_, {&none, 1});
    if (const Error error = flush(deadline)) return error;
    if (read.event == net::TlsEvent::established) break;
    if (read.event == net::TlsEvent::failed) return session_->error();
    if (read.event == net::TlsEvent::ended) return {.code = Errc::end_of_stream, .operation = "TLS"};
    if (const Error error = receive(deadline)) return error;
  }
  has_input_ = !input_.empty();
  return {};
}

// More ciphertext; there is none left. What waits to be sent leaves meanwhile: it may be the question.
Error TlsTransport::receive(Deadline deadline) {
  auto got = socket_.read(buffer_, buffered() == 0 ? deadline : Deadline::now());
  while (!got && got.error().code == Errc::timed_out && buffered() != 0 && socket_.wait(deadline)) {
    static_cast<void>(flush(Deadline::now()));
    got = socket_.read(buffer_, buffered() == 0 ? deadline : Deadline::now());
  }
  if (!got) return got.error().code == Errc::end_of_stream ? session_->transport_ended() : got.error();
  input_ = {buffer_.data(), *got};
  return {};
}

Error TlsTransport::flush(Deadline deadline) {
  Error error;
  while (!error && sent_ < out_.size()) {
    auto taken = socket_.write(Bytes(out_).subspan(sent_), deadline);
    if (taken) {
      sent_ += *taken;
    } else {
      error = taken.error();
    }
  }
  if (error.code == Errc::timed_out) return error;
  out_.clear();  // also what cannot be sent any more
  sent_ = 0;
  return error;
}

Result<std::size_t> TlsTransport::read(MutableBytes into, Deadline deadline) {
  for (;;) {
    const net::TlsRead read = session_->read_into(input_, into);
    static_cast<void>(
        flush(Deadline::now()));  // what reading made us send; if it cannot leave now, the next call tries
    has_input_ = read.event == net::TlsEvent::data;
    if (read.event == net::TlsEvent::data) return read.plaintext.size();
    if (read.event == net::TlsEvent::failed) return session_->error();
    if (read.event == net::TlsEvent::ended) return Error{.code = Errc::end_of_stream, .operation = "TLS"};
    if (const Error error = receive(deadline)) return error;
  }
}

Result<std::size_t> TlsTransport::write(Bytes from, Deadline deadline) {
  if (const Error error = flush(deadline)) return error;
  const std::size_t size = std::min(from.size(), net::tls_record_bytes);
  if (const Error error = session_->write(from.first(size))) return error;
  const Error error = flush(deadline);
  // It was encrypted: what has not left will, with the next call.
  if (error && error.code != Errc::timed_out) return error;
  return size;
}

void TlsTransport::close() {
  session_->close();
  static_cast<void>(flush(Deadline::now()));
  socket_.close();
}

}  // namespace levada::ws
