// FrameTracer: is told of the frames whose headers a Decoder takes on this thread, in an engine that traces (trace.h).
// Not installed. Without LEVADA_TRACING there is none.
#pragma once

#include <cstddef>

#include <levada/ws/frame.h>

namespace levada::ws {

#ifdef LEVADA_TRACING

struct FrameTracer {
  void (*tell)(void* self, const FrameHeader& header);
  void* self;
  std::size_t told = 0;  // frames
};

inline thread_local FrameTracer* frame_tracer = nullptr;

inline void trace_frame(const FrameHeader& header) {
  if (frame_tracer == nullptr) return;
  frame_tracer->told++;
  frame_tracer->tell(frame_tracer->self, header);
}

#else

inline void trace_frame(const FrameHeader&) {}

#endif

}  // namespace levada::ws
