// BlockingClient: a WebSocket client whose functions wait, for scripts, tests and tools. No reactor, no threads.
//
//   ws::BlockingClient client;
//   if (const Error error = client.dial("ws://127.0.0.1:9001/chat")) return ws::report_failure(error);
//   client.write(ws::Opcode::text, to_bytes("hello"), ws::Deadline::in_ms(1000));
//   auto message = client.read(ws::Deadline::in_ms(1000));
//   if (message) std::printf("%.*s\n", static_cast<int>(message->payload.size()), message->payload.data());
//   client.close(ws::CloseCode::normal, "", ws::Deadline::in_ms(1000));
//
// Model: a Transport moves bytes and waits for them until a deadline; on top of it the decoder, and a buffer of what was
// written and has not left. A call that reaches its deadline changes nothing that was agreed with the peer: reading goes
// on with the next read(), and a message that was begun leaves with the next call that writes. So the calls also serve
// from a loop over poll(2), with Deadline::now(): fd(), has_input() and buffered() tell what to wait for.
//
// Pings are answered while reading. Client and transport are for one thread at a time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <levada/core/block_pool.h>
#include <levada/core/bytes.h>
#include <levada/core/error.h>
#include <levada/core/fd.h>
#include <levada/core/random.h>
#include <levada/net/socket.h>
#include <levada/net/tls_context.h>
#include <levada/ws/close.h>
#include <levada/ws/decoder.h>
#include <levada/ws/handshake.h>
#include <levada/ws/http.h>
#include <levada/ws/url.h>

namespace levada::ws {

// A moment by the monotonic clock.
class Deadline {
 public:
  static Deadline in_ms(std::uint64_t milliseconds);
  static Deadline now() { return Deadline(0); }  // do what can be done without waiting
  static Deadline never() { return Deadline(~std::uint64_t{0}); }

  // Nanoseconds until then; 0 when it has passed.
  std::uint64_t left_ns() const;
  bool is_never() const { return at_ns_ == ~std::uint64_t{0}; }
  // The earlier of this one and a `share`-th of the time that is left.
  Deadline divided_by(std::uint64_t share) const;

 private:
  explicit Deadline(std::uint64_t at_ns) : at_ns_(at_ns) {}
  std::uint64_t at_ns_;
};

// Moves bytes of one connection. Implemented by a socket here; a TLS layer implements it on top of one.
class Transport {
 public:
  virtual ~Transport() = default;

  // Waits for at least one byte and moves what is there to `into`, which is not empty. Errors: end_of_stream when the
  // peer has ended properly (for TLS: with close_notify), timed_out, connection_reset, ...
  virtual Result<std::size_t> read(MutableBytes into, Deadline deadline) = 0;
  // Waits for room and takes at least one byte of `from`, which is not empty. Errors as above.
  virtual Result<std::size_t> write(Bytes from, Deadline deadline) = 0;
  // Of what write() took, bytes that have not left: they do during later calls of any kind, or flush().
  virtual std::size_t buffered() const { return 0; }
  // Sends them. Errors as of write().
  virtual Error flush(Deadline) { return {}; }
  // Ends the connection; later calls fail.
  virtual void close() = 0;

  // For poll(2); -1 once closed.
  virtual int fd() const = 0;
  // Whether read() would find bytes that poll(2) does not see, for example in a TLS record that was decrypted.
  virtual bool has_input() const { return false; }
};

// On a connected socket, which is made non-blocking.
class SocketTransport final : public Transport {
 public:
  explicit SocketTransport(Fd fd);
  Result<std::size_t> read(MutableBytes into, Deadline deadline) override;
  Result<std::size_t> write(Bytes from, Deadline deadline) override;
  void close() override { fd_.reset(); }
  int fd() const override { return fd_.get(); }

  // Waits until it is worth to read or to write; false at the deadline.
  bool wait(Deadline deadline) const;

