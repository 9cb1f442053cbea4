// TlsTransport: the bytes of a BlockingClient over TLS.
//
// Model: a TlsSession between the caller and a SocketTransport. Ciphertext that was received and not decrypted yet, and
// records that have not left, wait here. One thread.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string_view>
#include <vector>

#include <levada/net/tls_session.h>
#include <levada/ws/blocking_client.h>

namespace levada::ws {

class TlsTransport final : public Transport {
 public:
  // Shakes hands on a connected socket; the server has to prove that it is `host`. Errors: those of TlsSession, of the
  // transport, and timed_out.
  static Result<std::unique_ptr<Transport>> connect(SocketTransport socket, const net::TlsContext& context,
                                                    std::string_view host, std::uint16_t port,
                                                    Deadline deadline);

  Result<std::size_t> read(MutableBytes into, Deadline deadline) override;
  // Takes a record's worth at a time.
  Result<std::size_t> write(Bytes from, Deadline deadline) override;
  // With a close_notify, if that can leave at once.
  void close() override;
  std::size_t buffered() const override { return out_.size() - sent_; }
  Error flush(Deadline deadline) override;
  int fd() const override { return socket_.fd(); }
  bool has_input() const override { return has_input_; }

 private:
  explicit TlsTransport(SocketTransport socket) : socket_(std::move(socket)) {}
  Error shake_hands(Deadline deadline);
  Error receive(Deadline deadline);

  SocketTransport socket_;
  std::unique_ptr<net::TlsSession> session_;
  std::array<std::uint8_t, 17 * 1024> buffer_{};
  Bytes input_;                    // of the buffer: not decrypted yet
  std::vector<std::uint8_t> out_;  // records
  std::size_t sent_ = 0;           // of out_
  bool has_input_ = false;
};

}  // namespace levada::ws
