// The epoll backend.
//
// Model: level-triggered; what is readable is received into one buffer for all connections (shared_buffer.h). When that
// is nearly full the queues are flushed in the middle of the batch.
#pragma once

#include <sys/epoll.h>
#include <array>
#include <memory>

#include <levada/core/fd.h>
#include <levada/net/backend.h>
#include <levada/net/shared_buffer.h>

namespace levada::net {

class EpollBackend final : public Backend {
 public:
  // nullptr when the process has no descriptor left.
  static std::unique_ptr<Backend> make(Reactor& reactor);

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
  SharedBuffer buffer_;
  std::array<epoll_event, max_events> events_;
};

}  // namespace levada::net
