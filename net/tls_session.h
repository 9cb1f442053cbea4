// TlsSession: the TLS of one connection, without I/O, for both roles (RFC 8446, RFC 5246).
//
// Model: received ciphertext goes in by read(), plaintext comes out; write() takes plaintext, and the records go to the
// TlsOutput. Reading may write, too: handshake, answers to key updates, alerts. So whatever was called, the output is to
// be sent.
//
//   received -> read() -> plaintext, in the memory of the ciphertext        handshake -> open -> ended
//   plaintext -> write() -> TlsOutput                                              \-> failed <-/
//
// OpenSSL takes each record into memory of its own, decrypts it there and copies the plaintext out; by then the memory
// of the ciphertext is free, and plaintext is never longer. So the plaintext of one read() is contiguous however many
// records it came in, is good for as long as the received bytes would have been, and costs no buffer.
//
// An idle session holds no buffers; one that has received a part of a record, or of the handshake, holds that.
// Invariant: nothing is delivered before the handshake is over and, unless the options say otherwise, the peer's
// certificate was verified.
//
// One thread at a time.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include <levada/core/bytes.h>
#include <levada/core/error.h>
#include <levada/net/tls_context.h>
#include <levada/net/turn_memory.h>

struct ssl_st;

namespace levada::net {

// The most plaintext that a record holds.
inline constexpr std::size_t tls_record_bytes = 16384;

// Where records go, in order: the function copies them (to turn memory, say), for they are gone when it returns.
struct TlsOutput {
  void (*write)(void* context, Bytes records) = nullptr;
  void* context = nullptr;
  // An output that may let the kernel make the records has these two. offload() gives it the keys, when all that was
  // written has left; it returns why it does not, in static storage, or nullptr. If it does, nothing is written any more,
  // and write() is not called: data goes past the session, and control() gets the contents of records of other types.
  const char* (*offload)(void* context, const void* keys) = nullptr;
  void (*control)(void* context, std::uint8_t type, Bytes content) = nullptr;
};

enum class TlsEvent : std::uint8_t {
  none,         // the input is used up
  established,  // the handshake is over; reported once
  data,
  ended,   // the peer closed properly (close_notify); nothing more comes, sending is still possible
  failed,  // error() says why; the output holds the alert that tells the peer
};

struct TlsRead {
  TlsEvent event = TlsEvent::none;
  MutableBytes plaintext = {};  // with `data`, not empty
  bool in_place = true;         // it lies where the ciphertext lay; else in turn memory
};

// Finds the ends of records in a stream of ciphertext that comes in any pieces (RFC 8446 section 5.1).
class TlsRecordScan {
 public:
  // The bytes that followed the last ones.
  void advance(Bytes bytes);
  bool at_start() const { return header_size_ == 0; }
  // Where in the bytes that follow the record under way ends, or 0 if it does not end in them. `body` receives the
  // length of what follows its header.
  std::size_t end_in(Bytes bytes, std::size_t& body) const;

 private:
  static constexpr std::size_t header_bytes = 5;
  std::array<std::uint8_t, header_bytes> header_{};
  std::uint8_t header_size_ = 0;
  std::size_t body_left_ = 0;  // once the header is complete
};

class TlsSession {
 public:
  // A server's session. The context may be dropped afterwards. Errors: not_supported.
  static Result<std::unique_ptr<TlsSession>> accept(const TlsContext& context, TlsOutput output);

  // A client's session, and its first flight to `output`. The server has to prove that it is `host`, a name or a
  // numeric address; `port` only tells apart the sessions to resume. Errors: invalid_argument when there is no host
  // and the context verifies.
  static Result<std::unique_ptr<TlsSession>> connect(const TlsContext& context, std::string_view host,
                                                     std::uint16_t port, TlsOutput output);

  TlsSession(const TlsSession&) = delete;
  TlsSession& operator=(const TlsSession&) = delete;
  ~TlsSession();

  // ---- Receiving ----

  // Takes received bytes from the front of `input` until something is to be told; called again until it tells `none`,
  // and then `input` is empty. Plaintext lies in what was the input, and only that of a record whose beginning came in
  // an earlier input, which the memory may be too short for, in `memory`.
  TlsRead read(MutableBytes& input, TurnMemory& memory);

