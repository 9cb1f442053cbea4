// levada-load: loads a WebSocket echo server, checks every echo, and tells how fast it was.
#include <cstdio>
#include <string>

#include <levada/tools/load/options.h>
#include <levada/tools/load/report.h>
#include <levada/tools/load/run.h>

namespace {

using namespace levada::load;

bool write_file(const std::string& path, const std::string& text) {
  std::FILE* file = std::fopen(path.c_str(), "w");
  if (file == nullptr) return false;
  const bool written = std::fputs(text.c_str(), file) >= 0;
  return std::fclose(file) == 0 && written;
}

// Says on stderr what went wrong. Returns the exit status.
int judge(const Result& result) {
  for (const auto& [kind, times] : result.errors) {
    const auto example = result.examples.find(kind);
    std::fprintf(stderr, "levada-load: %s: %llu%s%s\n", kind.c_str(), static_cast<unsigned long long>(times),
                 example == result.examples.end() ? "" : ", first: ",
                 example == result.examples.end() ? "" : example->second.c_str());
  }
  if (result.verified == 0) std::fprintf(stderr, "levada-load: nothing was echoed\n");
  return result.errors.empty() && result.verified > 0 ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  Options options;
  int status = 0;
  if (!parse_options(argc, argv, options, status)) return status;
  Result result;
  std::string why;
  if (!run(options, result, why)) {
    std::fprintf(stderr, "levada-load: %s\n", why.c_str());
    return 1;
  }
  if (options.json != "-") std::fputs(text_report(options, result).c_str(), stdout);
  if (options.json == "-") std::fputs(json_report(options, result).c_str(), stdout);
  std::fflush(stdout);
  status = judge(result);
  if (options.json && options.json != "-" && !write_file(*options.json, json_report(options, result))) {
    std::fprintf(stderr, "levada-load: cannot write %s\n", options.json->c_str());
    return 1;
  }
  return status;
}
