// levada-cat: standard input and output on a WebSocket.
//
// One loop over poll(2): the input is read while nothing waits to be sent, so what is queued is bounded by what one read
// gives; messages are written as they come; a deadline for what comes next, be it a ping or the peer's close frame.
#include <poll.h>
#include <sys/signalfd.h>
#include <unistd.h>
#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <optional>
#include <string>
#include <vector>

#include <levada/core/clock.h>
#include <levada/core/fd.h>
#include <levada/tools/cat/input.h>
#include <levada/tools/cat/options.h>
#include <levada/ws/blocking_client.h>
#include <levada/ws/url.h>
#include <levada/ws/utf8.h>

namespace levada::cat {
namespace {

std::uint64_t milliseconds(double seconds) {
  return static_cast<std::uint64_t>(seconds * 1000);
}

class Session {
 public:
  explicit Session(const Options& options)
      : options_(options), input_(options.binary, static_cast<std::size_t>(options.max_message_bytes)) {}

  Status run() {
    if (const Status status = dial(); status != Status::closed) return status;
    std::signal(SIGPIPE, SIG_IGN);  // writing tells
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGTERM);
    sigprocmask(SIG_BLOCK, &signals, nullptr);
    signals_.reset(signalfd(-1, &signals, SFD_CLOEXEC));
    next_ping_ns_ = monotonic_ns();
    while (!result_) turn();
    return *result_;
  }

 private:
  std::uint64_t timeout_ns() const {
    return milliseconds(options_.timeout_seconds) * nanoseconds_per_millisecond;
  }

  // ---- Opening ----

  Status dial() {
    std::vector<ws::HttpField> fields(options_.headers.size());
    for (std::size_t i = 0; i < fields.size(); i++) parse_header(options_.headers[i], fields[i]);
    const std::vector<std::string_view> subprotocols(options_.subprotocols.begin(),
                                                     options_.subprotocols.end());
    const Error error = client_.dial(
        options_.url, {.dial_timeout_ms = static_cast<std::uint32_t>(milliseconds(options_.timeout_seconds)),
                       .origin = options_.origin,
                       .subprotocols = subprotocols,
                       .fields = fields,
                       .max_message_bytes = options_.max_message_bytes,
                       .max_buffered_bytes = ~std::size_t{0},
                       .tls = options_.tls});
    if (!error) return Status::closed;
    if (client_.refusal() != ws::UpgradeFailure::none) return tell_refusal();
    ws::Url url;
    const ws::UrlError url_error = ws::parse_url(options_.url, url, ws::UserInfo::take);
    if (url_error != ws::UrlError::none) return tell(Status::usage, ws::to_string(url_error));
    if (error.code == Errc::invalid_argument || error.code == Errc::not_supported)
      return tell(Status::usage, error.message());
    return tell(error.code == Errc::protocol ? Status::refused : Status::unreachable, error.message());
  }

  Status tell_refusal() {
    const ws::HttpResponse& response = client_.response();
    std::string text = std::string("refused: ") + ws::to_string(client_.refusal()) + ", " +
                       std::to_string(response.status()) + " " + std::string(response.reason());
    if (const std::string_view body = ws::trim(to_text(client_.response_body())); !body.empty())
      text.append("\n").append(body);
    return tell(Status::refused, text);
  }

  // ---- The loop ----

  void turn() {
    read_messages();
    if (result_) return;
    if (!closing_) send_input();
    if (!result_) wait();
    if (!result_) check_time();
  }

  void wait() {
    const bool wants_input = !closing_ && !input_.ended() && client_.buffered() == 0;
    const bool has_output = client_.buffered() != 0;
    pollfd polled[] = {{client_.fd(), static_cast<short>(has_output ? POLLIN | POLLOUT : POLLIN), 0},
                       {wants_input ? STDIN_FILENO : -1, POLLIN, 0},
                       {signals_.get(), POLLIN, 0}};
    if (poll(polled, 3, client_.has_input() ? 0 : wait_ms()) <= 0) return;
    if ((polled[0].revents & POLLOUT) != 0)
      (void)client_.flush(ws::Deadline::now());  // reading tells of failures
    if (polled[1].revents != 0) read_input();
    if (polled[2].revents != 0) interrupted();
  }

  // Until the next thing that is due; -1: nothing is.
  int wait_ms() const {
    std::optional<std::uint64_t> due;
    if (closing_) due = close_by_ns_;
    if (!closing_ && options_.ping_seconds > 0) due = next_ping_ns_;
    if (!closing_ && answer_by_ns_ != 0) due = std::min(due.value_or(answer_by_ns_), answer_by_ns_);
    if (!due) return -1;
    const std::uint64_t now = monotonic_ns();
    return *due <= now ? 0 : static_cast<int>((*due - now) / nanoseconds_per_millisecond + 1);
  }

