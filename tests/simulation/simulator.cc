#include <levada/tests/simulation/simulator.h>

#include <algorithm>

namespace levada::ws::test {
namespace {

constexpr std::size_t most_links = 12;

}  // namespace

Simulator::Simulator(Choices choices)
    : choices_(choices), simulation_({.seed = choices_.below(1 << 16)}), budget_(random_budget()) {
  if (deflate_available())
    peer_deflater_ = std::make_unique<Deflater>(DeflaterOptions{.memory_level = 4}, peer_blocks_);
  net::ReactorOptions reactor_options;
  reactor_options.budget = budget_;
  reactor_ = std::make_unique<net::Reactor>(reactor_options, net::SimulatedBackend::make, &simulation_);
  const ServiceOptions options = random_options();
  message_service_ = std::make_unique<Service>(*reactor_, Role::server, messages_, options);
  piece_service_ = std::make_unique<Service>(*reactor_, Role::server, pieces_, options);
  client_service_ = std::make_unique<Service>(*reactor_, Role::client, client_, options);
  message_service_->add_route("/pieces", *piece_service_);
  journal_.require(!message_service_->listen(simulation_.listen()), "the listener starts");
  reactor_->for_each([&](net::Endpoint& endpoint) { listener_ = static_cast<net::Listener*>(&endpoint); });
  if (budget_ == nullptr) return;
  relief_ = reactor_->add_relief({.weigh = [](void* self) { return static_cast<Simulator*>(self)->weigh(); },
                                  .relieve = nullptr,
                                  .context = this});
}

Simulator::~Simulator() = default;

ServiceOptions Simulator::random_options() {
  ServiceOptions options;
  options.max_buffered_bytes = choices_.of({1 << 20, 3000, 20'000, 150'000});
  options.pause_above_bytes = choices_.of({1 << 20, 500, 4000});
  options.max_message_bytes = choices_.of({100'000, 300, 10'000});
  options.max_fragments = static_cast<std::uint32_t>(choices_.of({1000, 3}));
  options.auto_pong = !choices_.one_in(6);
  options.handshake_timeout_ms = static_cast<std::uint32_t>(choices_.of({10'000, 1000}));
  options.close_timeout_ms = static_cast<std::uint32_t>(choices_.of({5000, 200}));
  options.http.max_bytes = choices_.of({16 * 1024, 1000});
  options.max_controls_per_s = static_cast<std::uint16_t>(choices_.of({0, 0, 0, 3, 1}));
  options.output_policy = static_cast<OutputPolicy>(choices_.below(4));
  add_time_limits(options);
  options.deflate.enabled = deflate_available() && choices_.one_in(2);
  options.deflate.deflater = static_cast<DeflateContext>(choices_.below(2));
  options.deflate.inflater = static_cast<DeflateContext>(choices_.below(2));
  options.deflate.min_bytes = choices_.of({128, 1, 1000});
  options.deflate.memory_level = 2;
  options.deflate.slice_bytes = choices_.of({64 * 1024, 500, 5000});
  return options;
}

void Simulator::add_time_limits(ServiceOptions& options) {
  const auto limit = [this](std::uint64_t some, std::uint64_t most) {
    return static_cast<std::uint32_t>(choices_.of({0, 0, some, most}));
  };
  options.idle_timeout_ms = limit(3000, 20'000);
  options.message_timeout_ms = limit(1500, 10'000);
  options.min_bytes_per_s = limit(50, 2000);
  options.rate_window_ms = static_cast<std::uint32_t>(choices_.of({5000, 300}));
  options.write_timeout_ms = limit(1000, 10'000);
  options.max_lifetime_ms = limit(15'000, 60'000);
  // What drop_oldest drops is worked out from all that is queued, and the engine does not tell of its pings.
  if (options.output_policy != OutputPolicy::drop_oldest) options.ping_interval_ms = limit(700, 6000);
}

std::shared_ptr<MemoryBudget> Simulator::random_budget() {
  const std::size_t limit = choices_.of({0, 0, 120'000, 600'000});
  const auto policy = static_cast<BudgetPolicy>(choices_.below(3));
  return limit == 0 ? nullptr : std::make_shared<MemoryBudget>(limit, policy);
}

// ---- Steps ----

bool Simulator::step() {
  act_at_random();
  if (faulty_ && !live_.empty()) live_.front()->spoils = true;
  for (Link* link : live_) move_bytes(*link);
  turn(choices_.one_in(8) ? static_cast<int>(choices_.below(50)) : 0);
  check();
  return !journal_.broken();
}

void Simulator::act_at_random() {
  Link* const link = random_link();
  switch (choices_.below(24)) {
    case 0:
      return;
    case 1:
    case 2:
    case 3:
      if (live_.size() < most_links) connect();
      return;
    case 4:
      if (live_.size() < most_links)
        choices_.one_in(4) ? connect_wild() : choices_.one_in(3) ? adopt() : adopt_upgraded();
      return;
    case 5:
      if (link != nullptr) trouble(*link);
      return;
    case 6:
      return jump();
    case 7:
      return roll_faults();
    case 8:
      return decide();
    case 9:
    case 10:
    case 11:
      if (link != nullptr) post(*link);
      return;
    case 12:
    case 13:
      if (link != nullptr && link->connection() != nullptr) act(*link, *link->connection());
      return;
    case 14:
      if (choices_.one_in(3)) rest();
      return;
    case 15:
      if (!kept_.empty()) kept_.pop_front();
      return;
    default:
      if (link != nullptr) speak(*link);
  }
}

Link* Simulator::random_link() {
  return live_.empty() ? nullptr : live_[choices_.below(live_.size())];
}

void Simulator::roll_faults() {
  net::SimulationOptions& options = simulation_.options();
  const auto rate = [&] { return static_cast<unsigned>(choices_.of({0, 0, 2, 5, 20})); };
  options.receive_bytes = choices_.of({16 * 1024, 1, 100, 2000, 100'000});
  options.shuffle = choices_.one_in(2);
  options.cut_one_in = rate();
  options.single_byte_one_in = rate();
  options.short_write_one_in = rate();
  options.refused_write_one_in = rate();
  options.spurious_one_in = rate();
  options.starved_one_in = rate();
  options.early_flush_one_in = rate();
  options.accept_failure_one_in = rate();
  options.reset_one_in = choices_.one_in(4) ? 100 : 0;
  if (!choices_.one_in(4)) return;
  options.failing_operation = simulation_.operations() + 1 + choices_.below(100);
  options.failure =
      static_cast<int>(choices_.of({104, 32, 24, 110, 12}));  // of reset, pipe, files, time, memory
}

void Simulator::end_faults() {
  const std::uint64_t seed = simulation_.options().seed;
  simulation_.options() = {.seed = seed};
}

void Simulator::jump() {
  const std::uint64_t ms = choices_.one_in(4) ? choices_.below(12'000) : choices_.below(200);
  journal_.note("clock jumps", 0, static_cast<std::int64_t>(ms));
  count("clock jump");
  simulation_.advance_ms(ms);
}

void Simulator::turn(int timeout_ms) {
  for (Link* link : live_) link->before_turn();
  const std::uint64_t shed_before = shed();
  reactor_->run_once(timeout_ms);
  journal_.require(shed() - shed_before <= 1, "the budget ends one connection in a turn");
  for (Link* link : live_) link->check_pause();
  const auto& log = simulation_.log();
  for (; reported_ < log.size(); reported_++) {
    const net::Simulation::Event& event = log[reported_];
    journal_.note(net::Simulation::name_of(event.operation), 0, event.descriptor * 1'000'000 + event.value);
  }
}

// ---- Rules ----

// Asked with the services when the budget is exceeded, for what they had to choose from; has nothing to give.
std::size_t Simulator::weigh() {
  heaviest_ = 0;
  for (Link* link : live_) {
    link->held_bytes = link->connection() == nullptr ? 0 : link->connection()->held_bytes();
    heaviest_ = std::max(heaviest_, link->held_bytes);
  }
  return 0;
}

std::uint64_t Simulator::shed() const {
  return message_service_->counters().shed.value() + piece_service_->counters().shed.value() +
         client_service_->counters().shed.value();
}

std::size_t Simulator::connections() const {
  return message_service_->connections() + piece_service_->connections() + client_service_->connections();
}

void Simulator::check() {
  std::size_t open = 0;
  for (Link* link : live_) {
    link->check(now_ms());
    const Connection* const connection = link->connection();
    if (connection == nullptr) continue;
    open++;
    link->check_open(*connection, turn_ms());
    journal_.require(connection->buffered() <= queue_limit(*connection) + control_reserve_bytes,
                     "no more is queued than the bound", link->number,
                     static_cast<std::int64_t>(connection->buffered()));
    const bool can_send = may_send(*link, *connection);
    journal_.require(connection->is_open() == can_send, "is_open() is what the handlers were told",
                     link->number);
  }
  journal_.require(open <= connections(), "services count their connections");
  journal_.require(reactor_->endpoints() == connections() + (listener_ != nullptr ? 1 : 0),
                   "no endpoint is left but the listener");
  for (const Kept& kept : kept_)
    journal_.require(to_text(kept.payload.bytes()) == kept.copy, "a kept payload stays as it was");
  std::erase_if(live_, [](const Link* link) { return link->is_done(); });
}

// Everything moves until nothing does; then nothing may be missing.
void Simulator::rest() {
  constexpr int patience = 100'000;
  journal_.note("rest");
  count("rest");
  const net::SimulationOptions before = simulation_.options();
  end_faults();
  calm_ = true;
  simulation_.advance_ms(net::Listener::retry_ms + 1);
  for (Link* link : live_) {
    link->reading = true;
    link->peer.set_window(64 * 1024);
    if (!link->paused || link->connection() == nullptr) continue;
    link->resumed();
    link->connection()->resume();
    link->notice(*link->connection(), turn_ms());
  }
  int quiet = 0;
  for (int turns = 0; quiet < 4 && !journal_.broken(); turns++) {
    if (!journal_.require(turns < patience, "everything comes to rest")) break;
    const std::uint64_t before_turn = journal_.count();
    for (Link* link : live_) {
      if (link->fragmenting && link->connection() != nullptr)
        send_fragment(*link, *link->connection(), false);
      link->write(100'000);
      link->read();
    }
    turn(0);
    check();
    // A message that is being inflated shows nothing before its last slice.
    const bool inflates = Compression::of(*reactor_).is_waiting();
    quiet = journal_.count() == before_turn && !inflates ? quiet + 1 : 0;
  }
  for (Link* link : live_) link->check_at_rest(budget_ == nullptr);
  calm_ = false;
  simulation_.options() = before;
}

// ---- The end ----

void Simulator::end_connections() {
  for (Link* link : live_) {
    Connection* const connection = link->connection();
    if (link->wild()) {
      link->reset();
      continue;
    }
    switch (choices_.below(6)) {
      case 0:
      case 1:
        say_close(*link);
        break;
      case 2:
        if (connection != nullptr && link->is_open()) close(*link, *connection);
        break;
      case 3:
        if (link->idle() && link->can_speak()) link->shut_down();
        break;
      case 4:
        link->reset();
        break;
      default:
        break;
    }
  }
}

// All services shut down: who is open is told 1001, who is not is refused, and nobody is accepted.
void Simulator::end_services() {
  count("graceful stop");
  journal_.note("stops");
  for (Link* link : live_) {
    link->expect_rejection(503);
    if (link->connection() != nullptr && may_send(*link, *link->connection()))
      link->closing(CloseCode::going_away, {}, now_ms());
  }
  listener_ = nullptr;
  const std::size_t found = connections();
  for (Service* service : {message_service_.get(), piece_service_.get(), client_service_.get()})
    service->shut_down();
  turn(0);
  const std::size_t counted = message_service_->found_by_shut_down() + piece_service_->found_by_shut_down() +
                              client_service_->found_by_shut_down();
  journal_.require(counted == found, "a stop counts the connections that it finds");
  check();
}

bool Simulator::finish() {
  if (!journal_.broken()) rest();
  if (!journal_.broken()) choices_.one_in(3) ? end_services() : end_connections();
  end_faults();
  const ServiceOptions& options = message_service_->options();
  // A handshake that was never finished, or that was answered with 200 or an error; then what an open one takes.
  const std::uint64_t time = options.handshake_timeout_ms + 4 * options.close_timeout_ms + 1000;
  std::uint64_t limit = now_ms() + time;
  std::size_t most = connections();
  for (int turns = 0; connections() > 0 && !journal_.broken(); turns++) {
    if (connections() > most) limit = now_ms() + time;  // accepted now that there is memory
    most = connections();
    for (Link* link : live_) {
      if (link->is_open() && now_ms() > limit && link->connection() != nullptr) {
        link->terminated = true;
        link->connection()->terminate();
      }
      link->write(100'000);
      link->read();
    }
    turn(200);
    check();
    journal_.require(turns < 20'000 && now_ms() <= limit + options.close_timeout_ms + 1000,
                     "every connection ends", 0, static_cast<std::int64_t>(connections()));
  }
  if (journal_.broken()) return false;
  for (const Link& link : links_)
    journal_.require(link.wild() || link.is_over() || !link.was_opened(), "no open link is left",
                     link.number);
  journal_.require(wild_opened_ == wild_closed_, "every on_open has an on_close");
  kept_.clear();
  held_.clear();
  if (listener_ != nullptr) listener_->close();
  turn(0);
  turn(0);
  reactor_->blocks().collect_returned();
  const std::uint64_t before = now_ms();
  turn(1'000'000);  // passes as a whole unless a timer rings
  journal_.require(now_ms() - before == 1'000'000, "no timer is left");
  journal_.require(reactor_->endpoints() == 0, "no endpoint is left");
  journal_.require(reactor_->segments().in_use() == 0, "all segments are back", 0,
                   static_cast<std::int64_t>(reactor_->segments().in_use()));
  journal_.require(reactor_->blocks().blocks_in_use() == 1, "all blocks are back but the one for turn memory",
                   0, static_cast<std::int64_t>(reactor_->blocks().blocks_in_use()));
  check_counters();
  reactor_.reset();
  journal_.require(budget_ == nullptr || budget_->used_bytes() == 0, "the budget gets everything back");
  return !journal_.broken();
}

// What happened was counted, each thing once.
void Simulator::check_counters() {
  const Service* const services[] = {message_service_.get(), piece_service_.get(), client_service_.get()};
  std::uint64_t opened = 0, closed = 0, pings = 0, came = 0;
  for (const Service* service : services) {
    const Counters& counters = service->counters();
    opened += counters.opened.value();
    closed += counters.closed.value();
    pings += counters.pings_sent.value();
    counts_["limit: idle"] += counters.idle_timeouts.value();
    counts_["limit: lifetime"] += counters.lifetimes_over.value();
    counts_["limit: write stall"] += counters.write_timeouts.value();
    counts_["limit: handshake"] += counters.handshake_timeouts.value();
    counts_["limit: close"] += counters.close_timeouts.value();
    counts_["limit: memory budget"] += counters.shed.value();
    counts_["keepalive ping"] += counters.pings_sent.value();
    counts_["reading paused by the queue"] += counters.pauses.value();
  }
  for (const Link& link : links_) came += link.keepalive_pings;
  journal_.require(opened == counts_["open"] + wild_opened_, "each on_open is counted");
  journal_.require(opened == closed, "each on_close is counted");
  journal_.require(came <= pings, "a keepalive ping comes once");
}

Counts Simulator::counts() const {
  Counts counts = counts_;
  for (std::size_t i = 0; i < net::Simulation::fault_kinds; i++) {
    const std::uint64_t times = simulation_.faults()[i];
    if (times != 0)
      counts[std::string("fault ") + net::Simulation::name_of(static_cast<net::Simulation::Fault>(i))] =
          times;
  }
  return counts;
}

}  // namespace levada::ws::test
