#include <levada/ws/prepared.h>

#include <cstdlib>
#include <new>

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
  const std::size_t size = frame_size(payload.size(), false);
  void* memory = std::malloc(sizeof(Frame) + size);
  if (memory == nullptr) std::abort();  // as std::bad_alloc would
  owner_ = OwnerRef::adopt(::new (memory) Frame);
  auto* bytes = static_cast<std::uint8_t*>(memory) + sizeof(Frame);
  write_frame(bytes, opcode, payload);
  frame_ = {bytes, size};
}

}  // namespace levada::ws
