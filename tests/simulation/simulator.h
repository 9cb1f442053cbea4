// Simulator: the real engine (services on a Reactor over the simulated backend) among random peers, faults and users.
//
// Model: one step is one random act (of a peer, of a user, of the network, of the clock) and one turn of the loop;
// handlers act at random too. After every step the rules are checked: those of each connection (link.h), the bound of
// what is queued, and that nothing is left of what has ended. Now and then, and at the end, the faults stop and the
// peers read until nothing moves: then everything that was queued must have arrived. At the end all connections are
// closed; no endpoint, timer, segment or block may be left.
//
// Invariant: all that is random comes from the Choices, so the same ones give the same journal.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include <levada/core/memory_budget.h>
#include <levada/net/reactor.h>
#include <levada/net/simulated.h>
#include <levada/tests/simulation/choices.h>
#include <levada/tests/simulation/journal.h>
#include <levada/tests/simulation/link.h>
#include <levada/ws/service.h>

namespace levada::ws::test {

// How often what was done, by name: faults of the network, acts of the peers and of the users, outcomes.
using Counts = std::map<std::string, std::uint64_t>;

class Simulator;

// The users' side of all services: checks what it is told and does something at random.
class Actor {
 public:
  explicit Actor(Simulator& simulator) : simulator_(simulator) {}

  void on_upgrade(Upgrade& upgrade);
  void on_http(HttpExchange& exchange);
  void on_open(Connection& connection);
  void on_ping(Connection& connection, Bytes payload);
  void on_pong(Connection& connection, Bytes payload);
  void on_drain(Connection& connection);
  void on_close(Connection& connection, const CloseInfo& info);

 protected:
  Simulator& simulator_;
};

struct MessageActor : Actor {
  using Actor::Actor;
  void on_message(Connection& connection, Opcode opcode, Bytes payload);
};
struct PieceActor : Actor {
  using Actor::Actor;
  void on_fragment(Connection& connection, Opcode opcode, Bytes piece, bool last);
};

class Simulator {
 public:
  explicit Simulator(Choices choices);
  Simulator(const Simulator&) = delete;
  ~Simulator();

  // A peer misreads what comes next, so that a rule is broken: that this is found, and can be repeated.
  void plant_fault() { faulty_ = true; }
  // One step. False when a rule is broken.
  bool step();
  // Brings everything to its end and checks that nothing is left. False when a rule is broken.
  bool finish();

  const Journal& journal() const { return journal_; }
  bool exhausted() const { return choices_.exhausted(); }
  // What has been counted so far.
  Counts counts() const;

 private:
  friend class Actor;
  friend struct MessageActor;
  friend struct PieceActor;

  struct Kept {
    PayloadRef payload;
    std::string copy;
  };
  struct Held {
    UpgradeTicket ticket;
    Link* link;
  };
  // Handlers are never called one inside another.
  class Inside {
   public:
    explicit Inside(Simulator& simulator) : simulator_(simulator) {
      simulator_.journal_.require(simulator_.inside_++ == 0, "handlers are not called one inside another");
    }
    ~Inside() { simulator_.inside_--; }

   private:
    Simulator& simulator_;
  };

  // peers.cc: what peers do.
  ServiceOptions random_options();
  void add_time_limits(ServiceOptions& options);
  std::shared_ptr<MemoryBudget> random_budget();
  Link& add_link(net::Peer peer, bool stream, bool client);
  void connect();
  void connect_wild();
  void adopt();
  void adopt_upgraded();
  void shake_hands(Link& link);
  std::string offer(Link& link);
  void speak(Link& link);
  void say_message(Link& link);
  void say_compressed(Link& link, unsigned opcode, std::string_view text);
  void say_control(Link& link);
  void say_close(Link& link);
  void say_wrong(Link& link);
  void trouble(Link& link);
  std::string frame(const Link& link, unsigned opcode, std::string_view payload,
                    const FrameShape& shape = {});
  std::string_view random_payload(Content content);
  void move_bytes(Link& link);

  // users.cc: what users do.
  void act(Link& link, Connection& connection);
  void act_or_echo(Link* link, Connection& connection, Opcode opcode, Bytes payload);
  // A frame that is going to be sent, and what it is sent with.
  struct Sending {
    Opcode opcode;
    std::string_view payload;
    bool fin = true;
    bool whole = true;      // a message of its own
    bool prepared = false;  // by somebody who does not know the connection
  };
  template <class Send>
  SendStatus send(Link& link, Connection& connection, const Sending& what, Send&& send);
  std::size_t most_bytes(const Link& link, const Connection& connection, const Sending& what) const;
  SendStatus expect(Link& link, Connection& connection, const Sending& what, Link::Dropped& dropped);
  void send(Link& link, Connection& connection, Opcode opcode, Bytes payload);
  void send_parts(Link& link, Connection& connection);
  void send_fragment(Link& link, Connection& connection, bool may_go_on);
  void send_control(Link& link, Connection& connection);
  void send_kept(Link& link, Connection& connection);
  void broadcast();
  void close(Link& link, Connection& connection);
  void auto_pong(Link& link, Connection& connection, Bytes payload);
  void post(Link& link);
  void decide();
  std::size_t queue_limit(const Connection& connection) const;
  bool may_send(const Link& link, const Connection& connection) const;

  // simulator.cc
  void act_at_random();
  void roll_faults();
  void end_faults();
  void jump();
  void turn(int timeout_ms);
  void check();
  void rest();
  void end_connections();
  void end_services();
  std::size_t weigh();
  std::uint64_t shed() const;
  void check_counters();
  Link* random_link();
  std::uint64_t now_ms() const { return simulation_.now_ns() / 1'000'000; }
  // Of the last turn, which is what counts between two.
  std::uint64_t turn_ms() const { return reactor_->now_ms(); }
  std::size_t connections() const;
  void count(const char* what) { counts_[what]++; }

  Journal journal_;
  Choices choices_;
  Counts counts_;
  net::Simulation simulation_;
  std::shared_ptr<MemoryBudget> budget_;
  BlockPool peer_blocks_{std::size_t{1} << 20};
  std::unique_ptr<Deflater> peer_deflater_;
  std::size_t reported_ = 0;  // events of the simulation's log that are in the journal

  std::deque<Link> links_;
  std::vector<Link*> live_;  // those that are not done
  std::vector<Held> held_;
  int inside_ = 0;
  bool calm_ = false;  // users do nothing that stops the flow
  std::uint64_t wild_opened_ = 0, wild_closed_ = 0;
  unsigned next_mark_ = 0;  // makes control payloads unique

  MessageActor messages_{*this};
  PieceActor pieces_{*this};
  MessageActor client_{*this};
  std::unique_ptr<Service> message_service_, piece_service_, client_service_;
  std::unique_ptr<net::Reactor> reactor_;  // before its services: it closes their connections
  net::Listener* listener_ = nullptr;      // nullptr once it is closed
  std::shared_ptr<net::Reactor::Relief> relief_;
  std::size_t heaviest_ = 0;  // what one connection held when the budget was last exceeded
  bool faulty_ = false;

  std::deque<Kept> kept_;  // after the reactor: its memory goes back before
};

}  // namespace levada::ws::test
