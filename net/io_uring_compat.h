// What liburing 2.3's headers lack. Private to the io_uring backend.
#pragma once

#include <liburing.h>
#include <cstdint>

namespace levada::net {

// struct io_uring_buf_reg.flags (called `pad` in older headers): consume buffers incrementally. Since
// kernel 6.12.
inline constexpr std::uint16_t buffer_ring_incremental = 2;
// Completion flag: the buffer of this completion has room left and will be used again.
inline constexpr std::uint32_t completion_buffer_more = 1u << 4;

// A ring of `entries` (a power of two) provided buffers as group `group`, in memory that the caller frees
// with free_buffer_ring(). nullptr and a negative errno in `result` if the kernel refuses.
io_uring_buf_ring* make_buffer_ring(io_uring& ring, unsigned entries, std::uint16_t group, bool incremental,
                                    int& result);
void free_buffer_ring(io_uring& ring, io_uring_buf_ring* buffers, unsigned entries, std::uint16_t group);

// A ring as the backend wants it, not enabled yet: the thread that enables it owns it. 0 or a negative errno.
int init_ring(io_uring& ring, unsigned submissions, unsigned completions);
// Finds out what io_uring_abilities() remembers.
struct IoUringAbilities;
IoUringAbilities probe_io_uring();

// liburing 2.3 declares io_uring_enable_rings() and does not export it.
void enable_ring(io_uring& ring);

}  // namespace levada::net
