#include <levada/ws/handshake.h>

#include <algorithm>
#include <array>
#include <cstring>

#include <levada/ws/extension.h>
#include <levada/ws/writer.h>

namespace levada::ws {
namespace {

using detail::Writer;

constexpr std::string_view version_number = "13";

// ---- Rejections ----

constexpr HttpField text_fields[] = {{"Content-Type", "text/plain"}};
constexpr HttpField allow_fields[] = {{"Allow", "GET"}, {"Content-Type", "text/plain"}};
constexpr HttpField version_fields[] = {{"Sec-WebSocket-Version", version_number},
                                        {"Content-Type", "text/plain"}};

constexpr Rejection bad_request(std::string_view body) {
  return {400, {}, text_fields, body};
}

constexpr Rejection bad_host = bad_request("exactly one Host field with a host name is required\n");
constexpr Rejection not_get = {405, {}, allow_fields, "a WebSocket handshake is a GET request\n"};
constexpr Rejection bad_target = bad_request("the request target names no resource\n");
constexpr Rejection no_connection = bad_request("\"Connection: Upgrade\" is missing\n");
constexpr Rejection bad_version = {426, {}, version_fields, "WebSocket version 13 is required\n"};
constexpr Rejection repeated_version = bad_request("Sec-WebSocket-Version is repeated\n");
constexpr Rejection repeated_key = bad_request("Sec-WebSocket-Key is repeated\n");
constexpr Rejection bad_key = bad_request("Sec-WebSocket-Key is missing or is not base64 of 16 bytes\n");
constexpr Rejection bad_subprotocols = bad_request("Sec-WebSocket-Protocol is no list of different tokens\n");
constexpr Rejection bad_extensions = bad_request("Sec-WebSocket-Extensions is no list of extensions\n");
constexpr Rejection unexpected_content = bad_request("a WebSocket handshake has no content\n");
constexpr Rejection plain_request = {426, {}, version_fields, "this is a WebSocket endpoint\n"};
constexpr Rejection bad_origin = {403, {}, text_fields, "this origin is not allowed\n"};

// What a client may offer of subprotocols: each is compared with all others.
constexpr std::size_t max_offered_subprotocols = 100;

constexpr UpgradeCheck rejected(const Rejection& why) {
  return {RequestKind::rejected, &why};
}

// RFC 6455 section 4.1 point 10: at least one, each a token, none twice.
bool valid_subprotocols(const HttpRequest& request) {
  std::array<std::string_view, max_offered_subprotocols> names;
  auto end = names.begin();
  std::string_view name;
  for (ListCursor cursor(request, FieldId::sec_websocket_protocol); cursor.next(name); *end++ = name) {
    if (!is_token(name) || end == names.end() || std::find(names.begin(), end, name) != end) return false;
  }
  return end != names.begin();
}

// ---- Origins ----

struct Origin {
  std::string_view scheme = {};
  std::string_view host = {};
  std::string_view port = {};
};

std::string_view default_port(std::string_view scheme) {
  const auto is = [scheme](std::string_view known) { return equals_ignore_case(scheme, known); };
  if (is("http") || is("ws")) return "80";
  if (is("https") || is("wss")) return "443";
  return {};
}

// Fills host and port from host[:port]; `scheme` decides about a port that is left out. The colons of an IPv6
// address stand inside brackets.
void split_authority(std::string_view authority, Origin& origin) {
  const std::size_t colon = authority.rfind(':');
  const std::size_t bracket = authority.rfind(']');
  const bool has_port = colon != authority.npos && (bracket == authority.npos || bracket < colon);
  origin.host = authority.substr(0, has_port ? colon : authority.npos);
  origin.port = has_port ? authority.substr(colon + 1) : std::string_view();
  if (origin.port.empty()) origin.port = default_port(origin.scheme);
}

// False for "null" and for anything that is no scheme://host[:port].
bool parse_origin(std::string_view text, Origin& origin) {
  const std::size_t colon = text.find("://");
  if (colon == text.npos || colon == 0) return false;
  const std::string_view authority = text.substr(colon + 3);
  if (!is_authority(authority)) return false;
  origin.scheme = text.substr(0, colon);
  split_authority(authority, origin);
  return !origin.host.empty();
}

// Whether `origin` is `host` letter by letter behind a scheme, as browsers write it: then nothing has to be parsed.
bool is_scheme_and(std::string_view origin, std::string_view host) {
  if (host.empty() || !origin.ends_with(host)) return false;
  const std::string_view scheme = origin.substr(0, origin.size() - host.size());
  return scheme == "http://" || scheme == "https://";
}

bool same_place(const Origin& a, const Origin& b) {
  return equals_ignore_case(a.host, b.host) && a.port == b.port;
}

bool is_listed(const Origin& origin, std::span<const std::string_view> list) {
  return std::any_of(list.begin(), list.end(), [&origin](std::string_view text) {
    Origin allowed;
    return parse_origin(text, allowed) && equals_ignore_case(origin.scheme, allowed.scheme) &&
           same_place(origin, allowed);
  });
}

// ---- Writing ----

// The caller's fields, but those that would break the message or contradict what the writer says itself.
void put_fields(Writer& writer, std::span<const HttpField> fields) {
  for (const HttpField& field : fields) {
    if (!is_writable(field)) continue;
    const FieldId id = identify(field.name);
    if (id == FieldId::other || id == FieldId::sec_websocket_version)
      writer.put_field(field.name, field.value);
  }
}

void put_accept(Writer& writer, const Acceptance& acceptance) {
  const AcceptKey accept = accept_key(acceptance.key);
  writer.put(
      "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: "
      "Upgrade\r\nSec-WebSocket-Accept: ");
  writer.put({accept.data(), accept.size()});
  writer.put("\r\n");
  if (is_token(acceptance.subprotocol)) writer.put_field("Sec-WebSocket-Protocol", acceptance.subprotocol);
  if (!acceptance.extensions.empty() && is_field_value(acceptance.extensions)) {
    writer.put_field("Sec-WebSocket-Extensions", acceptance.extensions);
  }
  put_fields(writer, acceptance.fields);
  writer.put(acceptance.constant_block);
  writer.put("\r\n");
}

void put_status_line(Writer& writer, unsigned status, std::string_view reason) {
  writer.put("HTTP/1.1 ");
  writer.put_number(status);
  writer.put(" ");
  writer.put(reason.empty() || !is_field_value(reason) ? reason_phrase(status) : reason);
  writer.put("\r\n");
}

bool has_date(std::span<const HttpField> fields) {
  return std::any_of(fields.begin(), fields.end(),
                     [](const HttpField& field) { return equals_ignore_case(field.name, "Date"); });
}

void put_response(Writer& writer, const Response& response) {
  const bool has_length = response.status >= 200 && response.status != 204 && response.status != 304;
  const std::string_view body = response.status == 205 ? std::string_view() : response.body;
  put_status_line(writer, response.status, response.reason);
  if (response.status == 426) {
    writer.put("Upgrade: websocket\r\n");
    writer.put_field("Connection", response.keep_alive ? "Upgrade" : "Upgrade, close");
  } else if (!response.keep_alive) {
    writer.put("Connection: close\r\n");
  } else if (response.http_1_0) {
    writer.put("Connection: keep-alive\r\n");
  }
  if (has_length) {
    writer.put("Content-Length: ");
    writer.put_number(body.size());
    writer.put("\r\n");
  }
  if (response.status >= 200 && !has_date(response.fields)) writer.put(response.date_line);
  put_fields(writer, response.fields);
  writer.put(response.constant_block);
  writer.put("\r\n");
  if (has_length && !response.omit_body) writer.put(body);
}

void put_upgrade_request(Writer& writer, const UpgradeRequest& request) {
  writer.put("GET ");
  writer.put(request.target);
  writer.put(" HTTP/1.1\r\n");
  writer.put_field("Host", request.host);
  writer.put("Upgrade: websocket\r\nConnection: Upgrade\r\n");
  writer.put_field("Sec-WebSocket-Key", request.key);
  writer.put_field("Sec-WebSocket-Version", version_number);
  if (!request.subprotocols.empty()) {
    writer.put("Sec-WebSocket-Protocol: ");
    for (std::size_t i = 0; i < request.subprotocols.size(); ++i) {
      if (i != 0) writer.put(", ");
      writer.put(request.subprotocols[i]);
    }
    writer.put("\r\n");
  }
  if (!request.extensions.empty()) writer.put_field("Sec-WebSocket-Extensions", request.extensions);
  if (!request.origin.empty()) writer.put_field("Origin", request.origin);
  for (const HttpField& field : request.fields) writer.put_field(field.name, field.value);
  writer.put("\r\n");
}

template <class Put, class Message>
std::size_t write(MutableBytes out, Put put, const Message& message) {
  Writer writer(out);
  put(writer, message);
  return writer.written();
}

template <class Put, class Message>
std::size_t measure(Put put, const Message& message) {
  Writer writer({});
  put(writer, message);
  return writer.size();
}

// ---- Client ----

// An extension's name: what stands before its parameters.
std::string_view extension_name(std::string_view item) {
  return trim(item.substr(0, item.find(';')));
}

bool is_offered(std::string_view name, std::string_view offers) {
  for (std::string_view item; next_list_item(offers, item);) {
    if (extension_name(item) == name) return true;
  }
  return false;
}

bool has_unasked_extension(const HttpResponse& response, std::string_view offers) {
  std::string_view item;
  for (ListCursor cursor(response, FieldId::sec_websocket_extensions); cursor.next(item);) {
    if (!is_offered(extension_name(item), offers)) return true;
  }
  return false;
}

}  // namespace

UpgradeCheck check_upgrade(const HttpRequest& request) {
  const std::size_t hosts = request.count(FieldId::host);
  const std::string_view host = request.find(FieldId::host);
  if (hosts > 1 || (hosts == 0 && request.minor_version() >= 1)) return rejected(bad_host);
  if (!host.empty() && !is_authority(host)) return rejected(bad_host);
  if (request.minor_version() < 1 || !request.has_token(FieldId::upgrade, "websocket")) {
    return {RequestKind::plain, nullptr};
  }
  if (request.method() != "GET") return rejected(not_get);
  if (!request.path().starts_with('/')) return rejected(bad_target);
  if (request.host().empty()) return rejected(bad_host);
  if (!request.has_token(FieldId::connection, "upgrade")) return rejected(no_connection);
  if (request.count(FieldId::sec_websocket_version) > 1) return rejected(repeated_version);
  if (request.find(FieldId::sec_websocket_version) != version_number) return rejected(bad_version);
  if (request.count(FieldId::sec_websocket_key) > 1) return rejected(repeated_key);
  if (!is_websocket_key(request.find(FieldId::sec_websocket_key))) return rejected(bad_key);
  if (request.count(FieldId::sec_websocket_protocol) != 0 && !valid_subprotocols(request)) {
    return rejected(bad_subprotocols);
  }
  if (request.count(FieldId::sec_websocket_extensions) != 0 && !ExtensionCursor(request).valid()) {
    return rejected(bad_extensions);
  }
  if (request.has_body()) return rejected(unexpected_content);
  return {RequestKind::websocket, nullptr};
}

const Rejection& upgrade_required() {
  return plain_request;
}

std::string_view select_subprotocol(const HttpRequest& request,
                                    std::span<const std::string_view> server_preference) {
  const auto found = std::find_if(server_preference.begin(), server_preference.end(),
                                  [&](std::string_view name) { return offers_subprotocol(request, name); });
  return found != server_preference.end() ? *found : std::string_view();
}

bool offers_subprotocol(const HttpRequest& request, std::string_view name) {
  std::string_view offered;
  for (ListCursor cursor(request, FieldId::sec_websocket_protocol); cursor.next(offered);) {
    if (offered == name) return true;
  }
  return false;
}

bool origin_allowed(const HttpRequest& request, OriginPolicy policy,
                    std::span<const std::string_view> allow_list) {
  const std::size_t origins = request.count(FieldId::origin);
  if (policy == OriginPolicy::any || origins == 0) return true;
  if (origins > 1) return false;
  const std::string_view text = request.find(FieldId::origin);
  if (policy == OriginPolicy::same_host && is_scheme_and(text, request.host())) return true;
  Origin origin;
  if (!parse_origin(text, origin)) return false;
  if (policy == OriginPolicy::allow_list) return is_listed(origin, allow_list);
  Origin own{.scheme = origin.scheme};
  split_authority(request.host(), own);
  return same_place(origin, own);
}

std::string_view reason_phrase(unsigned status) {
  switch (status) {
    case 100:
      return "Continue";
    case 101:
      return "Switching Protocols";
    case 200:
      return "OK";
    case 201:
      return "Created";
    case 202:
      return "Accepted";
    case 203:
      return "Non-Authoritative Information";
    case 204:
      return "No Content";
    case 205:
      return "Reset Content";
    case 206:
      return "Partial Content";
    case 300:
      return "Multiple Choices";
    case 301:
      return "Moved Permanently";
    case 302:
      return "Found";
    case 303:
      return "See Other";
    case 304:
      return "Not Modified";
    case 305:
      return "Use Proxy";
    case 307:
      return "Temporary Redirect";
    case 308:
      return "Permanent Redirect";
    case 400:
      return "Bad Request";
    case 401:
      return "Unauthorized";
    case 402:
      return "Payment Required";
    case 403:
      return "Forbidden";
    case 404:
      return "Not Found";
    case 405:
      return "Method Not Allowed";
    case 406:
      return "Not Acceptable";
    case 407:
      return "Proxy Authentication Required";
    case 408:
      return "Request Timeout";
    case 409:
      return "Conflict";
    case 410:
      return "Gone";
    case 411:
      return "Length Required";
    case 412:
      return "Precondition Failed";
    case 413:
      return "Content Too Large";
    case 414:
      return "URI Too Long";
    case 415:
      return "Unsupported Media Type";
    case 416:
      return "Range Not Satisfiable";
    case 417:
      return "Expectation Failed";
    case 421:
      return "Misdirected Request";
    case 422:
      return "Unprocessable Content";
    case 425:
      return "Too Early";
    case 426:
      return "Upgrade Required";
    case 428:
      return "Precondition Required";
    case 429:
      return "Too Many Requests";
    case 431:
      return "Request Header Fields Too Large";
    case 451:
      return "Unavailable For Legal Reasons";
    case 500:
      return "Internal Server Error";
    case 501:
      return "Not Implemented";
    case 502:
      return "Bad Gateway";
    case 503:
      return "Service Unavailable";
    case 504:
      return "Gateway Timeout";
    case 505:
      return "HTTP Version Not Supported";
    case 511:
      return "Network Authentication Required";
    default:
      return "Unknown";
  }
}

bool is_writable(const HttpField& field) {
  return is_token(field.name) && is_field_value(field.value);
}

ConstantFields::ConstantFields(std::span<const HttpField> fields) {
  Writer size({});
  put_fields(size, fields);
  block_.resize(size.size());
  Writer writer({reinterpret_cast<std::uint8_t*>(block_.data()), block_.size()});
  put_fields(writer, fields);
}

Acceptance accept_request(const HttpRequest& request) {
  return {.key = request.find(FieldId::sec_websocket_key)};
}

std::size_t accept_size(const Acceptance& acceptance) {
  return measure(put_accept, acceptance);
}

std::size_t write_accept(MutableBytes out, const Acceptance& acceptance) {
  return write(out, put_accept, acceptance);
}

Response make_response(const Rejection& rejection, std::string_view constant_block) {
  return {.status = rejection.status,
          .reason = rejection.reason,
          .fields = rejection.fields,
          .body = rejection.body,
          .keep_alive = false,
          .constant_block = constant_block};
}

std::size_t rejection_size(const Rejection& rejection, std::string_view constant_block) {
  return response_size(make_response(rejection, constant_block));
}

std::size_t write_rejection(MutableBytes out, const Rejection& rejection, std::string_view constant_block) {
  return write_response(out, make_response(rejection, constant_block));
}

std::size_t response_size(const Response& response) {
  return measure(put_response, response);
}

std::size_t write_response(MutableBytes out, const Response& response) {
  return write(out, put_response, response);
}

Upgrader::Outcome Upgrader::feed(Progress& progress, Bytes in, MutableBytes out) {
  const bool parse = worth_parsing(in, progress.seen, options_.limits);
  progress.seen = in.size();
  if (!parse) return {};
  const ParseResult parsed = request_.parse(in, options_.limits);
  if (const Rejection* rejection = show_lines(progress)) return reject(*rejection, out);
  switch (parsed.state) {
    case ParseState::incomplete:
      return {};
    case ParseState::invalid:
      return reject({parsed.http_status, {}, {}, {}}, out);
    case ParseState::complete:
      break;
  }
  return decide(parsed.consumed, out);
}

// Calls the hooks for the lines that are new since the last call.
const Rejection* Upgrader::show_lines(Progress& progress) const {
  const UpgradeHooks& hooks = options_.hooks;
  if (request_.method().empty()) return nullptr;
  if (!progress.line_shown) {
    progress.line_shown = true;
    if (hooks.on_request_line) {
      const auto* rejection = hooks.on_request_line(hooks.context, request_.method(), request_.target());
      if (rejection != nullptr) return rejection;
    }
  }
  if (!hooks.on_host && !hooks.on_field) return nullptr;
  while (progress.fields_shown < request_.fields().size()) {
    const std::size_t i = progress.fields_shown++;
    const HttpField& field = request_.fields()[i];
    const Rejection* rejection = nullptr;
    if (request_.id(i) == FieldId::host) {
      if (hooks.on_host) rejection = hooks.on_host(hooks.context, field.value);
    } else if (hooks.on_field) {
      rejection = hooks.on_field(hooks.context, field.name, field.value);
    }
    if (rejection != nullptr) return rejection;
  }
  return nullptr;
}

// A complete request: checks, the owner's last word, and the answer.
Upgrader::Outcome Upgrader::decide(std::size_t consumed, MutableBytes out) {
  const UpgradeCheck check = check_upgrade(request_);
  if (check.kind == RequestKind::rejected) return reject(*check.rejection, out);
  if (check.kind == RequestKind::plain) return reject(upgrade_required(), out);
  if (!origin_allowed(request_, options_.origin_policy, options_.allowed_origins))
    return reject(bad_origin, out);

  Acceptance acceptance = accept_request(request_);
  acceptance.subprotocol = select_subprotocol(request_, options_.subprotocols);
  acceptance.constant_block = options_.constant_block;
  const UpgradeHooks& hooks = options_.hooks;
  if (hooks.on_upgrade) {
    const Rejection* rejection = hooks.on_upgrade(hooks.context, request_, acceptance);
    if (rejection != nullptr) return reject(*rejection, out);
  }
  const std::string_view chosen = acceptance.subprotocol;
  if (!chosen.empty() && !offers_subprotocol(request_, chosen)) acceptance.subprotocol = {};
  const std::size_t written = write_accept(out, acceptance);
  if (written == 0) return reject({500, {}, {}, {}}, out);
  return {State::accepted, 101, consumed, written, acceptance.subprotocol};
}

Upgrader::Outcome Upgrader::reject(const Rejection& rejection, MutableBytes out) const {
  Response response = make_response(rejection, options_.constant_block);
  response.omit_body = request_.method() == "HEAD";
  response.date_line = options_.date_line;
  const std::size_t written = write_response(out, response);
  if (written != 0) return {State::rejected, rejection.status, 0, written, {}};
  return {State::rejected, 500, 0, write_rejection(out, {500, {}, {}, {}}), {}};
}

bool is_writable(const UpgradeRequest& request) {
  const auto& names = request.subprotocols;
  for (auto name = names.begin(); name != names.end(); ++name) {
    if (!is_token(*name) || std::find(names.begin(), name, *name) != name) return false;
  }
  return is_authority(request.host) && is_request_target(request.target) && request.target.front() == '/' &&
         is_websocket_key(request.key) && is_field_value(request.origin) &&
         is_field_value(request.extensions) &&
         std::all_of(request.fields.begin(), request.fields.end(), [](const HttpField& field) {
           return is_writable(field) && identify(field.name) == FieldId::other;
         });
}

std::size_t upgrade_request_size(const UpgradeRequest& request) {
  return is_writable(request) ? measure(put_upgrade_request, request) : 0;
}

std::size_t write_upgrade_request(MutableBytes out, const UpgradeRequest& request) {
  return is_writable(request) ? write(out, put_upgrade_request, request) : 0;
}

const char* to_string(UpgradeFailure failure) {
  switch (failure) {
    case UpgradeFailure::none:
      return "none";
    case UpgradeFailure::status_not_101:
      return "status_not_101";
    case UpgradeFailure::http_1_0:
      return "http_1_0";
    case UpgradeFailure::upgrade_missing:
      return "upgrade_missing";
    case UpgradeFailure::connection_missing:
      return "connection_missing";
    case UpgradeFailure::accept_missing:
      return "accept_missing";
    case UpgradeFailure::accept_wrong:
      return "accept_wrong";
    case UpgradeFailure::subprotocol_unasked:
      return "subprotocol_unasked";
    case UpgradeFailure::subprotocol_repeated:
      return "subprotocol_repeated";
    case UpgradeFailure::extension_unasked:
      return "extension_unasked";
    case UpgradeFailure::extension_malformed:
      return "extension_malformed";
  }
  return "unknown";
}

UpgradeResult check_upgrade_response(const HttpResponse& response, const UpgradeRequest& request) {
  const auto fail = [](UpgradeFailure failure) { return UpgradeResult{failure, {}}; };
  if (response.status() != 101) return fail(UpgradeFailure::status_not_101);
  if (response.minor_version() == 0) return fail(UpgradeFailure::http_1_0);
  if (response.count(FieldId::upgrade) != 1 ||
      !equals_ignore_case(response.find(FieldId::upgrade), "websocket")) {
    return fail(UpgradeFailure::upgrade_missing);
  }
  if (!response.has_token(FieldId::connection, "upgrade")) return fail(UpgradeFailure::connection_missing);
  if (response.count(FieldId::sec_websocket_accept) != 1) return fail(UpgradeFailure::accept_missing);
  const AcceptKey expected = accept_key(request.key);
  if (response.find(FieldId::sec_websocket_accept) != std::string_view(expected.data(), expected.size())) {
    return fail(UpgradeFailure::accept_wrong);
  }
  if (!ExtensionCursor(response).valid()) return fail(UpgradeFailure::extension_malformed);
  if (has_unasked_extension(response, request.extensions)) return fail(UpgradeFailure::extension_unasked);

  if (response.count(FieldId::sec_websocket_protocol) > 1) return fail(UpgradeFailure::subprotocol_repeated);
  const std::string_view chosen = response.find(FieldId::sec_websocket_protocol);
  if (response.count(FieldId::sec_websocket_protocol) == 0) return {};
  const auto& offers = request.subprotocols;
  if (std::find(offers.begin(), offers.end(), chosen) == offers.end())
    return fail(UpgradeFailure::subprotocol_unasked);
  return {UpgradeFailure::none, chosen};
}

}  // namespace levada::ws
