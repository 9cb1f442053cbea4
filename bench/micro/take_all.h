// A backend for benchmarks of the engine without the kernel: each turn delivers `input` to the one connection, and takes
// all that is queued.
#pragma once

#include <memory>
#include <string>

#include <levada/net/reactor.h>

namespace levada::bench {

class TakeAll final : public net::Backend {
 public:
  explicit TakeAll(net::Reactor& reactor) : reactor_(reactor) {}
  static std::unique_ptr<net::Backend> make(net::Reactor& reactor, void*) {
    return std::make_unique<TakeAll>(reactor);
  }

  net::BackendKind kind() const override { return net::BackendKind::simulated; }
  Error start(net::Endpoint& endpoint) override {
    stream_ = static_cast<net::Stream*>(&endpoint);
    return {};
  }
  void stop(net::Endpoint&) override {}
  Fd release(net::Stream&) override { return {}; }
  void pause(net::Endpoint&) override {}
  void resume(net::Endpoint&) override {}
  void set_direct(net::Stream&) override {}
  void flush() override {
    while (net::Stream* stream = reactor_.take_dirty()) reactor_.sent(*stream, stream->buffered(), false);
    reactor_.end_turn();
  }
  void poll(int) override { reactor_.received(*stream_, input, nullptr); }
  void shut_down(net::Stream&) override {}
  void wake() override {}
  std::uint64_t now_ns() override { return 0; }
  bool can_lend() const override { return true; }
  std::string describe() const override { return "takes all"; }

  MutableBytes input;

 private:
  net::Reactor& reactor_;
  net::Stream* stream_ = nullptr;
};

}  // namespace levada::bench
