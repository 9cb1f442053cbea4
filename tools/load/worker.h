// Worker: one thread with a reactor and its share of the connections.
//
//   connecting --> ready --> loading --> draining --> closing --> done
//
// Model: the worker is the handler of its connections, of which each has a Ledger; the Schedule says how many
// messages a connection is to send. While loading, measure_begin() and measure_end() mark the time that
// counts. A message belongs to the latency histogram if it was planned in that time, however late its echo
// comes; to the throughput if its echo came in that time.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include <levada/net/reactor.h>
#include <levada/tools/load/ledger.h>
#include <levada/tools/load/options.h>
#include <levada/tools/load/process.h>
#include <levada/tools/load/result.h>
#include <levada/tools/load/schedule.h>
#include <levada/ws/service.h>

namespace levada::load {

class Worker {
 public:
  // Serves connections `first` to `first + count - 1`. Writes to the event descriptor `notify_fd` when
  // ready() turns true and when the last connection is gone. All arguments must outlive the worker.
  Worker(const Options& options, const net::Address& address, const Payloads& payloads, std::uint32_t first,
         std::uint32_t count, int notify_fd);
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
  std::uint32_t open() const { return open_.load(std::memory_order_relaxed); }

  // After join().
  const Result& result() const { return result_; }
  Result& result() { return result_; }

  // For the engine.
  void on_open(ws::Connection& connection);
  void on_message(ws::Connection& connection, ws::Opcode opcode, Bytes payload);
  void on_close(ws::Connection& connection, const ws::CloseInfo& info);
  void on_refused(ws::Connection& connection, const ws::Refusal& refusal);

 private:
  enum class Phase : std::uint8_t { connecting, ready, loading, draining, closing, done };

  struct Client {
    Ledger ledger;
    ws::Connection* connection = nullptr;
  };

  ws::ServiceOptions service_options() const;
  void dial_more();
  std::uint32_t dial_limit();
  void dial(Client& client);
  void settle();
  void notify() const;

  void send_due(Client& client, std::uint64_t now);
  void send_one(Client& client, std::uint64_t now);
  void note_wrong(const Client& client, const Ledger::Answer& answer);
  void lose(std::uint64_t planned_ns, std::uint64_t now);
  void begin_closing();
  void finish();

  const Options& options_;
  const net::Address& address_;
  const Payloads& payloads_;
  const ClosedLoop schedule_;
  const ws::Opcode opcode_;
  const int notify_fd_;

  std::vector<Client> clients_;
  std::size_t dialed_ = 0;  // clients whose connection was begun
  std::uint32_t in_handshake_ = 0;
  std::uint64_t connect_begin_ns_ = 0;

  Phase phase_ = Phase::connecting;
  bool measuring_ = false;
  std::uint64_t measured_from_ns_ = ~std::uint64_t{0};  // messages planned before are not in the histogram
  std::uint64_t measure_end_ns_ = 0;
  ThreadTime begin_time_;
  std::uint64_t in_flight_ = 0;  // of all connections, while draining
  Result result_;
  std::atomic<bool> ready_{false};
  std::atomic<std::uint32_t> open_{0};

  // Destroyed from the last to the first: the connections with the reactor, then what they refer to.
  std::unique_ptr<ws::Service> service_;
  std::unique_ptr<net::Reactor> reactor_;
  std::thread thread_;
};

}  // namespace levada::load
