// Link: one connection as its peer sees it, and what has to happen on it.
//
// Model: the peer writes what is in its outbox, in pieces. What it has written goes through a ReferenceDecoder too: the
// handler has to be told just these events, in this order, from the first on (rule 1). What the handler queued, and the
// engine's own pongs and close frames, are owed to the peer: it has to receive just these frames, in this order, from
// the first on (rule 2). Both may break off only when the connection breaks, and then on_close says why; one that ended
// in good order, or is at rest, owes nothing (rule 3). Each on_open has one on_close (rule 4). A timeout does its work in
// the first turn that has its time, and not before (rule 5; clocks.h). Messages are only dropped by a policy that drops:
// those that wait longest and have not begun to leave, as many as are counted (rule 6).
//
// All calls on the simulation's thread. The engine's decoder and encoder are not used here.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <string_view>

#include <levada/net/simulated.h>
#include <levada/tests/simulation/choices.h>
#include <levada/tests/simulation/clocks.h>
#include <levada/tests/simulation/compressing.h>
#include <levada/tests/simulation/journal.h>
#include <levada/tests/support/frames.h>
#include <levada/tests/support/reference_decoder.h>
#include <levada/ws/connection.h>

namespace levada::ws::test {

// What the engine's own pings begin with; nobody else's do.
inline constexpr std::string_view keepalive_mark = "levada\xF7 ";

// How a handshake tells which link it is of; not to be hit by chance.
inline std::string link_name(std::uint64_t number) {
  return std::to_string(SeededRandom(number).next());
}

class Link {
 public:
  // `options` are of the engine's decoder; `service` of its service.
  Link(Journal& journal, unsigned own_number, net::Peer other_end, const DecoderOptions& options,
       const ServiceOptions& service, bool streams)
      : number(own_number),
        peer(other_end),
        journal_(journal),
        wire_(options),
        engine_is_client_(options.role == Role::client),
        clocks_(service),
        open_(service, streams),
        max_controls_per_s_(service.max_controls_per_s) {}

  // ---- The peer ----

  // Puts a handshake into the outbox that has to be answered with `plain` times 200 and then with `status` (0: not at
  // all, for it is not whole); what comes behind it are frames.
  void begin_handshake(std::string_view head, unsigned plain, unsigned status);
  // There was a handshake before the simulation began.
  void skip_handshake() { status_ = expected_status_ = 101; }
  // Bytes of no known kind: what comes back is not looked at.
  void begin_wild(std::string_view bytes);

  // The handshake offers compression, and the service is going to agree.
  void agree(BlockPool& blocks) { inflater_ = std::make_unique<PeerInflater>(blocks); }
  bool compresses() const { return inflater_ != nullptr; }

  // A held handshake is going to be rejected.
  void expect_rejection(unsigned status) {
    if (status_ == 0 && !opened_) expected_status_ = status;
  }

  void say(std::string_view bytes) { say(bytes, bytes); }
  // Frames that mean the same as `plain`, when they have come to their end.
  void say(std::string_view bytes, std::string_view plain);
  // Writes a part of the outbox, of at most `most` bytes.
  void write(std::size_t most);
  // Takes what has come from the engine and compares it with what is owed.
  void read();
  void shut_down();
  void close();
  void reset();

  bool idle() const { return outbox_.empty(); }
  std::size_t unsent() const { return outbox_.size() + peer.unreceived(); }
  bool can_speak() const { return !ended && !gone && !peer.closed() && !peer.failed(); }

  // ---- What the engine does, as its handlers and callers see it ----

  void opened(Connection& connection, std::uint64_t now_ms);
  void delivered(DecoderEvent event, Opcode opcode, Bytes payload);
  // A ping or pong was delivered.
  void control_delivered(std::uint64_t now_ms);
  void delivered_piece(Opcode opcode, Bytes piece, bool last);
  // A frame was queued for the peer; `size` bytes of it, 0: those of a plain one.
  void queued(Opcode opcode, std::string_view payload, bool fin = true, std::size_t size = 0,
              bool droppable = false);
  // The oldest messages are dropped until so many of the bytes that are buffered are free, or none.
  struct Dropped {
    std::size_t messages = 0, bytes = 0;
  };
  Dropped drop_oldest(std::size_t buffered, std::size_t needed);
  void closing(CloseCode code, std::string_view reason, std::uint64_t now_ms);
  void closed(Connection& connection, const CloseInfo& info, std::uint64_t now_ms);

  // What can be seen of the connection now: what it has received, whether it reads, and whether it began to close by
  // itself, which no handler is told.
  void notice(const Connection& connection, std::uint64_t now_ms);
  void drained() { open_.drained(); }

  // The handler resumes reading.
  void resumed() { paused = was_paused_ = false; }

  // ---- Rules ----

