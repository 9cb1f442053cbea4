#include <levada/ws/server.h>
using namespace levada;

struct Echo {
  void on_message(ws::Connection& conn, ws::Opcode opcode, Bytes payload) { conn.send(opcode, payload); }
};

int main() { return ws::serve({.port = 9001, .threads = 4}, [](int) { return Echo{}; }); }
