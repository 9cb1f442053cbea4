// permessage-deflate (RFC 7692): what two endpoints agree on in the opening handshake.
//
// Model: options in, text and an agreement out. A server answers the offers of a request with
// answer_deflate_offers(); a client offers deflate_offer() and checks the answer with check_deflate_answer().
// An agreement is written from our side: "own" is what we send, "peer" what we receive.
//
// An offer with a parameter that is unknown, repeated, out of range or more than we can do is declined, and the
// next one is looked at (section 5.1); text that is no list of extensions fails the handshake (RFC 6455
// section 9.1). A wrong answer fails the connection (sections 5.1 and 7.1).
//
// A window of 8 bits (256 bytes): zlib inflates with one but refuses to deflate a raw stream with one. We agree
// to it in both directions all the same, for zlib's window of 9 bits serves: its matches never reach further
// back than 512 - 262 = 250 bytes. A server should not ask its clients for 8, though: what they are built on may
// refuse; 9 costs 256 bytes more.
//
// Without zlib (deflate_available() is false) nothing is offered and no offer accepted. Pure functions; nothing
// allocates; any thread.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include <levada/ws/extension.h>

namespace levada::ws {

inline constexpr std::string_view deflate_extension = "permessage-deflate";
inline constexpr std::uint8_t min_window_bits = 8;  // a window is 2^bits bytes (section 7.1.2)
inline constexpr std::uint8_t max_window_bits = 15;

// Where the state between two messages of one direction is kept.
enum class DeflateContext : std::uint8_t {
  shared,     // nowhere: one context per reactor serves all connections, each message stands alone
  dedicated,  // in a context per connection: messages refer to those before (context takeover)
};

// The same for a server and a client.
struct DeflateOptions {
  bool enabled = false;

  // ---- What we send ----
  DeflateContext deflater = DeflateContext::shared;
  std::uint8_t window_bits = max_window_bits;  // at most; 8 to 15
  std::uint8_t level = 1;                      // 1 (fast) to 9 (small)
  std::uint8_t memory_level = 8;               // 1 to 9: 2^(memory_level + 9) bytes of a deflater
  std::size_t min_bytes = 128;                 // a shorter message is sent as it is
  // Let libdeflate compress whole messages where nothing is taken over: faster, but each then ends with a
  // final block (section 7.2.3.4), which every peer has to take and some (Boost.Beast) do not.
  bool final_blocks = false;

  // ---- What we receive ----
  DeflateContext inflater = DeflateContext::shared;
  std::uint8_t peer_window_bits = max_window_bits;  // at most; a client that cannot be told so is declined
  // Client: offers the same without peer_window_bits behind, for a server that cannot be told so either; it may then use
  // any window. Without it, such a server declines.
  bool offer_any_peer_window = false;
  // Inflated bytes for each compressed byte, beyond the first 64 KiB of a message; more is 1009. 0: no bound
  // but the format's own of 1032.
  std::uint32_t max_ratio = 0;
  std::size_t slice_bytes = 64 * 1024;  // inflated in one go, before others get their turn
};

// Whether all of it is in its range, as everything here and PreparedMessage expects. With options that are not, a Server
// does not start and a Service neither listens, adopts nor dials: Errc::invalid_argument.
bool is_valid(const DeflateOptions& options);

// Whether this library was built with zlib.
bool deflate_available();

// What was agreed on.
struct DeflateAgreement {
  bool own_takeover = false;
  bool peer_takeover = false;
  std::uint8_t own_window_bits = max_window_bits;
  std::uint8_t peer_window_bits = max_window_bits;

  bool operator==(const DeflateAgreement&) const = default;
};

// A value for Sec-WebSocket-Extensions, in its own memory; empty: no such field.
class ExtensionText {
 public:
  static constexpr std::size_t capacity =
      288;  // an offer with all parameters is 148 long, and there may be two

  std::string_view view() const { return {bytes_.data(), size_}; }
  void append(std::string_view text);
  void append_parameter(std::string_view name, unsigned value = 0);  // 0: without a value

 private:
  std::array<char, capacity> bytes_{};
  std::size_t size_ = 0;
};

enum class DeflateOutcome : std::uint8_t {
  none,    // no permessage-deflate on this connection
  agreed,  // the agreement holds from the first frame on
  failed,  // the handshake has to be failed: a server answers 400, a client closes the connection
};

struct DeflateNegotiation {
  DeflateOutcome outcome = DeflateOutcome::none;
  DeflateAgreement agreement = {};  // when agreed
  ExtensionText answer = {};        // server, when agreed: the field's value
  const char* reason = "";          // when failed: what is wrong; static storage
};

// Server: the first offer that can be accepted (section 7.1). Offers of other extensions are skipped.
DeflateNegotiation answer_deflate_offers(const ExtensionCursor& offers, const DeflateOptions& options);

// Client: the offer; empty when not enabled or not available.
ExtensionText deflate_offer(const DeflateOptions& options);

// Client: checks the answer to deflate_offer(options). Failed by text that is no list, a second
// permessage-deflate or one that was not offered, and a parameter that is unknown, repeated, missing where every
// offer asked for it, or larger than offered. Other extensions are skipped: check_upgrade_response() fails those
// that were not offered.
DeflateNegotiation check_deflate_answer(const ExtensionCursor& answer, const DeflateOptions& options);

}  // namespace levada::ws
