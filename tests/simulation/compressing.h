// Compressing: permessage-deflate as the peer of one connection does it. Its own messages take nothing over, so one
// deflater serves all peers; what the engine sends is inflated with all that came before, which fits both agreements.
#pragma once

#include <string>
#include <string_view>

#include <levada/core/block_pool.h>
#include <levada/core/bytes.h>
#include <levada/ws/deflate.h>
#include <levada/ws/inflate.h>

namespace levada::ws::test {

inline std::string compress(Deflater& deflater, std::string_view text) {
  std::string out(Deflater::bound(text.size()), '\0');
  out.resize(
      deflater.compress(to_bytes(text), true, {reinterpret_cast<std::uint8_t*>(out.data()), out.size()}));
  return out;
}

class PeerInflater {
 public:
  explicit PeerInflater(BlockPool& blocks)
      : inflater_({.takeover = true, .max_message_bytes = std::uint64_t{1} << 20, .slice_bytes = 1 << 20},
                  blocks) {}

  // A message that was compressed; "?" if it cannot be inflated.
  std::string inflate(std::string_view wire) {
    Bytes in = to_bytes(wire);
    for (;;) {
      const Inflated out = inflater_.next(in, true);
      if (out.event == InflateEvent::more) continue;
      if (out.event != InflateEvent::message) return "?";
      std::string text(to_text(out.payload));
      inflater_.release();
      return text;
    }
  }

 private:
  Inflater inflater_;
};

}  // namespace levada::ws::test
