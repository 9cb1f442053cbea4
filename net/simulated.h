// The simulated backend: sockets in memory, a clock that only the test moves, and faults drawn from a seed.
//
// Model: a Simulation is the kernel and the network; the Reactor under test runs on a SimulatedBackend that
// works on it, and the test plays the other ends of the connections as Peers. Nothing happens by itself: each
// Reactor::run_once() looks once at every socket, in a shuffled order if asked for, and reports what is
// ready. Invariants: every operation takes its faults from one seeded sequence and is appended to log(), so
// the same seed and the same calls give the same log. Descriptors are numbers that the real kernel does not
// know (1 << 30 and up), reused once they are closed. What was received in a turn is overwritten at its end
// unless somebody refers to it, and so is the turn's memory: a view that is used too late reads `poison`.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <vector>

#include <levada/core/random.h>
#include <levada/net/backend.h>

namespace levada::net {

// Rates are "about once in n operations"; 0 is never.
struct SimulationOptions {
  std::uint64_t seed = 1;
  std::size_t receive_bytes = 16 * 1024;  // of one receive, at most
  std::size_t window_bytes = 64 * 1024;   // what a connection holds before the peer reads
  bool shuffle = false;                   // report ready endpoints in a random order
  unsigned cut_one_in = 0;                // receive a part of what is there
  unsigned single_byte_one_in = 0;        // receive one byte of what is there
  unsigned short_write_one_in = 0;        // take a part of what would fit
  unsigned refused_write_one_in = 0;      // EAGAIN although there is room; writable a turn later
  unsigned spurious_one_in = 0;           // report an endpoint that has nothing
  unsigned starved_one_in = 0;            // no buffer for a receive; it goes on a turn later
  unsigned early_flush_one_in = 0;        // end the turn's memory between two reports
  unsigned accept_failure_one_in = 0;     // EMFILE
  unsigned reset_one_in = 0;              // ECONNRESET at a receive
  std::uint64_t failing_operation = 0;    // the number of the one operation that fails, from 1; 0 is none
  int failure = 104;                      // the errno it fails with (ECONNRESET)
};

class Simulation;

// The other end of a connection, as the test plays it. A name: copies stand for the same end, good while the
// Simulation lives. Calls after the connection is over do nothing.
class Peer {
 public:
  void write(Bytes bytes);
  void write(std::string_view text) { write(to_bytes(text)); }

  // What the engine has sent and was not read yet. Reading makes room for more.
  std::string read();

  // How many unread bytes the connection holds before the engine has to wait.
  void set_window(std::size_t bytes);

  void shut_down();  // ends the sending side
  void close();      // ends both: what the engine sends from now on resets the connection
  void reset();      // what the engine has not received yet is lost

  // For a connection that the engine opens: answers its attempt.
  void accept();
  void refuse(int os_number);

  // Whether the engine has ended its sending side or closed; whether it closed; and whether that, as a kernel
  // does it, reset the connection because bytes were left unread.
  bool ended() const;
  bool closed() const;
  bool was_reset() const;
  // Whether the connection broke: by reset() or refuse(), by a fault, or since the engine sent after close().
  bool failed() const;
  // Bytes that the engine has not received yet.
  std::size_t unreceived() const;

 private:
  friend class Simulation;
  Peer(Simulation& simulation, std::size_t socket) : simulation_(&simulation), socket_(socket) {}

  Simulation* simulation_;
  std::size_t socket_;
};

// The engine's end of an outgoing connection, for Reactor::add_connecting, and the other one.
struct SimulatedConnection {
  Fd fd;
  Peer peer;
};

// One thread: the reactor's.
class Simulation {
 public:
  enum class Operation : std::uint8_t {
    start,
    stop,
    accept,
    connect,
    receive,
    direct,
    end,
    send,
    shut_down,
    starved,
    fault,
    spurious,
    early_flush
  };
  // What was made to go otherwise, as counted by faults().
  enum class Fault : std::uint8_t {
    cut,
    single_byte,
    short_write,
    refused_write,
    spurious,
    starved,
    early_flush,
    accept_failure,
    reset,
    failed_operation
  };
  static constexpr std::size_t fault_kinds = 10;
  struct Event {
    Operation operation;
    int descriptor;      // without the offset of simulated descriptors
    std::int64_t value;  // bytes, or a negative errno
    bool operator==(const Event&) const = default;
  };

  explicit Simulation(const SimulationOptions& options = {}) : options_(options), random_(options.seed) {}
  Simulation(const Simulation&) = delete;
  Simulation& operator=(const Simulation&) = delete;

  // A descriptor that "listens", for a Listener.
  Fd listen();
  // A connection to it, which waits to be accepted.
  Peer connect(const Listener& listener);
  // A descriptor whose connection is under way until the peer accepts or refuses.
  SimulatedConnection open();
  // A descriptor for a Watch, and whether it is readable from now on.
  Fd watchable();
  void set_readable(const Watch& watch, bool readable);

