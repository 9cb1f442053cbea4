#include <levada/tools/load/processes.h>

#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
#include <algorithm>
#include <cerrno>
#include <csignal>
#include <vector>

#include <levada/core/clock.h>
#include <levada/core/fd.h>
#include <levada/tools/load/capsule.h>
#include <levada/tools/load/process.h>

namespace levada::load {
namespace {

constexpr std::uint64_t forever = ~std::uint64_t{0} >> 1;

Options share_of(const Options& options, std::uint32_t index) {
  const auto processes = static_cast<std::uint32_t>(options.processes);
  const auto part = [&](auto whole) { return whole / processes + (index < whole % processes ? 1 : 0); };
  Options share = options;
  share.connections = part(options.connections);
  share.first_connection =
      index * (options.connections / processes) + std::min(index, options.connections % processes);
  share.first_thread = static_cast<int>(index) * options.threads;
  const double weight = static_cast<double>(share.connections) / options.connections;
  share.rate = options.rate * weight;
  share.connect_rate = options.connect_rate * weight;
  if (options.count) share.count = part(*options.count);
  share.server_pids.clear();
  return share;
}

// ---- The child ----

// A line of the channel.
void say(int channel, char kind, const std::string& text = {}) {
  const std::string line = kind + text + (text.ends_with('\n') ? "" : "\n");
  for (std::size_t at = 0; at < line.size();) {
    const ssize_t written = send(channel, line.data() + at, line.size() - at, MSG_NOSIGNAL);
    if (written < 0 && errno != EINTR) return;
    if (written > 0) at += static_cast<std::size_t>(written);
  }
}

// The whole life of a child.
int run_child(const Options& options, int channel, pid_t parent) {
  setpgid(0, 0);
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != parent) return 1;
  Controller controller;
  Result result;
  std::string why;
  const auto wait_for_others = [&](std::uint32_t open) {
    say(channel, 'r', std::to_string(open));
    char go = 0;
    return controller.wait_for(channel) && read(channel, &go, 1) == 1;
  };
  const RunHooks hooks{.connecting = [&](std::uint32_t open) { say(channel, 'k', std::to_string(open)); },
                       .ready = wait_for_others,
                       .begins = [&] { say(channel, 'm'); },
                       .second = [&](const Second& second) { say(channel, 's', write_second(second)); },
                       .ended = [&] { say(channel, 'e'); }};
  const bool good = run(options, controller, result, why, hooks);
  say(channel, good ? 'c' : '!', good ? write_capsule(options, result, true) : why);
  return good ? 0 : 1;
}

// ---- The parent ----

// One child, as far as it has told.
struct Child {
  pid_t pid = -1;
  Fd channel;  // empty: it has ended
  std::string received;
  bool ready = false, begun = false, ended = false;
  std::uint32_t open = 0;
  Second latest;
  std::string capsule;
};

class Crew {
 public:
  Crew(const Options& options, Controller& controller, const RunHooks& hooks)
      : options_(options), controller_(controller), hooks_(hooks) {}
  ~Crew();

  bool start();
  bool run(ServerProcesses& server, Result& result);
  const std::string& why() const { return why_; }

 private:
  bool until(bool Child::*reached, const std::function<void(double at_s)>& second = {});
  void interrupt();
  void take_reports();
  void take(Child& child);
  void take_line(Child& child, const std::string& text);
  void connecting() const;
  void show();
  bool collect(Result& result);

  const Options& options_;
  Controller& controller_;
  const RunHooks& hooks_;
  std::vector<Child> children_;
  bool interrupted_ = false;
  double shown_s_ = 0;
  std::string why_;
};

Crew::~Crew() {
  for (Child& child : children_) {
    if (child.channel) kill(child.pid, SIGKILL);
    while (waitpid(child.pid, nullptr, 0) < 0 && errno == EINTR) {
    }
  }
}

bool Crew::start() {
  const pid_t parent = getpid();
  for (std::uint32_t i = 0; i < static_cast<std::uint32_t>(options_.processes); i++) {
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) {
      why_ = Error::from_os("socketpair", errno).message();
      return false;
    }
    Child child;
    child.channel = Fd(ends[0]);
    Fd childs_end(ends[1]);
    child.pid = fork();
    if (child.pid == 0) {
      for (Child& other : children_) other.channel.reset();
      child.channel.reset();
      _exit(run_child(share_of(options_, i), childs_end.get(), parent));
    }
    if (child.pid < 0) {
      why_ = Error::from_os("fork", errno).message();
      return false;
    }
    children_.push_back(std::move(child));
  }
  return true;
}

