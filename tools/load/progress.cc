#include <levada/tools/load/progress.h>

#include <unistd.h>
#include <cstdio>

#include <levada/tools/load/units.h>

namespace levada::load {

Progress::Progress(const Options& options)
    : connections_(options.connections),
      silent_(options.quiet || !options.progress),
      terminal_(isatty(STDERR_FILENO) == 1) {}

Progress::~Progress() {
  if (terminal_ && !silent_) std::fputs("\r\033[K", stderr);
}

void Progress::second(const Second& second) {
  if (silent_) return;
  std::string line = fixed(second.at_s, 0) + " s  " + grouped(second.messages) + " msg/s  ";
  if (second.response.count() > 0) {
    line += "p50 " + duration_text(second.response.percentile(50)) + "  p99 " +
            duration_text(second.response.percentile(99)) + "  ";
  }
  show(line + plural(second.open, "connection") + "  " + plural(second.errors, "error"));
}

void Progress::connecting(std::uint32_t open) {
  if (!silent_) show("connecting  " + grouped(open) + " of " + plural(connections_, "connection"));
}

void Progress::show(std::string line) {
  if (!label_.empty()) line.insert(0, label_ + "  ");
  if (terminal_) {
    std::fprintf(stderr, "\r%s\033[K", line.c_str());
  } else {
    std::fprintf(stderr, "%s\n", line.c_str());
  }
  std::fflush(stderr);
}

}  // namespace levada::load