  void advance_ms(std::uint64_t milliseconds) { now_ns_ += milliseconds * 1'000'000; }
  std::uint64_t now_ns() const { return now_ns_; }

  // The rates may be changed between turns.
  SimulationOptions& options() { return options_; }
  const std::vector<Event>& log() const { return log_; }
  // One line an event, to compare and to read: "receive 3 512". Allocates.
  std::string log_text() const;
  // How many operations could have failed so far: the range of `failing_operation`.
  std::uint64_t operations() const { return operations_; }
  // How often each kind of fault struck so far, by Fault.
  const std::array<std::uint64_t, fault_kinds>& faults() const { return faults_; }
  // "single_byte", "receive"; static storage.
  static const char* name_of(Fault fault);
  static const char* name_of(Operation operation);
  // One event as a line of log_text() without its end. Allocates.
  static std::string describe(const Event& event);

 private:
  friend class Peer;
  friend class SimulatedBackend;

  enum class Kind : std::uint8_t { listener, connection, watchable };
  struct Socket {
    Kind kind;
    int fd = -1;                      // -1 once the engine has closed it
    SlotId endpoint;                  // once it was started
    std::deque<std::size_t> backlog;  // of a listener: connections to be accepted
    std::string to_engine;
    std::string to_peer;
    std::size_t window = 0;
    int error = 0;  // what the next operation fails with
    bool connected = true;
    bool readable = false;
    bool peer_ended = false;
    bool peer_gone = false;
    bool engine_ended = false;
    bool was_reset = false;
  };

  std::size_t make_socket(Kind kind);
  int make_descriptor(std::size_t socket);
  Socket* find(int fd);
  void close(Socket& socket);
  // Whether a fault of that rate strikes now; counts it.
  bool strikes(unsigned one_in, Fault fault) {
    const bool struck = one_in != 0 && random_.one_in(one_in);
    if (struck) faults_[static_cast<std::size_t>(fault)]++;
    return struck;
  }
  // Counts an operation; the errno it has to fail with, or 0.
  int begin_operation();
  void record(Operation operation, const Socket& socket, std::int64_t value);

  SimulationOptions options_;
  SeededRandom random_;
  std::uint64_t now_ns_ = 0;
  std::uint64_t operations_ = 0;
  std::array<std::uint64_t, fault_kinds> faults_{};
  std::vector<std::unique_ptr<Socket>> sockets_;
  std::vector<std::size_t> descriptors_;  // index of a descriptor to socket
  std::vector<Event> log_;
};

class SimulatedBackend final : public Backend {
 public:
  static constexpr int first_descriptor = 1 << 30;
  static constexpr std::uint8_t poison = 0xDB;

  // For Reactor's constructor; `simulation` is a Simulation*, which outlives the reactor.
  static std::unique_ptr<Backend> make(Reactor& reactor, void* simulation);
  ~SimulatedBackend() override;

  BackendKind kind() const override { return BackendKind::simulated; }
  Error start(Endpoint& endpoint) override;
  void stop(Endpoint& endpoint) override;
  Fd release(Stream& stream) override;
  void pause(Endpoint&) override {}
  void resume(Endpoint&) override {}
  void set_direct(Stream&) override {}
  void flush() override;
  // Never waits: when nothing is ready, a limit that is positive passes on the simulation's clock.
  void poll(int timeout_ms) override;
  void shut_down(Stream& stream) override;
  void wake() override { woken_.store(true, std::memory_order_release); }
  std::uint64_t now_ns() override { return simulation_.now_ns(); }
  std::uint64_t unix_seconds() override { return now_ns() / nanoseconds_per_second; }
  bool can_lend() const override { return true; }
  std::string describe() const override;

 private:
  using Socket = Simulation::Socket;
  using Operation = Simulation::Operation;
  using Fault = Simulation::Fault;

  SimulatedBackend(Reactor& reactor, Simulation& simulation) : reactor_(reactor), simulation_(simulation) {}

  bool ready(Socket& socket);
  bool can_receive(const Socket& socket, const Stream& stream) const;
  bool can_send(const Socket& socket, const Stream& stream) const;
  void report(Socket& socket);
  void accept(Socket& socket, Listener& listener);
  void finish_connecting(Socket& socket, Stream& stream);
  void receive(Socket& socket, Stream& stream);
  std::size_t receive_size(const Socket& socket, std::size_t room);
  void deliver(Socket& socket, Stream& stream, std::size_t size);
  void fail(Socket& socket, Stream& stream, int os_number, const char* operation);
  void flush(Stream& stream);
  std::size_t take(Socket& socket, const iovec* vectors, int count, std::size_t total);
  void end_turn();

  Reactor& reactor_;
  Simulation& simulation_;
  std::atomic<bool> woken_{false};
  std::vector<std::size_t> ready_;
  std::vector<SlotId> starved_;
  std::vector<Block*> received_;  // of this turn; one reference on each
};

}  // namespace levada::net
