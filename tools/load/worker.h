// Worker: one thread with a reactor and its share of the connections.
//
//   connecting --> ready --> loading --> draining --> checking --> closing --> done
//                                             (hold only)
//
// Model: the worker is the handler of its connections, each of which is a Client with a Ledger. A closed loop sends when
// echoes have made room: once for all that came together. An open loop sends when a timer says that a planned time has
// come. After each turn of the loop the messages that it has handed to the kernel get their write time. What is measured
// goes through the Recorder.
//
// worker.cc: the thread and its phases; connecting.cc: connections that come and go; loading.cc: messages.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include <levada/core/clock.h>
#include <levada/net/reactor.h>
#include <levada/tools/load/broadcasts.h>
#include <levada/tools/load/client.h>
#include <levada/tools/load/options.h>
#include <levada/tools/load/process.h>
#include <levada/tools/load/recorder.h>
#include <levada/tools/load/shaper.h>
#include <levada/ws/service.h>

namespace levada::load {

// The addresses of each target.
using Addresses = std::vector<std::vector<net::Address>>;

// A worker's part of the whole.
struct Share {
  int index = 0;                       // among the workers of all processes
  std::uint32_t first = 0;             // number of its first connection
  std::uint32_t connections = 0;       // how many it has
  std::optional<std::uint64_t> count;  // messages to send, or handshakes to make; none: no limit
};

class Worker {
 public:
  // Writes to the event descriptor `notify_fd` when ready() turns true, when a second is over, when the last connection
  // is gone, and when all messages of its share were answered. All arguments must outlive the worker.
  Worker(const Options& options, const Addresses& addresses, const Payloads& payloads, const Share& share,
         int notify_fd);
  Worker(const Worker&) = delete;
  ~Worker() { join(); }

  // Makes the reactor and starts the thread, which connects at once.
  Error start();

  // The controlling thread. Each takes effect in the reactor's next turn.
  void load_begin();
  void measure_begin();
  void measure_end();  // also stops sending, waits for what is in flight, closes, and ends the thread
  void abort();        // ends the thread without a close handshake
  void join();

  // The controlling thread. Every connection has been made, or has failed.
  bool ready() const { return ready_.load(std::memory_order_acquire); }
  // Nothing is left to do: no connection is open or will be, or all messages were answered.
  bool idle() const { return idle_.load(std::memory_order_acquire); }
  std::uint32_t open() const { return open_.load(std::memory_order_relaxed); }
  std::optional<Second> latest() const { return recorder_.latest(); }

  // After join().
  const Result& result() const { return recorder_.result(); }

  // For the engine.
  void on_connected(ws::Connection& connection);
  void on_secured(ws::Connection& connection);
  void on_open(ws::Connection& connection);
  void on_message(ws::Connection& connection, ws::Opcode opcode, Bytes payload);
  void on_ping(ws::Connection& connection, Bytes payload);
  void on_pong(ws::Connection& connection, Bytes payload);
  void on_close(ws::Connection& connection, const ws::CloseInfo& info);
  void on_refused(ws::Connection& connection, const ws::Refusal& refusal);

 private:
  enum class Phase : std::uint8_t { connecting, ready, loading, draining, checking, closing, done };

  // Messages that were queued in this turn, one after the other on one connection.
  struct Queued {
    Client* client;
    std::uint64_t first;
    std::uint64_t end;
  };

  // worker.cc
  ws::ServiceOptions service_options() const;
  void make_clients();
  void loop();
  int cpu() const;
  void flushed();
  void tick();
  void give_up_waiting();
  void begin_checking();
  void check_more();
  void begin_closing();
  void finish();
  void notify() const;
  void stop_if_idle();

  // connecting.cc
  void dial_more();
  bool may_dial() const;
  void dial(Client& client);
  void dial_again(Client& client, std::uint32_t delay_ms);
  void settle();
  void note_refusal(const ws::Connection& connection, const ws::Refusal& refusal);
  void close_churner(Client& client);
  void give_up_attempt();
  bool comes_and_goes(const Client& client) const { return client.character == Character::churner; }
  bool counts_handshakes() const {
    return options_.mode == Mode::churn && options_.messages_per_connection == 0;
  }
  void hush(bool reading);

