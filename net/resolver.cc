#include <levada/net/resolver.h>

#include <netdb.h>
#include <algorithm>
#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <future>
#include <mutex>
#include <thread>
#include <utility>

#include <levada/net/thread.h>

namespace levada::net {
namespace {

bool is_localhost(std::string_view host) {
  if (host.ends_with('.')) host.remove_suffix(1);
  constexpr std::string_view name = "localhost";
  if (host.size() < name.size()) return false;
  const std::string_view front = host.substr(0, host.size() - name.size());
  if (!front.empty() && front.back() != '.') return false;
  const std::string_view back = host.substr(front.size());
  return std::equal(name.begin(), name.end(), back.begin(), [](char a, char b) { return a == (b | 0x20); });
}

Error error_of_lookup(int status) {
  const int os_number = errno;
  switch (status) {
    case EAI_SYSTEM:
      return Error::from_os("getaddrinfo", os_number);
    case EAI_MEMORY:
      return {Errc::no_memory, "getaddrinfo"};
    case EAI_AGAIN:
      return {Errc::timed_out, "getaddrinfo"};
    case EAI_NONAME:
    case EAI_NODATA:
    case EAI_FAIL:
      return {Errc::not_found, "getaddrinfo"};
    default:
      return {Errc::other, "getaddrinfo"};
  }
}

}  // namespace

void interleave_families(std::vector<Address>& addresses) {
  if (addresses.empty()) return;
  const int first = addresses.front().family();
  std::vector<Address> same, other;
  for (const Address& address : addresses) (address.family() == first ? same : other).push_back(address);
  addresses.clear();
  for (std::size_t i = 0; i < std::max(same.size(), other.size()); i++) {
    if (i < same.size()) addresses.push_back(same[i]);
    if (i < other.size()) addresses.push_back(other[i]);
  }
}

std::vector<Address> known_addresses(std::string_view host, std::uint16_t port) {
  if (is_localhost(host)) return {*Address::ip("127.0.0.1", port), *Address::ip("::1", port)};
  if (host.empty() || host == "*") return {};  // to listen on, not to connect to
  auto address = Address::ip(host, port);
  if (!address) return {};
  return {*address};
}

Result<std::vector<Address>> resolve_blocking(const std::string& host, std::uint16_t port) {
  std::vector<Address> addresses = known_addresses(host, port);
  if (!addresses.empty()) return addresses;
  if (host.empty() || host.find('\0') != host.npos) return Error{Errc::invalid_argument, "getaddrinfo"};
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  const int status = getaddrinfo(host.c_str(), std::to_string(port).c_str(), &hints, &found);
  if (status != 0) return error_of_lookup(status);
  for (const addrinfo* at = found; at != nullptr && addresses.size() < max_addresses; at = at->ai_next) {
    Address address;
    if ((at->ai_family != AF_INET && at->ai_family != AF_INET6) || at->ai_addrlen > address.size()) continue;
    std::memcpy(address.get(), at->ai_addr, at->ai_addrlen);
    address.set_size(at->ai_addrlen);
    addresses.push_back(address);
  }
  freeaddrinfo(found);
  if (addresses.empty()) return Error{Errc::not_found, "getaddrinfo"};
  interleave_families(addresses);
  return addresses;
}

Result<std::vector<Address>> resolve_within(std::uint64_t timeout_ms, const std::string& host,
                                            std::uint16_t port, Lookup lookup) {
  std::vector<Address> known = known_addresses(host, port);
  if (!known.empty()) return known;
  std::packaged_task<Result<std::vector<Address>>()> task([=] { return lookup(host, port); });
  std::future<Result<std::vector<Address>>> answer = task.get_future();
  std::thread thread;
  if (const Error error = start_thread(thread, std::move(task))) return error;
  thread.detach();
  constexpr std::uint64_t a_year_ms = 31'536'000'000;
  const std::chrono::milliseconds limit(std::min(timeout_ms, a_year_ms));
  if (answer.wait_for(limit) != std::future_status::ready) return Error{Errc::timed_out, "resolve"};
  return answer.get();
}

// ---- Worker: the queue and the threads that empty it ----

class Resolver::Worker : public std::enable_shared_from_this<Worker> {
 public:
  Worker(const ReactorRef& reactor, const ResolverOptions& options) : reactor_(reactor), options_(options) {}