  // The same with plaintext to the front of `room`, which must not be empty: one record's, or as much as fits.
  TlsRead read_into(Bytes& input, MutableBytes room);

  // The transport ended. Errc::end_of_stream after a close_notify; else bytes may be missing, and it is Errc::truncated
  // (the error that the session failed with, if it did).
  Error transport_ended() const;

  // ---- Sending, once the handshake is over (asserted) and before close() ----
  // When the kernel makes the records (TlsOutput::offload), close() only.

  // Encrypts all of it, in full records as far as it goes. Errors: those of a failed session.
  Error write(Bytes plaintext);

  // Sends close_notify, once. Before the handshake is over there is nothing to close.
  void close();

  // TLS 1.3: new keys for what is sent from now on, and with `both` the peer is asked to change its own. After 2^38
  // bytes with AES-GCM they are due (RFC 8446 section 5.5). Errors: not_supported.
  Error update_keys(bool both);

  // ---- State ----

  bool is_open() const { return state_ == State::open || state_ == State::ended; }
  const Error& error() const { return error_; }

  // Of an open session. Views into static storage, but for alpn() and server_name(): they live as long as the session.
  std::string_view alpn() const;         // agreed on; empty if none was
  std::string_view server_name() const;  // asked for by SNI; empty if none was
  std::string_view version() const;      // "TLSv1.3"
  std::string_view cipher() const;       // "TLS_AES_128_GCM_SHA256"
  bool resumed() const;
  // Whether the kernel encrypts (kTLS), and else why not. It begins during the handshake.
  KtlsUse ktls() const;
  // The subject of the peer's verified certificate (RFC 2253), "CN=alice,O=Example"; empty if it has none. Allocates.
  std::string peer_subject() const;

 private:
  friend struct TlsCallbacks;
  friend struct TlsTransport;
  enum class State : std::uint8_t { handshake, open, ended, failed };

  TlsSession(std::shared_ptr<TlsSnapshot> snapshot, ssl_st* ssl, TlsOutput output);
  static Result<std::unique_ptr<TlsSession>> make(const TlsContext& context, TlsOutput output);
  Error name_server(std::string_view host, std::uint16_t port);
  TlsEvent advance(MutableBytes room, std::size_t& size);
  TlsEvent judge(int result);
  TlsEvent fail(const char* operation);
  bool offload(const void* keys);
  bool send_control(Bytes content);
  bool owes_new_keys();
  TlsRead room_for_next(MutableBytes input, std::size_t filled, TurnMemory& memory) const;

  std::shared_ptr<TlsSnapshot> snapshot_;
  ssl_st* ssl_;
  TlsOutput output_;
  Bytes input_;  // of the call that is under way: what OpenSSL has not taken
  TlsRecordScan scan_;
  State state_ = State::handshake;
  bool close_sent_ = false;
  bool kernel_sends_ = false;
  std::uint8_t control_type_ = 0;      // then: what OpenSSL writes next
  const char* kernel_refused_ = "";    // why the kernel does not send
  const char* cannot_send_ = nullptr;  // what ends the session because it does
  Error error_;
  std::string session_key_;  // a client's: "host:port"
};

// Writes plaintext that lies in pieces to a session, in full records but for the last: short pieces share records, joined
// in `memory`; what fills a record, and what the last piece ends with, is encrypted from where it lies.
class TlsPieces {
 public:
  TlsPieces(TlsSession& session, TurnMemory& memory) : session_(session), memory_(memory) {}

  // The piece must live until finish().
  void add(Bytes piece);
  // Writes the rest. Errors: those of TlsSession::write.
  Error finish();

 private:
  void join(Bytes piece);

  TlsSession& session_;
  TurnMemory& memory_;
  std::uint8_t* joined_ = nullptr;
  std::size_t filled_ = 0;  // of the record that is being joined
  Bytes rest_;              // less than a record, where it lies; empty while there is something joined
  Error error_;
};

}  // namespace levada::net
