// HTTP/1.1 message heads (RFC 9112, RFC 9110 section 5) as views over a caller's bytes.
//
// Model: the caller keeps the bytes received so far in one piece and parses them from the start; nothing is
// copied and nothing is allocated. A head is complete, incomplete (so far it is the beginning of a valid one)
// or invalid, and the answer for a head does not depend on how its bytes were cut on the way.
//
// The grammar is strict, because what two parsers read differently is how requests are smuggled: lines end in
// CRLF, no space before a colon, no folded lines but in the responses that a client gets, no control bytes. Fields that the opening handshake needs
// are recognised while they are parsed (FieldId), so that checking a handshake searches nothing.
//
// One object serves many heads, one after another; each reactor needs one. Not thread-safe.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include <levada/core/bytes.h>

namespace levada::ws {

// One header field. `value` has no white space around it. Both are views into the bytes that were parsed.
struct HttpField {
  std::string_view name = {};
  std::string_view value = {};
};

struct HttpLimits {
  std::size_t max_bytes = 16 * 1024;  // the whole head, from its first byte to its empty line
  std::size_t max_fields = 100;       // at most HttpHead::field_capacity, whatever is written here
};

enum class ParseState : std::uint8_t { incomplete, complete, invalid };

struct ParseResult {
  ParseState state = ParseState::incomplete;
  std::uint16_t http_status = 0;  // when invalid: what a server answers (400, 414, 431, 501, 505)
  std::size_t consumed = 0;  // when complete: bytes of the head; what follows belongs to the next protocol
};

// The fields that the engine itself reads.
enum class FieldId : std::uint8_t {
  other,
  host,
  origin,
  upgrade,
  connection,
  content_length,
  transfer_encoding,
  sec_websocket_key,
  sec_websocket_version,
  sec_websocket_protocol,
  sec_websocket_extensions,
  sec_websocket_accept,
};
inline constexpr std::size_t field_id_count = 12;

// The id of a field name, whatever its case. `name` must be a token.
FieldId identify(std::string_view name);

// DIGIT (RFC 5234).
constexpr bool is_digit(char c) {
  return c >= '0' && c <= '9';
}
// token (RFC 9110 section 5.6.2): methods, field names, subprotocols. token_size() is of the one at the front; 0: none.
std::size_t token_size(std::string_view text);
bool is_token(std::string_view text);

// A field value that is safe to write: no control bytes but the tab, so no line end either (RFC 9110
// section 5.5).
bool is_field_value(std::string_view text);

// host[:port] as it stands in a Host field (RFC 9110 section 7.2) and by the grammar of RFC 3986 section 3.2: a name,
// an IPv4 address or an IP literal in brackets, and digits if there is a port. The user part of a URI ("user@") is
// refused.
bool is_authority(std::string_view text);

// An IPv6 address without brackets or zone.
bool is_ipv6_address(std::string_view text);

// A request target that can stand in a request line: not empty, a path by the grammar of RFC 3986 section 3.3, and a
// query that may also have what browsers leave as it is there (the URL Standard): any printable ASCII but " # < >.
bool is_request_target(std::string_view text);

// Compares ASCII letters without regard to case and everything else exactly.
bool equals_ignore_case(std::string_view a, std::string_view b);

// `text` without the spaces and tabs around it.
std::string_view trim(std::string_view text);

// Takes the next item off a comma-separated list (RFC 9110 section 5.6.1): true and the trimmed item in
// `item`, or false at the end. Empty items are skipped; a comma inside a quoted string does not separate.
bool next_list_item(std::string_view& list, std::string_view& item);

// Where the head in `in` ends: the number of bytes up to and including its empty line, or 0 when that has not
// come yet; empty lines in front of a request are part of it. `from` is how many bytes an earlier call has already seen, so that every byte is looked at once.
// It searches and validates nothing.
std::size_t find_header_end(Bytes in, std::size_t from);

// Whether parsing again can say anything new, when `seen` bytes of `in` were parsed before and the head was
// incomplete: only once another line has ended or the limit is reached. It keeps a peer that sends byte by
// byte from costing quadratic time, and a malformed line is still refused as soon as it ends.
bool worth_parsing(Bytes in, std::size_t seen, const HttpLimits& limits = {});

namespace detail {
enum class Step : std::uint16_t;
struct Cursor;
}  // namespace detail

// What requests and responses have in common: the fields.
//
// After parse() the accessors describe the head. When it was incomplete or invalid they describe the lines
// before the one that stopped the parser; a start line that is not complete has an empty method or a status
// of 0. All views point into the parsed bytes and live as long as those bytes do.
class HttpHead {
 public:
  static constexpr std::size_t field_capacity = 128;

  std::span<const HttpField> fields() const { return {fields_.data(), count_}; }

  // x in HTTP/1.x.
  unsigned minor_version() const { return minor_version_; }

  // The value of the first field of that name; a null view when there is none.
  std::string_view find(FieldId id) const {
    return count(id) != 0 ? fields_[seen_[index(id)].first].value : std::string_view();
  }
  std::string_view find(std::string_view name) const;

