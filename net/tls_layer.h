// TlsLayer: the TLS between a Stream and its bytes on the wire.
//
// Model: a stream that was told to speak TLS has a layer, in a table of its reactor, so that other streams do not pay for
// it. What the stream sends waits here as plaintext, in a queue with all that a SendQueue can; when the reactor flushes,
// as much of it as the wire takes soon is encrypted in full records to the turn's memory and joins the stream's own
// queue. What is received is decrypted where it lies and shown to the stream; or, while the stream receives directly,
// decrypted to where it says.
//
//   Stream::send_* -> plain (SendQueue) --flush--> records -> the stream's queue -> kernel
//   kernel -> records -> receive() -> [receive_target()] -> Stream::on_receive
//
// Copies, of each byte and beside the cipher's own work: one of ours in each direction, of the record, because OpenSSL
// keeps its buffers to itself (to the turn's memory when it has made one, into its buffer when one has come); and
// OpenSSL's own between its buffer and the plaintext. Short pieces that share a record are joined before. Nothing else is
// copied: plaintext is read from the queue where it lies, and decrypted to where it is shown or assembled.
//
// Where the kernel makes the records (kTLS, tls_kernel.h), plaintext joins the stream's own queue as it is, without a
// copy, and records that are no data leave when that queue is empty; nothing joins it while they wait.
//
// Invariants: plaintext waits while the kernel does not take records, so that messages can still be dropped whole;
// encrypting does not make buffered() larger; nothing is queued behind close_notify; records that wait are bounded, also
// those that OpenSSL answers with.
#pragma once

#include <memory>

#include <levada/core/bytes.h>
#include <levada/core/error.h>
#include <levada/net/send_queue.h>
#include <levada/net/tls_kernel.h>
#include <levada/net/tls_session.h>

namespace levada::net {

class Stream;

class TlsLayer {
 public:
  explicit TlsLayer(Stream& stream) : stream_(stream) {}
  TlsLayer(const TlsLayer&) = delete;
  TlsLayer& operator=(const TlsLayer&) = delete;
  ~TlsLayer();

  // Begin the handshake. Errors: those of TlsSession.
  Error accept(const TlsContext& context);
  Error connect(const TlsContext& context, std::string_view host, std::uint16_t port);

  void receive(MutableBytes bytes, Owner* memory);
  // Whether plaintext goes to the stream's receive_target().
  void receive_directly(bool on) { direct_ = on; }

  // Moves plaintext to the stream's queue, or to memory of its own while it has to wait.
  void flush();

  // What the end of the transport means.
  Error transport_ended() const { return session_->transport_ended(); }

  // Whether the stream was told that TLS failed: it is not told of its end again.
  bool failed() const { return failed_; }

  // Drops what waits; nothing is sent any more.
  void clear();

  // Plaintext of the stream that the kernel has not taken, in bytes. Of records that have left in part it counts what
  // their rest can hold at most.
  std::size_t buffered() const;

  SendQueue& plain() { return plain_; }
  const SendQueue& plain() const { return plain_; }
  // Whether flush() would have something for the stream's queue, or to send.
  bool can_go_on() const {
    if (has_controls()) return !resting_;
    return session_->is_open() && (!plain_.empty() || must_close());
  }
  // Whether nothing is left to be moved to the stream's queue, nor, if the stream finishes, by the kernel to TCP.
  bool all_sent() const;
  // The stream's queue is empty: if it is the kernel that has something left, the stream will be asked again.
  void wait_for_kernel();
  const TlsSession& session() const { return *session_; }

 private:
  static void write(void* self, Bytes records);
  static const char* offload(void* self, const void* keys);
  static void control(void* self, std::uint8_t type, Bytes content);
  TlsOutput output() { return {&TlsLayer::write, this, &TlsLayer::offload, &TlsLayer::control}; }
  bool must_close() const;
  bool has_controls() const { return kernel_ != nullptr && kernel_->controls() > 0; }
  Error encrypt(std::size_t most);
  void hand_over(std::size_t most);
  bool send_now();
  void send_controls();
  void rest();
  TlsRead read_directly(MutableBytes& input);
  void check_answers();
  void send_no_more();
  void fail(const Error& error);

  Stream& stream_;
  SendQueue plain_;
  std::size_t encrypted_ = 0;  // no less than the plaintext in the stream's queue, unless that has less bytes
  std::unique_ptr<TlsSession> session_;
  std::unique_ptr<TlsKernel> kernel_;  // when it makes the records
  std::uint8_t rests_ = 0;             // how often it had to be waited for
  bool resting_ = false;               // until it is asked again
  bool close_sent_ = false;
  bool failed_ = false;
  bool direct_ = false;
};

}  // namespace levada::net
