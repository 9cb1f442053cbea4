// What the limit servers share: the wire format of a WebSocket echo, and nothing else.
//
// A limit server is the least code that answers the same bytes with the same system calls as the engine. It
// trusts its client: frames are masked, whole, and at most `max_message` long; anything else ends the
// connection.
//
// An echo is framed in the bytes of its request. The reply's header is 4 bytes shorter (it has no mask key),
// so a frame on its own is unmasked where it lies; each further frame of a batch moves 4 bytes more to the
// front, which the unmasking pass does for free:
//
//   request  |h|key |payload..........|h|key |payload..........|
//   reply         |h|payload..........|h|payload..........|
#pragma once

#include <arpa/inet.h>
#include <immintrin.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <strings.h>
#include <sys/socket.h>

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <string_view>

namespace limit {

inline constexpr std::size_t max_message = 16 << 20;
inline constexpr std::size_t max_header = 14;  // 2 + 8 + 4

enum Opcode : std::uint8_t { op_text = 1, op_binary = 2, op_close = 8, op_ping = 9, op_pong = 10 };

[[noreturn]] inline void die(const char* what) {
  std::perror(what);
  std::exit(1);
}

// ---- handshake ----

inline void sha1_block(std::uint32_t h[5], const std::uint8_t* p) {
  auto rol = [](std::uint32_t x, int n) { return (x << n) | (x >> (32 - n)); };
  std::uint32_t w[80];
  for (int i = 0; i < 16; i++) {
    std::uint32_t word;
    std::memcpy(&word, p + 4 * i, 4);
    w[i] = __builtin_bswap32(word);
  }
  for (int i = 16; i < 80; i++) w[i] = rol(w[i - 3] ^ w[i - 8] ^ w[i - 14] ^ w[i - 16], 1);
  std::uint32_t a = h[0], b = h[1], c = h[2], d = h[3], e = h[4];
  for (int i = 0; i < 80; i++) {
    std::uint32_t f = i < 20   ? (b & c) | (~b & d)
                      : i < 40 ? b ^ c ^ d
                      : i < 60 ? (b & c) | (b & d) | (c & d)
                               : b ^ c ^ d;
    std::uint32_t k = i < 20 ? 0x5A827999 : i < 40 ? 0x6ED9EBA1 : i < 60 ? 0x8F1BBCDC : 0xCA62C1D6;
    std::uint32_t t = rol(a, 5) + f + e + k + w[i];
    e = d, d = c, c = rol(b, 30), b = a, a = t;
  }
  h[0] += a, h[1] += b, h[2] += c, h[3] += d, h[4] += e;
}

// RFC 6455, 4.2.2: the base64 of the SHA-1 of the 24-byte key followed by the GUID.
inline std::string accept_key(std::string_view key) {
  std::uint8_t block[128] = {};
  std::size_t n = key.size() + 36;  // 60 bytes: two blocks, since 0x80 and the length do not fit behind it
  std::memcpy(block, key.data(), key.size());
  std::memcpy(block + key.size(), "258EAFA5-E914-47DA-95CA-C5AB0DC85B11", 36);
  block[n] = 0x80;
  block[126] = static_cast<std::uint8_t>(n * 8 >> 8);
  block[127] = static_cast<std::uint8_t>(n * 8);
  std::uint32_t h[5] = {0x67452301, 0xEFCDAB89, 0x98BADCFE, 0x10325476, 0xC3D2E1F0};
  sha1_block(h, block);
  sha1_block(h, block + 64);
  std::uint8_t digest[21] = {};
  for (int i = 0; i < 20; i++) digest[i] = static_cast<std::uint8_t>(h[i / 4] >> (24 - i % 4 * 8));
  const char* alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string text;
  for (int i = 0; i < 21; i += 3) {
    unsigned v = static_cast<unsigned>(digest[i] << 16 | digest[i + 1] << 8 | digest[i + 2]);
    for (int shift = 18; shift >= 0; shift -= 6) text += alphabet[v >> shift & 63];
  }
  text.back() = '=';  // 20 bytes are 26.7 digits
  return text;
}

// The response to the upgrade request in `head`; empty when the request has no usable key. `head` ends with
// the empty line.
inline std::string upgrade_response(std::string_view head) {
  const std::string_view name = "\r\nSec-WebSocket-Key:";
  for (std::size_t at = head.find("\r\n"); at + name.size() < head.size(); at = head.find("\r\n", at + 2)) {
    if (strncasecmp(head.data() + at, name.data(), name.size()) != 0) continue;
    std::size_t begin = head.find_first_not_of(' ', at + name.size());
    std::string_view key = head.substr(begin, head.find_first_of(" \r", begin) - begin);
    if (key.size() != 24) return {};
    return "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: "
           "Upgrade\r\nSec-WebSocket-Accept: " +
           accept_key(key) + "\r\n\r\n";
  }
  return {};
}

// Whether the request is for the path where a message goes to all connections.
inline bool asks_for_broadcasts(std::string_view head) {
  return head.starts_with("GET /broadcast ");
}

// ---- frames ----

struct Frame {
  std::size_t header = 0;  // bytes, mask key included; 0: more bytes are needed
  std::size_t payload = 0;
  Opcode opcode = op_binary;
  bool valid = true;
  std::size_t size() const { return header + payload; }
};

// Reads the header at the front of the `n` bytes at `p`.
inline Frame parse(const std::uint8_t* p, std::size_t n) {
  Frame frame;
  if (n < 2) return frame;
  frame.opcode = static_cast<Opcode>(p[0] & 15);
  frame.valid = (p[0] & 0xF0) == 0x80 && (p[1] & 0x80) != 0 && frame.opcode != 0;
  std::size_t length = p[1] & 127, header = 6;
  if (length == 126) {
    if (n < 4) return frame;
    length = static_cast<std::size_t>(p[2] << 8 | p[3]);
    header = 8;
  } else if (length == 127) {
    if (n < 10) return frame;
    std::uint64_t wide;
    std::memcpy(&wide, p + 2, 8);
    length = __builtin_bswap64(wide);
    header = 14;
  }
  if (n < header) return frame;
  frame.valid = frame.valid && length <= max_message;
  frame.header = header;
  frame.payload = length;
  return frame;
}

inline std::size_t reply_header_size(std::size_t payload) {
  return payload < 126 ? 2 : payload < 65536 ? 4 : 10;
}

// Writes an unmasked header at `p` and returns its size.
inline std::size_t put_header(std::uint8_t* p, Opcode opcode, std::size_t payload) {
  p[0] = static_cast<std::uint8_t>(0x80 | opcode);
  if (payload < 126) {
    p[1] = static_cast<std::uint8_t>(payload);
    return 2;
  }
  if (payload < 65536) {
    p[1] = 126;
    p[2] = static_cast<std::uint8_t>(payload >> 8);
    p[3] = static_cast<std::uint8_t>(payload);
    return 4;
  }
  p[1] = 127;
  std::uint64_t wide = __builtin_bswap64(payload);
  std::memcpy(p + 2, &wide, 8);
  return 10;
}

// XORs `n` bytes from `from` with the 4-byte `key` into `to`, which is `from` or lies before it.
__attribute__((target("avx2"))) inline void unmask_wide(std::uint8_t*& to, const std::uint8_t*& from,
                                                        std::size_t& n, std::uint32_t key) {
  const __m256i mask = _mm256_set1_epi32(static_cast<int>(key));
  for (; n >= 128; n -= 128, from += 128, to += 128) {
    auto* in = reinterpret_cast<const __m256i*>(from);
    auto* out = reinterpret_cast<__m256i*>(to);
    __m256i a = _mm256_loadu_si256(in), b = _mm256_loadu_si256(in + 1), c = _mm256_loadu_si256(in + 2),
            d = _mm256_loadu_si256(in + 3);
    _mm256_storeu_si256(out, _mm256_xor_si256(a, mask));
    _mm256_storeu_si256(out + 1, _mm256_xor_si256(b, mask));
    _mm256_storeu_si256(out + 2, _mm256_xor_si256(c, mask));
    _mm256_storeu_si256(out + 3, _mm256_xor_si256(d, mask));
  }
}

inline const bool has_avx2 = __builtin_cpu_supports("avx2") != 0;

inline void unmask(std::uint8_t* to, const std::uint8_t* from, std::size_t n, std::uint32_t key) {
  if (n >= 256 && has_avx2) unmask_wide(to, from, n, key);
  const std::uint64_t mask = key | static_cast<std::uint64_t>(key) << 32;
  for (; n >= 8; n -= 8, from += 8, to += 8) {
    std::uint64_t word;
    std::memcpy(&word, from, 8);
    word ^= mask;
    std::memcpy(to, &word, 8);
  }
  for (std::size_t i = 0; i < n; i++) to[i] = static_cast<std::uint8_t>(from[i] ^ mask >> 8 * i);
}

inline std::uint32_t mask_key(const std::uint8_t* frame, std::size_t header) {
  std::uint32_t key;
  std::memcpy(&key, frame + header - 4, 4);
  return key;
}

// The opcode that answers `opcode`: a ping's is a pong's, every other its own. A pong has no answer: 0.
inline std::uint8_t reply_opcode(Opcode opcode) {
  return opcode == op_ping ? op_pong : opcode == op_pong ? 0 : opcode;
}

// What `echo` made of a batch of bytes.
struct Echo {
  std::uint8_t* begin = nullptr;  // the replies, one run of bytes inside the batch
  std::uint8_t* end = nullptr;
  std::size_t used = 0;  // bytes of the batch that were whole frames
  bool closed = false;   // a close frame was answered, or the peer broke the rules: send, then close
  std::size_t size() const { return static_cast<std::size_t>(end - begin); }
};

// Turns the whole frames in the `n` bytes at `p` into their replies, in place.
inline Echo echo(std::uint8_t* p, std::size_t n) {
  Echo result{p, p};
  while (!result.closed) {
    std::uint8_t* at = p + result.used;
    Frame frame = parse(at, n - result.used);
    if (!frame.valid) result.closed = true;
    if (!frame.valid || frame.header == 0 || frame.size() > n - result.used) break;
    result.used += frame.size();
    std::uint8_t opcode = reply_opcode(frame.opcode);
    if (opcode == 0) continue;
    std::uint32_t key = mask_key(at, frame.header);
    if (result.begin == result.end) result.begin = result.end = at + 4;  // the first one stays where it lies
    result.end += put_header(result.end, static_cast<Opcode>(opcode), frame.payload);
    unmask(result.end, at + frame.header, frame.payload, key);
    result.end += frame.payload;
    result.closed = opcode == op_close;
  }
  return result;
}

// ---- sockets ----

// A listening socket on the loopback address. `port` 0: the kernel chooses.
inline int listen_on(std::uint16_t port, int flags) {
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | flags, 0), on = 1;
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  auto* name = reinterpret_cast<sockaddr*>(&address);
  if (bind(fd, name, size) != 0 || listen(fd, 4096) != 0 || getsockname(fd, name, &size) != 0) die("listen");
  std::printf("listening ws://127.0.0.1:%d\n", ntohs(address.sin_port));
  std::fflush(stdout);
  return fd;
}

