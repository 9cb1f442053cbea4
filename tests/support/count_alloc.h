// Counts allocations of the calling thread, by taking the place of malloc and its kin in the program.
// The C++ operators stand on them. Not for programs built with a sanitizer, which does the same.
#pragma once

#include <cstdint>

namespace levada::test {

// Calls of malloc, calloc, realloc, aligned_alloc, posix_memalign and memalign by this thread so far, and
// with them of every operator new.
std::uint64_t allocations();

// What those calls asked for, in bytes; of realloc the whole new size.
std::uint64_t allocated_bytes();

// Calls of free by this thread with something to free, and with them of every operator delete.
std::uint64_t releases();

}  // namespace levada::test
