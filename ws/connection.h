// Connection: one WebSocket on a reactor, server or client side (RFC 6455).
//
// Model: a Stream that decodes what it receives and calls its Service's handler. Between messages it owns no memory but
// its slot; a message or handshake that is under way has a Pending of the service. Sending queues frames; the loop
// hands them to the kernel at the end of the turn, so many messages are one system call.
//
//   handshake --> open --> closing --> closed        closing: our close frame was sent, the peer's is awaited
//        \-> held -/  \------------------^           closed: nothing is sent or delivered any more; the server has ended
//                                                    its side of TCP and waits for the peer to end its own
//
// All members are for the reactor's thread; other threads use a Handle.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string_view>
#include <utility>

#include <levada/core/block_pool.h>
#include <levada/core/bytes.h>
#include <levada/core/counter.h>
#include <levada/core/error.h>
#include <levada/net/reactor.h>
#include <levada/net/socket.h>
#include <levada/ws/close.h>
#include <levada/ws/compression.h>
#include <levada/ws/decoder.h>
#include <levada/ws/handler.h>
#include <levada/ws/handshake.h>
#include <levada/ws/prepared.h>
#include <levada/ws/trace.h>

namespace levada::ws {

class Service;
class ProxyTunnel;
struct Pending;

enum class SendStatus : std::uint8_t {
  queued,
  full,  // it would have made the queue longer than ServiceOptions::max_buffered_bytes; on_drain follows if
         // anything is queued, and else it never fits
  dropped,  // the same, and the policy is to drop it (or it is a ping or pong)
  closed,   // the connection is not open (any more)
};

// What becomes of a message for which a connection has no room. Fragments of send_fragment are always reported.
enum class OutputPolicy : std::uint8_t {
  report,       // SendStatus::full, and on_drain when there is room
  drop_newest,  // SendStatus::dropped
  drop_oldest,  // messages that wait longest and have not begun to leave are dropped, whole, to make room; if that
                // makes not enough, the new one is
  close,        // the connection is closed with 1008
};

enum class ClosedBy : std::uint8_t {
  peer,       // the peer began the close handshake
  local,      // close() did, or the peer broke a rule
  transport,  // TCP ended or failed without a close frame, or a timeout passed
};

// Why and how a connection ended. The reason lives until on_close returns.
struct CloseInfo {
  CloseCode code =
      CloseCode::abnormal;  // the peer's when it sent one, or what it was failed with; 1006 without either
  std::string_view reason;  // the peer's words (UTF-8), or the rule that the peer broke
  ClosedBy by = ClosedBy::transport;
  Error error;  // of the transport
};

// Memory of a payload that outlives its handler. Drop it on any thread, before the reactor ends.
class PayloadRef {
 public:
  PayloadRef() = default;
  PayloadRef(Bytes bytes, OwnerRef owner) : bytes_(bytes), owner_(std::move(owner)) {}
  Bytes bytes() const { return bytes_; }
  explicit operator bool() const { return static_cast<bool>(owner_); }

 private:
  friend class Connection;
  Bytes bytes_;
  OwnerRef owner_;
};

// Whether a message is compressed, if that was agreed on. One that does not become shorter goes as it is where nothing is
// taken over, and one that might not fit ServiceOptions::max_buffered_bytes if it became longer does so anyway.
enum class Compress : std::uint8_t {
  automatic,  // from DeflateOptions::min_bytes on
  never,
  always,  // shorter ones, too
};

// A name for a connection that any thread may keep and use, also when the connection is gone.
class Handle {
 public:
  Handle() = default;  // of no connection
  Handle(net::Reactor& reactor, SlotId id) : reactor_(reactor.ref()), id_(id) {}

  bool operator==(const Handle&) const = default;

  // Any thread. Calls `use(Connection*)` once, on the reactor's thread in its next turn, with nullptr when the connection
  // does not exist any more. When the reactor is gone too, that is at once, and when it ends before its next turn, by its
  // destructor. The captures of `use` may be 24 bytes.
  template <class Use>
  void run(Use use) const;

