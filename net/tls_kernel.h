// TlsKernel: what a connection sends, made into records by the kernel (kTLS). Only sending: what is received is opened by
// OpenSSL, for a kernel that opens records says by ancillary data what they are, which a multishot receive does not get,
// and cannot take over in the middle of what has been received already.
//
// Model: begin() gives the keys to a TCP socket, when all records that were made before have left. From then on what is
// sent on it is plaintext, and the kernel copies it once, encrypting it. Records of other types than application data
// ("controls": alerts, tickets) wait here until all data before them has been handed over, and leave by system calls of
// their own. Invariants: their order among the data is that in which OpenSSL made them; none leaves as data.
//
// Ending: the kernel may hold records that TCP had no room for, though sendmsg() took them all; a worker of its own pushes
// them later. shutdown() does not know of them, so the FIN would overtake them, and closing drops them. Nothing reports
// that there are none left, neither sendmsg() nor POLLOUT, so is_through() finds out by counting.
//
// One thread.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include <levada/core/bytes.h>
#include <levada/core/error.h>

namespace levada::net {

class TlsKernel {
 public:
  // `keys` begin with a struct tls_crypto_info and are as long as their cipher needs. Returns nullptr when the kernel does
  // not take them: what is sent still goes out as it is, and `why_not` says why, in static storage.
  static std::unique_ptr<TlsKernel> begin(int fd, const void* keys, const char*& why_not);

  void add_control(std::uint8_t type, Bytes content);
  std::size_t controls() const { return controls_.size(); }
  void drop_controls() { controls_.clear(); }
  // Sends those that wait, as far as the kernel takes them. When all that was handed over before has been sent.
  Error send_controls(int fd);

  // So many bytes of data go to the socket.
  void count(std::size_t bytes) { content_bytes_ += bytes; }
  // Whether TCP has records of all that was sent. A few system calls, until it is so.
  bool is_through(int fd);

 private:
  struct Kind {
    std::uint16_t version = 0, cipher = 0;
    std::uint8_t info_bytes = 0;    // of the keys
    std::uint8_t record_bytes = 0;  // what a record adds to its content
  };
  struct Control {
    std::uint8_t type;
    std::vector<std::uint8_t> content;
  };
  TlsKernel() = default;
  static Kind kind_of(const void* keys);
  bool count_records(int fd, std::uint64_t& records) const;

  Kind kind_;
  std::vector<Control> controls_;
  std::uint64_t content_bytes_ = 0;     // of all records
  std::uint64_t through_bytes_ = 0;     // of them, when is_through() was true last
  std::uint64_t first_record_ = 0;      // its number
  std::uint64_t tcp_bytes_before_ = 0;  // that TCP had taken then
};

}  // namespace levada::net
