// Client: one of a worker's connections, and what is remembered when it comes and goes.
#pragma once

#include <cmath>
#include <cstdint>
#include <utility>

#include <levada/tools/load/ledger.h>
#include <levada/tools/load/schedule.h>
#include <levada/tools/load/shaper.h>
#include <levada/ws/connection.h>

namespace levada::load {

enum class Character : std::uint8_t {
  steady,
  slow,     // reads for a moment, ten times a second
  churner,  // closes after some messages, and connects again
};

// Shares of the population, spread evenly over the numbers: every n-th is slow, and of the others every m-th a churner.
inline Character character_of(std::uint32_t number, double slow_share, double churn_share) {
  // How many of the first `count` a share is; what a decimal fraction lacks in binary is no whole one.
  const auto part = [](double count, double share) { return std::floor(count * share + 1e-6); };
  if (part(number + 1.0, slow_share) > part(number, slow_share)) return Character::slow;
  const double others_before = number - part(number, slow_share);
  const double churners = slow_share < 1 ? churn_share / (1 - slow_share) : 0;
  return part(others_before + 1, churners) > part(others_before, churners) ? Character::churner
                                                                           : Character::steady;
}

struct Client {
  Client(const Payloads& payloads, std::uint32_t number, std::uint32_t to, unsigned depth, Character is)
      : ledger(payloads, number, depth), target(to), character(is) {}

  std::uint32_t number() const { return ledger.connection(); }

  Ledger ledger;
  ws::Connection* connection = nullptr;
  Timetable timetable;
  Trickle trickle;
  Pings pings;
  std::uint64_t dialed_ns = 0;
  std::uint64_t connected_ns = 0;
  std::uint64_t secured_ns = 0;
  std::uint64_t begun = 0;     // messages sent on the present connection
  std::uint64_t answered = 0;  // of these
  std::uint32_t target;        // its number
  std::uint32_t address = 0;   // of its target, by which it is connected
  Character character;
  bool known = false;     // was open before
  bool tries_on = false;  // the next address, in the same attempt
  bool checked = false;   // hold: its last echo was asked for
};

}  // namespace levada::load
