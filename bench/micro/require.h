// What is measured has to be right.
#pragma once

#include <cstdio>
#include <cstdlib>

namespace levada::bench {

// Ends the program unless `condition` holds. Each file has its own, for a function of one file costs the loops that
// bench/gate counts fewer instructions than one that files share.
[[maybe_unused]] static void require(bool condition) {
  if (condition) return;
  std::fputs("a benchmark's work went wrong\n", stderr);
  std::abort();
}

}  // namespace levada::bench
