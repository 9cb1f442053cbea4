// Counts what the calling thread copies with memcpy and memmove, and keeps where it received, by taking the
// place of these functions in the test program. Not for programs built with a sanitizer, which does the same.
#pragma once

#include <cstddef>
#include <vector>

#include <levada/core/bytes.h>

namespace levada::test {

// Bytes copied by this thread so far. Copies of a few bytes that the compiler made part of the code are not
// seen.
std::size_t copied_bytes();

// Where recv() has put bytes since the list was taken last, on this thread.
std::vector<Bytes> take_receives();

}  // namespace levada::test
