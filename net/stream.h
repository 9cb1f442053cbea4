// Stream: a byte stream on a reactor (TCP or Unix), to be derived from.
//
// Model: the backend receives into memory of the turn and calls on_receive(); what the stream sends is
// queued, the stream is linked into its reactor's dirty list, and the loop hands all queues to the kernel
// once at the end of the turn. So sending does no I/O, never re-enters a handler, and one turn costs one
// write per stream. Invariants: bytes leave in the order in which they were queued; after on_end() with an
// error nothing is sent.
#pragma once

#include <levada/core/bytes.h>
#include <levada/net/endpoint.h>
#include <levada/net/send_queue.h>
#include <levada/net/tls_layer.h>

namespace levada::net {

// Where the next bytes are to be received: memory and the reference that keeps it alive.
struct ReceiveTarget {
  MutableBytes bytes;
  Owner* owner = nullptr;
};

class Stream : public Endpoint {
 public:
  // All of these: reactor's thread only.

  // Queues a copy of `bytes`. Nothing happens on a stream that is closed, or finishing.
  void send(Bytes bytes, Mark mark = Mark::none);

  // Queues bytes that the reactor keeps until the end of this turn, without a copy: what on_receive() was
  // given, or what reserve() returned.
  void send_turn_memory(Bytes bytes, Mark mark = Mark::none) { enqueue(bytes, nullptr, mark); }

  // Queues bytes without a copy and takes over one reference on their `owner`.
  void send_owned(Bytes bytes, Owner* owner, Mark mark = Mark::none) { enqueue(bytes, owner, mark); }

  // Drops the oldest messages that were queued with Mark::message and have not begun to leave, until `size` bytes are
  // free; none when all of them are not enough. Returns how many.
  std::size_t drop_oldest(std::size_t size);

  // `size` bytes of turn memory to be filled and then sent with send_turn_memory().
  std::uint8_t* reserve(std::size_t size);

  // Ends the sending side when everything queued has left; reading goes on until the peer ends or close().
  void finish();

  // Stops and resumes reading. Bytes that the kernel had handed over before still arrive.
  void pause();
  void resume();
  bool paused() const { return paused_; }

  // Speaks TLS from here on, before anything was sent or received: on_secured() tells when the handshake is done, and
  // on_end() when it failed, with certificate_refused, alert_received, protocol or truncated. What is sent before waits.
  // `context` may be dropped. Errors: those of TlsSession.
  Error accept_tls(const TlsContext& context);
  Error connect_tls(const TlsContext& context, std::string_view host, std::uint16_t port);
  // The session, or nullptr without TLS.
  const TlsSession* tls() const;

  // Bytes queued that the kernel has not taken; what TLS adds to them does not count.
  std::size_t buffered() const { return secured_ ? secured_bytes() : queue_.bytes(); }
  // Whether the kernel has everything that was sent, and what TLS sends by itself.
  bool all_sent() const { return queue_.empty() && (!secured_ || secured_sent()); }
  // Pooled memory that nobody else refers to and that closing would give back, in bytes. Walks all that is queued.
  std::size_t sole_bytes() const;

  // Whether the kernel refused bytes and the queue waits for room.
  bool blocked() const { return blocked_; }
  bool connecting() const { return connecting_; }

  // While blocked(): the reactor's time in milliseconds when the kernel last had room.
  std::uint32_t stalled_since_ms() const { return stalled_since_ms_; }

 protected:
  // Queues turn memory for the kernel as it is: past TLS, and without a look at whether the stream is closed or finishing,
  // which the caller knows. It may be written until the turn ends.
  void send_raw(Bytes bytes);
  // Whether it speaks TLS.
  bool secured() const { return secured_; }

  // Takes over `fd`, a connected or connecting non-blocking socket. Built with Reactor::add.
  explicit Stream(Fd fd) : Endpoint(EndpointKind::stream, fd.release()) {}

  // Bytes in order. They may be changed in place, they live until the end of this turn, and `memory` owns
  // what they lie in: a reference on it keeps them longer, and a receive buffer out of use. nullptr:
  // receive_target().
  virtual void on_receive(MutableBytes bytes, Owner* memory) = 0;
  // The peer ended (Errc::end_of_stream) or the connection failed; nothing more is received. Called once: if
  // the connection fails after the peer's end, the stream closes.
  virtual void on_end(const Error& error) {
    // What was queued for a peer that only ended its own side still leaves; then the stream closes.
    if (error.code == Errc::end_of_stream && !finished_) return finish();
    close();
  }
  // The TLS handshake is done.
  virtual void on_secured() {}
  // A connection attempt succeeded; a failed one gives on_end().
  virtual void on_connected() {}
  // From on_connected() only, before anything is sent: closes the stream, but not the connection, whose descriptor the
  // caller gets, to make another endpoint of it.
  Fd release();

  // The kernel took less than was queued; it will say when it has room. Must not send.
  virtual void on_blocked() {}
  // The queue is empty after it had been blocked.
  virtual void on_drained() {}
  // Where to receive while receive_directly(true) is set; must not be empty then.
  virtual ReceiveTarget receive_target() { return {}; }

  // Calls on_drained() the next time the queue is empty, though the kernel may never have refused anything.
  void report_when_drained() { spilled_ = true; }

  // Receive into receive_target() instead of turn memory from the next receive on; with TLS, what was decrypted. Bytes
  // that the kernel had handed over before still come through on_receive() in turn memory.
  void receive_directly(bool on);

  // At most little_receive_bytes come in one on_receive() and then, if that pauses, nothing more: for what may have to be
  // copied and kept. Holds as soon as what the kernel had handed over before has come.
  void receive_little();
  static constexpr std::size_t little_receive_bytes = 32 * 1024;

 private:
  friend class Reactor;
  friend class Backend;
  friend class EpollBackend;
  friend class IoUringBackend;
  friend class SharedBuffer;
  friend class SimulatedBackend;
  friend class TlsLayer;

  Error begin_tls(TlsLayer& layer, const Error& error);
  const SendQueue& plain() const;
  std::size_t secured_bytes() const;
  bool secured_sent() const;
  void enqueue(Bytes bytes, Owner* owner, Mark mark);
  void mark_dirty();

  [[no_unique_address]] SendQueue queue_;
  std::uint32_t next_dirty_ = 0;  // index of the next stream in the dirty list
  std::uint32_t stalled_since_ms_ = 0;
};

}  // namespace levada::net
