#include <levada/ws/service.h>

#include <algorithm>
#include <array>
#include <cassert>
#include <cstring>

#include <levada/core/random.h>
#include <levada/ws/tracing.h>

namespace levada::ws {
namespace {

DecoderOptions decoder_options(const ServiceOptions& options, Role role, const HandlerTable& table) {
  // What can be assembled at all; a streaming handler assembles nothing.
  const std::uint64_t most =
      table.fragment != nullptr ? ~std::uint64_t{0} : std::uint64_t{BlockPool::max_block_bytes} / 2;
  return {.role = role,
          .max_message_bytes = std::min(options.max_message_bytes, most),
          .max_fragments = options.max_fragments,
          .check_utf8 = options.check_utf8,
          .streaming = table.fragment != nullptr,
          .allowed_rsv = 0};
}

// A SendQueue counts its bytes in 32 bits, a connection keeps its subprotocol's number in 8.
ServiceOptions bounded(ServiceOptions options) {
  constexpr std::size_t most = ~std::uint32_t{0} - control_reserve_bytes, most_subprotocols = 255;
  options.max_buffered_bytes = std::min(options.max_buffered_bytes, most);
  if (options.subprotocols.size() > most_subprotocols) options.subprotocols.resize(most_subprotocols);
  return options;
}

// Incompressible bytes become longer: what a message inflates to is the inflater's to limit.
DecoderOptions with_compression(DecoderOptions options) {
  options.allowed_rsv = DecoderOptions::compressed_rsv;
  options.max_compressed_bytes = Deflater::bound(options.max_message_bytes);
  return options;
}

// What a policy may drop is marked, in the general way.
std::size_t short_frames_until(const ServiceOptions& options) {
  return options.output_policy == OutputPolicy::drop_oldest ? 0 : options.max_buffered_bytes;
}

bool has_date(const FieldList& fields) {
  return std::any_of(fields.begin(), fields.end(),
                     [](const auto& field) { return equals_ignore_case(field.first, "Date"); });
}

ConstantFields constant_fields(const ServiceOptions& options) {
  std::vector<HttpField> fields;
  for (const auto& [name, value] : options.response_fields) fields.push_back({name, value});
  return ConstantFields(fields);
}

}  // namespace

Service::Service(net::Reactor& reactor, Role role, void* handler, const HandlerTable& table,
                 ServiceOptions options)
    : reactor_(reactor),
      reactor_ref_(reactor.ref()),
      handler_(handler),
      table_(table),
      options_(bounded(std::move(options))),
      decoder_options_(decoder_options(options_, role, table)),
      deflate_decoder_options_(with_compression(decoder_options_)),
      short_frames_until_bytes_(short_frames_until(options_)),
      compression_options_{options_.deflate, decoder_options_.max_message_bytes, decoder_options_.streaming},
      compression_(Compression::of(reactor)),
      constant_fields_(constant_fields(options_)),
      has_own_date_(has_date(options_.response_fields)),
      subprotocols_(options_.subprotocols.begin(), options_.subprotocols.end()),
      allowed_origins_(options_.allowed_origins.begin(), options_.allowed_origins.end()),
      decoder_(decoder_options_, reactor.blocks()),
      deflate_decoder_(deflate_decoder_options_, reactor.blocks()) {
  assert(options_.rate_window_ms > 0);
  if (check_options()) options_.deflate.enabled = false;
  const MemoryBudget* budget = reactor_.budget();
  if (budget != nullptr && budget->policy() != BudgetPolicy::stop_accepting) {
    relief_ = reactor_.add_relief({.weigh = [](void* self) { return static_cast<Service*>(self)->weigh(); },
                                   .relieve = [](void* self) { static_cast<Service*>(self)->relieve(); },
                                   .context = this});
  }
}

Service::~Service() {
  if (reactor_ref_.get() != nullptr) leave_reactor();  // else it has closed them all
  assert(connections_ == 0);
  // Whichever goes first of a service and its routes, the other does not look for it.
  if (root_ != this)
    std::replace(root_->routes_.begin(), root_->routes_.end(), this, static_cast<Service*>(nullptr));
  for (Service* route : routes_) {
    if (route == nullptr) continue;
    route->root_ = route;
    route->all_connections_ = route->connections_;
  }
}

Error Service::check_options() const {
  return is_valid(options_.deflate) ? Error{} : Error{Errc::invalid_argument, "deflate"};
}

Error Service::listen(Fd fd) {
  if (const Error error = check_options()) return error;
  set_options(fd.get());  // accepted sockets inherit them
  auto* listener = reactor_.add<net::Listener>(std::move(fd), &Service::accepted, this);
  if (listener == nullptr) return reactor_.last_error();
  listeners_.push_back(listener->id());
  return {};
}

void Service::set_options(int fd) const {
  net::set_no_delay(fd);
  if (options_.notsent_lowat_bytes != 0) net::set_notsent_lowat(fd, options_.notsent_lowat_bytes);
}

void Service::accepted(void* context, net::Listener& listener, Fd fd) {
  auto& self = *static_cast<Service*>(context);
  if (self.is_full()) {
    self.waiting_.push_back(std::move(fd));
  } else {
    self.add(std::move(fd), {}, nullptr, false);
  }
  if (!self.is_full() || listener.closed()) return;
  self.counters_.accept_pauses.add();
  listener.pause();
}

void Service::came() {
  connections_++;
  root_->all_connections_++;
}

void Service::went() {
  connections_--;
  root_->all_connections_--;
  if (root_->options_.max_connections != 0) root_->accept_waiting();
}

// There may be room again.
void Service::accept_waiting() {
  while (!waiting_.empty() && !is_full()) {
    Fd fd = std::move(waiting_.front());
    waiting_.erase(waiting_.begin());
    add(std::move(fd), {}, nullptr, false);
  }
  if (is_full()) return;
  for (const SlotId id : listeners_) {
    if (net::Endpoint* listener = reactor_.find(id)) static_cast<net::Listener*>(listener)->resume();
  }
}

void Service::add_route(std::string_view pattern, Service& service) {
  assert(&service.reactor_ == &reactor_ && service.connections_ == 0 && !service.check_options());
  assert(service.root_ == &service || service.root_ == this);
  service.root_ = this;
  [[maybe_unused]] const std::size_t number = route_table_.add(pattern);
  assert(number == routes_.size());
  routes_.push_back(&service);
}

Service* Service::route(std::string_view path, Params& params) {
  if (routes_.empty()) return this;
  const std::size_t number = route_table_.match(path, params);
  if (number != RouteTable::no_route) return routes_[number];
  const bool serves = table_.message != nullptr || table_.fragment != nullptr || table_.open != nullptr;
  return serves ? this : nullptr;
}

Connection* Service::adopt(Fd fd, Bytes received, void* user_data) {
  set_options(fd.get());
  return add(std::move(fd), received, user_data, false);
}

Connection* Service::adopt_upgraded(Fd fd, Bytes received, void* user_data) {
  set_options(fd.get());
  return add(std::move(fd), received, user_data, true);
}

Connection* Service::add(Fd fd, Bytes received, void* user_data, bool upgraded) {
  last_error_ = check_options();
  if (last_error_) return nullptr;
  if (upgraded && options_.tls != nullptr) {  // whoever sent the 101 holds the keys
    last_error_ = {Errc::not_supported, "adopt_upgraded"};
    return nullptr;
  }
  const auto phase = upgraded ? Connection::Phase::open : Connection::Phase::handshake;
  auto* connection = reactor_.add<Connection>(std::move(fd), *this, phase);
  if (connection == nullptr) {
    last_error_ = reactor_.last_error();
    return nullptr;
  }
  came();
  connection->set_user_data(user_data);
  connection->trace(TraceKind::began);
  if (!upgraded && !options_.trusted_proxies.empty() && is_trusted_proxy(connection->native_fd())) {
    connection->pending().proxied = std::make_unique<net::ProxyProtocolParser>();
  } else if (options_.tls != nullptr && !connection->begin_tls()) {
    connection->set_user_data(nullptr);  // it stays the caller's
    return nullptr;
  }
  if (upgraded) {
    connection->open();
  } else {
    connection->set_timer(options_.handshake_timeout_ms);
  }
  if (!received.empty() && !connection->closed()) {
    std::uint8_t* copy = connection->reserve(received.size());
    std::memcpy(copy, received.data(), received.size());
    reactor_.received(*connection, {copy, received.size()}, nullptr);
  }
  if (shutting_down_ && !connection->closed()) {
    found_by_shut_down_++;
    connection->shut_down();
  }
  return connection;
}

bool Service::is_trusted_proxy(int fd) const {
  auto peer = net::Address::of_peer(fd);
  return peer && is_listed(options_.trusted_proxies, peer->host(), 0);
}

void Service::shut_down(Task empty) {
  if (!shutting_down_) found_by_shut_down_ = connections_;
  shutting_down_ = true;
  on_empty_ = std::move(empty);
  close_listeners();
  for_each_endpoint([](Connection& connection) { connection.shut_down(); });
}

void Service::leave_reactor() {
  on_empty_ = {};
  close_listeners();
  waiting_.clear();
  reactor_.for_each_slot([this](net::Endpoint& endpoint) {
    if (!endpoint.carries_messages()) return;
    auto& connection = static_cast<Connection&>(endpoint);
    if (connection.service_ == this) connection.leave_service();
  });
}

void Service::close_listeners() {
  reactor_.for_each([this](net::Endpoint& endpoint) {
    const bool listens = endpoint.kind() == net::EndpointKind::listener;
    if (listens && static_cast<net::Listener&>(endpoint).context() == this) endpoint.close();
  });
}

std::size_t Service::unfinished() {
  std::size_t count = 0;
  for_each_endpoint([&count](Connection& connection) { count += connection.is_over() ? 0 : 1; });
  return count;
}

// What the policy of the memory budget would have the heaviest give back, of the connections each by itself and the
// handshakes together; heaviest_ is who would have to go.
std::size_t Service::weigh() {
  constexpr std::size_t large_bytes = 64 * 1024;
  const bool refuse = reactor_.budget()->policy() == BudgetPolicy::refuse_large;
  std::size_t handshakes = 0, most_of_handshakes = 0, most = 0;
  SlotId handshake;
  heaviest_ = {};
  for_each_endpoint([&](Connection& connection) {
    const bool shakes_hands = connection.shakes_hands();
    const std::size_t bytes = refuse ? connection.received_bytes() : connection.held_bytes();
    std::size_t& heaviest = shakes_hands ? most_of_handshakes : most;
    if (shakes_hands) handshakes += bytes;
    if (bytes <= heaviest) return;
    heaviest = bytes;
    (shakes_hands ? handshake : heaviest_) = connection.id();
  });
  if (handshakes > most) {
    most = handshakes;
    heaviest_ = handshake;
  }
  return refuse && most <= large_bytes ? 0 : most;
}

void Service::relieve() {
  auto& heaviest = static_cast<Connection&>(*reactor_.find(heaviest_));
  counters_.shed.add();
  heaviest.trace(TraceKind::shed);
  heaviest.shed(reactor_.budget()->policy() == BudgetPolicy::shed_slowest);
}

Connection* Service::dial(const net::Address& address, const DialOptions& options) {
  if ((last_error_ = check(options))) return nullptr;
  auto fd = net::connect_stream(address, options.source);
  if (!fd) {
    last_error_ = fd.error();
    return nullptr;
  }
  return begin_handshake(
      reactor_.add_connecting<Connection>(std::move(*fd), *this, Connection::Phase::handshake), options);
}

Connection* Service::dial_on(Fd fd, const DialOptions& options, std::unique_ptr<ProxyTunnel> tunnel) {
  if ((last_error_ = check(options))) return nullptr;
  auto* connection =
      begin_handshake(reactor_.add<Connection>(std::move(fd), *this, Connection::Phase::handshake), options);
  if (connection == nullptr) return nullptr;
  connection->pending().tunnel = std::move(tunnel);
  connection->on_connected();
  return connection;
}

namespace {

UpgradeRequest request_of(const DialOptions& options, const WebSocketKey& key,
                          std::span<const std::string_view> subprotocols, std::string_view extensions) {
  return {.host = options.host,
          .target = options.target,
          .key = {key.data(), key.size()},
          .subprotocols = subprotocols,
          .origin = options.origin,
          .extensions = extensions,
          .fields = options.fields};
}

}  // namespace

Error Service::check(const DialOptions& options) const {
  if (const Error error = check_options()) return error;
  const WebSocketKey any = make_key(std::array<std::uint8_t, 16>{});
  const bool writable = is_writable(request_of(options, any, subprotocols_, {}));
  return writable ? Error{} : Error{Errc::invalid_argument, "dial"};
}

Connection* Service::begin_handshake(Connection* connection, const DialOptions& options) {
  if (connection == nullptr) {
    last_error_ = reactor_.last_error();
    return nullptr;
  }
  came();
  connection->set_user_data(options.user_data);
  connection->trace(TraceKind::began);
  if (options.timeout_ms != DialOptions::no_timeout)
    connection->set_timer(options.timeout_ms != 0 ? options.timeout_ms : options_.handshake_timeout_ms);
  std::array<std::uint8_t, 16> random;
  fill_random(random);
  Pending& pending = connection->pending();
  pending.key = make_key(random);
  pending.tls = options.tls;
  pending.tls_host = options.tls_host;
  pending.tls_port = options.tls_port;
  const ExtensionText offer = deflate_offer(options_.deflate);
  const UpgradeRequest request = request_of(options, pending.key, subprotocols_, offer.view());
  const std::size_t size = upgrade_request_size(request);
  pending.input = reactor_.blocks().allocate(size);
  pending.input_bytes = write_upgrade_request({pending.input->data(), size}, request);
  return connection;
}

void append_input(Pending& pending, BlockPool& blocks, Bytes bytes) {
  const std::size_t total = pending.input_bytes + bytes.size();
  if (pending.input == nullptr || pending.input->capacity() < total) {
    Block* larger = blocks.allocate(std::max<std::size_t>(total, 2048));
    if (pending.input != nullptr) {
      std::memcpy(larger->data(), pending.input->data(), pending.input_bytes);
      pending.input->drop_reference();
    }
    pending.input = larger;
  }
  if (!bytes.empty()) std::memcpy(pending.input->data() + pending.input_bytes, bytes.data(), bytes.size());
  pending.input->note_used(total);
  pending.input_bytes = total;
}

// For an answer that is written now.
std::string_view Service::date_line() {
  return has_own_date_ ? std::string_view() : date_.line(reactor_.unix_seconds());
}

Pending& Service::take_pending() {
  if (free_pending_ == nullptr) {
    pendings_.push_back(std::make_unique<Pending>(decoder_options_, reactor_.blocks()));
    pendings_.back()->home = this;
    return *pendings_.back();
  }
  Pending& pending = *free_pending_;
  free_pending_ = pending.next_free;
  return pending;
}

void Service::give_pending(Pending& pending) {
  if (pending.inflater != nullptr) {
    pending.home->compression_.give_inflater(*std::exchange(pending.inflater, nullptr));
  }
  pending.in_slices = pending.ended = pending.clock_runs = false;
  pending.inflated = 0;
  pending.deflate = {};
  pending.decoder.reset();
  if (pending.input != nullptr) std::exchange(pending.input, nullptr)->drop_reference();
  pending.input_bytes = pending.parsed_bytes = pending.awaited_bytes = 0;
  pending.subprotocol.clear();
  pending.offered_subprotocols.clear();
  pending.tunnel.reset();
  pending.tls.reset();
  pending.proxied.reset();
  pending.next_free = pending.home->free_pending_;
  pending.home->free_pending_ = &pending;
}

}  // namespace levada::ws