  // loading.cc
  void plan();
  void arm_timer();
  void send_planned_now() { send_planned(reactor_->now_ns()); }
  void send_planned(std::uint64_t now);
  void leave_unsent(std::uint64_t now);
  void send_due(Client& client, std::uint64_t now);
  void send(Client& client, std::uint64_t count, std::uint64_t planned_ns, std::uint64_t now);
  void transmit(Client& client, std::uint64_t sequence);
  void transmit_shaped(Client& client, std::uint64_t sequence, const std::array<Bytes, 2>& parts);
  void publish(Client& client, std::uint64_t planned_ns);
  void refill_later(Client& client, std::uint64_t now);
  void refill();
  void trickle(Client& client);
  void pump();
  bool has_room(const Client& client) { return in_flight_ < most_in_flight_ || overrun(client); }
  bool overrun(const Client& client);
  std::uint64_t arrival(const Client& client);
  void receive(Client& client, Bytes payload, bool right_kind);
  void hear(Client& client, Bytes payload);
  void note_answered(Client& client, std::uint64_t count);
  void note_verified(const Client& client, const Ledger::Times& message, std::size_t bytes,
                     std::uint64_t now);
  void go_on(Client& client, std::uint64_t now);
  void note_wrong(const Client& client, const Ledger::Answer& answer);
  void give_up(Client& client, std::uint64_t now);
  bool sends_pings() const {
    return options_.mode == Mode::ping || (options_.mode == Mode::hold && phase_ != Phase::checking);
  }
  bool measured(const Client& client) const {
    return client.character == Character::steady || options_.mode == Mode::churn;
  }
  TargetResult& result_of(const Client& client) { return recorder_.result().targets[client.target]; }
  bool try_next_address(Client& client);
  Client& client_of(const ws::Connection& connection) const {
    return *static_cast<Client*>(connection.user_data());
  }

  const Options& options_;
  const Addresses& addresses_;
  const Payloads& payloads_;
  const Share share_;
  const ClosedLoop closed_loop_;
  const std::uint64_t most_in_flight_;
  const ws::Opcode opcode_;
  const int notify_fd_;

  std::vector<Client> clients_;
  std::deque<Client*> to_dial_;
  std::uint64_t dialed_ = 0;
  std::uint32_t in_handshake_ = 0;
  std::uint64_t connect_begin_ns_ = 0;
  bool dial_planned_ = false;  // dial_more() will be called when the rate allows another

  Phase phase_ = Phase::connecting;
  Recorder recorder_;
  ThreadTime begin_time_;
  DueQueue due_;
  net::Watch* timer_ = nullptr;
  std::uint64_t left_ = 0;       // of the share's count
  std::uint64_t in_flight_ = 0;  // of all connections
  std::vector<Queued> queued_;
  const Client* arrived_for_ = nullptr;  // whose messages arrive, this one's now or a moment ago
  std::uint64_t arrived_ns_ = 0;
  unsigned arrived_ = 0;      // messages that this time was taken for
  Client* refill_ = nullptr;  // has room since refill_ns_, and sends when its last echo of this turn was seen
  std::uint64_t refill_ns_ = 0;
  std::unique_ptr<Shaper> shaper_;
  std::vector<Client*> trickling_;  // have pieces to send
  std::unique_ptr<Broadcasts> broadcasts_;
  std::vector<std::uint8_t> scratch_;
  std::uint64_t silent_seconds_ = 0;  // with messages in flight
  std::size_t checked_ = 0;           // hold: clients whose last echo was asked for

  std::atomic<bool> ready_{false};
  std::atomic<bool> idle_{false};
  std::atomic<std::uint32_t> open_{0};

  // Destroyed from the last to the first: the connections with the reactor, then what they refer to.
  std::unique_ptr<ws::Service> service_;
  std::unique_ptr<net::Reactor> reactor_;
  std::thread thread_;
};

}  // namespace levada::load
