// The io_uring backend.
//
// Model: one ring for a reactor, driven with one io_uring_enter a turn (DEFER_TASKRUN, SINGLE_ISSUER).
//
// Listeners accept and streams receive by one multishot request each; bytes arrive in a ring of provided buffers
// (io_uring_buffers.h) that are consumed incrementally where the kernel can, else one message each.
//
// A send never waits in the kernel. With MSG_DONTWAIT | MSG_WAITALL it ends inside the enter that submits it: in full,
// without a completion (IOSQE_CQE_SKIP_SUCCESS), or with one that says how far it came. So memory is never held by the
// kernel after the enter, sends of one stream cannot overtake each other, and the turn's memory can be used again at
// once. The rest of a partial send waits for a poll for room.
//
// Streams whose messages are large are only polled for, and received from by system calls, as on epoll: directly into a
// message's memory, or into one buffer for all of them (shared_buffer.h). Many of them received in one enter would
// push each other out of the cache before the first is handled.
//
// Invariants: a completion is matched by slot and generation, so a late one for a closed endpoint does nothing but give
// its buffer back; a stream has at most one receive request.
#pragma once

#include <memory>
#include <string>

#include <levada/core/error.h>
#include <levada/net/backend.h>

namespace levada::net {

// What this kernel can do, found out by trying, and what of it is missing.
struct IoUringAbilities {
  bool built_in = false;      // levada was built with liburing
  bool ring = false;          // a ring with DEFER_TASKRUN and SINGLE_ISSUER can be made
  bool buffer_ring = false;   // provided buffer rings
  bool multishot = false;     // multishot receive into them
  bool inline_sends = false;  // sends end inside the submitting enter, as the model needs
  bool incremental = false;   // buffers consumed incrementally; the only one that can be done without
  Error error;                // of the first step that failed

  bool sufficient() const { return ring && buffer_ring && multishot && inline_sends; }
};

// Tries it and remembers, unless descriptors or memory were lacking: then the next call tries again. Any thread.
IoUringAbilities io_uring_abilities();

// nullptr, and the reason in `error`, when a ring cannot be made after all, for want of memory or descriptors; needs
// sufficient() abilities.
std::unique_ptr<Backend> make_io_uring_backend(Reactor& reactor, Error& error);

}  // namespace levada::net
