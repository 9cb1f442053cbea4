#include <levada/ws/prepared.h>

#include <cstdlib>
#include <new>
#include <vector>

#include <levada/ws/deflate.h>
#include <levada/ws/encoder.h>

namespace levada::ws {
namespace {

// The reference count lies in front of the bytes.
struct Frame : Owner {
  Frame() : Owner(&Frame::free_frame) {}
  static void free_frame(Owner* owner) {
    auto* frame = static_cast<Frame*>(owner);
    frame->~Frame();
    std::free(frame);
  }
};

}  // namespace

PreparedMessage::PreparedMessage(Opcode opcode, Bytes payload) {
  encode(opcode, payload, {});
}

PreparedMessage::PreparedMessage(Opcode opcode, Bytes payload, const DeflateOptions& deflate) {
  std::vector<std::uint8_t> compressed;
  if (deflate_available() && !is_control(opcode) && is_valid(deflate)) {
    BlockPool blocks(0);
    Deflater deflater({.window_bits = deflate.window_bits,
                       .level = deflate.level,
                       .memory_level = deflate.memory_level,
                       .final_blocks = deflate.final_blocks},
                      blocks);
    compressed.resize(Deflater::bound(payload.size()));
    compressed.resize(deflater.compress(payload, true, compressed));
    if (compressed.size() >= payload.size()) compressed.clear();
    window_bits_ = deflate.window_bits;
  }
  encode(opcode, payload, compressed);
}

void PreparedMessage::encode(Opcode opcode, Bytes payload, Bytes compressed) {
  const std::size_t size = frame_size(payload.size(), false);
  const std::size_t compressed_size = compressed.empty() ? 0 : frame_size(compressed.size(), false);
  void* memory = std::malloc(sizeof(Frame) + size + compressed_size);
  if (memory == nullptr) std::abort();  // as std::bad_alloc would
  owner_ = OwnerRef::adopt(::new (memory) Frame);
  auto* bytes = static_cast<std::uint8_t*>(memory) + sizeof(Frame);
  write_frame(bytes, opcode, payload);
  frame_ = {bytes, size};
  if (compressed.empty()) return;
  write_frame(bytes + size, opcode, compressed, true, deflate_rsv);
  compressed_ = {bytes + size, compressed_size};
}

}  // namespace levada::ws