  using Result = void (*)(Handle handle, SendStatus status);
  // Any thread. Copies the message and sends it in the reactor's next turn, compressed as Connection::send() would:
  // `queued` says no more than that. `result`, if given, is called as in run() with what became of it: SendStatus::closed
  // when the connection was gone. Or nothing is done, and the answer is `full`: net::ReactorOptions::max_posted_bytes wait
  // for the reactor. `closed`: the reactor is gone.
  SendStatus send(Opcode opcode, Bytes payload, Result result = nullptr,
                  Compress compress = Compress::automatic) const;
  // Any thread. The same without a copy.
  SendStatus send(PreparedMessage message, Result result = nullptr,
                  Compress compress = Compress::automatic) const;
  // Any thread. As Connection::close(), without a reason.
  void close(CloseCode code = CloseCode::normal) const;

  // The reactor's thread only: the connection, or nullptr when it is gone.
  Connection* get() const;

 private:
  SendStatus post_message(PreparedMessage message, bool copied, Result result, Compress compress) const;

  net::ReactorRef reactor_;
  SlotId id_;
};

namespace detail {
// A task of a handle: calls `use` once, at the latest when it is destroyed, for then there is no reactor.
template <class Use>
struct Visit {
  Visit(Handle to, Use&& by) : handle(to), use(std::move(by)) {}
  Visit(Visit&& other) noexcept : handle(std::exchange(other.handle, {})), use(std::move(other.use)) {}
  ~Visit() {
    if (handle != Handle()) use(static_cast<Connection*>(nullptr));
  }
  void operator()() { use(std::exchange(handle, {}).get()); }

  Handle handle;  // of nothing once it was called
  Use use;
};
}  // namespace detail

template <class Use>
void Handle::run(Use use) const {
  if (*this == Handle()) return use(static_cast<Connection*>(nullptr));
  Task task = detail::Visit<Use>(*this, std::move(use));
  static_cast<void>(reactor_.post(task));
}

class Connection final : public net::Stream {
 public:
  // ---- Sending ----

  // Queues a message (text or binary). The payload is copied, but for the one that on_message was given: that is
  // framed where it lies, once (an echo copies nothing). Text must be UTF-8.
  SendStatus send(Opcode opcode, Bytes payload, Compress compress = Compress::automatic) {
    return send_frame(opcode, payload, true, compress);
  }
  SendStatus send_text(std::string_view text, Compress compress = Compress::automatic) {
    return send(Opcode::text, to_bytes(text), compress);
  }

  // Queues one message made of several parts.
  SendStatus send(Opcode opcode, std::span<const Bytes> parts, Compress compress = Compress::automatic);

  // Queues a message: by reference on a server, compressed or not as PreparedMessage says; a client copies it, for it has
  // to mask each frame with a key of its own.
  SendStatus send(const PreparedMessage& message, Compress compress = Compress::automatic);

  // Queues a kept payload as a message: by reference, unless it is compressed.
  SendStatus send(Opcode opcode, PayloadRef payload, Compress compress = Compress::automatic);

  // Queues a piece of a message whose length is not known yet: the first with its opcode, all but the last with `last`
  // false. In between only control frames may be sent (asserted). `compress` of the first decides for all, whatever their
  // length; a compressed piece is only queued while there is room for an eighth more than it has.
  SendStatus send_fragment(Opcode opcode, Bytes piece, bool last, Compress compress = Compress::automatic);

  // Queues a ping or an unsolicited pong; at most 125 bytes (asserted).
  SendStatus ping(Bytes payload = {});
  SendStatus pong(Bytes payload = {});

  // Begins the close handshake (section 7.1.2): queues a close frame after what is queued already, delivers no further
  // messages, and ends when the peer has answered or ServiceOptions::close_timeout_ms has passed. `code` must be valid on
  // the wire (asserted) or no_status; at most 123 bytes of the reason are sent. Before on_open it is terminate().
  void close(CloseCode code = CloseCode::normal, std::string_view reason = {});

  // Sends a ping to measure the round trip, as the keepalive does. Its pong is not shown to on_pong, however late.
  SendStatus measure_rtt();

  // Ends the connection at once, without a close frame; what is queued is lost. A handshake of our own that is under way
  // is canceled: on_refused.
  void terminate() { Endpoint::close(); }

  // ---- Receiving ----

  // Keeps (a part of) the payload that a handler was given, for longer than the call: by reference where its memory
  // can be spared, else by a copy.
  PayloadRef keep(Bytes payload);

  // Stops and resumes reading, apart from the pauses that the engine makes while the peer does not take what is queued
  // (ServiceOptions::pause_above_bytes). Messages that were received already still arrive.
  void pause();
  void resume();