 private:
  Fd fd_;
};

// A socket connected to the first of `addresses` that answers, one after the other; each gets its share of the time that
// is left. Errors: timed_out at the deadline, else the most telling one (net/connector.h); invalid_argument for no
// address.
Result<Fd> connect_blocking(std::span<const net::Address> addresses, Deadline deadline);

struct BlockingOptions {
  std::uint32_t dial_timeout_ms = 10'000;  // from the name to the end of the handshake; 0: no limit
  std::string_view origin = {};
  std::span<const std::string_view> subprotocols = {};        // in order of preference
  std::span<const HttpField> fields = {};                     // more request fields
  std::uint64_t max_message_bytes = std::uint64_t{16} << 20;  // beyond it: 1009 and Errc::protocol
  std::size_t max_buffered_bytes = std::size_t{64}
                                   << 20;  // written and not sent; beyond it: Errc::would_block
  HttpLimits http = {};
  // As in ClientOptions: a proxy for all but the hosts of `no_proxy`; empty: what the environment says, if it may.
  std::string_view proxy_url = {};
  std::string_view no_proxy = {};
  bool proxy_from_environment = true;
  net::TlsOptions tls = {};  // of wss: by default the system's CAs, and the server has to prove its name
  // Asks for a name, on a thread of its own where there is a limit; nullptr: net::resolve_blocking.
  Result<std::vector<net::Address>> (*lookup)(const std::string& host, std::uint16_t port) = nullptr;
};

// A message, or what else can come first.
struct BlockingMessage {
  Opcode opcode = Opcode::text;
  Bytes payload = {};  // lives until the next call that reads
};

class BlockingClient {
 public:
  BlockingClient() = default;
  BlockingClient(const BlockingClient&) = delete;
  BlockingClient& operator=(const BlockingClient&) = delete;
  // Ends the connection without a close frame.
  ~BlockingClient() = default;

  // ---- Opening ----

  // Connects to a ws:, wss: or ws+unix: URL and shakes hands. A user in the URL becomes Basic credentials. An earlier
  // connection is ended. Views in the options are needed during the call only. Errors: invalid_argument for a URL that
  // is none (url.h tells why) or a request that cannot be written; those of the resolver, of connecting, of the proxy (permission_denied when it wants a login, ...; not_supported for https://), and
  // for wss: of TlsContext and TlsSession; timed_out;
  // end_of_stream or connection_reset when the server ends first; protocol when it does not speak HTTP, or its answer is
  // not the one asked for: then refusal() and response() tell.
  Error dial(std::string_view url, const BlockingOptions& options = {});

  // The same on a connection that was made already. `host` is the value of the Host field.
  Error open(std::unique_ptr<Transport> transport, std::string_view host, std::string_view target,
             const BlockingOptions& options, Deadline deadline);

  // What was wrong with the server's answer; `none` if there was none or it was right.
  UpgradeFailure refusal() const { return refusal_; }
  // After dial() or open(): the answer, if status() is not 0, until the next read().
  const HttpResponse& response() const { return response_; }
  // The HTTP status with which a proxy refused, else 0.
  unsigned proxy_status() const { return proxy_status_; }
  // After a refusal: the first bytes of the answer's content, at most 16 KiB.
  Bytes response_body() const { return body_; }
  // The server's choice; empty: none.
  std::string_view subprotocol() const { return subprotocol_; }

  // ---- Messages ----

  // Waits for the next message. Errors: timed_out; end_of_stream when the connection was closed with a close frame
  // (close_code(), close_reason()); connection_reset, also where it ended without one; protocol when the peer broke a
  // rule and was sent close_code(). After any but timed_out the connection is closed. When writing has failed, what the
  // peer had sent can still be read.
  Result<BlockingMessage> read(Deadline deadline);

  // Sends a message (text or binary). timed_out: it was taken, and what has not left does so during later calls, or
  // flush(). would_block: max_buffered_bytes would be passed, nothing was taken. end_of_stream: the connection is closed
  // or closing. Nothing is read meanwhile: to a peer that stops reading until its answers are read, write with
  // Deadline::now() and go on with read(), which sends as well.
  Error write(Opcode opcode, Bytes payload, Deadline deadline);
  Error write_text(std::string_view text, Deadline deadline) {
    return write(Opcode::text, to_bytes(text), deadline);
  }