inline void set_nodelay(int fd) {
  int on = 1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

// The number behind `name` on the command line.
inline long option(int argc, char** argv, std::string_view name, long otherwise) {
  for (int i = 1; i + 1 < argc; i++)
    if (argv[i] == name) return std::atol(argv[i + 1]);
  return otherwise;
}

// ---- a message that did not arrive at once ----

// A connection's own buffer: a run of frames from a frame's first byte on. A large frame is received into it
// directly and unmasked piece by piece, while the bytes are still in the cache.
//   clean <= used <= capacity; frame.header == 0 or the header lies in [0, used)
struct Assembly {
  std::uint8_t* data = nullptr;
  std::size_t capacity = 0;
  std::size_t used = 0;
  std::size_t clean = 0;  // bytes of the frame that are unmasked already
  Frame frame;            // the first one

  void reserve(std::size_t n) {
    if (n <= capacity) return;
    capacity = n;
    data = static_cast<std::uint8_t*>(std::realloc(data, n));
    if (data == nullptr) die("realloc");
  }

  void append(const std::uint8_t* p, std::size_t n) {
    reserve(used + n);
    std::memcpy(data + used, p, n);
    used += n;
  }

  // Bytes that the next receive may bring: the rest of the frame, or anything while its header is not known.
  std::size_t room() const { return (frame.header != 0 ? frame.size() : capacity) - used; }

  // Takes note of `n` received bytes. True: the frame is whole.
  bool grow(std::size_t n) {
    used += n;
    if (frame.header == 0) {
      frame = parse(data, used);
      if (frame.header == 0) reserve(max_header);
      if (frame.header == 0 || !frame.valid) return false;
      reserve(frame.size());
      clean = frame.header;
    }
    std::size_t end = used < frame.size() ? used : frame.size();
    unsigned turn = static_cast<unsigned>((clean - frame.header) & 3) * 8;
    std::uint32_t key = mask_key(data, frame.header);
    unmask(data + clean, data + clean, end - clean, turn == 0 ? key : key >> turn | key << (32 - turn));
    clean = end;
    return used >= frame.size();
  }

  // The reply to the whole, unmasked frame; the bytes behind it stay.
  Echo reply() {
    Echo result;
    std::uint8_t opcode = reply_opcode(frame.opcode);
    result.begin = data + frame.header - reply_header_size(frame.payload);
    result.end = data + frame.size();
    if (opcode == 0) result.begin = result.end;
    if (opcode != 0) put_header(result.begin, static_cast<Opcode>(opcode), frame.payload);
    result.used = frame.size();
    result.closed = opcode == op_close;
    return result;
  }

  // Forgets the first `n` bytes.
  void drop(std::size_t n) {
    used -= n;
    if (used != 0) std::memmove(data, data + n, used);
    clean = 0;
    frame = Frame{};
  }

  void release() {
    std::free(data);
    *this = Assembly{};
  }
};

}  // namespace limit