bool Crew::run(ServerProcesses& server, Result& result) {
  if (!until(&Child::ready, [this](double) { connecting(); })) return false;
  for (const Child& child : children_) {
    if (child.channel) [[maybe_unused]]
      const ssize_t sent = send(child.channel.get(), "g", 1, MSG_NOSIGNAL);
  }
  if (!until(&Child::begun)) return false;
  server.begin();
  const std::uint64_t begin = monotonic_ns();
  if (!until(&Child::ended, [&](double at_s) { server.second(at_s); })) return false;
  const double seconds = static_cast<double>(monotonic_ns() - begin) / 1e9;
  server.second(seconds);
  result.server = server.end(seconds);
  if (!until(nullptr) || !collect(result)) return false;
  result.interrupted = result.interrupted || interrupted_;
  return true;
}

// Waits until all children have come so far, or have ended; with nullptr, until they have ended. False: one has failed.
bool Crew::until(bool Child::*reached, const std::function<void(double at_s)>& second) {
  const auto all = [&] {
    take_reports();
    show();
    return !why_.empty() || std::all_of(children_.begin(), children_.end(), [&](const Child& child) {
      return !child.channel || (reached != nullptr && child.*reached);
    });
  };
  while (!all()) {
    controller_.wait(forever, all, second);
    if (controller_.interrupted() && !interrupted_) interrupt();
  }
  return why_.empty();
}

void Crew::interrupt() {
  interrupted_ = true;
  controller_.keep_waiting();
  for (const Child& child : children_) kill(child.pid, SIGINT);
}

void Crew::take_reports() {
  std::vector<int> open;
  for (Child& child : children_) {
    if (child.channel) take(child);
    if (child.channel) open.push_back(child.channel.get());
  }
  controller_.watch(std::move(open));
}

// What has come from a child by now.
void Crew::take(Child& child) {
  char piece[65536];
  for (;;) {
    const ssize_t got = recv(child.channel.get(), piece, sizeof piece, MSG_DONTWAIT);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0 && errno == EAGAIN) return;
    if (got <= 0) break;
    child.received.append(piece, static_cast<std::size_t>(got));
    for (std::size_t end; (end = child.received.find('\n')) != std::string::npos;) {
      take_line(child, child.received.substr(0, end));
      child.received.erase(0, end + 1);
    }
  }
  child.channel.reset();
  if (why_.empty() && child.capsule.empty()) why_ = "a process ended without a result";
}

void Crew::take_line(Child& child, const std::string& text) {
  const char kind = text.front();
  const std::string line = text.substr(1);
  if (kind == 'k' || kind == 'r') child.open = static_cast<std::uint32_t>(std::stoul(line));
  if (kind == 'r') child.ready = true;
  if (kind == 'm') child.begun = true;
  if (kind == 's') child.latest = read_second(line);
  if (kind == 'e') child.ended = true;
  if (kind == 'c') child.capsule = line;
  if (kind == '!') why_ = line;
}

void Crew::connecting() const {
  std::uint32_t open = 0;
  for (const Child& child : children_) open += child.open;
  if (hooks_.connecting) hooks_.connecting(open);
}

// When a second is over for all that have not ended.
void Crew::show() {
  Second sum;
  double at_s = 1e9;
  for (const Child& child : children_) {
    sum.add(child.latest);
    if (!child.ended && child.channel) at_s = std::min(at_s, child.latest.at_s);
  }
  if (at_s <= shown_s_ || at_s == 1e9) return;
  shown_s_ = sum.at_s = at_s;
  if (hooks_.second) hooks_.second(sum);
}

bool Crew::collect(Result& result) {
  for (const Child& child : children_) {
    const auto capsule = read_capsule(child.capsule, why_);
    if (!capsule) return false;
    result.add(capsule->result);
  }
  return true;
}

}  // namespace

bool run_processes(const Options& options, Controller& controller, Result& result, std::string& why,
                   const RunHooks& hooks) {
  ServerProcesses server;
  if (!server.open(options.server_pids, why)) return false;
  Crew crew(options, controller, hooks);
  const bool good = crew.start() && crew.run(server, result);
  why = crew.why();
  return good;
}

}  // namespace levada::load
