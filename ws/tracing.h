// How the engine tells what trace.h describes. Not installed: LEVADA_TRACING is set for the engine's own sources only,
// so that no header that a user includes depends on it. Without it every call here is an empty inline function.
#pragma once

#include <cstddef>
#include <cstdint>

#include <levada/ws/connection.h>
#include <levada/ws/decoder.h>
#include <levada/ws/frame.h>
#include <levada/ws/frame_tracer.h>
#include <levada/ws/service.h>
#include <levada/ws/trace.h>

namespace levada::ws {

#ifdef LEVADA_TRACING

inline void Connection::trace(TraceKind kind, std::uint64_t value, Opcode opcode) {
  const HandlerTable& table = service_->table_;
  if (table.trace != nullptr) table.trace(service_->handler_, *this, {kind, opcode, value});
}

// What the decoder says next. A short message that is there as a whole takes a way without frames: then it is the frame.
inline Decoded Connection::decode(Decoder& decoder, MutableBytes& in) {
  const bool idle = decoder.idle();
  FrameTracer tracer{[](void* self, const FrameHeader& header) {
                       static_cast<Connection*>(self)->trace(TraceKind::frame_received, header.length,
                                                             header.opcode);
                     },
                     this};
  frame_tracer = &tracer;
  const Decoded decoded = decoder.next(in);
  frame_tracer = nullptr;
  const bool message = decoded.event == DecoderEvent::message || decoded.event == DecoderEvent::fragment;
  if (idle && tracer.told == 0 && message)
    trace(TraceKind::frame_received, decoded.payload.size(), decoded.opcode);
  return decoded;
}

#else

inline void Connection::trace(TraceKind, std::uint64_t, Opcode) {}

inline Decoded Connection::decode(Decoder& decoder, MutableBytes& in) {
  return decoder.next(in);
}

#endif

}  // namespace levada::ws
