// Close codes and the payload of a close frame (RFC 6455 sections 5.5.1 and 7.4).
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#include <levada/core/bytes.h>

namespace levada::ws {

// RFC 6455 section 7.4.1 and the registry of section 11.7. Any number from 3000 to 4999 may be cast to it.
enum class CloseCode : std::uint16_t {
  normal = 1000,
  going_away = 1001,
  protocol_error = 1002,
  unsupported_data = 1003,
  no_status = 1005,  // never on the wire: the close frame had no code
  abnormal = 1006,   // never on the wire: the connection ended without a close frame
  invalid_payload = 1007,
  policy_violation = 1008,
  message_too_big = 1009,
  missing_extension = 1010,
  internal_error = 1011,
  service_restart = 1012,
  try_again_later = 1013,
  bad_gateway = 1014,
  tls_failed = 1015,  // never on the wire
};

constexpr unsigned number(CloseCode code) {
  return static_cast<unsigned>(code);
}

// Whether the code may stand in a close frame: 1000-1003, 1007-1014 and 3000-4999.
constexpr bool is_valid_on_wire(CloseCode code) {
  const unsigned n = number(code);
  return (n >= 1000 && n <= 1003) || (n >= 1007 && n <= 1014) || (n >= 3000 && n <= 4999);
}

inline constexpr std::size_t max_close_reason_bytes = 123;

// What a close frame's payload says. `reason` is a view of the payload.
struct ClosePayload {
  CloseCode code = CloseCode::no_status;
  std::string_view reason;
};

// Reads a payload of 0 or at least 2 bytes; whether code and reason are valid is for the caller to check.
ClosePayload parse_close(Bytes payload);

// Writes code and reason to `out` (2 + reason.size() bytes); nothing for no_status. A reason over 123 bytes
// is cut at a character's end. Returns the bytes written.
std::size_t write_close(std::uint8_t* out, CloseCode code, std::string_view reason);

}  // namespace levada::ws