  // ---- State ----

  // Whether messages can be sent: from the opening handshake until a close frame was sent or the transport failed, which
  // can be before the last compressed messages are shown.
  bool is_open() const { return phase_ == Phase::open && !closed() && !finishing_; }
  // The round trip that a keepalive ping or measure_rtt() took, in microseconds; none while one is under way.
  std::optional<std::uint32_t> rtt_us() const;
  Role role() const;
  Handle handle() const { return {reactor(), id()}; }
  Service& service() const { return *service_; }

  void* user_data() const { return user_data_; }
  void set_user_data(void* data) { user_data_ = data; }

  // Who is at the other end: what a trusted proxy said, else what the kernel says. Errors: the kernel's, also in on_close
  // where the peer has reset the connection or terminate() has closed the socket: who wants it there asks in on_open.
  Result<net::Address> remote_address() const;

  // Whether permessage-deflate was agreed on, and then how.
  bool compresses() const { return deflate_.agreed(); }
  std::optional<DeflateAgreement> deflate_agreement() const {
    return compresses() ? std::optional(deflate_.agreement()) : std::nullopt;
  }

  // Pooled memory that would come back if the connection were gone, in bytes: of what is queued and of what is not whole
  // yet, but not what others refer to as well. By this BudgetPolicy::shed_slowest ranks. Walks all that is queued.
  std::size_t held_bytes() const;

  // The subprotocol agreed on, one of ServiceOptions::subprotocols; empty if none (or one chosen by on_upgrade).
  std::string_view subprotocol() const;

 private:
  friend class Dial;
  friend class Handle;
  friend class Service;
  friend class Upgrade;
  friend class UpgradeTicket;
  friend class HttpExchange;
  friend class net::Reactor;

  enum class Phase : std::uint8_t { handshake, held, open, closing, closed };

  Connection(Fd fd, Service& service, Phase phase)
      : Stream(std::move(fd)), service_(&service), phase_(phase) {
    messages_ = true;
  }

  void on_receive(MutableBytes bytes, Owner* memory) override;
  void on_end(const Error& error) override;
  void on_connected() override;
  void on_secured() override;
  void on_blocked() override;
  void on_drained() override;
  void on_timer() override;
  void on_closed() override;
  net::ReceiveTarget receive_target() override;

  // sending.cc
  SendStatus send_frame(Opcode opcode, Bytes payload, bool fin, Compress compress, bool whole = true);
  SendStatus send_deflated_fragment(Opcode opcode, Bytes piece, bool last);
  SendStatus send_control(Opcode opcode, Bytes payload);
  SendStatus send_copied(const PreparedMessage& message, Compress compress);
  std::size_t most_bytes(std::size_t size, bool deflated) const;
  SendStatus admit(std::size_t size, bool whole = true);
  SendStatus refuse_to_queue(std::size_t size, bool whole);
  net::Mark mark_of(Opcode opcode, bool fin) const;
  void fill_frame(std::uint8_t* out, Opcode opcode, Bytes payload, bool fin, bool masked);
  bool send_short(Opcode opcode, Bytes payload, bool fin);
  void queue_frame(Opcode opcode, Bytes payload, bool fin);
  bool queue_in_place(Opcode opcode, Bytes payload, bool fin);

  // deadlines.cc
  void check_open();
  void check_closing();
  bool check_message(std::uint32_t now);
  void arm_timer();
  std::uint32_t next_deadline_ms() const;
  void restart_message_clock(bool is_new, std::size_t bytes);
  void stop_reading();
  void go_on_reading();
  void read_if_allowed();
  bool receive_rtt(Bytes payload);
  bool ping_is_recent(std::uint32_t interval_ms) const;
  std::uint32_t message_timeout_ms() const;
  void note_received(std::uint32_t now);
  bool too_many_controls();