  // Sends a ping of at most 125 bytes (asserted). pongs() counts the answers that read() has come by.
  Error ping(Bytes payload, Deadline deadline);
  std::uint64_t pongs() const { return pongs_; }

  // Sends what was written before. Errors: timed_out; otherwise it is lost.
  Error flush(Deadline deadline);

  // ---- Closing ----

  // Sends a close frame; read() still returns the messages that come before the peer's, then end_of_stream.
  Error send_close(CloseCode code, std::string_view reason, Deadline deadline);

  // Sends a close frame if there was none, drops messages until the peer's has come, and ends the connection, in any
  // case. No error: the peer has answered.
  Error close(CloseCode code, std::string_view reason, Deadline deadline);

  // Ends the connection at once, without a close frame.
  void terminate();

  bool is_open() const { return transport_ != nullptr; }
  bool is_closing() const { return close_sent_; }
  // The peer's close code: no_status if its frame had none, abnormal if there was no frame; or, when the peer broke a
  // rule, the code that it was sent.
  CloseCode close_code() const { return close_code_; }
  std::string_view close_reason() const { return close_reason_; }

  // ---- For loops over poll(2) ----

  int fd() const { return transport_ == nullptr ? -1 : transport_->fd(); }
  // Whether read() may find something that poll(2) does not tell.
  bool has_input() const { return !in_.empty() || (transport_ != nullptr && transport_->has_input()); }
  // Bytes that wait to be sent: poll for POLLOUT, then flush().
  std::size_t buffered() const { return unsent() + (transport_ == nullptr ? 0 : transport_->buffered()); }

 private:
  static constexpr std::size_t buffer_bytes = std::size_t{64} << 10;
  static constexpr std::size_t max_body_bytes = std::size_t{16} << 10;

  void reset(const BlockingOptions& options);
  Result<std::unique_ptr<Transport>> connect(const Url& url, const BlockingOptions& options,
                                             Deadline deadline);
  Error shake_hands(const UpgradeRequest& request, const HttpLimits& limits, Deadline deadline);
  Error receive_head(const HttpLimits& limits, Deadline deadline, std::size_t& head_bytes, std::size_t& have);
  void receive_body(std::size_t head_bytes, std::size_t have, Deadline deadline);
  Error receive(Deadline deadline);
  Result<std::size_t> read_and_flush(MutableBytes target, Deadline deadline);
  bool handle(const Decoded& decoded, Deadline deadline, Result<BlockingMessage>& result);
  Error receive_close(Bytes payload, Deadline deadline);
  Error break_off(FrameError error, Deadline deadline);
  Error end(const Error& error);
  Error queue_frame(Opcode opcode, Bytes payload);
  std::size_t unsent() const { return out_.size() - out_begin_; }  // that the transport has not taken

  std::unique_ptr<Transport> transport_;
  BlockPool pool_{buffer_bytes};
  SecureRandom random_;
  DecoderOptions decoder_options_{.role = Role::client};
  std::unique_ptr<Decoder> decoder_;
  HttpResponse response_;
  UpgradeFailure refusal_ = UpgradeFailure::none;
  unsigned proxy_status_ = 0;
  Bytes body_;
  std::string subprotocol_;
  std::vector<std::uint8_t> buffer_;  // what was received
  MutableBytes in_;                   // the part of it that the decoder has not taken
  std::vector<std::uint8_t> out_;     // frames; those before out_begin_ have left
  std::size_t out_begin_ = 0;
  std::size_t max_buffered_bytes_ = 0;
  std::uint64_t pongs_ = 0;
  Error write_error_;  // once the transport takes nothing any more; reading goes on
  bool close_sent_ = false;
  bool close_received_ = false;
  CloseCode close_code_ = CloseCode::abnormal;
  std::string close_reason_;
};

}  // namespace levada::ws
