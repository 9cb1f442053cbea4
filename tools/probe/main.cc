// levada-probe: what levada finds on this machine, and what it makes of it.
#include <sys/resource.h>
#include <sys/utsname.h>
#include <unistd.h>
#include <cstdio>
#include <fstream>
#include <string>
#include <thread>
#include <utility>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include <levada/core/cpu.h>
#include <levada/net/io_uring.h>
#include <levada/net/reactor.h>
#include <levada/net/tls_context.h>
#include <levada/net/tls_library.h>
#include <levada/ws/service.h>

namespace {

using namespace levada;
using Json = nlohmann::ordered_json;

// null: the kernel has no such file, or does not let us read it.
Json read_number(const char* path) {
  std::ifstream file(path);
  std::int64_t number = 0;
  return file >> number ? Json(number) : Json();
}

// null: no limit.
Json limit(rlim_t value) {
  return value == RLIM_INFINITY ? Json() : Json(value);
}

Json resource_limit(__rlimit_resource resource) {
  rlimit limits{};
  getrlimit(resource, &limits);
  return {{"soft", limit(limits.rlim_cur)}, {"hard", limit(limits.rlim_max)}};
}

Json machine() {
  utsname name{};
  uname(&name);
  return {{"kernel", name.release},
          {"architecture", name.machine},
          {"cpus", std::thread::hardware_concurrency()},
          {"simd", to_string(best_simd_tier())}};
}

Json io_uring() {
  const net::IoUringAbilities abilities = net::io_uring_abilities();
  const std::pair<const char*, bool> list[] = {
      {"ring", abilities.ring},
      {"buffer_ring", abilities.buffer_ring},
      {"multishot", abilities.multishot},
      {"inline_sends", abilities.inline_sends},
      {"incremental", abilities.incremental},
  };
  Json found = Json::array(), missing = Json::array();
  for (const auto& [name, is_there] : list) (is_there ? found : missing).push_back(name);
  return {{"built_in", abilities.built_in},
          {"sufficient", abilities.sufficient()},
          {"found", found},
          {"missing", missing},
          {"error", abilities.error ? Json(abilities.error.message()) : Json()}};
}

// What a program gets that leaves the choice to levada (and to LEVADA_BACKEND).
Json backend() {
  auto reactor = net::Reactor::create();
  if (!reactor) return {{"chosen", nullptr}, {"why", reactor.error().message()}};
  net::Backend& chosen = (*reactor)->backend();
  const std::string& fallback = (*reactor)->fallback_reason();
  const char* const wanted = std::getenv("LEVADA_BACKEND");
  std::string why = "the kernel has all that it needs";
  if (wanted != nullptr && *wanted != '\0') why = std::string("LEVADA_BACKEND=") + wanted;
  if (!fallback.empty()) why = fallback;
  return {{"chosen", net::to_string(chosen.kind())}, {"why", why}, {"uses", chosen.describe()}};
}

Json tls() {
  const net::KtlsStatus& ktls = net::ktls_available();
  return {{"library", net::tls_library()}, {"ktls", ktls.available}, {"ktls_missing", ktls.reason}};
}

Json limits() {
  return {{"open_files", resource_limit(RLIMIT_NOFILE)},
          {"locked_memory_bytes", resource_limit(RLIMIT_MEMLOCK)},
          {"somaxconn", read_number("/proc/sys/net/core/somaxconn")},
          {"io_uring_disabled", read_number("/proc/sys/kernel/io_uring_disabled")},
          {"io_uring_group", read_number("/proc/sys/kernel/io_uring_group")}};
}

Json connection_state() {
  return {{"bytes", sizeof(ws::Connection)}, {"asserted_bytes", net::endpoint_slot_bytes}};
}

Json defaults() {
  const ws::ServiceOptions options;
  return {{"max_message_bytes", options.max_message_bytes},
          {"max_fragments", options.max_fragments},
          {"max_buffered_bytes", options.max_buffered_bytes},
          {"pause_above_bytes", options.pause_above_bytes},
          {"handshake_timeout_ms", options.handshake_timeout_ms},
          {"close_timeout_ms", options.close_timeout_ms},
          {"max_head_bytes", options.http.max_bytes},
          {"max_fields", options.http.max_fields}};
}

std::string text(const Json& value) {
  if (value.is_null()) return "unknown";
  if (value.is_string()) return value.get<std::string>();
  if (!value.is_array()) return value.dump();
  std::string joined;
  for (const Json& element : value) joined += (joined.empty() ? "" : ", ") + text(element);
  return joined.empty() ? "none" : joined;
}

void line(const std::string& name, const std::string& value) {
  std::printf("%s: %s\n", name.c_str(), value.c_str());
}

void print_limit(const char* name, const Json& both) {
  const auto one = [](const Json& value) { return value.is_null() ? std::string("unlimited") : text(value); };
  line(name, one(both["soft"]) + " (at most " + one(both["hard"]) + ")");
}

void print(const Json& report) {
  const Json& machine = report["machine"];
  line("kernel", text(machine["kernel"]) + " " + text(machine["architecture"]) + ", " +
                     text(machine["cpus"]) + " CPUs");
  line("SIMD", text(machine["simd"]));
  const Json& ring = report["io_uring"];
  line("io_uring found", text(ring["found"]));
  line("io_uring missing",
       text(ring["missing"]) + (ring["error"].is_null() ? "" : " (" + text(ring["error"]) + ")"));
  const Json& backend = report["backend"];
  line("backend", text(backend["chosen"]) + ", because: " + text(backend["why"]));
  if (backend.contains("uses")) line("backend uses", text(backend["uses"]));
  const Json& tls = report["tls"];
  line("TLS", text(tls["library"]).empty() ? "not built in" : text(tls["library"]));
  line("kTLS",
       tls["ktls"] == true ? "available, for what is sent" : "not available: " + text(tls["ktls_missing"]));
  const Json& limits = report["limits"];
  print_limit("open files", limits["open_files"]);
  print_limit("locked memory, bytes", limits["locked_memory_bytes"]);
  line("somaxconn", text(limits["somaxconn"]));
  line("io_uring_disabled", text(limits["io_uring_disabled"]));
  const Json& state = report["connection_state"];
  line("connection state",
       text(state["bytes"]) + " bytes (asserted <= " + text(state["asserted_bytes"]) + ")");
  for (const auto& [name, value] : report["defaults"].items()) line("default " + name, text(value));
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("Tells what levada finds on this machine.", "levada-probe");
  bool json = false;
  app.add_flag("--json", json, "print one JSON object");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }
  const Json report = {{"machine", machine()},  {"io_uring", io_uring()},
                       {"backend", backend()},  {"tls", tls()},
                       {"limits", limits()},    {"connection_state", connection_state()},
                       {"defaults", defaults()}};
  if (json) {
    std::printf("%s\n", report.dump(2).c_str());
  } else {
    print(report);
  }
  return 0;
}
