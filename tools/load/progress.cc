#include <levada/tools/load/progress.h>

#include <unistd.h>
#include <cstdio>

#include <levada/tools/load/units.h>

namespace levada::load {

Progress::Progress(const Options& options)
    : silent_(options.quiet || !options.progress), terminal_(isatty(STDERR_FILENO) == 1) {}

Progress::~Progress() {
  if (terminal_ && !silent_) std::fputs("\r\033[K", stderr);
}

void Progress::second(const Second& second) {
  if (silent_) return;
  std::string line = label_ + (label_.empty() ? "" : "  ") + fixed(second.at_s, 0) + " s  " +
                     grouped(second.messages) + " msg/s  ";
  if (second.response.count() > 0) {
    line += "p50 " + duration_text(second.response.percentile(50)) + "  p99 " +
            duration_text(second.response.percentile(99)) + "  ";
  }
  line += plural(second.open, "connection") + "  " + plural(second.errors, "error");
  if (terminal_) {
    std::fprintf(stderr, "\r%s\033[K", line.c_str());
  } else {
    std::fprintf(stderr, "%s\n", line.c_str());
  }
  std::fflush(stderr);
}

}  // namespace levada::load
