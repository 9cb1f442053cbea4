// The opening handshake of a Connection, both roles: what comes in is gathered, parsed where it lies, and answered.
#include <algorithm>
#include <cassert>
#include <cstring>

#include <levada/ws/service.h>
#include <levada/ws/tracing.h>

namespace levada::ws {
namespace {

constexpr std::uint16_t status_bad_request = 400;
constexpr std::uint16_t status_forbidden = 403;
constexpr std::uint16_t status_not_found = 404;
constexpr std::uint16_t status_not_implemented = 501;
// Of Pending::awaited_bytes: what has not come will not.
constexpr std::size_t give_up_waiting = ~std::size_t{0};

void clear_input(Pending& pending) {
  if (pending.input != nullptr) std::exchange(pending.input, nullptr)->drop_reference();
  pending.input_bytes = pending.parsed_bytes = 0;
}

bool has_item(std::string_view list, std::string_view wanted) {
  for (std::string_view item; next_list_item(list, item);) {
    if (item == wanted) return true;
  }
  return false;
}

}  // namespace

// ---- Server ----

// All bytes of the head so far: those that came now, or the ones kept from before with them behind.
MutableBytes Connection::gather_head(MutableBytes bytes) {
  if (pending_ == nullptr || pending_->input_bytes == 0) return bytes;
  append_input(*pending_, reactor().blocks(), bytes);
  return {pending_->input->data(), pending_->input_bytes};
}

// What a trusted proxy says before anything else.
void Connection::receive_proxy_header(MutableBytes bytes, Owner* memory) {
  net::ProxyProtocolParser& parser = *pending_->proxied;
  Bytes rest = bytes;
  const auto state = parser.feed(rest);
  if (state == net::ProxyProtocolParser::State::invalid) terminate();
  if (state != net::ProxyProtocolParser::State::complete) return;
  if (parser.has_addresses()) {
    service_->proxied_addresses_.insert_or_assign(id().packed(), parser.source());
    proxied_ = true;
  }
  drop_pending();
  if (service_->options_.tls != nullptr && !begin_tls()) return;
  if (!rest.empty()) reactor().received(*this, bytes.last(rest.size()), memory);
}

void Connection::receive_request(MutableBytes bytes, Owner* memory) {
  if (pending_ != nullptr && pending_->proxied != nullptr) return receive_proxy_header(bytes, memory);
  MutableBytes head = gather_head(bytes);
  const bool gathered = pending_ != nullptr && head.data() != bytes.data();
  while (phase_ == Phase::handshake && !head.empty()) {
    if (gathered && !worth_parsing(head, pending_->parsed_bytes, service_->options_.http)) return;
    const ParseResult parsed = service_->request_.parse(head, service_->options_.http);
    if (parsed.state == ParseState::invalid) {
      return reject_request({.status = parsed.http_status, .reason = {}, .fields = {}, .body = {}});
    }
    if (parsed.state == ParseState::incomplete) break;
    const MutableBytes rest = head.subspan(parsed.consumed);
    const bool go_on = serve_request();
    if (closed() || !go_on) return;
    if (phase_ == Phase::held) return hold_back(rest);
    if (phase_ == Phase::open) return begin_messages(rest, gathered ? nullptr : memory);
    head = rest;
    if (gathered) pending_->parsed_bytes = 0;
  }
  if (head.empty()) {
    if (pending_ != nullptr) clear_input(*pending_);
    return;
  }
  Pending& own = pending();
  if (!gathered) {
    append_input(own, reactor().blocks(), head);
  } else if (head.size() < own.input_bytes) {  // requests in front of it were served
    std::memmove(own.input->data(), head.data(), head.size());
    own.input_bytes = head.size();
  }
  own.parsed_bytes = own.input_bytes;
}

// The handshake is done; frames may be glued to it.
void Connection::begin_messages(MutableBytes rest, Owner* memory) {
  if (pending_ != nullptr && pending_->input != nullptr) {
    if (!rest.empty()) {  // they lie in the head's block: turn memory outlives it
      std::uint8_t* copy = reserve(rest.size());
      std::memcpy(copy, rest.data(), rest.size());
      rest = {copy, rest.size()};
    }
    memory = nullptr;
  }
  drop_pending();
  open();
  if (!rest.empty() && !closed() && phase_ != Phase::closed) receive_frames(rest, memory);
}

void Connection::open() {
  cancel_timer();
  opened_ = was_open_ = true;
  since_ms_ = received_ms_ = reactor().now_ms();
  service_->counters_.opened.add();
  trace(TraceKind::opened);
  arm_timer();
  if (service_->dial_observer_ != nullptr) service_->dial_observer_->opened(*this);
  if (service_->table_.open != nullptr) service_->table_.open(service_->handler_, *this);
}

// Returns whether there is anything more to do with the connection.
bool Connection::serve_request() {
  const UpgradeCheck check = check_upgrade(service_->request_);
  if (check.kind == RequestKind::rejected) {
    reject_request(*check.rejection);
  } else if (check.kind == RequestKind::plain) {
    serve_plain();
  } else {
    serve_upgrade();
  }
  return !closed() && phase_ != Phase::closed;
}

void Connection::serve_plain() {
  if (service_->request_.method() == "CONNECT") return reject(status_not_implemented);
  if (service_->table_.http == nullptr) return reject_request(upgrade_required());
  HttpExchange exchange(*this, service_->request_);
  service_->table_.http(service_->handler_, exchange);
  if (closed()) return;
  if (!exchange.answered_) exchange.respond(status_not_found, "text/plain", "not found\n");
  if (exchange.ends_) end_sending();  // only now: the handler may have read the request after it had answered
}

bool HttpExchange::respond(std::uint16_t status, std::string_view content_type, std::string_view body,
                           std::span<const HttpField> more_fields) {
  assert(!answered_);
  answered_ = true;
  constexpr std::size_t most_fields = 16;
  std::array<HttpField, 1 + most_fields> fields;
  std::size_t count = 0;
  if (!content_type.empty()) fields[count++] = {"Content-Type", content_type};
  for (const HttpField& field : more_fields.first(std::min(more_fields.size(), most_fields))) {
    fields[count++] = field;
  }
  // A client that asks on and reads no answers gets no more of them.
  const bool takes_answers = connection_.buffered() <= connection_.service_->options_.pause_above_bytes;
  const Response response{.status = status,
                          .reason = {},
                          .fields = {fields.data(), count},
                          .body = body,
                          .keep_alive = request_.keep_alive() && !request_.has_body() && takes_answers,
                          .omit_body = request_.method() == "HEAD",
                          .http_1_0 = request_.minor_version() == 0,
                          .constant_block = connection_.service_->constant_fields_.block(),
                          .date_line = connection_.service_->date_line()};
  const std::size_t size = response_size(response);
  std::uint8_t* out = connection_.reserve(size);
  connection_.send_turn_memory({out, write_response({out, size}, response)});
  ends_ = !response.keep_alive;
  if (!ends_) {
    connection_.set_timer(connection_.service_->options_.handshake_timeout_ms);  // for the next request
  }
  return more_fields.size() <= most_fields;
}

void Connection::serve_upgrade() {
  Params params;
  const HttpRequest& request = service_->request_;
  Service* const target = service_->route(request.path(), params);
  if (target == nullptr) return reject(status_not_found);
  if (!origin_allowed(request, target->options_.origin_policy, target->allowed_origins_)) {
    return reject(status_forbidden);
  }
  target->connections_++;
  service_->connections_--;
  if (proxied_ && target != service_) {
    target->proxied_addresses_.insert(service_->proxied_addresses_.extract(id().packed()));
  }
  service_ = target;
  Upgrade upgrade(*this, request, params);
  upgrade.subprotocol_ = select_subprotocol(request, target->subprotocols_);
  if (target->table_.upgrade != nullptr) target->table_.upgrade(target->handler_, upgrade);
  if (closed()) return;
  const std::string_view key = request.find(FieldId::sec_websocket_key);
  if (upgrade.reject_status_ != 0) {
    return reject({upgrade.reject_status_, upgrade.reject_reason_, upgrade.fields(), upgrade.reject_body_});
  }
  const auto negotiation = answer_deflate_offers(ExtensionCursor(request), target->options_.deflate);
  if (negotiation.outcome == DeflateOutcome::failed) return reject(status_bad_request);
  if (!upgrade.held_) return accept(key, upgrade.subprotocol_, upgrade.fields(), negotiation);
  Pending& own = pending();
  own.deflate = negotiation;
  std::copy_n(key.begin(), own.key.size(), own.key.begin());
  own.subprotocol = upgrade.subprotocol_;
  std::string_view name;
  for (ListCursor offered(request, FieldId::sec_websocket_protocol); offered.next(name);) {
    own.offered_subprotocols.append(name).append(",");
  }
  phase_ = Phase::held;
}

void Connection::accept(std::string_view key, std::string_view subprotocol, std::span<const HttpField> fields,
                        const DeflateNegotiation& negotiation) {
  const Acceptance acceptance{.key = key,
                              .subprotocol = subprotocol,
                              .extensions = negotiation.answer.view(),
                              .fields = fields,
                              .constant_block = service_->constant_fields_.block()};
  const std::size_t size = accept_size(acceptance);
  std::uint8_t* out = reserve(size);
  send_turn_memory({out, write_accept({out, size}, acceptance)});
  remember_subprotocol(subprotocol);
  agree_on_deflate(negotiation);
  phase_ = Phase::open;
}

void Connection::agree_on_deflate(const DeflateNegotiation& negotiation) {
  if (negotiation.outcome != DeflateOutcome::agreed) return;
  deflate_ = DeflateState(negotiation.agreement);
  service_->compression_.add();
  receive_little();  // the rest of a message that is inflated in slices is copied
}

void Connection::remember_subprotocol(std::string_view name) {
  const auto& names = service_->subprotocols_;
  const auto found = std::find(names.begin(), names.end(), name);
  if (found != names.end()) subprotocol_ = static_cast<std::uint8_t>(found - names.begin() + 1);
}

void Connection::reject(std::uint16_t status) {
  reject({.status = status, .reason = {}, .fields = {}, .body = {}});
}

// Of the request that was parsed just now.
void Connection::reject_request(const Rejection& rejection) {
  reject(rejection, service_->request_.method() == "HEAD");
}

void Connection::reject(const Rejection& rejection, bool omit_body) {
  service_->counters_.rejected.add();
  trace(TraceKind::rejected, rejection.status);
  Response response = make_response(rejection, service_->constant_fields_.block());
  response.omit_body = omit_body;
  response.date_line = service_->date_line();
  const std::size_t size = response_size(response);
  std::uint8_t* out = reserve(size);
  send_turn_memory({out, write_response({out, size}, response)});
  end_sending();
}

// ---- A handshake that is decided later ----

// Keeps what follows the request of a held handshake; beyond the bound the peer has to wait.
void Connection::hold_back(MutableBytes rest) {
  Pending& own = *pending_;
  const std::uint8_t* const input = own.input == nullptr ? nullptr : own.input->data();
  if (input != nullptr && rest.data() >= input && rest.data() <= input + own.input_bytes) {
    std::memmove(own.input->data(), rest.data(), rest.size());
    own.input_bytes = rest.size();
  } else {
    append_input(own, reactor().blocks(), rest);
  }
  if (own.input_bytes > service_->options_.http.max_bytes) Stream::pause();
}

void Connection::accept_held(std::string_view subprotocol, std::span<const HttpField> fields) {
  if (phase_ != Phase::held || closed()) return;
  const WebSocketKey key = pending_->key;
  const std::string negotiated = pending_->subprotocol;
  if (!has_item(pending_->offered_subprotocols, subprotocol)) subprotocol = negotiated;
  accept({key.data(), key.size()}, subprotocol, fields, pending_->deflate);
  if (!paused_by_user_) Stream::resume();
  MutableBytes rest;
  if (pending_->input != nullptr) rest = {pending_->input->data(), pending_->input_bytes};
  begin_messages(rest, nullptr);
}

void Connection::reject_held(const Rejection& rejection) {
  if (phase_ == Phase::held && !closed()) reject(rejection);
}

std::string_view Upgrade::copy(std::string_view text) {
  std::uint8_t* memory = connection_.reserve(text.size());
  std::copy(text.begin(), text.end(), memory);
  return {reinterpret_cast<const char*>(memory), text.size()};
}

bool Upgrade::set_subprotocol(std::string_view name) {
  if (!name.empty() && !offers_subprotocol(request_, name)) return false;
  subprotocol_ = copy(name);
  return true;
}

bool Upgrade::add_field(std::string_view name, std::string_view value) {
  if (field_count_ == fields_.size()) return false;
  fields_[field_count_++] = {copy(name), copy(value)};
  return true;
}

void Upgrade::set_user_data(void* data) {
  connection_.set_user_data(data);
}

void Upgrade::reject(std::uint16_t status, std::string_view body, std::string_view reason) {
  assert(status >= 300 && status <= 599);
  reject_status_ = status;
  reject_body_ = copy(body);
  reject_reason_ = copy(reason);
}

UpgradeTicket Upgrade::hold() {
  held_ = true;
  return UpgradeTicket(connection_.handle());
}

void UpgradeTicket::accept(std::string subprotocol, FieldList fields) const {
  struct Decision {
    std::string subprotocol;
    FieldList fields;
  };
  auto decision = std::make_unique<Decision>(Decision{std::move(subprotocol), std::move(fields)});
  handle_.run([decision = std::move(decision)](Connection* connection) {
    if (connection == nullptr) return;
    std::vector<HttpField> views;
    for (const auto& [name, value] : decision->fields) views.push_back({name, value});
    connection->accept_held(decision->subprotocol, views);
  });
}

void UpgradeTicket::reject(std::uint16_t status, std::string body) const {
  handle_.run([status, body = std::make_unique<std::string>(std::move(body))](Connection* connection) {
    if (connection != nullptr) {
      connection->reject_held({.status = status, .reason = {}, .fields = {}, .body = *body});
    }
  });
}

// ---- Client ----

void Connection::on_connected() {
  if (service_->dial_observer_ != nullptr) service_->dial_observer_->connected(*this);
  if (service_->table_.connected != nullptr) service_->table_.connected(service_->handler_, *this);
  if (closed()) return;
  if (pending_->tunnel == nullptr) return leave_proxy();
  Stream::send(pending_->tunnel->output());
}

// The bytes that follow are exchanged with the server itself.
void Connection::leave_proxy() {
  if (pending_->tls == nullptr) return send_request();
  const Error error = connect_tls(*pending_->tls, pending_->tls_host, pending_->tls_port);
  if (error) refuse({.error = error});
}

void Connection::on_secured() {
  trace(TraceKind::secured);
  if (service_->table_.secured != nullptr) service_->table_.secured(service_->handler_, *this);
  if (closed()) return;
  if (role() == Role::client) send_request();
}

// A server's part. Returns false when it could not begin, and the connection is closed.
bool Connection::begin_tls() {
  service_->last_error_ = accept_tls(*service_->options_.tls);
  if (service_->last_error_) terminate();
  return !closed();
}

void Connection::send_request() {
  Stream::send({pending_->input->data(), pending_->input_bytes});
  clear_input(*pending_);
}

void Connection::receive_from_proxy(MutableBytes bytes, Owner* memory) {
  ProxyTunnel& tunnel = *pending_->tunnel;
  Bytes rest = bytes;
  const ProxyTunnel::State state = tunnel.feed(rest);
  Stream::send(tunnel.output());
  if (state == ProxyTunnel::State::failed)
    return refuse({.error = tunnel.error(), .proxy_status = tunnel.http_status()});
  if (state == ProxyTunnel::State::negotiating) return;
  pending_->tunnel.reset();
  leave_proxy();
  if (!rest.empty() && !closed()) reactor().received(*this, bytes.last(rest.size()), memory);
}

// What a whole head says: a refusal, or else what was agreed on.
struct Connection::Verdict {
  Refusal refusal;
  std::string_view subprotocol;
  DeflateNegotiation negotiation;
};

void Connection::receive_response(MutableBytes bytes, Owner* memory) {
  if (pending_->tunnel != nullptr) return receive_from_proxy(bytes, memory);
  const MutableBytes head = gather_head(bytes);
  const bool gathered = head.data() != bytes.data();
  if (pending_->awaited_bytes != 0) {
    if (head.size() < pending_->awaited_bytes && pending_->awaited_bytes != give_up_waiting) return;
  } else if (gathered && !worth_parsing(head, pending_->parsed_bytes, service_->options_.http)) {
    return;
  }
  HttpResponse& response = service_->response_;
  const ParseResult parsed = response.parse_final(head, service_->options_.http);
  if (parsed.state == ParseState::invalid) return refuse({.error = {Errc::protocol, "handshake"}});
  if (parsed.state == ParseState::incomplete) {
    if (!gathered) append_input(*pending_, reactor().blocks(), head);
    pending_->parsed_bytes = pending_->input_bytes;
    return;
  }
  Verdict verdict = judge_response();
  if (verdict.refusal.response != nullptr) return refuse_with_body(verdict.refusal, head, parsed.consumed);
  const HandlerTable& table = service_->table_;
  if (table.response != nullptr && !table.response(service_->handler_, *this, response))
    return refuse({.error = {Errc::canceled, "on_response"}, .response = &response});
  if (closed()) return;
  agree_on_deflate(verdict.negotiation);
  remember_subprotocol(verdict.subprotocol);
  phase_ = Phase::open;
  begin_messages(head.subspan(parsed.consumed), gathered ? nullptr : memory);
}

Connection::Verdict Connection::judge_response() const {
  const HttpResponse& response = service_->response_;
  UpgradeRequest request;
  request.key = {pending_->key.data(), pending_->key.size()};
  request.subprotocols = service_->subprotocols_;
  const ExtensionText offer = deflate_offer(service_->options_.deflate);
  request.extensions = offer.view();
  const UpgradeResult result = check_upgrade_response(response, request);
  Verdict verdict{.refusal = {}, .subprotocol = result.subprotocol, .negotiation = {}};
  if (result.failure != UpgradeFailure::none) {
    verdict.refusal = {.error = {}, .failure = result.failure, .response = &response};
    return verdict;
  }
  verdict.negotiation = check_deflate_answer(ExtensionCursor(response), service_->options_.deflate);
  if (verdict.negotiation.outcome == DeflateOutcome::failed) {
    const Error error{
        .code = Errc::protocol, .operation = "permessage-deflate", .detail = verdict.negotiation.reason};
    verdict.refusal = {.error = error, .response = &response};
  }
  return verdict;
}

// Waits for the content that belongs to the answer, but not where nobody will read it.
void Connection::refuse_with_body(Refusal& refusal, MutableBytes head, std::size_t head_bytes) {
  const std::size_t whole = head_bytes + content_bytes(*refusal.response, max_refusal_body_bytes);
  DialObserver* const observer = service_->dial_observer_;
  const bool follows = observer != nullptr && observer->follows(*this, *refusal.response);
  if (head.size() < whole && !follows && pending_->awaited_bytes != give_up_waiting) {
    if (pending_->input_bytes == 0) append_input(*pending_, reactor().blocks(), head);
    pending_->awaited_bytes = whole;
    return;
  }
  refusal.body = head.subspan(head_bytes, std::min(head.size(), whole) - head_bytes);
  refuse(refusal);
}

// The transport ended, or the deadline has come: with a refusal, if there is the head of one.
void Connection::handshake_over(const Error& error) {
  if (pending_->awaited_bytes == 0) return refuse({.error = error});
  pending_->awaited_bytes = give_up_waiting;
  receive_response({}, nullptr);
}

// Nobody wants to hear of it any more, if it is a handshake yet.
void Connection::abandon() {
  if (phase_ != Phase::handshake) return;
  phase_ = Phase::closed;
  terminate();
}

void Connection::refuse(const Refusal& refusal) {
  trace(TraceKind::rejected, refusal.response == nullptr ? 0 : refusal.response->status());
  phase_ = Phase::closed;
  const bool final = service_->dial_observer_ == nullptr || service_->dial_observer_->refused(*this, refusal);
  if (final && service_->table_.refused != nullptr) {
    service_->table_.refused(service_->handler_, *this, refusal);
  }
  if (!closed()) let_leave();
}

}  // namespace levada::ws
