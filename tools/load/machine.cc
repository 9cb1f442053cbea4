#include <levada/tools/load/machine.h>

#include <sched.h>
#include <sys/utsname.h>
#include <algorithm>
#include <ctime>
#include <fstream>

namespace levada::load {
namespace {

std::string first_line(const std::string& path) {
  std::string line;
  std::getline(std::ifstream(path), line);
  return line;
}

std::string cpu_name() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    const std::size_t colon = line.find(": ");
    if (line.starts_with("model name") && colon != std::string::npos) return line.substr(colon + 2);
  }
  return {};
}

}  // namespace

Machine this_machine() {
  Machine machine;
  const std::time_t now = std::time(nullptr);
  std::tm utc{};
  char text[32] = "";
  if (gmtime_r(&now, &utc) != nullptr) std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &utc);
  machine.time = text;
  utsname name{};
  if (uname(&name) == 0) machine.kernel = std::string(name.sysname) + " " + name.release;
  machine.cpu = cpu_name();
  cpu_set_t allowed;
  CPU_ZERO(&allowed);
  if (sched_getaffinity(0, sizeof allowed, &allowed) == 0) machine.cpus = CPU_COUNT(&allowed);
  for (const char* key : {"net.core.somaxconn", "net.ipv4.ip_local_port_range", "net.ipv4.tcp_tw_reuse",
                          "net.ipv4.tcp_max_syn_backlog", "fs.file-max"}) {
    std::string path = key;
    std::replace(path.begin(), path.end(), '.', '/');
    machine.sysctls[key] = first_line("/proc/sys/" + path);
  }
  return machine;
}

}  // namespace levada::load
