// Resolver: host names to addresses, without blocking the reactor's thread.
//
// Model: a Resolver belongs to a reactor. What can be answered without asking anybody (numeric addresses, localhost) is;
// the rest goes through a bounded queue to a few threads, each made when all others are busy, which call getaddrinfo()
// and post the answer back: so a name whose servers are silent does not hold up the others. A query is an endpoint of
// the reactor, named by its SlotId: it carries the deadline, and an answer for a query that is gone is dropped. Nobody
// waits for a getaddrinfo() that hangs: not a query, and not the destructor; its thread ends by itself when the call
// returns.
//
// Invariants: a query is answered exactly once, unless it is canceled or the reactor ends; never inside resolve().
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <levada/core/error.h>
#include <levada/core/slab.h>
#include <levada/net/reactor.h>
#include <levada/net/socket.h>

namespace levada::net {

// Orders addresses so that families alternate, beginning with that of the first and keeping the order inside each
// (RFC 8305 section 4): then a family that does not work costs one attempt at a time.
void interleave_families(std::vector<Address>& addresses);

// The addresses of a host that need no question: a numeric address, and for "localhost" and names below it the loopback
// addresses (RFC 6761 section 6.3), IPv4 first, as Address::ip has it. Empty for other names. `host` has no brackets.
std::vector<Address> known_addresses(std::string_view host, std::uint16_t port);

// What asks for a name, on any thread; it may take long.
using Lookup = Result<std::vector<Address>> (*)(const std::string& host, std::uint16_t port);

// Asks the system and waits for it, which may take many seconds: known_addresses(), else what getaddrinfo() says, at
// most `max_addresses`, interleaved. Any thread. Errors: not_found; timed_out when the name servers do not answer;
// no_memory, ...
inline constexpr std::size_t max_addresses = 32;
Result<std::vector<Address>> resolve_blocking(const std::string& host, std::uint16_t port);

// The same within `timeout_ms`, by a thread of its own that ends when `lookup` returns: timed_out at the deadline.
Result<std::vector<Address>> resolve_within(std::uint64_t timeout_ms, const std::string& host,
                                            std::uint16_t port, Lookup lookup = resolve_blocking);

// What a query found: addresses, at least one, or an error. Both live until the callback returns.
struct Resolution {
  Error error = {};
  std::span<const Address> addresses = {};
};

struct ResolverOptions {
  std::size_t max_queued = 256;      // names that wait for a thread; beyond it: Errc::would_block
  unsigned max_threads = 4;          // at least 1; so many names are asked for at once
  Lookup lookup = resolve_blocking;  // called on a thread of the resolver
};

// All of it on the reactor's thread.
class Resolver {
 public:
  using Done = void (*)(void* context, const Resolution& resolution);

  explicit Resolver(Reactor& reactor, ResolverOptions options = {})
      : reactor_(reactor), reactor_ref_(reactor.ref()), options_(options) {}
  Resolver(const Resolver&) = delete;
  Resolver& operator=(const Resolver&) = delete;
  // Before or after its reactor. Cancels what is under way.
  ~Resolver();

  // Looks for the addresses of `host` (without brackets, copied) and calls `done` in a later turn: with Errc::timed_out
  // after `timeout_ms`, 0 for no limit of its own, with no_memory when there can be no thread to look. Returns the query's
  // name, for cancel().
  SlotId resolve(std::string_view host, std::uint16_t port, std::uint32_t timeout_ms, Done done,
                 void* context);

  // `done` is not called any more. Does nothing for a query that was answered.
  void cancel(SlotId query);

 private:
  using Answer = Result<std::vector<Address>>;
  class Query;
  class Worker;

  static void deliver(Reactor& reactor, SlotId query, Answer& answer);
  static void post(const ReactorRef& reactor, SlotId query, Answer answer);

  Reactor& reactor_;
  ReactorRef reactor_ref_;
  ResolverOptions options_;
  std::shared_ptr<Worker> worker_;  // made when it is first needed; its threads hold it too
};

}  // namespace levada::net