  // Before and after a turn: nothing is received while reading is paused.
  void before_turn();
  void check_pause();

  // After every step.
  void check(std::uint64_t now_ms);
  void check_open(const Connection& connection, std::uint64_t now_ms);
  // When nothing moves any more and the peer has read everything.
  // `accepting`: whether every connection is accepted.
  void check_at_rest(bool accepting);

  bool is_open() const { return opened_ && !closed_; }
  bool was_opened() const { return opened_; }
  // The engine's end is gone.
  bool is_over() const { return over_; }
  // It is over and was checked for the last time.
  bool is_done() const { return done_; }
  bool wild() const { return wild_; }
  bool head_is_written() const { return head_bytes_ == 0; }
  Connection* connection() const { return handle_.get(); }
  Handle handle() const { return handle_; }
  bool close_queued() const { return close_queued_; }
  bool engine_is_client() const { return engine_is_client_; }

  const unsigned number;
  net::Peer peer;

  // Set by those who do it.
  bool stream = false;                // its handler takes pieces
  bool reading = true;                // the peer does
  bool polite = true;                 // the peer answers a close frame, and ends when the engine has ended
  bool ended = false;                 // the peer has shut down
  bool gone = false;                  // the peer has closed, or reset
  bool sent_close = false;            // the peer has said its last frame
  bool held = false;                  // the handshake waits for a decision
  bool paused = false;                // reading, by the handler
  bool fragmenting = false;           // the handler is sending a message in fragments
  bool compresses_fragments = false;  // of that message
  bool wants_drain = false;           // a send was refused, so on_drain has to come
  bool terminated = false;            // the handler did that
  bool own_takeover = false;          // the engine compresses with what went before
  // The memory budget may refuse it, or shed it.
  bool may_be_refused = false, may_be_shed = false;
  unsigned keepalive_pings = 0;  // that came
  std::size_t held_bytes = 0;    // when the memory budget was last exceeded
  bool spoils = false;           // damages the next byte that comes, to break a rule on purpose

 private:
  void take_answers();
  void take_frames();
  const Event* next_event();
  const Event* skip_to_end();
  void closed_by_peer(const CloseInfo& info);
  void closed_here(const CloseInfo& info, std::uint64_t now_ms);
  void closed_at_a_limit(const CloseInfo& info, std::uint64_t now_ms);
  void closed_for_controls(const CloseInfo& info, std::uint64_t now_ms);
  bool take_keepalive(const Frame& frame);
  bool is_owed(const Frame& frame, const Frame& owed);
  void feed(std::string_view bytes);
  void observe(std::uint64_t now_ms);
  void closed_by_transport(const Connection& connection, const CloseInfo& info, std::uint64_t now_ms);
  void finish();

  bool require(bool holds, const char* rule, std::int64_t value = 0) const {
    return journal_.require(holds, rule, number, value);
  }

  Journal& journal_;
  // What was said, in order, and what that means to the engine when it has come to its end.
  struct Said {
    std::size_t bytes;  // that are not written yet
    std::string plain;
    bool same;  // it means what it is
  };
  struct Owed {
    Frame frame;
    std::size_t size;
    bool droppable;
  };

  std::string outbox_;
  std::deque<Said> said_;       // of the outbox behind the handshake
  std::size_t head_bytes_ = 0;  // of the outbox, that belong to the handshake
  ReferenceDecoder wire_;       // what the peer has written
  std::size_t taken_ = 0;       // events of it that the handler was told
  std::string pieces_;          // of the message that on_fragment is told
  std::deque<Owed> owed_;       // frames that the peer has not received yet
  std::string in_;              // received and not taken yet
  unsigned plain_ = 0, expected_status_ = 0, status_ = 0;
  bool engine_is_client_;
  Clocks clocks_;
  OpenClocks open_;
  std::string flying_;                      // written and not received yet
  std::size_t head_flying_ = 0;             // of that, of the handshake
  std::string arrived_;                     // received behind the handshake, before it was answered
  bool reads_ = true;                       // the engine did when it was last looked at
  std::unique_ptr<PeerInflater> inflater_;  // if compression was agreed on
  std::uint64_t controls_second_ = 0;       // the last in which a ping or pong was delivered
  unsigned controls_ = 0;                   // delivered in it
  unsigned keepalive_pongs_ = 0;            // that the engine took for itself
  std::uint32_t max_controls_per_s_;
  std::string deflated_, inflated_;  // of the message that comes in fragments
  bool inflating_ = false;
  Handle handle_;
  bool wild_ = false, opened_ = false, closed_ = false, close_queued_ = false, received_close_ = false;
  bool lossy_ = false;  // frames may be lost: the connection broke, or was broken off
  bool over_ = false, done_ = false;
  bool was_paused_ = false;     // before this turn, and since
  std::size_t unreceived_ = 0;  // then
};

}  // namespace levada::ws::test