  // inflating.cc
  bool in_slices() const;
  bool receive_compressed(const Decoded& piece, MutableBytes behind);
  bool inflate(Bytes& in);
  void keep_slices(Bytes piece, Bytes behind);
  bool is_slice_used_up() const;
  void wait_for_slice();
  static void ask_for_slices(net::Reactor& reactor, Compression& compression);
  static void inflate_slices(net::Reactor& reactor, Compression& compression);
  void inflate_slice();
  void inflate_on();
  void leave_slices();
  bool is_deflated(Opcode opcode, std::size_t size, Compress compress = Compress::automatic) const {
    return deflate_.agreed() && is_worth_deflating(opcode, size, compress);
  }
  bool may_become_longer(std::size_t size) const;
  bool is_worth_deflating(Opcode opcode, std::size_t size, Compress compress) const;
  bool queue_deflated(Opcode opcode, Bytes payload, bool fin, bool fragment);

  // Opening handshake (opening.cc).
  void receive_request(MutableBytes bytes, Owner* memory);
  void receive_proxy_header(MutableBytes bytes, Owner* memory);
  void receive_response(MutableBytes bytes, Owner* memory);
  struct Verdict;
  Verdict judge_response() const;
  void refuse_with_body(Refusal& refusal, MutableBytes head, std::size_t head_bytes);
  void handshake_over(const Error& error);
  void abandon();
  void receive_from_proxy(MutableBytes bytes, Owner* memory);
  void send_request();
  void leave_proxy();
  bool begin_tls();
  void let_leave();
  MutableBytes gather_head(MutableBytes bytes);
  bool serve_request();
  void serve_plain();
  void serve_upgrade();
  void agree_on_deflate(const DeflateNegotiation& negotiation);
  void accept(std::string_view key, std::string_view subprotocol, std::span<const HttpField> fields,
              const DeflateNegotiation& negotiation);
  void accept_held(std::string_view subprotocol, std::span<const HttpField> fields);
  void reject_held(const Rejection& rejection);
  void remember_subprotocol(std::string_view name);
  void reject(std::uint16_t status);
  void reject(const Rejection& rejection, bool omit_body = false);
  void reject_request(const Rejection& rejection);
  void refuse(const Refusal& refusal);
  void begin_messages(MutableBytes rest, Owner* memory);
  void hold_back(MutableBytes rest);
  void open();

  // Messages.
  void shut_down();
  void leave_service();
  bool is_over() const { return phase_ == Phase::closed && all_sent(); }
  bool shakes_hands() const { return phase_ == Phase::handshake || phase_ == Phase::held; }
  void shed(bool cut);
  std::size_t received_bytes() const;
  void receive_frames(MutableBytes bytes, Owner* memory);
  void dispatch(Decoded& decoded);
  void show(Decoded& decoded);
  void receive_close(Bytes payload);
  void keep_decoder(Decoder& decoder, bool message_ended, std::size_t bytes);
  void fail(FrameError error);
  void fail(CloseCode code, const char* reason, const Error& error);
  void cut(Counter& counter, const Error& error);
  void end_sending();
  void report(const CloseInfo& info);
  const DecoderOptions& decoder_options() const;
  Pending& pending();
  void drop_pending();

  // tracing.h; both do nothing of their own in an engine that does not trace.
  void trace(TraceKind kind, std::uint64_t value = 0, Opcode opcode = Opcode::continuation);
  Decoded decode(Decoder& decoder, MutableBytes& in);

  std::uint32_t received_ms_ = 0;  // when bytes were last received; here it fills a hole
  Service* service_;               // nullptr once that is gone: then it is closed
  void* user_data_ = nullptr;
  Pending* pending_ = nullptr;
  Phase phase_;
  std::uint8_t subprotocol_ = 0;  // index + 1 in the service's list
  bool opened_ : 1 = false;       // on_open was called, so on_close has to be
  bool fragmenting_ : 1 = false;  // a message is being sent in fragments
  bool close_sent_ : 1 = false;
  bool paused_by_user_ : 1 = false;
  bool paused_by_output_ : 1 = false;  // reading waits until the peer takes what is queued
  bool ping_sent_ : 1 = false;         // ping_us_ is when, else the last round trip
  bool has_rtt_ : 1 = false;
  bool proxied_ : 1 = false;    // remote_address() is in the service's table
  bool was_open_ : 1 = false;   // on_open was called: on_gone is not
  std::uint16_t controls_ = 0;  // received in the second of received_ms_
  DeflateState deflate_;
  std::uint32_t since_ms_ = 0;  // when it opened, and then when it began to close
  std::uint32_t ping_us_ = 0;
};

static_assert(sizeof(Connection) <= net::endpoint_slot_bytes);

}  // namespace levada::ws
