#include <levada/tools/load/sources.h>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <algorithm>
#include <charconv>

namespace levada::load {
namespace {

std::string ipv4_text(std::uint32_t address) {
  const in_addr value{htonl(address)};
  char text[INET_ADDRSTRLEN] = "";
  inet_ntop(AF_INET, &value, text, sizeof text);
  return text;
}

}  // namespace

bool Sources::parse(std::string_view text, std::string& why) {
  if (text.find('/') != std::string_view::npos) return parse_network(text, why);
  while (!text.empty()) {
    const std::string_view one = text.substr(0, text.find(','));
    text.remove_prefix(std::min(text.size(), one.size() + 1));
    auto address =
        one.empty() ? levada::Result<net::Address>(Error{Errc::invalid_argument}) : net::Address::ip(one, 0);
    if (!address) {
      why = "'" + std::string(one) + "' is no address";
      return false;
    }
    listed_.push_back(*address);
  }
  if (listed_.empty()) why = "no address";
  return !listed_.empty();
}

bool Sources::parse_network(std::string_view text, std::string& why) {
  const std::size_t slash = text.find('/');
  const std::string base(text.substr(0, slash));
  const std::string_view bits_text = text.substr(slash + 1);
  unsigned bits = 0;
  in_addr value{};
  const auto [end, error] = std::from_chars(bits_text.data(), bits_text.data() + bits_text.size(), bits);
  if (error != std::errc{} || end != bits_text.data() + bits_text.size() || bits < 8 || bits > 30 ||
      inet_pton(AF_INET, base.c_str(), &value) != 1) {
    why = "'" + std::string(text) + "' is no IPv4 network of 8 to 30 bits, as 127.0.0.0/8";
    return false;
  }
  const std::uint32_t size = 1u << (32 - bits);
  network_ = ntohl(value.s_addr) & ~(size - 1);
  hosts_ = size - 3;  // without its first address, the next one (most often taken), and its last
  return true;
}

net::Address Sources::address(std::uint32_t number) const {
  if (!listed_.empty()) return listed_[number % listed_.size()];
  const std::uint32_t host = number / connections_per_address % hosts_;
  return *net::Address::ip(ipv4_text(network_ + 2 + host), 0);
}

}  // namespace levada::load
