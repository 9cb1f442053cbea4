#include <levada/net/connector.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

namespace levada::net {
namespace {

constexpr std::uint32_t min_attempt_delay_ms = 10;
constexpr std::size_t max_attempts = 255;

Result<Fd> open_socket(void*, const Address& address, const Address* source) {
  return connect_stream(address, source);
}

// Higher says more.
int weight(Errc code) {
  constexpr Errc ascending[] = {Errc::none,
                                Errc::canceled,
                                Errc::address_not_available,
                                Errc::not_supported,
                                Errc::invalid_argument,
                                Errc::unreachable,
                                Errc::other,
                                Errc::would_block,
                                Errc::timed_out,
                                Errc::connection_reset,
                                Errc::not_found,
                                Errc::connection_refused,
                                Errc::permission_denied,
                                Errc::no_memory,
                                Errc::descriptor_limit};
  const auto* found = std::find(std::begin(ascending), std::end(ascending), code);
  if (found == std::end(ascending))
    found = std::find(std::begin(ascending), std::end(ascending), Errc::other);
  return static_cast<int>(found - std::begin(ascending));
}

// What a connector has beyond its slot.
struct Race {
  ConnectOptions options;
  std::optional<Address> source;
  ConnectDone done;
  void* context;
  std::vector<ConnectAttempt> attempts;
  std::vector<SlotId> streams;  // of each attempt that was begun; a dead id when that failed at once
  std::size_t pending = 0;      // attempts under way
  std::uint32_t deadline_ms = 0;
  bool decided = false;  // failed inside connect_first(): the timer reports it
};

class Connector final : public Endpoint {
 public:
  explicit Connector(std::unique_ptr<Race> race)
      : Endpoint(EndpointKind::alarm, -1), race_(std::move(race)) {}

  void start() {
    if (race_->options.timeout_ms != 0) race_->deadline_ms = reactor().now_ms() + race_->options.timeout_ms;
    begin_next();
    if (race_->pending != 0) return arm();
    race_->decided = true;
    set_timer(0);
  }

  void won(std::size_t index, Fd fd) {
    race_->attempts[index].error = {};
    ConnectOutcome outcome{.fd = std::move(fd), .winner = index};
    finish(outcome);
  }

  void failed(std::size_t index, const Error& error) {
    race_->attempts[index].error = error;
    race_->pending--;
    begin_next();
    if (race_->pending == 0) return lose();
    arm();
  }

 private:
  void on_timer() override {
    if (race_->decided) return lose();
    if (deadline_passed()) {
      for (const std::size_t i : under_way()) race_->attempts[i].error = {Errc::timed_out, "connect"};
      ConnectOutcome outcome{.error = {Errc::timed_out, "connect"}};
      return finish(outcome);
    }
    begin_next();
    if (race_->pending == 0) return lose();
    arm();
  }

  void on_closed() override { close_attempts(); }

  bool all_begun() const { return race_->streams.size() == race_->attempts.size(); }
  bool deadline_passed() const {
    return race_->options.timeout_ms != 0 &&
           static_cast<std::int32_t>(reactor().now_ms() - race_->deadline_ms) >= 0;
  }

  std::vector<std::size_t> under_way() const {
    std::vector<std::size_t> indices;
    for (std::size_t i = 0; i < race_->streams.size(); i++) {
      if (reactor().find(race_->streams[i]) != nullptr) indices.push_back(i);
    }
    return indices;
  }

  // Begins the next attempt, and those after it while they fail at once.
  void begin_next() {
    while (!all_begun() && !begin(race_->streams.size())) {
    }
  }
  bool begin(std::size_t index);

  // The timer goes off for the next attempt or for the deadline, whichever is first.
  void arm() {
    const bool has_deadline = race_->options.timeout_ms != 0;
    if (all_begun() && !has_deadline) return cancel_timer();
    std::uint32_t delay = std::max(race_->options.attempt_delay_ms, min_attempt_delay_ms);
    if (has_deadline) {
      const auto left = static_cast<std::int32_t>(race_->deadline_ms - reactor().now_ms());
      const std::uint32_t wait = left < 0 ? 0 : static_cast<std::uint32_t>(left);
      delay = all_begun() ? wait : std::min(delay, wait);
    }
    set_timer(delay);
  }

  void lose() {
    ConnectOutcome outcome{.error = {Errc::invalid_argument, "connect"}};
    if (!race_->attempts.empty()) outcome.error = most_telling(race_->attempts);
    finish(outcome);
  }

  // Closes first, so that what `done` does with the connector's name is harmless.
  void finish(ConnectOutcome& outcome) {
    close();
    close_attempts();
    outcome.attempts = race_->attempts;
    race_->done(race_->context, outcome);
  }

  void close_attempts() {
    for (const SlotId id : race_->streams) {
      if (Endpoint* stream = reactor().find(id)) stream->close();
    }
  }

  std::unique_ptr<Race> race_;
};

// One address being connected to. It closes before it tells, so that the connector finds only the others.
class Attempt final : public Stream {
 public:
  Attempt(Fd fd, SlotId connector, std::size_t index)
      : Stream(std::move(fd)), connector_(connector), index_(static_cast<std::uint32_t>(index)) {}

 private:
  void on_connected() override {
    Connector* connector = find();
    if (connector == nullptr) return close();
    connector->won(index_, release());
  }
  void on_end(const Error& error) override {
    close();
    if (Connector* connector = find()) connector->failed(index_, error);
  }
  void on_receive(MutableBytes, Owner*) override {}

  Connector* find() const { return static_cast<Connector*>(reactor().find(connector_)); }

  SlotId connector_;
  std::uint32_t index_;
};

// Returns whether the attempt is under way.
bool Connector::begin(std::size_t index) {
  ConnectAttempt& attempt = race_->attempts[index];
  race_->streams.emplace_back();
  const bool use_source = race_->source && race_->source->family() == attempt.address.family();
  Result<Fd> fd = race_->options.open(race_->options.open_context, attempt.address,
                                      use_source ? &*race_->source : nullptr);
  if (!fd) {
    attempt.error = fd.error();
    return false;
  }
  Attempt* stream = reactor().add_connecting<Attempt>(std::move(*fd), id(), index);
  if (stream == nullptr) {
    attempt.error = reactor().last_error();
    return false;
  }
  race_->streams[index] = stream->id();
  race_->pending++;
  return true;
}

}  // namespace

Error most_telling(std::span<const ConnectAttempt> attempts) {
  Error best;
  for (const ConnectAttempt& attempt : attempts) {
    if (weight(attempt.error.code) > weight(best.code)) best = attempt.error;
  }
  return best;
}

SlotId connect_first(Reactor& reactor, std::span<const Address> addresses, const ConnectOptions& options,
                     ConnectDone done, void* context) {
  auto race = std::make_unique<Race>();
  race->options = options;
  if (options.source != nullptr) race->source = *options.source;
  if (options.open == nullptr) race->options.open = open_socket;
  race->done = done;
  race->context = context;
  for (const Address& address : addresses.first(std::min(addresses.size(), max_attempts))) {
    race->attempts.push_back({address, {Errc::canceled, "connect"}});
  }
  auto* connector = reactor.add<Connector>(std::move(race));
  const SlotId id = connector->id();
  connector->start();
  return id;
}

void cancel_connecting(Reactor& reactor, SlotId connector) {
  if (Endpoint* endpoint = reactor.find(connector)) endpoint->close();
}

}  // namespace levada::net