  // How many fields have that name.
  std::size_t count(FieldId id) const { return seen_[index(id)].count; }
  std::size_t count(std::string_view name) const;

  // Whether the comma-separated list, made of all fields of that name, has `token` (which must be
  // one); case does not matter.
  bool has_token(FieldId id, std::string_view token) const;
  bool has_token(std::string_view name, std::string_view token) const;

  // Which of the engine's fields fields()[i] is.
  FieldId id(std::size_t i) const { return ids_[i]; }

  // Whether content follows the head (RFC 9112 section 6.3): Transfer-Encoding, or a Content-Length above 0.
  bool has_body() const { return has_body_; }

 protected:
  HttpHead() = default;

  void clear();
  detail::Step parse_fields(detail::Cursor& cursor, const HttpLimits& limits);

  unsigned minor_version_ = 0;

 private:
  struct Seen {
    std::uint8_t first = 0;
    std::uint8_t count = 0;
  };

  static std::size_t index(FieldId id) { return static_cast<std::size_t>(id); }
  void record(const HttpField& field);
  bool matches(std::size_t i, FieldId id, std::string_view name) const;
  std::size_t next(std::size_t from, FieldId id, std::string_view name) const;
  detail::Step check_framing();

  std::size_t count_ = 0;
  bool has_body_ = false;
  std::array<Seen, field_id_count> seen_{};
  std::array<FieldId, field_capacity> ids_{};
  std::array<HttpField, field_capacity> fields_{};

  friend class ListCursor;
};

// Walks the items of the comma-separated list that all fields of one id make up, in order.
//   for (ListCursor cursor(request, FieldId::sec_websocket_protocol); cursor.next(item);) ...
// `head` and the bytes under it must outlive the cursor.
class ListCursor {
 public:
  ListCursor(const HttpHead& head, FieldId id) : head_(head), id_(id) {}
  ListCursor(const HttpHead& head, std::string_view name) : head_(head), id_(identify(name)), name_(name) {}

  // True and the next item, or false at the end.
  bool next(std::string_view& item);

 private:
  const HttpHead& head_;
  FieldId id_;
  std::string_view name_;
  std::string_view list_;
  std::size_t field_ = 0;
};

// A request's head (RFC 9112 section 3).
class HttpRequest : public HttpHead {
 public:
  // Parses the head at the start of `in`; bytes behind it are not looked at. Up to four empty lines before it are
  // skipped. Status when invalid: 400; 414 when the request line alone passes max_bytes; 431 when the head
  // passes max_bytes or max_fields; 501 when the method is longer than any method is, or the content has a transfer
  // coding besides chunked; 505 when the version is not HTTP/1.x. Bytes that cannot begin a request are refused with the first of them that is wrong.
  ParseResult parse(Bytes in, const HttpLimits& limits = {});

  std::string_view method() const { return method_; }  // case-sensitive; "GET"
  std::string_view target() const {
    return target_;
  }                                                  // as sent: origin, absolute, authority or asterisk form
  std::string_view path() const { return path_; }    // as sent, not percent-decoded; "/" where it is empty
  std::string_view query() const { return query_; }  // what follows the first '?', empty when nothing does

  // host[:port] that the request is for: the target's own in absolute form, otherwise the Host field's
  // (RFC 9112 section 3.3).
  std::string_view host() const { return authority_.empty() ? find(FieldId::host) : authority_; }

  // Whether the client would send another request on this connection (RFC 9112 section 9.3).
  bool keep_alive() const;

 private:
  detail::Step parse_line(detail::Cursor& cursor);
  bool split_target();
  detail::Step check_codings() const;

  std::string_view method_;
  std::string_view target_;
  std::string_view path_;
  std::string_view query_;
  std::string_view authority_;
};

// A response's head (RFC 9112 section 4), for the client side.
class HttpResponse : public HttpHead {
 public:
  // As HttpRequest::parse. When invalid, http_status tells the kind of failure by the number a server would
  // answer: 400 malformed, 431 too large, 505 not HTTP/1.x.
  ParseResult parse(Bytes in, const HttpLimits& limits = {});

  // The same for a client that waits for the final response: interim ones (1xx but 101) are skipped, and each line
  // break before a folded line is overwritten with spaces (RFC 9112 section 5.2). max_bytes holds for all heads
  // together; `consumed` counts them all. What was looked at and is incomplete may be given again with more behind it.
  ParseResult parse_final(MutableBytes in, const HttpLimits& limits = {});

  unsigned status() const { return status_; }          // 100 to 999
  std::string_view reason() const { return reason_; }  // may be empty

 private:
  detail::Step parse_line(detail::Cursor& cursor);

  unsigned status_ = 0;
  std::string_view reason_;
};

// How many bytes of content follow a response's head (RFC 9112 section 6.3), at most `most`: the Content-Length, and
// `most` where it is chunked, encoding included, or ends with the connection.
std::size_t content_bytes(const HttpResponse& response, std::size_t most);

}  // namespace levada::ws
