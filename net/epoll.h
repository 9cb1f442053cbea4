// The epoll backend.
//
// Model: level-triggered; one receive buffer for all connections, filled from front to back as their bytes
// come in. When it is nearly full the queues are flushed in the middle of the batch, so the same warm memory
// is used again. A buffer that somebody still refers to then is left to them, and another one is taken.
#pragma once

#include <sys/epoll.h>
#include <array>
#include <memory>

#include <levada/core/fd.h>
#include <levada/net/backend.h>

namespace levada::net {

class EpollBackend final : public Backend {
 public:
  // nullptr when the process has no descriptor left.
  static std::unique_ptr<Backend> make(Reactor& reactor);
  ~EpollBackend() override;

  BackendKind kind() const override { return BackendKind::epoll; }
  Error start(Endpoint& endpoint) override;
  void stop(Endpoint& endpoint) override;
  Fd release(Stream& stream) override;
  void pause(Endpoint& endpoint) override { update(endpoint); }
  void resume(Endpoint& endpoint) override { update(endpoint); }
  void set_direct(Stream&) override {}
  void flush() override;
  void poll(int timeout_ms) override;
  void shut_down(Stream& stream) override;
  void wake() override;
  std::uint64_t now_ns() override;
  bool can_lend() const override { return true; }  // it takes another one
  std::string describe() const override;

 private:
  EpollBackend(Reactor& reactor, Fd epoll, Fd event);

  std::uint32_t interest(const Endpoint& endpoint) const;
  void update(Endpoint& endpoint);
  void handle(const epoll_event& event);
  void accept(Listener& listener);
  void finish_connecting(Stream& stream);
  void receive(Stream& stream);
  bool receive_once(Stream& stream);
  void flush(Stream& stream);
  void end_turn();

  static constexpr int max_events = 512;

  Reactor& reactor_;
  Fd epoll_;
  Fd event_;
  Block* buffer_;
  std::size_t buffer_bytes_;
  std::size_t used_ = 0;  // bytes of buffer_ received into in this turn
  std::array<epoll_event, max_events> events_;
};

}  // namespace levada::net
