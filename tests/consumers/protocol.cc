// The protocol without I/O, without threads, without liburing.
#include <cstdio>
#include <cstring>
#include <string_view>

#include <levada/core/bytes.h>
#include <levada/ws/accept_key.h>
#include <levada/ws/mask.h>

using namespace levada;

int main() {
  const ws::AcceptKey accepted = ws::accept_key("dGhlIHNhbXBsZSBub25jZQ==");
  const std::string_view answer(accepted.data(), accepted.size());

  // RFC 6455 section 5.7: "Hello", masked with 37 fa 21 3d.
  const std::uint8_t key_bytes[] = {0x37, 0xfa, 0x21, 0x3d};
  std::uint8_t payload[] = {0x7f, 0x9f, 0x4d, 0x51, 0x58};
  ws::MaskKey key;
  std::memcpy(&key, key_bytes, sizeof key);
  ws::mask_in_place(payload, key);

  std::printf("%.*s %.*s\n", int(answer.size()), answer.data(), int(sizeof payload), to_text(payload).data());
  return answer == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" && to_text(payload) == "Hello" ? 0 : 1;
}