  // Errors: would_block when the queue is full, no_memory when there can be no thread.
  Error add(SlotId query, std::string host, std::uint16_t port) {
    const std::lock_guard lock(mutex_);
    if (jobs_.size() >= options_.max_queued) return {Errc::would_block, "resolve"};
    if (jobs_.size() >= idle_ && threads_ < options_.max_threads) {
      const Error error = add_thread();
      if (error && threads_ == 0) return error;
    }
    jobs_.push_back({query, std::move(host), port});
    changed_.notify_one();
    return {};
  }

  void remove(SlotId query) {
    const std::lock_guard lock(mutex_);
    std::erase_if(jobs_, [query](const Job& job) { return job.query == query; });
  }

  // From here on nothing is posted any more.
  void stop() {
    const std::lock_guard lock(mutex_);
    stopped_ = true;
    jobs_.clear();
    changed_.notify_all();
  }

 private:
  struct Job {
    SlotId query;
    std::string host;
    std::uint16_t port = 0;
  };

  Error add_thread() {
    std::thread thread;
    if (const Error error = start_thread(thread, [self = shared_from_this()] { self->run(); })) return error;
    thread.detach();
    threads_++;
    return {};
  }

  void run() {
    std::unique_lock lock(mutex_);
    while (!stopped_) {
      idle_++;
      changed_.wait(lock, [this] { return stopped_ || !jobs_.empty(); });
      idle_--;
      if (stopped_ || reactor_.is_gone()) return;
      const Job job = std::move(jobs_.front());
      jobs_.pop_front();
      lock.unlock();
      Answer answer = options_.lookup(job.host, job.port);
      lock.lock();
      if (!stopped_) post(reactor_, job.query, std::move(answer));
    }
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  const ReactorRef reactor_;
  bool stopped_ = false;  // guarded by mutex_, as the rest
  std::deque<Job> jobs_;
  unsigned threads_ = 0;
  std::size_t idle_ = 0;  // of them
  const ResolverOptions options_;
};

// ---- Query: one question, its deadline, and who asked ----

class Resolver::Query final : public Endpoint {
 public:
  Query(Resolver& resolver, Done done, void* context)
      : Endpoint(EndpointKind::alarm, -1), resolver_(&resolver), done_(done), context_(context) {}

  const Resolver* resolver() const { return resolver_; }

  // Closes first, so that what `done` does with the query's name is harmless.
  void finish(const Resolution& resolution) {
    close();
    done_(context_, resolution);
  }

 private:
  void on_timer() override {
    if (resolver_->worker_ != nullptr) resolver_->worker_->remove(id());
    finish({.error = {Errc::timed_out, "resolve"}});
  }

  Resolver* resolver_;
  Done done_;
  void* context_;
};

// ---- Resolver ----

Resolver::~Resolver() {
  if (worker_ != nullptr) worker_->stop();
  Reactor* const reactor = reactor_ref_.get();
  if (reactor == nullptr) return;  // and with it the queries
  reactor->for_each([this](Endpoint& endpoint) {
    const auto* query = dynamic_cast<Query*>(&endpoint);
    if (query != nullptr && query->resolver() == this) endpoint.close();
  });
}

SlotId Resolver::resolve(std::string_view host, std::uint16_t port, std::uint32_t timeout_ms, Done done,
                         void* context) {
  Query* query = reactor_.add<Query>(*this, done, context);
  const SlotId id = query->id();
  if (timeout_ms != 0) query->set_timer(timeout_ms);
  if (std::vector<Address> known = known_addresses(host, port); !known.empty()) {
    post(reactor_ref_, id, std::move(known));
    return id;
  }
  if (worker_ == nullptr) worker_ = std::make_shared<Worker>(reactor_ref_, options_);
  if (const Error error = worker_->add(id, std::string(host), port)) post(reactor_ref_, id, error);
  return id;
}

void Resolver::cancel(SlotId query) {
  Endpoint* endpoint = reactor_.find(query);
  if (endpoint == nullptr) return;
  if (worker_ != nullptr) worker_->remove(query);
  endpoint->close();
}

void Resolver::post(const ReactorRef& reactor, SlotId query, Answer answer) {
  Task task = [reactor, query, answer = std::make_unique<Answer>(std::move(answer))] {
    deliver(*reactor.get(), query, *answer);
  };
  static_cast<void>(reactor.post(task));
}

void Resolver::deliver(Reactor& reactor, SlotId query, Answer& answer) {
  Endpoint* endpoint = reactor.find(query);
  if (endpoint == nullptr) return;
  Resolution resolution;
  if (answer) {
    resolution.addresses = *answer;
  } else {
    resolution.error = answer.error();
  }
  static_cast<Query*>(endpoint)->finish(resolution);
}

}  // namespace levada::net
