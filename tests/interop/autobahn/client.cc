// The client that the Autobahn suite's fuzzing server tests: client BACKEND URL AGENT.
//
// Asks how many cases there are, echoes in each what the server sends, one connection after another, and at the end has
// the server write its reports. Whether a case passed is for the reports to say; this fails only when the suite could
// not be run to its end.
#include <charconv>

#include <levada/tests/interop/support.h>

namespace levada::interop {
namespace {

class Client {
 public:
  Client(net::Reactor& reactor, std::string_view url, std::string agent)
      : reactor_(reactor),
        server_(url),
        agent_(std::move(agent)),
        service_(reactor, ws::Role::client, *this,
                 {.handshake_timeout_ms = 300'000, .deflate = {.enabled = true}}) {  // the suite is slow
    server_.dial(service_, "/getCaseCount");
  }

  bool finished() const { return finished_; }

  void on_message(ws::Connection& connection, ws::Opcode opcode, Bytes payload) {
    const std::string_view text = to_text(payload);
    if (case_ > 0 && case_ <= cases_) {
      connection.send(opcode, payload);
    } else if (case_ == 0) {
      std::from_chars(text.data(), text.data() + text.size(), cases_);
    }
  }

  void on_close(ws::Connection&, const ws::CloseInfo&) { next(); }

  void on_refused(ws::Connection&, const ws::Refusal& refusal) {
    std::fprintf(stderr, "case %d: %s\n", case_, to_word(refusal).c_str());
    reactor_.stop();
  }

 private:
  void next() {
    if (cases_ == 0) give_up("the server names no number of cases");
    case_++;
    if (case_ <= cases_) {
      server_.dial(service_, "/runCase?case=" + std::to_string(case_) + "&agent=" + agent_);
    } else if (case_ == cases_ + 1) {  // answered when the last case has its result
      server_.dial(service_, "/getCaseStatus?case=" + std::to_string(cases_) + "&agent=" + agent_);
    } else if (case_ == cases_ + 2) {
      server_.dial(service_, "/updateReports?agent=" + agent_);
    } else {
      finished_ = true;
      reactor_.stop();
    }
  }

  net::Reactor& reactor_;
  Server server_;
  std::string agent_;
  int cases_ = 0;
  int case_ = 0;  // the one that runs, from 1 on; 0 while their number is asked for
  bool finished_ = false;
  ws::Service service_;
};

int run(std::string_view backend, std::string_view url, std::string agent) {
  auto reactor = make_reactor(backend);
  Client client(*reactor, url, std::move(agent));
  reactor->run();
  reactor.reset();
  return client.finished() ? 0 : 1;
}

}  // namespace
}  // namespace levada::interop

int main(int argc, char** argv) {
  if (argc != 4) levada::interop::give_up("usage: client epoll|io_uring URL AGENT");
  return levada::interop::run(argv[1], argv[2], argv[3]);
}
