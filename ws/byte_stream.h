// ByteStream: the messages of a connection as one stream of bytes, for those who tunnel something through a
// WebSocket.
//
// Model: a helper that stands beside a handler, one for each connection. The handler hands it the payloads as
// they come, whole or in pieces; where a message begins or ends means nothing. read() takes bytes into the
// caller's memory, write() sends bytes as binary messages. Both sides are bounded: while the caller does not
// read, the peer is not read from either, and write() takes no more than the connection's queue may hold.
//
//   struct Tunnel {
//     void on_open(ws::Connection& conn) { conn.set_user_data(new ws::ByteStream(conn)); }
//     void on_fragment(ws::Connection& conn, ws::Opcode, Bytes piece, bool) { stream(conn).receive(piece); ... }
//     void on_drain(ws::Connection& conn) { ... stream(conn).write(rest) ... }
//     void on_close(ws::Connection& conn, const ws::CloseInfo&) { delete &stream(conn); }
//     static ws::ByteStream& stream(ws::Connection& conn) { return *static_cast<ws::ByteStream*>(conn.user_data()); }
//   };
//
// on_fragment instead of on_message is what keeps the memory small: no message is assembled. The limit on the
// length of a message (ServiceOptions::max_message_bytes) holds all the same.
//
// Invariants: bytes are read in the order in which they came; a stream without unread bytes holds no block.
#pragma once

#include <cstddef>
#include <vector>

#include <levada/core/block_pool.h>
#include <levada/core/bytes.h>
#include <levada/ws/connection.h>

namespace levada::ws {

struct ByteStreamOptions {
  // When this many bytes wait to be read, reading from the peer pauses; it goes on when half of them or fewer
  // are left. What had been received by then is still taken in: one receive's worth. In bytes.
  std::size_t max_unread_bytes = std::size_t{1} << 20;
  // Longest message that write() sends, in bytes; with its header it must fit
  // ServiceOptions::max_buffered_bytes.
  std::size_t max_message_bytes = std::size_t{64} << 10;
};

// The reactor's thread only. It may outlive its connection, to be read to the end, but not the reactor.
class ByteStream {
 public:
  explicit ByteStream(Connection& connection, ByteStreamOptions options = {});
  ByteStream(const ByteStream&) = delete;
  ByteStream& operator=(const ByteStream&) = delete;
  ~ByteStream();

  // ---- From the handler ----

  // Takes what on_message or on_fragment was given: a copy.
  void receive(Bytes piece) {
    receive(piece, [] {});
  }
  // The same without the copy of what `use()` reads: the bytes can be read at once, and only what is left is
  // copied.
  template <class Use>
  void receive(Bytes piece, Use&& use) {
    shown_ = piece;
    use();
    keep_rest();
  }

  // ---- From the user ----

  // Moves up to `out.size()` bytes to `out`, and returns how many; 0 when nothing is there (yet).
  std::size_t read(MutableBytes out);

  // Bytes that read() would find.
  std::size_t unread() const { return kept_ + shown_.size(); }

  // Sends bytes as binary messages and returns how many were taken. Fewer than all: the connection's queue is
  // full, try again from on_drain; or the connection is not open. None where ServiceOptions::output_policy drops
  // messages: bytes would be missing in the middle.
  std::size_t write(Bytes bytes);

  // Whether the connection is there and open; false from on_close on.
  bool is_open() const;

  // Ends the stream after what was written, with the close handshake.
  void close(CloseCode code = CloseCode::normal);

 private:
  static constexpr std::size_t block_bytes = std::size_t{32} << 10;

  void keep_rest();
  std::size_t take_kept(MutableBytes out);
  std::size_t take_shown(MutableBytes out);
  void resume_if_low();

  Handle connection_;
  BlockPool& pool_;
  ByteStreamOptions options_;
  Bytes shown_;                 // of a receive() that is under way: behind all that is kept
  std::vector<Block*> blocks_;  // the bytes kept: from `begin_` in the first to `end_` in the last
  std::size_t begin_ = 0;
  std::size_t end_ = 0;
  std::size_t kept_ = 0;
  bool paused_ = false;
};

}  // namespace levada::ws
