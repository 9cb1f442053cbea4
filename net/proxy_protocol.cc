#include <levada/net/proxy_protocol.h>

#include <netinet/in.h>
#include <sys/un.h>
#include <algorithm>
#include <charconv>
#include <cstddef>
#include <cstring>
#include <string_view>

namespace levada::net {
namespace {

using namespace std::string_view_literals;

constexpr std::string_view line_signature = "PROXY ";
constexpr std::string_view binary_signature = "\r\n\r\n\0\r\nQUIT\n"sv;
constexpr std::size_t unix_path_bytes = 108;

enum class Family : std::uint8_t { unknown, ipv4, ipv6, local };

// Bytes of both addresses with their ports.
constexpr std::uint16_t address_bytes(Family family) {
  constexpr std::uint16_t sizes[] = {0, 12, 36, 2 * unix_path_bytes};
  return sizes[static_cast<std::size_t>(family)];
}

// Takes what stands before the next space, and the space.
std::string_view take_word(std::string_view& line) {
  const std::size_t space = line.find(' ');
  const std::string_view word = line.substr(0, space);
  line.remove_prefix(space == line.npos ? line.size() : space + 1);
  return word;
}

// A decimal number without heading zeros (section 2.1).
bool read_port(std::string_view text, std::uint16_t& port) {
  if (text.size() > 1 && text.front() == '0') return false;
  const char* const end = text.data() + text.size();
  const auto [read_to, error] = std::from_chars(text.data(), end, port);
  return error == std::errc{} && read_to == end;
}

// Address::ip() takes names and brackets as well, which have no place here.
bool read_address(std::string_view text, std::uint16_t port, int family, Address& address) {
  if (text.find_first_not_of("0123456789abcdefABCDEF:.") != text.npos) return false;
  if (text.empty() || (family == AF_INET6) != (text.find(':') != text.npos)) return false;
  auto made = Address::ip(text, port);
  if (made) address = *made;
  return static_cast<bool>(made);
}

template <class Raw>
Address make_address(const Raw& raw, std::size_t size = sizeof(Raw)) {
  Address address;
  std::memcpy(address.get(), &raw, sizeof raw);
  address.set_size(static_cast<socklen_t>(size));
  return address;
}

// Addresses and ports are in network byte order, as in a sockaddr.
Address ipv4_address(const std::uint8_t* host, const std::uint8_t* port) {
  sockaddr_in raw{};
  raw.sin_family = AF_INET;
  std::memcpy(&raw.sin_addr, host, sizeof raw.sin_addr);
  std::memcpy(&raw.sin_port, port, sizeof raw.sin_port);
  return make_address(raw);
}

Address ipv6_address(const std::uint8_t* host, const std::uint8_t* port) {
  sockaddr_in6 raw{};
  raw.sin6_family = AF_INET6;
  std::memcpy(&raw.sin6_addr, host, sizeof raw.sin6_addr);
  std::memcpy(&raw.sin6_port, port, sizeof raw.sin6_port);
  return make_address(raw);
}

// The path is padded with zero bytes; one in front makes it abstract, and nothing else none at all.
Address unix_address(const std::uint8_t* path) {
  sockaddr_un raw{};
  static_assert(sizeof raw.sun_path == unix_path_bytes);
  raw.sun_family = AF_UNIX;
  std::memcpy(raw.sun_path, path, unix_path_bytes);
  std::size_t length = unix_path_bytes;
  while (length > 0 && path[length - 1] == 0) length--;
  if (length > 0 && path[0] != 0) length = std::min(strnlen(raw.sun_path, length) + 1, unix_path_bytes);
  return make_address(raw, offsetof(sockaddr_un, sun_path) + length);
}

}  // namespace

ProxyProtocolParser::State ProxyProtocolParser::feed(Bytes& in) {
  if (state_ != State::incomplete) return state_;
  if (version_ == 0) state_ = take_signature(in);
  if (state_ != State::incomplete || version_ == 0) return state_;
  state_ = version_ == 1 ? take_line(in) : take_binary(in);
  return state_;
}

// Takes bytes until head_ has `size`; false while some are missing.
bool ProxyProtocolParser::collect(Bytes& in, std::size_t size) {
  const std::size_t take = std::min(in.size(), size - have_);
  std::copy_n(in.begin(), take, head_.begin() + static_cast<std::ptrdiff_t>(have_));
  have_ += take;
  in = in.subspan(take);
  return have_ == size;
}

ProxyProtocolParser::State ProxyProtocolParser::take_signature(Bytes& in) {
  while (!in.empty() && version_ == 0) {
    collect(in, have_ + 1);
    const std::string_view seen = to_text({head_.data(), have_});
    if (seen == line_signature) {
      version_ = 1;
    } else if (seen == binary_signature) {
      version_ = 2;
    } else if (!line_signature.starts_with(seen) && !binary_signature.starts_with(seen)) {
      return State::invalid;
    }
  }
  return State::incomplete;
}

// ---- Version 1 ----

ProxyProtocolParser::State ProxyProtocolParser::take_line(Bytes& in) {
  while (!in.empty()) {
    collect(in, have_ + 1);
    const std::uint8_t last = head_[have_ - 1];
    const bool after_return = head_[have_ - 2] == '\r';
    if (after_return != (last == '\n')) return State::invalid;  // neither may stand alone
    if (after_return) return read_line(to_text({head_.data(), have_ - 2}).substr(line_signature.size()));
    if (have_ == max_line_bytes) return State::invalid;
  }
  return State::incomplete;
}

ProxyProtocolParser::State ProxyProtocolParser::read_line(std::string_view line) {
  const std::string_view protocol = line.substr(0, line.find(' '));
  if (protocol == "UNKNOWN") return State::complete;  // whatever follows it
  if (protocol != "TCP4" && protocol != "TCP6") return State::invalid;
  if (std::count(line.begin(), line.end(), ' ') != 4) return State::invalid;
  take_word(line);
  const int family = protocol == "TCP4" ? AF_INET : AF_INET6;
  const std::string_view from = take_word(line), to = take_word(line);
  std::uint16_t from_port = 0, to_port = 0;
  if (!read_port(take_word(line), from_port) || !read_port(line, to_port)) return State::invalid;
  has_addresses_ =
      read_address(from, from_port, family, source_) && read_address(to, to_port, family, destination_);
  return has_addresses_ ? State::complete : State::invalid;
}

// ---- Version 2 ----

ProxyProtocolParser::State ProxyProtocolParser::take_binary(Bytes& in) {
  if (!fixed_read_) {
    // Byte by byte, so that a wrong one is refused before the next comes.
    while (have_ < fixed_bytes && !in.empty()) {
      collect(in, have_ + 1);
      if (read_fixed() == State::invalid) return State::invalid;
    }
    if (have_ < fixed_bytes) return State::incomplete;
    fixed_read_ = true;
  }
  if (have_ < fixed_bytes + wanted_ && !collect(in, fixed_bytes + wanted_)) return State::incomplete;
  const std::size_t skipped = std::min<std::size_t>(in.size(), skip_);
  in = in.subspan(skipped);
  skip_ -= static_cast<std::uint32_t>(skipped);
  if (skip_ != 0) return State::incomplete;
  if (wanted_ != 0) read_addresses();
  return State::complete;
}

// Checks what has come of the four bytes behind the signature.
ProxyProtocolParser::State ProxyProtocolParser::read_fixed() {
  const std::uint8_t version_and_command = head_[12];
  if ((version_and_command & 0xF0) != 0x20 || (version_and_command & 0x0F) > 1) return State::invalid;
  if (have_ < 14) return State::incomplete;
  const bool forwarded = (version_and_command & 0x0F) == 1;
  const unsigned family = head_[13] >> 4, transport = head_[13] & 0x0F;
  // The family of a LOCAL connection is not looked at (section 2.2).
  if (forwarded && (family > 3 || transport > 2)) return State::invalid;
  if (have_ < fixed_bytes) return State::incomplete;
  const bool known = forwarded && family != 0 && transport != 0;
  wanted_ = address_bytes(known ? static_cast<Family>(family) : Family::unknown);
  const std::uint32_t length = std::uint32_t{head_[14]} << 8 | head_[15];
  if (length < wanted_) return State::invalid;
  skip_ = length - wanted_;
  return State::incomplete;
}

void ProxyProtocolParser::read_addresses() {
  const std::uint8_t* at = head_.data() + fixed_bytes;
  has_addresses_ = true;
  if (wanted_ == address_bytes(Family::ipv4)) {
    source_ = ipv4_address(at, at + 8);
    destination_ = ipv4_address(at + 4, at + 10);
  } else if (wanted_ == address_bytes(Family::ipv6)) {
    source_ = ipv6_address(at, at + 32);
    destination_ = ipv6_address(at + 16, at + 34);
  } else {
    source_ = unix_address(at);
    destination_ = unix_address(at + unix_path_bytes);
  }
}

}  // namespace levada::net
