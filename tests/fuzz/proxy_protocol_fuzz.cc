// Any bytes as a PROXY protocol header. Beyond not crashing, what must hold: how the bytes were cut changes nothing, no
// more than the header is taken, and a header that is complete says the same when it is read again.
#include <levada/net/proxy_protocol.h>

#include <cstdint>
#include <cstdlib>
#include <string>
#include <vector>

namespace {

using namespace levada;
using net::ProxyProtocolParser;
using State = ProxyProtocolParser::State;

void require(bool condition) {
  if (!condition) std::abort();
}

bool same(const ProxyProtocolParser& a, const ProxyProtocolParser& b) {
  if (a.state() != b.state()) return false;
  if (a.state() != State::complete) return true;
  if (a.version() != b.version() || a.has_addresses() != b.has_addresses()) return false;
  return !a.has_addresses() || (a.source().to_string() == b.source().to_string() &&
                                a.destination().to_string() == b.destination().to_string());
}

// Gives a copy of `piece`, so that reading beyond its end is found; returns what was left.
std::size_t feed(ProxyProtocolParser& parser, Bytes piece) {
  const std::vector<std::uint8_t> copy(piece.begin(), piece.end());
  Bytes in(copy);
  parser.feed(in);
  require(in.empty() || parser.state() != State::incomplete);
  return in.size();
}

void require_plausible(const ProxyProtocolParser& parser, Bytes header) {
  require(parser.version() == (header.front() == 'P' ? 1 : 2));
  if (parser.version() == 1) {
    require(header.size() <= 107 && to_text(header).ends_with("\r\n"));
  } else {
    require(header.size() == 16 + (std::size_t{header[14]} << 8 | header[15]));
  }
  if (!parser.has_addresses()) return;
  require(parser.source().family() == parser.destination().family());
}

}  // namespace

// The first byte says where the rest is cut.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const Bytes in(data + 1, size - 1);
  const std::size_t cut = data[0] * in.size() / 255;
  ProxyProtocolParser whole, pieces, bytes;
  const std::size_t left = feed(whole, in);
  std::size_t left_of_pieces = feed(pieces, in.first(cut));
  left_of_pieces += feed(pieces, in.subspan(cut));
  for (std::size_t i = 0; i < in.size(); i++) feed(bytes, in.subspan(i, 1));
  require(same(whole, pieces) && same(whole, bytes));
  if (whole.state() != State::complete) return 0;
  require(left == left_of_pieces);
  const Bytes header = in.first(in.size() - left);
  require_plausible(whole, header);
  ProxyProtocolParser again;
  require(feed(again, header) == 0 && same(whole, again));
  ProxyProtocolParser shorter;
  feed(shorter, header.first(header.size() - 1));
  require(shorter.state() == State::incomplete);
  return 0;
}
