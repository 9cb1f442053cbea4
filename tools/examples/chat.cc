// Chat rooms: chat [port [threads]]. Who connects to /rooms/NAME hears what the others in that room say.
//
// Every reactor has a Chat of its own, so its handlers need no lock; the list of who is in which room is what
// they share. A line is encoded once and sent to members on any thread by their handles.
#include <cstdio>
#include <cstdlib>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include <levada/ws/server.h>

using namespace levada;

struct Room {
  std::mutex mutex;
  std::vector<ws::Handle> members;

  void join(ws::Handle member) {
    const std::lock_guard lock(mutex);
    members.push_back(member);
  }
  void leave(ws::Handle member) {
    const std::lock_guard lock(mutex);
    std::erase(members, member);
  }
  void say(std::string_view line) {
    const ws::PreparedMessage message(ws::Opcode::text, to_bytes(line));
    const std::lock_guard lock(mutex);
    for (const ws::Handle& member : members) member.send(message);  // one that is gone by now is no harm
  }
};

// Rooms stay when the last member leaves, so a pointer to one is good for ever.
class Rooms {
 public:
  // nullptr when there is no room for another room.
  Room* find(std::string_view name) {
    const std::lock_guard lock(mutex_);
    const std::string key(name);
    if (rooms_.size() == most && !rooms_.contains(key)) return nullptr;
    return &rooms_[key];
  }

 private:
  static constexpr std::size_t most = 1000;
  std::mutex mutex_;
  std::map<std::string, Room> rooms_;
};

struct Chat {
  void on_upgrade(ws::Upgrade& upgrade) {
    Room* const room = rooms.find(upgrade.params().find("room"));
    if (room == nullptr) return upgrade.reject(503, "too many rooms\n");
    upgrade.set_user_data(room);
  }
  void on_open(ws::Connection& conn) { room(conn).join(conn.handle()); }
  void on_message(ws::Connection& conn, ws::Opcode opcode, Bytes payload) {
    if (opcode != ws::Opcode::text) return conn.close(ws::CloseCode::unsupported_data, "text only");
    room(conn).say(to_text(payload));
  }
  void on_close(ws::Connection& conn, const ws::CloseInfo&) { room(conn).leave(conn.handle()); }

  static Room& room(ws::Connection& conn) { return *static_cast<Room*>(conn.user_data()); }

  Rooms& rooms;
};

int main(int count, char** arguments) {
  const auto port = static_cast<std::uint16_t>(count > 1 ? std::atoi(arguments[1]) : 0);
  Rooms rooms;
  ws::Server server({.port = port, .threads = count > 2 ? std::atoi(arguments[2]) : 2});
  server.route("/rooms/:room", [&rooms](int) { return Chat{rooms}; });
  server.stop_on_signals(5'000);
  if (const Error error = server.listen()) return ws::report_failure(error);
  std::printf("listening %s\n", server.url().c_str());
  std::fflush(stdout);
  if (const Error error = server.run()) return ws::report_failure(error);
}