  void check_time() {
    const std::uint64_t now = monotonic_ns();
    if (closing_) {
      if (now >= close_by_ns_) finish(Status::lost, "no answer to the close frame");
      return;
    }
    if (answer_by_ns_ != 0 && now >= answer_by_ns_) return begin_close();
    if (options_.ping_seconds <= 0 || now < next_ping_ns_) return;
    if (client_.pongs() < pings_) return finish(Status::lost, "no answer to a ping");
    pings_++;
    next_ping_ns_ = now + milliseconds(options_.ping_seconds) * nanoseconds_per_millisecond;
    (void)client_.ping({}, ws::Deadline::now());
  }

  // ---- Out ----

  void read_input() {
    char buffer[1 << 16];
    const ssize_t got = ::read(STDIN_FILENO, buffer, sizeof buffer);
    if (got > 0) return input_.append({buffer, static_cast<std::size_t>(got)});
    if (got < 0 && (errno == EINTR || errno == EAGAIN)) return;
    input_.end();
  }

  // One message at a time, so that answers are read in between.
  void send_input() {
    std::string_view message;
    while (client_.buffered() == 0) {
      const Input::Next next = input_.next(message);
      if (next == Input::Next::too_long) return fail_input("a line is longer than --max-message");
      if (next == Input::Next::nothing) {
        if (input_.ended()) input_ended();
        return;
      }
      if (!options_.binary && !ws::is_utf8(to_bytes(message)))
        return fail_input("a line is not UTF-8; --binary sends anything");
      const ws::Opcode opcode = options_.binary ? ws::Opcode::binary : ws::Opcode::text;
      (void)client_.write(opcode, to_bytes(message), ws::Deadline::now());
      read_messages();
      if (result_ || closing_) return;
    }
  }

  // With --one the answer may still be to come.
  void input_ended() {
    if (!options_.one) return begin_close();
    if (answer_by_ns_ == 0) answer_by_ns_ = monotonic_ns() + timeout_ns();
  }

  void begin_close() {
    if (closing_) return;
    closing_ = true;
    close_by_ns_ = monotonic_ns() + timeout_ns();
    (void)client_.send_close(ws::CloseCode::normal, {}, ws::Deadline::now());
  }

  void fail_input(const char* why) {
    close();
    finish(Status::usage, why);
  }

  void fail_output() {
    const bool no_reader = errno == EPIPE;
    close();
    if (!no_reader) return finish(Status::usage, "cannot write the output");
    result_ = Status::no_reader;  // as every program in a pipe, without a word
  }

  void close() {
    (void)client_.close(ws::CloseCode::normal, {},
                        ws::Deadline::in_ms(milliseconds(options_.timeout_seconds)));
  }

  // The second signal ends at once.
  void interrupted() {
    signalfd_siginfo info;
    if (::read(signals_.get(), &info, sizeof info) != sizeof info) return;
    if (closing_) return finish(Status::lost, "interrupted");
    begin_close();
  }

  // ---- In ----

  void read_messages() {
    while (!result_) {
      auto message = client_.read(ws::Deadline::now());
      if (!message) return read_failed(message.error());
      if (options_.one && messages_ > 0) continue;  // came behind the one
      if (!print(*message)) return fail_output();
      messages_++;
      if (options_.one) begin_close();
    }
  }

  bool print(const ws::BlockingMessage& message) {
    const bool written =
        std::fwrite(message.payload.data(), 1, message.payload.size(), stdout) == message.payload.size() &&
        (options_.binary || std::putchar('\n') != EOF);
    return written && std::fflush(stdout) == 0;
  }

  void read_failed(const Error& error) {
    if (error.code == Errc::timed_out) return;
    const std::string reason =
        std::to_string(number(client_.close_code())) + " " + std::string(client_.close_reason());
    if (error.code == Errc::protocol)
      return finish(Status::violation, "the server broke the protocol: " + reason);
    if (error.code != Errc::end_of_stream) return finish(Status::lost, "lost: " + error.message());
    const ws::CloseCode code = client_.close_code();
    const bool usual = code == ws::CloseCode::normal || code == ws::CloseCode::going_away ||
                       code == ws::CloseCode::no_status;
    if (!usual) return finish(Status::closed_badly, "closed: " + reason);
    if (options_.one && messages_ == 0)
      return finish(Status::no_message, "closed before a message came: " + reason);
    result_ = Status::closed;
  }

  // ---- The end ----

  void finish(Status status, const std::string& why) {
    result_ = tell(status, why);
    client_.terminate();
  }

  Status tell(Status status, const std::string& why) const {
    if (!options_.quiet) std::fprintf(stderr, "levada-cat: %s\n", why.c_str());
    return status;
  }

  const Options& options_;
  ws::BlockingClient client_;
  Input input_;
  Fd signals_;
  std::optional<Status> result_;
  std::uint64_t messages_ = 0;
  std::uint64_t pings_ = 0;
  std::uint64_t next_ping_ns_ = 0;
  std::uint64_t answer_by_ns_ = 0;  // 0: not waited for
  std::uint64_t close_by_ns_ = 0;   // while closing
  bool closing_ = false;
};

}  // namespace
}  // namespace levada::cat

int main(int argc, char** argv) {
  levada::cat::Options options;
  int status = 0;
  if (!levada::cat::parse(argc, argv, options, status)) return status;
  return static_cast<int>(levada::cat::Session(options).run());
}
