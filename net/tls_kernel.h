// TlsKernel: what a connection sends, made into records by the kernel (kTLS). Only sending: what is received is opened by
// OpenSSL, for a kernel that opens records says by ancillary data what they are, which a multishot receive does not get,
// and cannot take over in the middle of what has been received already.
//
// Model: begin() gives the keys to a TCP socket, when all records that were made before have left. From then on what is
// sent on it is plaintext, and the kernel copies it once, encrypting it. Records of other types than application data
// ("controls": alerts, tickets) wait here until all data before them has been handed over, and leave by system calls of
// their own. Invariants: their order among the data is that in which OpenSSL made them; none leaves as data.
//
// The kernel may hold records that TCP had no room for, though it has taken all that was sent, and drops them when the
// socket is shut down or closed: is_through() tells when there are none.
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
  // not take them, which leaves the socket as it was; `why_not` says why, in static storage.
  static std::unique_ptr<TlsKernel> begin(int fd, const void* keys, const char*& why_not);

  void add_control(std::uint8_t type, Bytes content);
  bool has_controls() const { return !controls_.empty(); }
  std::size_t control_bytes() const { return controls_.size(); }
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
  TlsKernel() = default;
  static Kind kind_of(const void* keys);
  bool count_records(int fd, std::uint64_t& records) const;

  Kind kind_;
  std::vector<std::uint8_t> controls_;  // type, size in two bytes, content
  std::uint64_t content_bytes_ = 0;     // of all records
  std::uint64_t through_bytes_ = 0;     // of them, when is_through() was true last
  std::uint64_t first_record_ = 0;      // its number
  std::uint64_t tcp_bytes_before_ = 0;  // that TCP had taken then
};

}  // namespace levada::net
