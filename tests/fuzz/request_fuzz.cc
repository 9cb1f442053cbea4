// Any bytes as a request, as a response and through the Upgrader. Beyond not crashing, what must hold: views
// stay inside the input; how the bytes were cut changes nothing; what is written can be read back.
#include <levada/ws/handshake.h>
#include <levada/ws/http.h>
#include <levada/ws/router.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdlib>
#include <string_view>
#include <vector>

#include <levada/core/bytes.h>

namespace {

using namespace levada;
using namespace levada::ws;

constexpr HttpLimits limits = {.max_bytes = 512, .max_fields = 12};

void require(bool condition) {
  if (!condition) std::abort();
}

void require_inside(std::string_view view, Bytes in) {
  if (view.empty()) return;
  const std::string_view text = to_text(in);
  require(view.data() >= text.data() && view.data() + view.size() <= text.data() + text.size());
}

void check_fields(const HttpHead& head, Bytes in) {
  require(head.fields().size() <= limits.max_fields);
  for (const HttpField& field : head.fields()) {
    require_inside(field.name, in);
    require_inside(field.value, in);
    require(is_writable(field));
    require(field.value == trim(field.value));
    require(head.count(field.name) >= 1);
    require(head.count(field.name) == 1 || head.find(field.name).data() <= field.value.data());
    std::string_view item;
    for (ListCursor cursor(head, field.name); cursor.next(item);) require(head.has_token(field.name, item));
  }
}

bool same(const ParseResult& a, const ParseResult& b) {
  return a.state == b.state && a.http_status == b.http_status && a.consumed == b.consumed;
}

// A beginning of `in` is incomplete or has the same outcome as the whole.
template <class Head>
ParseResult parse_cut(Head& head, Bytes in, std::size_t cut) {
  const std::vector<std::uint8_t> part(in.begin(), in.begin() + static_cast<std::ptrdiff_t>(cut));
  const ParseResult first = head.parse(part, limits);
  const ParseResult whole = head.parse(in, limits);
  require(first.state == ParseState::incomplete || same(first, whole));
  require(whole.consumed <= in.size());
  check_fields(head, in);
  return whole;
}

void try_request(Bytes in, std::size_t cut) {
  HttpRequest request;
  const ParseResult result = parse_cut(request, in, cut);
  require_inside(request.target(), in);
  require_inside(request.query(), in);
  require_inside(request.host(), in);
  if (result.state != ParseState::complete) return;
  require(is_token(request.method()));
  require(!request.target().starts_with('/') || is_request_target(request.target()));
  require(find_header_end(in.first(result.consumed), 0) == result.consumed);
  (void)origin_allowed(request, OriginPolicy::same_host);
  std::array<std::uint8_t, 2048> out;
  const UpgradeCheck check = check_upgrade(request);
  const Rejection& rejection = check.rejection != nullptr ? *check.rejection : upgrade_required();
  const Rejection with_fields = {rejection.status, request.target(), request.fields(), request.query()};
  const std::size_t size = write_rejection(out, with_fields);
  require(size == rejection_size(with_fields));
  HttpResponse response;
  const ParseResult answer = response.parse({out.data(), size});
  require(answer.state == ParseState::complete && answer.consumed + with_fields.body.size() == size);
}

// As a client reads it, into memory that it may change: the cut changes nothing, and the bytes behind the head stay.
void try_final(Bytes in, std::size_t cut) {
  std::vector<std::uint8_t> once(in.begin(), in.end()), twice = once;
  HttpResponse response;
  const ParseResult whole = response.parse_final(once, limits);
  const ParseResult first = response.parse_final(MutableBytes(twice).first(cut), limits);
  const ParseResult second = response.parse_final(twice, limits);
  require(same(second, whole) && (first.state == ParseState::incomplete || same(first, whole)));
  if (whole.state != ParseState::complete) return;
  const auto behind = static_cast<std::ptrdiff_t>(whole.consumed);
  require(std::equal(in.begin() + behind, in.end(), once.begin() + behind));
  require(once == twice);
}

void try_response(Bytes in, std::size_t cut) {
  HttpResponse response;
  const ParseState state = parse_cut(response, in, cut).state;
  try_final(in, cut);
  if (state != ParseState::complete) return;
  require(response.status() >= 100 && response.status() <= 999);
  (void)check_upgrade_response(response,
                               {.host = "h", .key = "dGhlIHNhbXBsZSBub25jZQ==", .extensions = "x, y"});
}

void try_upgrader(Bytes in, std::size_t cut) {
  Upgrader upgrader({.limits = limits});
  std::array<std::uint8_t, 1024> whole_out;
  std::array<std::uint8_t, 1024> out;
  const Upgrader::Outcome whole = upgrader.feed(in, whole_out);
  upgrader.reset();
  const std::vector<std::uint8_t> part(in.begin(), in.begin() + static_cast<std::ptrdiff_t>(cut));
  Upgrader::Outcome outcome = upgrader.feed(part, out);
  if (outcome.state == Upgrader::State::incomplete) outcome = upgrader.feed(in, out);
  if (outcome.state == Upgrader::State::incomplete && whole.state == Upgrader::State::rejected)
    return;  // line not ended
  require(outcome.state == whole.state && outcome.status == whole.status &&
          outcome.consumed == whole.consumed);
  require(to_text({out.data(), outcome.written}) == to_text({whole_out.data(), whole.written}));
}

void try_router(std::string_view text) {
  RouteTable table;
  const std::size_t middle = text.size() / 2;
  for (const char* pattern : {"/:a/b", "/a/:b", "/a/*", "/*"}) table.add(pattern);
  const bool added = table.add(text.substr(0, middle)) != RouteTable::no_route;
  require(!added || RouteTable::is_valid(text.substr(0, middle)));
  Params params;
  const std::string_view path = text.substr(middle);
  require((table.match(path, params) != RouteTable::no_route) == path.starts_with('/'));
  for (const auto& [name, value] : params) require_inside(value, to_bytes(path));
}

}  // namespace

// The first byte says where the rest is cut.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const Bytes in(data + 1, size - 1);
  const std::size_t cut = data[0] * in.size() / 255;
  try_request(in, cut);
  try_response(in, cut);
  try_upgrader(in, cut);
  try_router(to_text(in));
  return 0;
}
