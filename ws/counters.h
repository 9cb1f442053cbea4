// Counters of a service: what became of its connections and messages. Written on its reactor's thread, read on any.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include <levada/core/counter.h>
#include <levada/net/counters.h>
#include <levada/ws/close.h>

namespace levada::ws {

struct Counters {
  Counter opened;
  Counter closed;    // on_close was due: one for each that was opened
  Counter rejected;  // server: handshakes answered with a status of 300 or more
  Counter messages_received;
  Counter payload_bytes_received;  // of those messages
  Counter deflate_in_bytes;        // of messages that were sent compressed, before
  Counter deflate_out_bytes;       // and after
  Counter messages_sent;           // queued: text, binary and their fragments
  Counter pings_sent;              // by the keepalive
  Counter sends_refused;           // SendStatus::full
  Counter messages_dropped;        // by OutputPolicy
  Counter controls_dropped;        // pings and pongs for which there was no room
  Counter accept_pauses;           // because of ServiceOptions::max_connections
  Counter pauses;                  // of reading, because the peer did not take what was queued
  Counter violations;              // connections failed because the peer broke a rule or a bound

  Counter control_floods;     // connections failed for max_controls_per_s; violations, too
  Counter slow_peers_closed;  // by OutputPolicy::close

  // Connections that a time limit ended. The two of messages are violations, too.
  Counter message_timeouts;
  Counter rates_too_low;
  Counter handshake_timeouts;
  Counter close_timeouts;
  Counter idle_timeouts;
  Counter write_timeouts;
  Counter lifetimes_over;
  // Connections that the memory budget ended.
  Counter shed;

  // on_close by code: 1000 to 1015, and all others in the last.
  static constexpr std::size_t codes = 17;
  std::array<Counter, codes> closed_by_code;
  static constexpr std::size_t index_of(CloseCode code) {
    const unsigned n = number(code);
    return n >= 1000 && n < 1000 + codes - 1 ? n - 1000 : codes - 1;
  }

  net::LatencyHistogram rtt;  // of the keepalive's pings
};

}  // namespace levada::ws
