// The parser is one pass. A Cursor moves over the bytes; each step answers ok, more (the bytes end inside
// something that is valid so far) or the status of the failure. Vector code only finds where a run of plain
// characters ends; what stands there is judged by the same scalar code on every machine.
#include <levada/ws/http.h>

#include <arpa/inet.h>

#if defined(__SSE2__)
#include <immintrin.h>
#endif

#include <algorithm>
#include <bit>
#include <charconv>
#include <cstring>  // also memmem

namespace levada::ws {
namespace detail {

enum class Step : std::uint16_t {
  ok = 0,
  more = 1,
  bad_request = 400,
  target_too_long = 414,
  head_too_large = 431,
  not_implemented = 501,
  version_not_supported = 505,
};

struct Cursor {
  const char* at;
  const char* end;

  bool empty() const { return at == end; }
  std::size_t size() const { return static_cast<std::size_t>(end - at); }
};

}  // namespace detail

namespace {

using detail::Cursor;
using detail::Step;

// Longest method that is worth reading; the registry's longest has 17 characters.
constexpr std::size_t max_method_size = 32;

// Empty lines before a request that are skipped.
constexpr int max_empty_lines = 4;

enum CharClass : std::uint8_t {
  token_char = 1,
  target_char = 2,
  text_char = 4,
  host_char = 8,
  path_char = 16
};

constexpr bool is_alnum(unsigned c) {
  return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

constexpr auto char_classes = [] {
  std::array<std::uint8_t, 256> table{};
  for (unsigned c = 0; c < 256; ++c) {
    const auto is_one_of = [c](std::string_view set) { return set.find(static_cast<char>(c)) != set.npos; };
    unsigned bits = 0;
    if (is_alnum(c) || is_one_of("!#$%&'*+-.^_`|~")) bits |= token_char;
    if (c > 0x20 && c < 0x7f && !is_one_of("#\"<>")) bits |= target_char;
    if (c == '\t' || (c >= 0x20 && c != 0x7f)) bits |= text_char;
    if (is_alnum(c) || is_one_of("-._~!$&'()*+,;=")) bits |= host_char | path_char;
    if (is_one_of(":@/")) bits |= path_char;
    table[c] = static_cast<std::uint8_t>(bits);
  }
  return table;
}();

bool has_class(char c, CharClass char_class) {
  return (char_classes[static_cast<unsigned char>(c)] & char_class) != 0;
}

const char* skip_class(const char* at, const char* end, CharClass char_class) {
  while (at != end && has_class(*at, char_class)) ++at;
  return at;
}

bool is_hex(char c) {
  const char lower = static_cast<char>(c | 0x20);
  return is_digit(c) || (lower >= 'a' && lower <= 'f');
}

// The same for parts of a URI: past the whole escapes, too.
const char* skip_uri_text(const char* at, const char* end, CharClass char_class) {
  for (;; at += 3) {
    at = skip_class(at, end, char_class);
    if (end - at < 3 || at[0] != '%' || !is_hex(at[1]) || !is_hex(at[2])) return at;
  }
}

bool all_of_class(std::string_view text, CharClass char_class) {
  return skip_class(text.data(), text.data() + text.size(), char_class) == text.data() + text.size();
}

#if defined(__SSE2__)

__m128i load_16(const char* at) {
  return _mm_loadu_si128(reinterpret_cast<const __m128i*>(at));
}

// 0xff in every byte that is at most `limit`.
__m128i at_most(__m128i bytes, int limit) {
  return _mm_cmpeq_epi8(_mm_min_epu8(bytes, _mm_set1_epi8(static_cast<char>(limit))), bytes);
}

unsigned mask_of(__m128i bytes) {
  return static_cast<unsigned>(_mm_movemask_epi8(bytes));
}

// Past the letters, digits and hyphens at `at`: all that common field names are made of.
const char* skip_name_chars(const char* at, const char* end) {
  for (; end - at >= 16; at += 16) {
    const __m128i bytes = load_16(at);
    const __m128i lower = _mm_or_si128(bytes, _mm_set1_epi8(0x20));
    const __m128i letters = at_most(_mm_sub_epi8(lower, _mm_set1_epi8('a')), 25);
    const __m128i digits = at_most(_mm_sub_epi8(bytes, _mm_set1_epi8('0')), 9);
    const __m128i hyphens = _mm_cmpeq_epi8(bytes, _mm_set1_epi8('-'));
    const unsigned others = mask_of(_mm_or_si128(_mm_or_si128(letters, digits), hyphens)) ^ 0xffff;
    if (others != 0) return at + std::countr_zero(others);
  }
  return at;
}

// Past the bytes at `at` that are no control bytes.
const char* skip_plain_text(const char* at, const char* end) {
  for (; end - at >= 16; at += 16) {
    const __m128i bytes = load_16(at);
    const __m128i del = _mm_cmpeq_epi8(bytes, _mm_set1_epi8(0x7f));
    const unsigned controls = mask_of(_mm_or_si128(at_most(bytes, 0x1f), del));
    if (controls != 0) return at + std::countr_zero(controls);
  }
  return at;
}

#else

const char* skip_name_chars(const char* at, const char*) {
  return at;
}
const char* skip_plain_text(const char* at, const char*) {
  return at;
}

#endif

const char* skip_token(const char* at, const char* end) {
  return skip_class(skip_name_chars(at, end), end, token_char);
}

const char* skip_text(const char* at, const char* end) {
  for (;;) {
    at = skip_plain_text(at, end);
    if (at == end || !has_class(*at, text_char)) return at;
    ++at;  // a tab, or one of the last bytes, too few for a vector
  }
}

bool is_blank(char c) {
  return c == ' ' || c == '\t';
}

std::string_view view(const char* begin, const char* end) {
  return {begin, static_cast<std::size_t>(end - begin)};
}

// Takes the CRLF that must stand here. A lone LF is not a line end: RFC 9112 section 2.2 lets us refuse it.
Step take_line_end(Cursor& cursor) {
  if (cursor.empty()) return Step::more;
  if (*cursor.at != '\r') return Step::bad_request;
  if (cursor.size() < 2) return Step::more;
  if (cursor.at[1] != '\n') return Step::bad_request;
  cursor.at += 2;
  return Step::ok;
}

// Takes the one space that must stand here.
Step take_space(Cursor& cursor) {
  if (cursor.empty()) return Step::more;
  if (*cursor.at != ' ') return Step::bad_request;
  ++cursor.at;
  return Step::ok;
}

// HTTP-version (RFC 9112 section 2.3), case-sensitive.
Step take_version(Cursor& cursor, unsigned& minor) {
  constexpr std::string_view form = "HTTP/d.d";  // d: a digit
  const auto fits = [](char c, char wanted) { return wanted == 'd' ? is_digit(c) : c == wanted; };
  if (!view(cursor.at, cursor.end).starts_with("HTTP/1.1")) {
    for (std::size_t i = 0; i < form.size(); ++i) {
      if (i == cursor.size()) return Step::more;
      if (!fits(cursor.at[i], form[i])) return Step::bad_request;
    }
  }
  if (cursor.at[5] != '1') return Step::version_not_supported;
  minor = static_cast<unsigned>(cursor.at[7] - '0');
  cursor.at += form.size();
  return Step::ok;
}

// field-line (RFC 9112 section 5). A folded line fails here too: it begins with white space, which is no
// token.
Step take_field(Cursor& cursor, HttpField& field) {
  const char* const colon = skip_token(cursor.at, cursor.end);
  const char* const stop =
      skip_text(cursor.at, cursor.end);  // begins with the name, to run beside its search
  if (colon == cursor.end) return Step::more;
  if (*colon != ':' || colon == cursor.at) return Step::bad_request;
  const char* value = colon + 1;
  while (value != stop && is_blank(*value)) ++value;
  Cursor rest{stop, cursor.end};
  if (const Step step = take_line_end(rest); step != Step::ok) return step;
  const char* value_end = stop;
  while (value_end != value && is_blank(value_end[-1])) --value_end;
  field = {view(cursor.at, colon), view(value, value_end)};
  cursor = rest;
  return Step::ok;
}

// How the words at `text` and `name` differ once bit 5 is set in `text`.
template <class Word>
Word differ(const char* text, const char* name) {
  Word a = 0, b = 0;
  std::memcpy(&a, text, sizeof a);
  std::memcpy(&b, name, sizeof b);
  return (a | static_cast<Word>(0x2020202020202020u)) ^ b;
}

// Whether the token at `text`, of the same size, is `name`, which is 4 to 24 lower-case letters and hyphens:
// setting bit 5 maps nothing else that a token can hold onto those. The words overlap so that whole ones do
// for every size.
template <std::size_t array_size>
bool is_name(const char* text, const char (&name)[array_size]) {
  constexpr std::size_t size = array_size - 1;
  static_assert(size >= 4 && size <= 24);
  if constexpr (size < 8) {
    return (differ<std::uint32_t>(text, name) | differ<std::uint32_t>(text + size - 4, name + size - 4)) == 0;
  } else {
    constexpr std::size_t middle = size > 16 ? 8 : 0;
    return (differ<std::uint64_t>(text, name) | differ<std::uint64_t>(text + middle, name + middle) |
            differ<std::uint64_t>(text + size - 8, name + size - 8)) == 0;
  }
}

// What stands in the brackets of a host (RFC 3986 section 3.2.2): an IPv6 address or, with a version, what may come
// after it. No zone: that means something to the sender alone.
bool is_ip_literal(std::string_view text) {
  if (text.empty() || (text.front() | 0x20) != 'v') return is_ipv6_address(text);
  const std::size_t dot = text.find('.');
  if (dot == text.npos || dot == 1 || dot + 1 == text.size()) return false;
  const auto is_host_or_colon = [](char c) { return c == ':' || has_class(c, host_char); };
  return std::all_of(text.begin() + 1, text.begin() + static_cast<std::ptrdiff_t>(dot), is_hex) &&
         std::all_of(text.begin() + static_cast<std::ptrdiff_t>(dot) + 1, text.end(), is_host_or_colon);
}

// Past the host at `at`; `at` itself if there is none.
const char* skip_host(const char* at, const char* end) {
  if (at == end || *at != '[') return skip_uri_text(at, end, host_char);
  const char* const bracket = std::find(at, end, ']');
  return bracket != end && is_ip_literal(view(at + 1, bracket)) ? bracket + 1 : at;
}

// Past the digits at `at`.
const char* skip_digits(const char* at, const char* end) {
  while (at != end && is_digit(*at)) ++at;
  return at;
}

// authority-form (RFC 9112 section 3.2.3): with a port, which RFC 9110 section 9.3.6 wants checked.
bool is_connect_target(std::string_view text) {
  if (!is_authority(text)) return false;
  const char* const end = text.data() + text.size();
  const char* const colon = skip_host(text.data(), end);
  if (colon == end) return false;
  std::uint16_t port = 0;
  return std::from_chars(colon + 1, end, port).ec == std::errc{} && port != 0;
}

// path-abempty (RFC 3986 section 3.3).
bool is_path(std::string_view text) {
  const char* const end = text.data() + text.size();
  return skip_uri_text(text.data(), end, path_char) == end;
}

ParseResult make_result(Step step, std::size_t consumed, bool at_limit, Step limit_step) {
  if (step == Step::ok) return {ParseState::complete, 0, consumed};
  if (step == Step::more && !at_limit) return {};
  if (step == Step::more) step = limit_step;
  return {ParseState::invalid, static_cast<std::uint16_t>(step), 0};
}

Cursor make_cursor(Bytes in, const HttpLimits& limits) {
  const char* const begin = to_text(in).data();
  return {begin, begin + std::min(in.size(), limits.max_bytes)};
}

}  // namespace

FieldId identify(std::string_view name) {
  const char* const text = name.data();
  const auto check = [text](const auto& known, FieldId id) {
    return is_name(text, known) ? id : FieldId::other;
  };
  switch (name.size()) {
    case 4:
      return check("host", FieldId::host);
    case 6:
      return check("origin", FieldId::origin);
    case 7:
      return check("upgrade", FieldId::upgrade);
    case 10:
      return check("connection", FieldId::connection);
    case 14:
      return check("content-length", FieldId::content_length);
    case 17:
      if (is_name(text, "sec-websocket-key")) return FieldId::sec_websocket_key;
      return check("transfer-encoding", FieldId::transfer_encoding);
    case 20:
      return check("sec-websocket-accept", FieldId::sec_websocket_accept);
    case 21:
      return check("sec-websocket-version", FieldId::sec_websocket_version);
    case 22:
      return check("sec-websocket-protocol", FieldId::sec_websocket_protocol);
    case 24:
      return check("sec-websocket-extensions", FieldId::sec_websocket_extensions);
    default:
      return FieldId::other;
  }
}

std::size_t token_size(std::string_view text) {
  return static_cast<std::size_t>(skip_token(text.data(), text.data() + text.size()) - text.data());
}
bool is_token(std::string_view text) {
  return !text.empty() && token_size(text) == text.size();
}
bool is_field_value(std::string_view text) {
  return all_of_class(text, text_char);
}
bool is_authority(std::string_view text) {
  const char* const end = text.data() + text.size();
  const char* at = skip_host(text.data(), end);
  if (at == text.data()) return false;
  if (at != end && *at == ':') at = skip_digits(at + 1, end);
  return at == end;
}
bool is_ipv6_address(std::string_view text) {
  char terminated[INET6_ADDRSTRLEN] = "";
  if (text.size() >= sizeof terminated || text.find('\0') != text.npos) return false;
  std::copy(text.begin(), text.end(), terminated);
  in6_addr ignored;
  return inet_pton(AF_INET6, terminated, &ignored) == 1;
}
bool is_request_target(std::string_view text) {
  return !text.empty() && all_of_class(text, target_char) && is_path(text.substr(0, text.find('?')));
}

bool equals_ignore_case(std::string_view a, std::string_view b) {
  if (a.size() != b.size()) return false;
  const auto lower = [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c | 0x20) : c; };
  for (std::size_t i = 0; i < a.size(); ++i) {
    if (a[i] != b[i] && lower(a[i]) != lower(b[i])) return false;
  }
  return true;
}

std::string_view trim(std::string_view text) {
  while (!text.empty() && is_blank(text.front())) text.remove_prefix(1);
  while (!text.empty() && is_blank(text.back())) text.remove_suffix(1);
  return text;
}

bool next_list_item(std::string_view& list, std::string_view& item) {
  while (!list.empty()) {
    std::size_t i = 0;
    for (bool quoted = false; i < list.size() && (quoted || list[i] != ','); ++i) {
      if (list[i] == '"') quoted = !quoted;
      if (list[i] == '\\' && quoted && i + 1 < list.size()) ++i;
    }
    item = trim(list.substr(0, i));
    list.remove_prefix(std::min(i + 1, list.size()));
    if (!item.empty()) return true;
  }
  return false;
}

std::size_t find_header_end(Bytes in, std::size_t from) {
  const std::string_view text = to_text(in);
  std::size_t begin = 0;
  for (int i = 0; i < max_empty_lines && text.substr(begin).starts_with("\r\n"); ++i) begin += 2;
  const std::size_t start =
      std::max(begin, from < 3 ? 0 : from - 3);  // the four bytes may lie across the border
  if (start >= in.size()) return 0;
  const void* found = memmem(in.data() + start, in.size() - start, "\r\n\r\n", 4);
  if (found == nullptr) return 0;
  return static_cast<std::size_t>(static_cast<const std::uint8_t*>(found) - in.data()) + 4;
}

bool worth_parsing(Bytes in, std::size_t seen, const HttpLimits& limits) {
  if (seen == 0 || in.size() >= limits.max_bytes) return true;
  return seen < in.size() && std::memchr(in.data() + seen, '\n', in.size() - seen) != nullptr;
}

void HttpHead::clear() {
  count_ = 0;
  minor_version_ = 0;
  has_body_ = false;
  seen_ = {};
}

Step HttpHead::parse_fields(Cursor& cursor, const HttpLimits& limits) {
  const std::size_t max_fields = std::min(limits.max_fields, field_capacity);
  for (;;) {
    if (cursor.empty()) return Step::more;
    if (*cursor.at == '\r') break;
    if (count_ == max_fields) return Step::head_too_large;
    HttpField& field = fields_[count_];
    if (const Step step = take_field(cursor, field); step != Step::ok) return step;
    record(field);
  }
  const Step step = take_line_end(cursor);
  return step == Step::ok ? check_framing() : step;
}

void HttpHead::record(const HttpField& field) {
  const FieldId id = identify(field.name);
  Seen& seen = seen_[index(id)];
  if (seen.count == 0) seen.first = static_cast<std::uint8_t>(count_);
  ++seen.count;
  ids_[count_++] = id;
}

// RFC 9112 section 6.3: a length that is not one plain number, or that competes with a transfer coding,
// cannot be trusted to say where the content ends.
Step HttpHead::check_framing() {
  const std::size_t lengths = count(FieldId::content_length);
  const std::size_t codings = count(FieldId::transfer_encoding);
  has_body_ = codings != 0;
  if (lengths == 0) return Step::ok;
  if (codings != 0) return Step::bad_request;
  const std::string_view length = find(FieldId::content_length);
  if (length.empty() || length.find_first_not_of("0123456789") != length.npos) return Step::bad_request;
  for (std::size_t i = 0; i < count_; ++i) {
    if (ids_[i] == FieldId::content_length && fields_[i].value != length) return Step::bad_request;
  }
  has_body_ = length.find_first_not_of('0') != length.npos;
  return Step::ok;
}

bool HttpHead::matches(std::size_t i, FieldId id, std::string_view name) const {
  return ids_[i] == id && (id != FieldId::other || equals_ignore_case(fields_[i].name, name));
}

// The first field from `from` on that matches; count_ when there is none.
std::size_t HttpHead::next(std::size_t from, FieldId id, std::string_view name) const {
  while (from < count_ && !matches(from, id, name)) ++from;
  return from;
}

std::string_view HttpHead::find(std::string_view name) const {
  const std::size_t i = next(0, identify(name), name);
  return i < count_ ? fields_[i].value : std::string_view();
}

std::size_t HttpHead::count(std::string_view name) const {
  const FieldId id = identify(name);
  if (id != FieldId::other) return count(id);
  std::size_t total = 0;
  for (std::size_t i = 0; i < count_; ++i) total += matches(i, id, name);
  return total;
}

bool HttpHead::has_token(FieldId id, std::string_view token) const {
  if (count(id) == 0) return false;
  if (equals_ignore_case(find(id), token)) return true;  // the usual case: one item
  std::string_view item;
  for (ListCursor cursor(*this, id); cursor.next(item);) {
    if (equals_ignore_case(item, token)) return true;
  }
  return false;
}

bool HttpHead::has_token(std::string_view name, std::string_view token) const {
  std::string_view item;
  for (ListCursor cursor(*this, name); cursor.next(item);) {
    if (equals_ignore_case(item, token)) return true;
  }
  return false;
}

bool ListCursor::next(std::string_view& item) {
  while (!next_list_item(list_, item)) {
    field_ = head_.next(field_, id_, name_);
    if (field_ == head_.count_) return false;
    list_ = head_.fields_[field_++].value;
  }
  return true;
}

ParseResult HttpRequest::parse(Bytes in, const HttpLimits& limits) {
  clear();
  method_ = target_ = path_ = query_ = authority_ = {};
  Cursor cursor = make_cursor(in, limits);
  const char* const begin = cursor.at;
  Step step = parse_line(cursor);
  const Step limit_step = step == Step::more ? Step::target_too_long : Step::head_too_large;
  if (step == Step::ok) step = parse_fields(cursor, limits);
  if (step == Step::ok && count(FieldId::transfer_encoding) != 0) step = check_codings();
  return make_result(step, static_cast<std::size_t>(cursor.at - begin), in.size() >= limits.max_bytes,
                     limit_step);
}

// RFC 9112 sections 6.1, 6.3: content of which chunked is not the last coding, once, has no end that can be found.
Step HttpRequest::check_codings() const {
  std::size_t codings = 0, chunked = 0;
  bool is_chunked = false;  // the one before
  std::string_view coding;
  for (ListCursor cursor(*this, FieldId::transfer_encoding); cursor.next(coding); ++codings) {
    is_chunked = equals_ignore_case(coding, "chunked");
    chunked += is_chunked;
  }
  if (!is_chunked || chunked != 1) return Step::bad_request;
  return codings == 1 ? Step::ok : Step::not_implemented;
}

// request-line (RFC 9112 section 3). The accessors are set only once the whole line is known to be good.
Step HttpRequest::parse_line(Cursor& cursor) {
  // RFC 9112 section 2.2: empty lines before the request line are forgiven.
  for (int i = 0; i < max_empty_lines && !cursor.empty() && *cursor.at == '\r'; ++i) {
    if (const Step step = take_line_end(cursor); step != Step::ok) return step;
  }
  const char* const method = cursor.at;
  cursor.at = skip_class(method, cursor.end, token_char);
  const char* const method_end = cursor.at;
  if (method_end - method > static_cast<std::ptrdiff_t>(max_method_size)) return Step::not_implemented;
  if (method == method_end && !cursor.empty()) return Step::bad_request;
  if (const Step step = take_space(cursor); step != Step::ok) return step;

  const char* const target = cursor.at;
  cursor.at = skip_class(target, cursor.end, target_char);
  const char* const target_end = cursor.at;
  if (target == target_end && !cursor.empty()) return Step::bad_request;
  if (const Step step = take_space(cursor); step != Step::ok) return step;

  unsigned minor = 0;
  if (const Step step = take_version(cursor, minor); step != Step::ok) return step;
  if (const Step step = take_line_end(cursor); step != Step::ok) return step;
  minor_version_ = minor;
  method_ = view(method, method_end);
  target_ = view(target, target_end);
  if (split_target()) return Step::ok;
  method_ = target_ = path_ = query_ = authority_ = {};
  return Step::bad_request;
}

// request-target (RFC 9112 section 3.2) in its four forms. False when it is none of them.
bool HttpRequest::split_target() {
  std::string_view rest = target_;
  if (method_ == "CONNECT") {
    authority_ = target_;
    return is_connect_target(authority_);
  }
  if (method_ == "OPTIONS" && target_ == "*") {
    path_ = target_;
    return true;
  }
  if (rest.front() != '/') {
    const std::size_t colon = rest.find("://");
    if (colon == rest.npos) return false;
    const std::string_view scheme = rest.substr(0, colon);
    const auto is_scheme = [scheme](std::string_view known) { return equals_ignore_case(scheme, known); };
    if (!is_scheme("http") && !is_scheme("https") && !is_scheme("ws") && !is_scheme("wss")) return false;
    rest.remove_prefix(colon + 3);
    authority_ = rest.substr(0, rest.find_first_of("/?"));
    if (!is_authority(authority_)) return false;
    rest.remove_prefix(authority_.size());
  }
  const std::size_t question = rest.find('?');
  path_ = rest.substr(0, question);
  if (path_.empty()) path_ = "/";
  if (question != rest.npos) query_ = rest.substr(question + 1);
  return is_path(path_);
}

bool HttpRequest::keep_alive() const {
  if (has_token(FieldId::connection, "close")) return false;
  return minor_version() >= 1 || has_token(FieldId::connection, "keep-alive");
}

ParseResult HttpResponse::parse(Bytes in, const HttpLimits& limits) {
  clear();
  status_ = 0;
  reason_ = {};
  Cursor cursor = make_cursor(in, limits);
  const char* const begin = cursor.at;
  Step step = parse_line(cursor);
  if (step == Step::ok) step = parse_fields(cursor, limits);
  return make_result(step, static_cast<std::size_t>(cursor.at - begin), in.size() >= limits.max_bytes,
                     Step::head_too_large);
}

namespace {

// Replaces each line break that a folded line follows by spaces (RFC 9112 section 5.2), but for the one behind the
// status line, and none behind the head.
void unfold(MutableBytes in) {
  std::uint8_t* const end = in.data() + in.size();
  bool in_fields = false;
  for (std::uint8_t* at = in.data(); (at = std::find(at, end, '\r')) != end && end - at > 2; ++at) {
    if (at[1] != '\n') continue;
    if (at[2] == '\r') return;
    if (in_fields && is_blank(static_cast<char>(at[2]))) at[0] = at[1] = ' ';
    in_fields = true;
  }
}

}  // namespace

ParseResult HttpResponse::parse_final(MutableBytes in, const HttpLimits& limits) {
  HttpLimits left = limits;
  for (std::size_t before = 0;;) {
    unfold(in.subspan(before));
    ParseResult result = parse(in.subspan(before), left);
    if (result.state != ParseState::complete) return result;
    left.max_bytes -= result.consumed;
    before += result.consumed;
    if (status_ >= 200 || status_ == 101) return {result.state, 0, before};
  }
}

// status-line (RFC 9112 section 4). Servers that write no reason often leave out the space before it as well;
// that is accepted.
Step HttpResponse::parse_line(Cursor& cursor) {
  unsigned minor = 0;
  if (const Step step = take_version(cursor, minor); step != Step::ok) return step;
  if (const Step step = take_space(cursor); step != Step::ok) return step;
  unsigned status = 0;
  for (int i = 0; i < 3; ++i, ++cursor.at) {
    if (cursor.empty()) return Step::more;
    if (*cursor.at < (i == 0 ? '1' : '0') || *cursor.at > '9') return Step::bad_request;
    status = status * 10 + static_cast<unsigned>(*cursor.at - '0');
  }
  const char* reason = cursor.at;
  if (!cursor.empty() && *cursor.at == ' ') {
    reason = cursor.at + 1;
    cursor.at = skip_text(reason, cursor.end);
  }
  const char* const reason_end = cursor.at;
  if (const Step step = take_line_end(cursor); step != Step::ok) return step;
  minor_version_ = minor;
  status_ = status;
  reason_ = view(reason, reason_end);
  return Step::ok;
}

std::size_t content_bytes(const HttpResponse& response, std::size_t most) {
  const unsigned status = response.status();
  if (status < 200 || status == 204 || status == 304) return 0;
  const std::string_view length = response.find(FieldId::content_length);
  if (length.empty() || response.count(FieldId::transfer_encoding) != 0) return most;
  std::uint64_t declared = 0;
  const auto parsed = std::from_chars(length.data(), length.data() + length.size(), declared);
  return parsed.ec == std::errc{} ? static_cast<std::size_t>(std::min<std::uint64_t>(declared, most)) : most;
}

}  // namespace levada::ws
