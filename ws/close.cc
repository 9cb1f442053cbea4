#include <levada/ws/close.h>

#include <cstring>

namespace levada::ws {

ClosePayload parse_close(Bytes payload) {
  if (payload.size() < 2) return {};
  const auto code = static_cast<CloseCode>((payload[0] << 8) | payload[1]);
  return {code, to_text(payload.subspan(2))};
}

std::size_t write_close(std::uint8_t* out, CloseCode code, std::string_view reason) {
  if (code == CloseCode::no_status) return 0;
  if (reason.size() > max_close_reason_bytes) {
    std::size_t size = max_close_reason_bytes;
    while (size > 0 && (static_cast<unsigned char>(reason[size]) & 0xC0) == 0x80) size--;
    reason = reason.substr(0, size);
  }
  out[0] = static_cast<std::uint8_t>(number(code) >> 8);
  out[1] = static_cast<std::uint8_t>(number(code));
  if (!reason.empty()) std::memcpy(out + 2, reason.data(), reason.size());
  return 2 + reason.size();
}

}  // namespace levada::ws
