#include <levada/tools/load/processes.h>

#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cerrno>
#include <csignal>
#include <vector>

#include <levada/core/clock.h>
#include <levada/core/fd.h>
#include <levada/tools/load/capsule.h>
#include <levada/tools/load/process.h>
#include <levada/tools/load/run.h>

namespace levada::load {
namespace {

struct Child {
  pid_t pid = -1;
  Fd channel;  // "r" when it is ready, "g" to go, then its capsule
};

Options share_of(const Options& options, std::uint32_t index) {
  const auto processes = static_cast<std::uint32_t>(options.processes);
  const auto part = [&](auto whole) { return whole / processes + (index < whole % processes ? 1 : 0); };
  Options share = options;
  share.connections = part(options.connections);
  share.first_connection =
      index * (options.connections / processes) + std::min(index, options.connections % processes);
  const double weight = static_cast<double>(share.connections) / options.connections;
  share.rate = options.rate * weight;
  share.connect_rate = options.connect_rate * weight;
  share.count = part(options.count);
  share.server_pids.clear();
  share.progress = false;
  return share;
}

void write_all(int fd, const std::string& text) {
  for (std::size_t at = 0; at < text.size();) {
    const ssize_t written = send(fd, text.data() + at, text.size() - at, MSG_NOSIGNAL);
    if (written < 0 && errno != EINTR) return;
    if (written > 0) at += static_cast<std::size_t>(written);
  }
}

std::string read_all(int fd) {
  std::string text;
  char piece[65536];
  for (;;) {
    const ssize_t got = read(fd, piece, sizeof piece);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return text;
    text.append(piece, static_cast<std::size_t>(got));
  }
}

// The whole life of a child.
int run_child(const Options& options, int channel) {
  Controller controller;
  Result result;
  std::string why;
  const RunHooks hooks{[&](std::uint32_t) {
                         write_all(channel, "r");
                         char go = 0;
                         return controller.wait_for(channel) && read(channel, &go, 1) == 1;
                       },
                       {}};
  if (!run(options, controller, result, why, hooks)) {
    write_all(channel, "!" + why);
    return 1;
  }
  write_all(channel, write_capsule(options, result, true));
  return 0;
}

bool start(const Options& options, std::vector<Child>& children, std::string& why) {
  for (std::uint32_t i = 0; i < static_cast<std::uint32_t>(options.processes); i++) {
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) {
      why = Error::from_os("socketpair", errno).message();
      return false;
    }
    Child child{-1, Fd(ends[0])};
    Fd childs_end(ends[1]);
    child.pid = fork();
    if (child.pid == 0) {
      children.clear();
      child.channel.reset();
      _exit(run_child(share_of(options, i), childs_end.get()));
    }
    if (child.pid < 0) {
      why = Error::from_os("fork", errno).message();
      return false;
    }
    children.push_back(std::move(child));
  }
  return true;
}

// Waits until all are ready; lets them begin.
bool rendezvous(std::vector<Child>& children, std::string& why) {
  for (Child& child : children) {
    char ready = 0;
    while (read(child.channel.get(), &ready, 1) < 0 && errno == EINTR) {
    }
    if (ready == 'r') continue;
    why = ready == '!' ? read_all(child.channel.get()) : "a process ended before its connections were made";
    return false;
  }
  for (Child& child : children) write_all(child.channel.get(), "g");
  return true;
}

bool collect(std::vector<Child>& children, Result& result, std::string& why) {
  for (Child& child : children) {
    const auto capsule = read_capsule(read_all(child.channel.get()), why);
    if (!capsule) {
      why.insert(0, "a process ended without a result: ");
      return false;
    }
    result.add(capsule->result);
  }
  return true;
}

}  // namespace

bool run_processes(const Options& options, Result& result, std::string& why) {
  Process server;
  if (options.server_pid() != 0 && !server.open(options.server_pid())) {
    why = "there is no process " + std::to_string(options.server_pid());
    return false;
  }
  std::vector<Child> children;
  bool good = start(options, children, why);
  // Ctrl-C is the children's affair: they end early, and the parent reports.
  const auto usual = std::signal(SIGINT, SIG_IGN);
  good = good && rendezvous(children, why);
  server.begin();
  const std::uint64_t begin = monotonic_ns();
  good = good && collect(children, result, why);
  result.server = server.end(static_cast<double>(monotonic_ns() - begin) / 1e9);
  for (Child& child : children) {
    child.channel.reset();
    if (!good) kill(child.pid, SIGTERM);
    while (waitpid(child.pid, nullptr, 0) < 0 && errno == EINTR) {
    }
  }
  std::signal(SIGINT, usual);
  return good;
}

}  // namespace levada::load
