// Remote calls in JSON: json [port]. {"id": 1, "call": "add", "with": [2, 3]} is answered {"id": 1, "result":
// 5}.
#include <cstdio>
#include <cstdlib>
#include <map>
#include <string>

#include <nlohmann/json.hpp>

#include <levada/ws/server.h>

using namespace levada;
using Json = nlohmann::json;

Json add(const Json& with) {
  double sum = 0;
  for (const Json& value : with) sum += value.is_number() ? value.get<double>() : 0;
  return sum;
}
Json echo(const Json& with) {
  return with;
}
Json size(const Json& with) {
  return with.size();
}

const std::map<std::string, Json (*)(const Json&), std::less<>> calls = {
    {"add", add}, {"echo", echo}, {"size", size}};

Json answer(const Json& request) {
  const Json id = request.contains("id") ? request["id"] : Json();
  const auto name = request.find("call");
  if (name == request.end() || !name->is_string()) return {{"id", id}, {"error", "no call"}};
  const auto call = calls.find(name->get_ref<const std::string&>());
  if (call == calls.end()) return {{"id", id}, {"error", "unknown call"}};
  return {{"id", id}, {"result", call->second(request.contains("with") ? request["with"] : Json())}};
}

struct Rpc {
  void on_message(ws::Connection& conn, ws::Opcode opcode, Bytes payload) {
    if (opcode != ws::Opcode::text) return conn.close(ws::CloseCode::unsupported_data, "text only");
    // Parsed where it was received; without exceptions.
    const Json request = Json::parse(payload.begin(), payload.end(), nullptr, false);
    if (!request.is_object()) return conn.close(ws::CloseCode::invalid_payload, "not a JSON object");
    conn.send_text(answer(request).dump());
  }
};

int main(int count, char** arguments) {
  const auto port = static_cast<std::uint16_t>(count > 1 ? std::atoi(arguments[1]) : 0);
  ws::Server server({.port = port, .service = {.max_message_bytes = std::uint64_t{1} << 20}});
  server.route("", [](int) { return Rpc{}; });
  server.stop_on_signals(5'000);
  if (const Error error = server.listen()) return ws::report_failure(error);
  std::printf("listening %s\n", server.url().c_str());
  std::fflush(stdout);
  if (const Error error = server.run()) return ws::report_failure(error);
}
