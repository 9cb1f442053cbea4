#include <levada/net/tls_kernel.h>

#include <linux/sockios.h>
#include <linux/tcp.h>
#include <linux/tls.h>
#include <netinet/in.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <cerrno>
#include <cstring>

#ifndef SOL_TLS
#define SOL_TLS 282
#endif

namespace levada::net {
namespace {

constexpr std::size_t most_info_bytes = 64;
constexpr std::size_t sequence_bytes = 8;  // the last ones of all keys

// The number of the next record.
std::uint64_t sequence_of(const std::uint8_t* keys, std::size_t size) {
  std::uint64_t number = 0;
  for (std::size_t i = size - sequence_bytes; i < size; i++) number = number << 8 | keys[i];
  return number;
}

// The bytes that TCP was given since the connection began, but for a constant, and those of them that the peer has not
// acknowledged. Never too many: what is acknowledged between the two calls is missing.
bool tcp_bytes(int fd, std::uint64_t& given, int& waiting) {
  tcp_info info{};
  socklen_t size = sizeof info;
  if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &size) != 0 || ioctl(fd, SIOCOUTQ, &waiting) != 0)
    return false;
  given = info.tcpi_bytes_acked + static_cast<unsigned>(waiting);
  return true;
}

// A record of that type, or the beginning of it. Returns what sendmsg() does.
ssize_t send_record(int fd, std::uint8_t type, Bytes content) {
  alignas(cmsghdr) std::array<std::uint8_t, CMSG_SPACE(1)> ancillary{};
  iovec vector{const_cast<std::uint8_t*>(content.data()), content.size()};
  msghdr message{};
  message.msg_iov = &vector;
  message.msg_iovlen = 1;
  message.msg_control = ancillary.data();
  message.msg_controllen = ancillary.size();
  cmsghdr* header = CMSG_FIRSTHDR(&message);
  header->cmsg_level = SOL_TLS;
  header->cmsg_type = TLS_SET_RECORD_TYPE;
  header->cmsg_len = CMSG_LEN(1);
  *CMSG_DATA(header) = type;
  ssize_t sent = 0;
  do sent = sendmsg(fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
  while (sent < 0 && errno == EINTR);
  return sent;
}

}  // namespace

// Version 1.3 hides the type in the record; 1.2 sends a part of the nonce with it, if the cipher is GCM.
TlsKernel::Kind TlsKernel::kind_of(const void* keys) {
  tls_crypto_info info;
  std::memcpy(&info, keys, sizeof info);
  Kind kind{.version = info.version, .cipher = info.cipher_type};
  const bool is_1_3 = info.version == TLS_1_3_VERSION;
  if (!is_1_3 && info.version != TLS_1_2_VERSION) return {};
  switch (info.cipher_type) {
    case TLS_CIPHER_AES_GCM_128:
      kind.info_bytes = sizeof(tls12_crypto_info_aes_gcm_128);
      kind.record_bytes = is_1_3 ? 22 : 29;
      return kind;
    case TLS_CIPHER_AES_GCM_256:
      kind.info_bytes = sizeof(tls12_crypto_info_aes_gcm_256);
      kind.record_bytes = is_1_3 ? 22 : 29;
      return kind;
    case TLS_CIPHER_CHACHA20_POLY1305:
      kind.info_bytes = sizeof(tls12_crypto_info_chacha20_poly1305);
      kind.record_bytes = is_1_3 ? 22 : 21;
      return kind;
    default:
      return {};
  }
}

std::unique_ptr<TlsKernel> TlsKernel::begin(int fd, const void* keys, const char*& why_not) {
  std::unique_ptr<TlsKernel> self(new TlsKernel);
  self->kind_ = kind_of(keys);
  const std::size_t size = self->kind_.info_bytes;
  why_not = "the kernel has no TLS for this version and cipher";
  if (size == 0) return nullptr;
  static_assert(sizeof(tls12_crypto_info_aes_gcm_256) <= most_info_bytes &&
                sizeof(tls12_crypto_info_chacha20_poly1305) <= most_info_bytes);
  self->first_record_ = sequence_of(static_cast<const std::uint8_t*>(keys), size);
  int waiting = 0;
  if (setsockopt(fd, IPPROTO_TCP, TCP_ULP, "tls", sizeof "tls") != 0 ||
      !tcp_bytes(fd, self->tcp_bytes_before_, waiting)) {
    why_not = "the kernel has no TLS for this kind of socket";
    return nullptr;
  }
  if (setsockopt(fd, SOL_TLS, TLS_TX, keys, static_cast<socklen_t>(size)) != 0) return nullptr;
  why_not = "";
  return self;
}

void TlsKernel::add_control(std::uint8_t type, Bytes content) {
  if (!content.empty()) controls_.push_back({type, {content.begin(), content.end()}});
}

Error TlsKernel::send_controls(int fd) {
  while (!controls_.empty()) {
    auto& [type, content] = controls_.front();
    const ssize_t sent = send_record(fd, type, content);
    if (sent < 0) return errno == EAGAIN ? Error{} : Error::from_os("send", errno);
    content_bytes_ += static_cast<std::size_t>(sent);
    content.erase(content.begin(), content.begin() + sent);  // what is left goes into a record of its own
    if (content.empty()) controls_.erase(controls_.begin());
  }
  return {};
}

// How many the kernel has made.
bool TlsKernel::count_records(int fd, std::uint64_t& records) const {
  std::array<std::uint8_t, most_info_bytes> keys{};
  std::memcpy(keys.data(), &kind_.version, sizeof kind_.version);
  std::memcpy(keys.data() + sizeof kind_.version, &kind_.cipher, sizeof kind_.cipher);
  socklen_t size = kind_.info_bytes;
  const bool told = getsockopt(fd, SOL_TLS, TLS_TX, keys.data(), &size) == 0 && size == kind_.info_bytes;
  if (told) records = sequence_of(keys.data(), kind_.info_bytes) - first_record_;
  explicit_bzero(keys.data(), keys.size());
  return told;
}

// From the number of records and the length of what is in them follows how much TCP gets.
bool TlsKernel::is_through(int fd) {
  if (through_bytes_ == content_bytes_) return true;
  std::uint64_t records = 0, given = 0;
  int waiting = 0;
  if (!tcp_bytes(fd, given, waiting)) return true;  // the connection is gone
  // An old kernel counts for some ciphers only. Where it does not, TCP that has nothing left would have had room for more.
  const bool through = count_records(fd, records)
                           ? given - tcp_bytes_before_ >= content_bytes_ + records * kind_.record_bytes
                           : waiting == 0;
  if (through) through_bytes_ = content_bytes_;
  return through;
}

}  // namespace levada::net
