// What is worked on: a browser's handshake, and text in four scripts.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

namespace levada::bench {

// As Chrome sends it to a server on this machine: 12 fields, 504 bytes.
inline constexpr std::string_view browser_request =
    "GET /chat/room?user=42 HTTP/1.1\r\n"
    "Host: localhost:9001\r\n"
    "Connection: Upgrade\r\n"
    "Pragma: no-cache\r\n"
    "Cache-Control: no-cache\r\n"
    "User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0.0.0 "
    "Safari/537.36\r\n"
    "Upgrade: websocket\r\n"
    "Origin: http://localhost:9001\r\n"
    "Sec-WebSocket-Version: 13\r\n"
    "Accept-Encoding: gzip, deflate, br, zstd\r\n"
    "Accept-Language: en-US,en;q=0.9\r\n"
    "Sec-WebSocket-Key: x3JJHMbDL1EzLkh9GBhXDw==\r\n"
    "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n"
    "\r\n";

struct Script {
  const char* name;
  std::string_view sample;
};

inline constexpr Script scripts[] = {
    {"ascii", "The levada follows the contour of the mountain, level and narrow. "},
    {"latin1", "A água não pára: vai à serra, desce ao mar; só é preciso não a entornar. "},
    {"cjk", "水路は山の等高線に沿って静かに流れ、何も持ち上げず、何もこぼさない。"},
    {"emoji", "💧🏔🌊🛶🌿🐟🪨🌧"},
};

// `size` bytes of the sample over and over; what is left at the end and would cut a code point is filled with
// ASCII.
inline std::vector<std::uint8_t> text_of(const Script& script, std::size_t size) {
  std::vector<std::uint8_t> text;
  while (text.size() < size) text.insert(text.end(), script.sample.begin(), script.sample.end());
  std::size_t end = size;
  while (end > 0 && end < text.size() && (text[end] & 0xc0) == 0x80) --end;
  text.resize(end);
  text.resize(size, '.');
  return text;
}

}  // namespace levada::bench
