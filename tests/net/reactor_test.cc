#include <levada/net/reactor.h>

#include <dirent.h>
#include <fcntl.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <unistd.h>
#include <array>
#include <atomic>
#include <cstdlib>
#include <deque>
#include <thread>

#include <doctest/doctest.h>

#include <levada/net/epoll.h>
#include <levada/net/thread.h>
#include <levada/tests/net/support.h>

using namespace levada;
using namespace levada::net;
using namespace levada::net::test;

namespace {

// Accepts and keeps each connection as an echoing Probe.
struct EchoServer {
  explicit EchoServer(Reactor& on) : reactor(&on) {
    Fd fd = std::move(*listen_stream(any_local()));
    address = *Address::of_socket(fd.get());
    listener = on.add<Listener>(std::move(fd), &EchoServer::accept, this);
    REQUIRE(listener != nullptr);
    id = listener->id();
  }
  static void accept(void* self, Listener& listener, Fd fd) {
    auto& server = *static_cast<EchoServer*>(self);
    server.records.emplace_back();
    server.records.back().on_receive = echo;
    listener.reactor().add<Probe>(std::move(fd), server.records.back());
  }
  ~EchoServer() {
    if (reactor == nullptr) return;
    if (Endpoint* endpoint = reactor->find(id)) endpoint->close();
  }
  Fd dial() { return Pair::dial(listener->native_fd()); }

  Reactor* reactor;  // nullptr once it is gone
  SlotId id;
  Address address;
  Listener* listener = nullptr;
  std::deque<Record> records;
};

int open_descriptors() {
  int count = 0;
  DIR* directory = opendir("/proc/self/fd");
  while (readdir(directory) != nullptr) count++;
  closedir(directory);
  return count;
}

}  // namespace

// ---- Streams ----

TEST_CASE("a stream echoes what it receives") {
  on_each_backend([](Reactor& reactor) {
    Record record;
    record.on_receive = echo;
    Pair pair;
    REQUIRE(reactor.add<Probe>(std::move(pair.engine), record) != nullptr);
    std::string got;
    for (int i = 0; i < 100; i++) {
      const std::string text = "message " + std::to_string(i);
      write_all(pair.peer, text);
      REQUIRE(turn_until(reactor, [&] { return read_some(pair.peer, got), got.size() >= text.size(); }));
      REQUIRE(got == text);
      got.clear();
    }
  });
}

TEST_CASE("a reactor that spins does not wait after it has received, and waits again when its time is over") {
  ReactorOptions options;
  options.spin_us = 30'000;
  on_each_backend(
      [](Reactor& reactor) {
        Record record;
        record.on_receive = echo;
        Pair pair;
        REQUIRE(reactor.add<Probe>(std::move(pair.engine), record) != nullptr);
        write_all(pair.peer, "hello");
        std::string got;
        REQUIRE(turn_until(reactor, [&] { return read_some(pair.peer, got), got.size() >= 5; }));
        const auto turns = [&] { return reactor.counters().turns.value(); };
        const std::uint64_t end = monotonic_ns() + 100 * nanoseconds_per_millisecond;
        const std::uint64_t before = turns();
        while (monotonic_ns() < end) reactor.run_once(100);
        CHECK(turns() - before > 10);  // one, if it had waited at once
        const std::uint64_t waiting = monotonic_ns();
        reactor.run_once(20);
        CHECK(monotonic_ns() - waiting >= 19 * nanoseconds_per_millisecond);
      },
      options);
}

TEST_CASE("what waits in the kernel while a handler runs is in the histogram of latency") {
  on_each_backend([](Reactor& reactor) {
    Record busy, waits;
    Pair busy_pair, waiting_pair;
    REQUIRE(reactor.add<Probe>(std::move(busy_pair.engine), busy) != nullptr);
    REQUIRE(reactor.add<Probe>(std::move(waiting_pair.engine), waits) != nullptr);
    const auto slow = [&reactor] {  // of 32 ms and more
      std::uint64_t count = 0;
      for (std::size_t i = 0; i < LatencyHistogram::buckets; i++) {
        const bool above = i > 0 && LatencyHistogram::bound_ns(i - 1) >= 32 * nanoseconds_per_millisecond;
        if (above) count += reactor.counters().latency.count(i);
      }
      return count;
    };
    const auto exchange = [&](Fd& peer, Record& record, bool sends) {
      const std::size_t before = record.received.size();
      if (sends) write_all(peer, "x");
      REQUIRE(turn_until(reactor, [&] { return record.received.size() > before; }));
    };
    // One receive in 16 is looked at: the one that waits is to be it.
    while (reactor.counters().receives.value() % 16 != 14) exchange(busy_pair.peer, busy, true);
    CHECK(slow() == 0);
    busy.on_receive = [&](Probe&, MutableBytes, Owner*) {
      write_all(waiting_pair.peer, "x");
      const std::uint64_t until = monotonic_ns() + 50 * nanoseconds_per_millisecond;
      while (monotonic_ns() < until) {
      }
    };
    exchange(busy_pair.peer, busy, true);
    if (waits.received.empty()) exchange(waiting_pair.peer, waits, false);
    CHECK(slow() == 1);
  });
}

TEST_CASE("every way to send keeps its bytes and their order") {
  on_each_backend([](Reactor& reactor) {
    Record record;
    Pair pair;
    Probe* probe = reactor.add<Probe>(std::move(pair.engine), record);
    std::string expected, got;
    SeededRandom random(3);
    for (int turn = 0; turn < 50; turn++) {
      for (int i = 0; i < 40; i++) {
        const std::string text = pattern(random.below(300), random.next());
        expected += text;
        if (i % 3 == 0) {
          probe->send(to_bytes(text));
        } else if (i % 3 == 1) {
          std::uint8_t* memory = probe->reserve(text.size());
          std::copy(text.begin(), text.end(), memory);
          probe->send_turn_memory({memory, text.size()});
        } else {
          Block* block = reactor.blocks().allocate(text.size());
          std::copy(text.begin(), text.end(), block->data());
          probe->send_owned({block->data(), text.size()}, block);
        }
      }
      REQUIRE(turn_until(reactor, [&] { return read_some(pair.peer, got), got.size() >= expected.size(); }));
    }
    CHECK(got == expected);
    CHECK(probe->buffered() == 0);
    CHECK(reactor.segments().in_use() == 0);
  });
}

TEST_CASE("more segments than one call takes leave in order") {
  on_each_backend([](Reactor& reactor) {
    Record record;
    Pair pair;
    Probe* probe = reactor.add<Probe>(std::move(pair.engine), record);
    std::string expected, got;
    for (int i = 0; i < 1000; i++) {
      const std::string text = std::to_string(i) + ",";
      std::uint8_t* memory = probe->reserve(text.size() + 1);  // a gap: the views do not merge
      std::copy(text.begin(), text.end(), memory);
      probe->send_turn_memory({memory, text.size()});
      expected += text;
    }
    REQUIRE(turn_until(reactor, [&] { return read_some(pair.peer, got), got.size() >= expected.size(); }));
    CHECK(got == expected);
  });
}

TEST_CASE("megabytes pass in both directions at once while the peer reads slowly") {
  on_each_backend([](Reactor& reactor) {
    Record record;
    record.on_receive = echo;
    Pair pair;
    reactor.add<Probe>(std::move(pair.engine), record);
    const std::string sent = pattern(6 << 20);
    std::string got;
    std::size_t written = 0;
    int turn = 0;
    const bool done = turn_until(reactor, [&] {
      const ssize_t n =
          send(pair.peer.get(), sent.data() + written, std::min<std::size_t>(sent.size() - written, 300'000),
               MSG_DONTWAIT | MSG_NOSIGNAL);
      if (n > 0) written += static_cast<std::size_t>(n);
      // Nothing at first, so that the engine's socket fills up.
      if (++turn > 40) read_some(pair.peer, got, 200'000);
      return got.size() == sent.size();
    });
    REQUIRE(done);
    CHECK(got == sent);
    CHECK(record.drained > 0);
    CHECK(reactor.segments().in_use() == 0);
  });
}

TEST_CASE("a stream that drained may send again, and those bytes are not damaged") {
  on_each_backend([](Reactor& reactor) {
    Record record, other;
    Pair pair, second;
    Probe* probe = reactor.add<Probe>(std::move(pair.engine), record);
    Probe* bystander = reactor.add<Probe>(std::move(second.engine), other);
    std::string expected, got, bystander_expected, bystander_got;
    int rounds = 0;
    auto send_round = [&](Probe& stream) {
      const std::string text = pattern(5 << 20, static_cast<std::uint64_t>(rounds));
      stream.send(to_bytes(text));
      expected += text;
      // Another stream's bytes that are queued in this handler are as safe.
      const std::string small = pattern(3000, static_cast<std::uint64_t>(rounds) + 100);
      bystander->send(to_bytes(small));
      bystander_expected += small;
      rounds++;
    };
    record.on_drained = [&](Probe& stream) {
      if (rounds < 4) send_round(stream);
    };
    send_round(*probe);
    REQUIRE(turn_until(reactor, [&] {
      read_some(pair.peer, got);
      read_some(second.peer, bystander_got);
      return rounds == 4 && got.size() == expected.size() &&
             bystander_got.size() == bystander_expected.size() && record.drained == 4;
    }));
    CHECK(got == expected);
    CHECK(bystander_got == bystander_expected);
    CHECK_FALSE(probe->blocked());
  });
}

TEST_CASE("a paused stream receives nothing until it is resumed, and loses nothing") {
  on_each_backend([](Reactor& reactor) {
    Record record;
    Pair pair;
    Probe* probe = reactor.add<Probe>(std::move(pair.engine), record);
    reactor.run_once(0);
    for (int round = 0; round < 20; round++) {
      record.received.clear();
      probe->pause();
      reactor.run_once(0);
      reactor.run_once(0);
      write_all(pair.peer, "held back");
      for (int i = 0; i < 3; i++) reactor.run_once(1);
      REQUIRE(record.received.empty());
      if (round % 2 == 1) {  // quick changes of mind
        probe->resume();
        probe->pause();
      }
      probe->resume();
      REQUIRE(turn_until(reactor, [&] { return record.received.size() == 9; }));
    }
  });
}

TEST_CASE("a stream that pauses inside its handler gets the rest later") {
  on_each_backend([](Reactor& reactor) {
    Record record;
    record.on_receive = [](Probe& probe, MutableBytes, Owner*) {
      probe.pause();
      probe.set_timer(1);
    };
    record.on_timer = [](Probe& probe) { probe.resume(); };
    Pair pair;
    reactor.add<Probe>(std::move(pair.engine), record);
    const std::string sent = pattern(700'000);
    std::thread writer([&] { write_all(pair.peer, sent); });
    const bool all = turn_until(reactor, [&] { return record.received.size() == sent.size(); });
    if (!all) pair.peer.reset();
    writer.join();
    REQUIRE(all);
    CHECK(record.received == sent);
  });
}

TEST_CASE("a peer that resets a paused stream does not keep the loop turning, and is reported after resume") {
  on_each_backend([](Reactor& reactor) {
    Record record;
    Pair pair;
    Probe* probe = reactor.add<Probe>(std::move(pair.engine), record);
    reactor.run_once(0);
    probe->pause();
    reactor.run_once(0);
    reset_connection(pair.peer);
    CHECK(sleeps(reactor));
    CHECK(record.ends.empty());
    probe->resume();
    REQUIRE(turn_until(reactor, [&] { return record.closed == 1; }));
    CHECK(record.ends == std::vector{Errc::connection_reset});
  });
}

TEST_CASE("a stream that stays open after its connection failed does not keep the loop turning") {
  on_each_backend([](Reactor& reactor) {
    Record record;
    record.keep_open = true;
    Pair pair;
    Probe* probe = reactor.add<Probe>(std::move(pair.engine), record);
    reset_connection(pair.peer);
    REQUIRE(turn_until(reactor, [&] { return record.ends.size() == 1; }));
    CHECK(record.ends.front() == Errc::connection_reset);
    CHECK(sleeps(reactor));
    REQUIRE(record.probe == probe);
    probe->close();
    reactor.run_once(0);
    CHECK(record.closed == 1);
    CHECK(record.ends.size() == 1);
  });
}

TEST_CASE("a stream closes when both sides have ended") {
  on_each_backend([](Reactor& reactor) {
    Record record;
    record.keep_open = true;
    Pair pair;
    Probe* probe = reactor.add<Probe>(std::move(pair.engine), record);
    pair.peer.reset();
    REQUIRE(turn_until(reactor, [&] { return record.ends.size() == 1; }));
    CHECK(record.ends.front() == Errc::end_of_stream);
    CHECK(sleeps(reactor));
    REQUIRE(record.probe == probe);
    probe->finish();
    REQUIRE(turn_until(reactor, [&] { return record.closed == 1; }));
  });
}

TEST_CASE("a stream that leaves its end to the default still sends what it had queued") {
  struct PlainEcho : Stream {
    explicit PlainEcho(Fd fd) : Stream(std::move(fd)) {}
    void on_receive(MutableBytes bytes, Owner*) override { send_turn_memory(bytes); }
  };
  on_each_backend([](Reactor& reactor) {
    Pair pair;
    reactor.add<PlainEcho>(std::move(pair.engine));
    const std::string text = pattern(50'000);
    write_all(pair.peer, text);
    shutdown(pair.peer.get(), SHUT_WR);  // the end comes with the bytes
    std::string got;
    REQUIRE(turn_until(reactor, [&] { return read_some(pair.peer, got); }));
    CHECK(got == text);
    REQUIRE(turn_until(reactor, [&] { return reactor.endpoints() == 0; }));
  });
}

TEST_CASE("a stream that has finished closes when its peer ends, also by default") {
  struct Silent : Stream {
    explicit Silent(Fd fd) : Stream(std::move(fd)) {}
    void on_receive(MutableBytes, Owner*) override {}
  };
  on_each_backend([](Reactor& reactor) {
    Pair pair;
    reactor.add<Silent>(std::move(pair.engine))->finish();
    std::string got;
    REQUIRE(turn_until(reactor, [&] { return read_some(pair.peer, got); }));  // its end
    pair.peer.reset();
    CHECK(turn_until(reactor, [&] { return reactor.endpoints() == 0; }));
  });
}

TEST_CASE("a stream can send after its peer has ended") {
  on_each_backend([](Reactor& reactor) {
    Record record;
    record.keep_open = true;
    Pair pair;
    Probe* probe = reactor.add<Probe>(std::move(pair.engine), record);
    shutdown(pair.peer.get(), SHUT_WR);
    REQUIRE(turn_until(reactor, [&] { return record.ends.size() == 1; }));
    const std::string text = pattern(100'000);
    probe->send(to_bytes(text));
    probe->finish();
    std::string got;
    REQUIRE(turn_until(reactor, [&] { return read_some(pair.peer, got); }));
    CHECK(got == text);
  });
}

TEST_CASE("a stream closes when sending fails after the peer's end") {
  on_each_backend([](Reactor& reactor) {
    Record record;
    record.keep_open = true;
    Pair pair;
    reactor.add<Probe>(std::move(pair.engine), record);
    pair.peer.reset();
    REQUIRE(turn_until(reactor, [&] { return record.ends.size() == 1; }));
    REQUIRE(turn_until(reactor, [&] {  // the first is answered with a reset, the next one fails
      if (record.probe != nullptr) record.probe->send(to_bytes("into the void"));
      return record.closed == 1;
    }));
    CHECK(record.ends.size() == 1);
    CHECK(reactor.segments().in_use() == 0);
  });
}

TEST_CASE("after a failure nothing is queued and nothing is sent, even if the stream stays open") {
  on_each_backend([](Reactor& reactor) {
    Record record;
    record.keep_open = true;
    Pair pair;
    Probe* probe = reactor.add<Probe>(std::move(pair.engine), record);
    probe->send(to_bytes(pattern(8 << 20)));
    for (int i = 0; i < 5; i++) reactor.run_once(0);
    CHECK(probe->blocked());
    reset_connection(pair.peer);
    REQUIRE(turn_until(reactor, [&] { return record.ends.size() == 1; }));
    CHECK(record.ends.front() == Errc::connection_reset);
    CHECK(probe->buffered() == 0);
    CHECK(reactor.segments().in_use() == 0);
    probe->send(to_bytes("more"));
    CHECK(probe->buffered() == 0);
    CHECK(sleeps(reactor));
    probe->close();
    reactor.run_once(0);
    CHECK(record.closed == 1);
    CHECK(record.drained == 0);
  });
}

TEST_CASE("finish ends the sending side behind the last byte, and reading goes on") {
  on_each_backend([](Reactor& reactor) {
    Record record;
    Pair pair;
    Probe* probe = reactor.add<Probe>(std::move(pair.engine), record);
    const std::string text = pattern(3 << 20);
    probe->send(to_bytes(text));
    probe->finish();
    probe->send(to_bytes("too late"));
    std::string got;
    REQUIRE(turn_until(reactor, [&] { return read_some(pair.peer, got); }));
    CHECK(got == text);
    write_all(pair.peer, "still heard");
    REQUIRE(turn_until(reactor, [&] { return record.received == "still heard"; }));
  });
}

TEST_CASE("what a closed stream had queued is dropped and let go") {
  on_each_backend([](Reactor& reactor) {
    Record record;
    Pair pair;
    Probe* probe = reactor.add<Probe>(std::move(pair.engine), record);
    const std::size_t before = reactor.blocks().blocks_in_use();
    Block* block = reactor.blocks().allocate(4 << 20);
    probe->send_owned({block->data(), std::size_t{4} << 20}, block);
    for (int i = 0; i < 3; i++) reactor.run_once(0);
    CHECK(probe->buffered() > 0);
    probe->send(to_bytes("more"));
    probe->close();
    probe->close();
    probe->send(to_bytes("too late"));
    reactor.run_once(0);
    CHECK(record.closed == 1);
    CHECK(reactor.segments().in_use() == 0);
    CHECK(reactor.blocks().blocks_in_use() == before);
    CHECK(reactor.endpoints() == 0);
  });
}

// ---- Closing inside handlers ----

TEST_CASE("a stream may close itself in any handler and is told once that it closed") {
  on_each_backend([](Reactor& reactor) {
    std::array<Record, 4> records;
    std::array<Pair, 4> pairs;
    records[0].on_receive = [](Probe& probe, MutableBytes bytes, Owner*) {
      probe.send_turn_memory(bytes);
      probe.close();
    };
    records[1].on_end = [](Probe& probe) { probe.close(); };
    records[2].on_drained = [](Probe& probe) { probe.close(); };
    records[3].on_timer = [](Probe& probe) { probe.close(); };
    for (std::size_t i = 0; i < 4; i++) reactor.add<Probe>(std::move(pairs[i].engine), records[i]);
    write_all(pairs[0].peer, "x");
    pairs[1].peer.reset();
    records[2].probe->send(to_bytes(pattern(5 << 20)));
    records[3].probe->set_timer(1);
    std::string got;
    REQUIRE(turn_until(reactor, [&] {
      read_some(pairs[2].peer, got);
      return std::all_of(records.begin(), records.end(),
                         [](const Record& record) { return record.closed > 0; });
    }));
    for (int i = 0; i < 5; i++) reactor.run_once(0);
    for (const Record& record : records) CHECK(record.closed == 1);
    CHECK(reactor.endpoints() == 0);
  });
}

TEST_CASE("a stream that another one closes in the same turn hears nothing more") {
  on_each_backend([](Reactor& reactor) {
    for (int round = 0; round < 20; round++) {
      Record first, second;
      Pair a, b;
      reactor.add<Probe>(std::move(a.engine), first);
      reactor.add<Probe>(std::move(b.engine), second);
      reactor.run_once(0);
      first.on_receive = [&](Probe& probe, MutableBytes bytes, Owner*) {
        probe.send_turn_memory(bytes);
        if (second.probe != nullptr) second.probe->close();
      };
      second.on_receive = [&](Probe& probe, MutableBytes bytes, Owner*) {
        probe.send_turn_memory(bytes);
        if (first.probe != nullptr) first.probe->close();
      };
      write_all(a.peer, "a");
      write_all(b.peer, "b");
      REQUIRE(turn_until(reactor, [&] { return first.closed + second.closed == 1; }));
      reactor.run_once(0);
      CHECK(first.received.size() + second.received.size() == 1);
      (first.probe != nullptr ? first : second).probe->close();
      reactor.run_once(0);
      CHECK(reactor.endpoints() == 0);
    }
  });
}

TEST_CASE("a descriptor number that is used again brings no bytes of its former stream") {
  on_each_backend([](Reactor& reactor) {
    for (int round = 0; round < 300; round++) {
      Record old, fresh;
      auto before = std::make_unique<Pair>();
      Pair after;
      reactor.add<Probe>(std::move(before->engine), old);
      if (round % 2 == 0) reactor.run_once(0);
      write_all(before->peer, "of the old one");
      if (round % 3 == 0) reactor.run_once(0);
      if (old.probe != nullptr) old.probe->close();
      if (round % 5 == 0) reactor.run_once(0);
      reactor.add<Probe>(std::move(after.engine), fresh);
      write_all(after.peer, "new");
      REQUIRE(turn_until(reactor, [&] { return fresh.received.size() >= 3; }));
      REQUIRE(fresh.received == "new");
      fresh.probe->close();
      reactor.run_once(0);
    }
    CHECK(reactor.endpoints() == 0);
  });
}

TEST_CASE("a handle dies with its endpoint") {
  on_each_backend([](Reactor& reactor) {
    Record record;
    Pair pair;
    Probe* probe = reactor.add<Probe>(std::move(pair.engine), record);
    const SlotId id = probe->id();
    CHECK(reactor.find(id) == probe);
    probe->close();
    CHECK(reactor.find(id) == nullptr);
    reactor.run_once(0);
    CHECK(reactor.slot(id) == nullptr);
  });
}

// ---- Listeners and connecting ----

TEST_CASE("a listener accepts many connections, and each gets its own bytes back") {
  on_each_backend([](Reactor& reactor) {
    EchoServer server(reactor);
    std::vector<Fd> clients;
    std::vector<std::string> got(200);
    for (std::size_t i = 0; i < got.size(); i++) {
      clients.push_back(server.dial());
      write_all(clients.back(), "client " + std::to_string(i));
    }
    for (std::size_t i = 0; i < got.size(); i++) {
      const std::string expected = "client " + std::to_string(i);
      REQUIRE(turn_until(reactor,
                         [&] { return read_some(clients[i], got[i]), got[i].size() >= expected.size(); }));
      CHECK(got[i] == expected);
    }
    clients.clear();
    REQUIRE(turn_until(reactor, [&] { return reactor.endpoints() == 1; }));
  });
}

TEST_CASE("a listener may close itself while it accepts") {
  on_each_backend([](Reactor& reactor) {
    int accepted = 0;
    auto accept = [](void* count, Listener& listener, Fd) {
      ++*static_cast<int*>(count);
      listener.close();
    };
    auto* listener = reactor.add<Listener>(std::move(*listen_stream(any_local())), accept, &accepted);
    const Fd first = Pair::dial(listener->native_fd()), second = Pair::dial(listener->native_fd());
    REQUIRE(turn_until(reactor, [&] { return reactor.endpoints() == 0; }));
    CHECK(accepted == 1);
  });
}

TEST_CASE("an outgoing connection is reported, and sends what was queued before") {
  on_each_backend([](Reactor& reactor) {
    EchoServer server(reactor);
    Record record;
    auto fd = connect_stream(server.address);
    REQUIRE(fd);
    Probe* probe = reactor.add_connecting<Probe>(std::move(*fd), record);
    REQUIRE(probe != nullptr);
    CHECK(probe->connecting());
    probe->send(to_bytes("early"));
    reactor.run_once(0);
    REQUIRE(turn_until(reactor, [&] { return record.received == "early"; }));
    CHECK(record.connected == 1);
    CHECK_FALSE(probe->connecting());
  });
}

TEST_CASE("a stream that finishes while it connects ends when it is connected") {
  on_each_backend([](Reactor& reactor) {
    EchoServer server(reactor);
    Record record;
    Probe* probe = reactor.add_connecting<Probe>(std::move(*connect_stream(server.address)), record);
    probe->finish();
    REQUIRE(turn_until(reactor, [&] { return record.closed == 1; }));  // the server ends when it sees the end
    CHECK(record.connected == 1);
    CHECK(server.records.front().ends == std::vector{Errc::end_of_stream});
  });
}

TEST_CASE("a connection that is refused ends with that error") {
  on_each_backend([](Reactor& reactor) {
    Address nobody = any_local();
    {
      const Fd closed = std::move(*listen_stream(any_local()));
      nobody = *Address::of_socket(closed.get());
    }
    Record record;
    auto fd = connect_stream(nobody);
    if (!fd) {  // loopback may refuse at once
      CHECK(fd.error().code == Errc::connection_refused);
      return;
    }
    reactor.add_connecting<Probe>(std::move(*fd), record);
    REQUIRE(turn_until(reactor, [&] { return record.closed == 1; }));
    CHECK(record.ends == std::vector{Errc::connection_refused});
    CHECK(record.connected == 0);
  });
}

TEST_CASE("a stream may close in on_connected, and before it is connected") {
  on_each_backend([](Reactor& reactor) {
    EchoServer server(reactor);
    Record first, second;
    first.on_connected = [](Probe& probe) { probe.close(); };
    reactor.add_connecting<Probe>(std::move(*connect_stream(server.address)), first);
    reactor.add_connecting<Probe>(std::move(*connect_stream(server.address)), second);
    second.probe->close();
    REQUIRE(turn_until(reactor, [&] { return first.closed == 1 && reactor.endpoints() == 1; }));
    CHECK(second.connected == 0);
    CHECK(second.closed == 1);
  });
}

TEST_CASE("a listener without descriptors pauses, others go on, and it recovers") {
  rlimit before{};
  getrlimit(RLIMIT_NOFILE, &before);
  const rlimit tight{static_cast<rlim_t>(open_descriptors() + 60), before.rlim_max};
  setrlimit(RLIMIT_NOFILE, &tight);
  on_each_backend([](Reactor& reactor) {
    EchoServer server(reactor);
    std::string got;
    const Fd old = server.dial();
    write_all(old, "1");
    REQUIRE(turn_until(reactor, [&] { return read_some(old, got), got == "1"; }));
    std::vector<Fd> waiting, hoard;
    for (int i = 0; i < 3; i++) waiting.push_back(Fd(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)));
    for (int fd = dup(old.get()); fd >= 0; fd = dup(old.get())) hoard.push_back(Fd(fd));
    for (const Fd& fd : waiting) {
      REQUIRE(connect(fd.get(), server.address.get(), server.address.size()) == 0);
      write_all(fd, "2");
    }
    REQUIRE(turn_until(reactor, [&] { return server.listener->failures() > 0; }));
    CHECK(server.listener->last_error().code == Errc::descriptor_limit);
    CHECK(sleeps(reactor));
    write_all(old, "3");
    REQUIRE(turn_until(reactor, [&] { return read_some(old, got), got == "13"; }));
    hoard.clear();
    for (const Fd& fd : waiting) {
      std::string answer;
      REQUIRE(turn_until(reactor, [&] { return read_some(fd, answer), answer == "2"; }));
    }
  });
  setrlimit(RLIMIT_NOFILE, &before);
}

TEST_CASE("a listener that waits for a descriptor goes on as soon as an endpoint closes") {
  on_each_backend([](Reactor& reactor) {
    EchoServer server(reactor);
    Fd first = server.dial();
    REQUIRE(turn_until(reactor, [&] { return server.records.size() == 1; }));
    reactor.accept_failed(*server.listener, Error::from_os("accept", EMFILE));
    const Fd second = server.dial();
    for (int i = 0; i < 3; i++) reactor.run_once(0);
    const std::uint32_t began = reactor.now_ms();
    server.records.front().probe->close();
    REQUIRE(turn_until(reactor, [&] { return server.records.size() == 2; }));
    CHECK(reactor.now_ms() - began < Listener::retry_ms);
  });
}

TEST_CASE("a listener whose descriptor does not listen fails and rests instead of spinning") {
  on_each_backend([](Reactor& reactor) {
    Fd fd(socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    auto* listener = reactor.add<Listener>(
        std::move(fd), [](void*, Listener&, Fd) {}, nullptr);
    REQUIRE(listener != nullptr);
    REQUIRE(turn_until(reactor, [&] { return listener->failures() > 0; }));
    CHECK(sleeps(reactor));
  });
}

// ---- Receive memory ----

TEST_CASE("a reference on received memory keeps its bytes while others are received") {
  on_each_backend([](Reactor& reactor) {
    struct Kept {
      MutableBytes bytes;
      OwnerRef reference;
      std::string expected;
    };
    std::vector<Kept> kept;
    Record record;
    record.on_receive = [&](Probe&, MutableBytes bytes, Owner* memory) {
      kept.push_back({bytes, OwnerRef::share(memory), std::string(to_text(bytes))});
    };
    Pair pair;
    reactor.add<Probe>(std::move(pair.engine), record);
    std::size_t sent = 0;
    for (int i = 0; i < 60; i++) {
      const std::string text = pattern(3000, static_cast<std::uint64_t>(i));
      write_all(pair.peer, text);
      sent += text.size();
      REQUIRE(turn_until(reactor, [&] { return record.received.size() == sent; }));
      if (i % 7 == 3) kept.erase(kept.begin(), kept.begin() + static_cast<std::ptrdiff_t>(kept.size() / 2));
    }
    for (const Kept& one : kept) CHECK(to_text(one.bytes) == one.expected);
    kept.clear();
    reactor.run_once(0);
  });
}

TEST_CASE("a stream without a receive buffer waits until one is let go, on this thread or another") {
  for (const bool elsewhere : {false, true}) {
    CAPTURE(elsewhere);
    on_each_backend(
        [&](Reactor& reactor) {
          std::vector<OwnerRef> kept;
          Record record;
          record.on_receive = [&](Probe&, MutableBytes, Owner* memory) {
            kept.push_back(OwnerRef::share(memory));
          };
          Pair pair;
          reactor.add<Probe>(std::move(pair.engine), record);
          const std::string text = pattern(60'000);
          write_all(pair.peer, text);
          for (int i = 0; i < 10; i++) reactor.run_once(1);
          if (reactor.backend().kind() == BackendKind::io_uring) CHECK(record.received.size() < text.size());
          record.on_receive = {};
          CHECK(sleeps(reactor));
          if (elsewhere) {
            std::thread([&] { kept.clear(); }).join();
          } else {
            kept.clear();
          }
          reactor.run_once(2000);
          REQUIRE(turn_until(reactor, [&] { return record.received.size() == text.size(); }));
          CHECK(record.received == text);
        },
        {.receive_buffer_bytes = 4096, .receive_buffers = 2});
  }
}

TEST_CASE("many streams share two small receive buffers without getting stuck") {
  on_each_backend(
      [](Reactor& reactor) {
        EchoServer server(reactor);
        std::vector<Fd> clients;
        std::vector<std::string> sent(30), got(30);
        for (std::size_t i = 0; i < sent.size(); i++) {
          clients.push_back(server.dial());
          sent[i] = pattern(50'000, i);
          write_all(clients[i], sent[i]);
        }
        REQUIRE(turn_until(reactor, [&] {
          std::size_t done = 0;
          for (std::size_t i = 0; i < sent.size(); i++) {
            read_some(clients[i], got[i]);
            done += got[i].size() >= sent[i].size();
          }
          return done == sent.size();
        }));
        CHECK(got == sent);
      },
      {.receive_buffer_bytes = 4096, .receive_buffers = 2});
}

TEST_CASE("a starved stream goes on without any other event") {
  on_each_backend(
      [](Reactor& reactor) {
        // Each round leaves streams without a buffer, and then only their own bytes are there to wake the
        // loop.
        std::array<Record, 8> records;
        std::array<Pair, 8> pairs;
        for (std::size_t i = 0; i < 8; i++) reactor.add<Probe>(std::move(pairs[i].engine), records[i]);
        reactor.run_once(0);
        for (std::size_t round = 1; round <= 50; round++) {
          for (const Pair& pair : pairs) write_all(pair.peer, std::string(3000, 'x'));
          int waits = 0;
          auto missing = [&] {
            return std::any_of(records.begin(), records.end(),
                               [&](const Record& record) { return record.received.size() < round * 3000; });
          };
          // A wait of ten seconds that is not cut short is a stream that was forgotten.
          const std::uint64_t limit = monotonic_ns() + 5 * nanoseconds_per_second;
          while (missing() && waits++ < 1000 && monotonic_ns() < limit) reactor.run_once(10'000);
          REQUIRE_FALSE(missing());
          REQUIRE(monotonic_ns() < limit);
        }
      },
      {.receive_buffer_bytes = 4096, .receive_buffers = 2});
}

TEST_CASE("a large message is received directly into memory of its own") {
  on_each_backend([](Reactor& reactor) {
    constexpr std::size_t header = 8, body = 1 << 20;
    Record record;
    Block* block = nullptr;
    std::size_t filled = 0;
    int messages = 0;
    std::string expected;
    record.target = [&] { return ReceiveTarget{{block->data() + filled, body - filled}, block}; };
    record.on_receive = [&](Probe& probe, MutableBytes bytes, Owner* memory) {
      std::size_t used = 0;
      while (used < bytes.size()) {
        if (block == nullptr) {  // a header begins a message
          REQUIRE(memory != nullptr);
          used += header;
          block = reactor.blocks().allocate(body);
          filled = 0;
          probe.receive_directly(true);
          continue;
        }
        const std::size_t part = std::min(bytes.size() - used, body - filled);
        if (memory != nullptr) {
          std::copy_n(bytes.begin() + static_cast<std::ptrdiff_t>(used), part, block->data() + filled);
        } else {
          CHECK(bytes.data() == block->data() + filled);
        }
        used += part;
        filled += part;
        if (filled < body) continue;
        CHECK(std::equal(expected.begin() + header, expected.end(), block->data(), block->data() + body,
                         [](char a, std::uint8_t b) { return static_cast<std::uint8_t>(a) == b; }));
        block->drop_reference();
        block = nullptr;
        messages++;
        probe.receive_directly(false);
      }
    };
    Pair pair;
    reactor.add<Probe>(std::move(pair.engine), record);
    for (int i = 0; i < 5; i++) {
      expected = pattern(header + body, static_cast<std::uint64_t>(i));
      std::size_t written = 0;
      REQUIRE(turn_until(reactor, [&] {
        const ssize_t n = send(pair.peer.get(), expected.data() + written, expected.size() - written,
                               MSG_DONTWAIT | MSG_NOSIGNAL);
        // An empty send is not asked for: it would be taken for progress.
        if (written < expected.size() && n > 0) written += static_cast<std::size_t>(n);
        return messages == i + 1;
      }));
    }
    write_all(pair.peer, std::string(100, 'h'));  // leaves a message half received
    REQUIRE(turn_until(reactor, [&] { return filled == 92; }));
    record.probe->close();
    reactor.run_once(0);
    block->drop_reference();
  });
}

TEST_CASE("memory that is received into directly lives on until the kernel is done with it") {
  on_each_backend([](Reactor& reactor) {
    const std::size_t before = reactor.blocks().blocks_in_use();
    for (int round = 0; round < 50; round++) {
      Record record;
      Block* block = reactor.blocks().allocate(100'000);
      record.target = [&] { return ReceiveTarget{{block->data(), 100'000}, block}; };
      record.on_closed = [&](Probe&) { block->drop_reference(); };
      Pair pair;
      Probe* probe = reactor.add<Probe>(std::move(pair.engine), record);
      if (round % 2 == 0) reactor.run_once(0);
      probe->receive_directly(true);
      for (int i = 0; i < round % 4; i++) reactor.run_once(0);
      if (round % 3 == 0) write_all(pair.peer, "late");
      probe->close();
      REQUIRE(turn_until(reactor,
                         [&] { return record.closed == 1 && reactor.blocks().blocks_in_use() == before; }));
    }
  });
}

// ---- Watches, timers, tasks ----

TEST_CASE("a watch calls back as long as its descriptor is readable") {
  on_each_backend([](Reactor& reactor) {
    Fd event(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC | EFD_SEMAPHORE));
    int calls = 0;
    auto readable = [](void* count, Watch& watch) {
      std::uint64_t value = 0;
      if (read(watch.native_fd(), &value, sizeof value) > 0) ++*static_cast<int*>(count);
    };
    auto* watch = reactor.add<Watch>(std::move(event), readable, &calls);
    const std::uint64_t three = 3;
    REQUIRE(write(watch->native_fd(), &three, sizeof three) == sizeof three);
    REQUIRE(turn_until(reactor, [&] { return calls == 3; }));
    CHECK(sleeps(reactor));
    REQUIRE(write(watch->native_fd(), &three, sizeof three) == sizeof three);
    REQUIRE(turn_until(reactor, [&] { return calls > 3; }));
    watch->close();
    const int so_far = calls;
    for (int i = 0; i < 5; i++) reactor.run_once(0);
    CHECK(calls == so_far);
  });
}

TEST_CASE("alarms ring in the order of their delays, and not when closed before") {
  on_each_backend([](Reactor& reactor) {
    std::vector<int> order;
    reactor.after(500, [&] { order.push_back(3); });  // late enough for 22 on a busy machine
    reactor.after(10, [&] { order.push_back(1); });
    const SlotId never = reactor.after(15, [&] { order.push_back(-1); });
    reactor.after(20, [&] {
      order.push_back(2);
      reactor.after(1, [&] { order.push_back(22); });
    });
    reactor.find(never)->close();
    REQUIRE(turn_until(reactor, [&] { return order.size() == 4; }));
    CHECK(order == std::vector{1, 2, 22, 3});
    reactor.run_once(0);
    CHECK(reactor.endpoints() == 0);
  });
}

TEST_CASE("a deadline counts from the handler that sets it, however long the loop slept before") {
  on_each_backend([](Reactor& reactor) {
    Record record;
    record.on_receive = [](Probe& probe, MutableBytes, Owner*) { probe.set_timer(60'000); };
    Pair pair;
    reactor.add<Probe>(std::move(pair.engine), record);
    reactor.run_once(80);
    std::uint32_t began = 0;
    record.on_receive = [&](Probe& probe, MutableBytes, Owner*) {
      began = reactor.now_ms();
      probe.set_timer(50);
    };
    write_all(pair.peer, "x");
    REQUIRE(turn_until(reactor, [&] { return record.received == "x"; }));
    CHECK(record.timers == 0);
    REQUIRE(turn_until(reactor, [&] { return record.timers == 1; }));
    CHECK(reactor.now_ms() - began >= 50);
    record.probe->set_timer(~std::uint32_t{0});  // as good as never
    reactor.run_once(0);
    reactor.run_once(5);
    CHECK(record.timers == 1);
    CHECK(record.probe->timer_armed());
    record.probe->cancel_timer();
    CHECK_FALSE(record.probe->timer_armed());
  });
}

TEST_CASE(
    "tasks of other threads run on the reactor's thread, each thread's in order, and stop ends the loop") {
  for (const BackendKind kind : real_backends()) {
    CAPTURE(std::string(to_string(kind)));
    auto reactor = Reactor::create({.backend = kind});
    REQUIRE(reactor);
    constexpr std::size_t posters = 4;
    constexpr int each = 2000;
    std::array<int, posters> next{};
    std::atomic<int> done{0};
    bool in_order = true, on_thread = true;
    auto arrive = [&](std::size_t poster, int number) {
      in_order &= next[poster]++ == number;
      on_thread &= (*reactor)->on_own_thread();
      if (++done == static_cast<int>(posters) * each) (*reactor)->stop();
    };
    std::vector<std::thread> threads;
    for (std::size_t p = 0; p < posters; p++) {
      threads.emplace_back([&, p] {
        for (int i = 0; i < each; i++) (*reactor)->post([&arrive, p, i] { arrive(p, i); });
      });
    }
    (*reactor)->run();
    for (std::thread& thread : threads) thread.join();
    CHECK(done == static_cast<int>(posters) * each);
    CHECK(in_order);
    CHECK(on_thread);
    CHECK_FALSE((*reactor)->fallback_reason().size() > 0);
  }
}

TEST_CASE("stop wakes a loop that waits") {
  for (const BackendKind kind : real_backends()) {
    CAPTURE(std::string(to_string(kind)));
    auto reactor = Reactor::create({.backend = kind});
    for (int i = 0; i < 50; i++) {
      std::thread stopper([&] { (*reactor)->stop(); });
      (*reactor)->run();
      stopper.join();
    }
  }
}

TEST_CASE("thousands of streams may be added, paused and closed before another thread runs the loop") {
  for (const BackendKind kind : real_backends()) {
    CAPTURE(std::string(to_string(kind)));
    std::deque<Record> records(1500);
    std::deque<Fd> peers;
    auto reactor = Reactor::create({.backend = kind});
    for (Record& record : records) {
      int fds[2];
      REQUIRE(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds) == 0);
      peers.emplace_back(fds[1]);
      record.on_receive = echo;
      auto* probe = (*reactor)->add<Probe>(Fd(fds[0]), record);
      probe->pause();
      probe->resume();
      if (peers.size() % 3 == 0) probe->close();
    }
    std::thread loop([&] { (*reactor)->run(); });
    std::size_t answered = 0, ended = 0;
    for (const Fd& peer : peers) {
      const timeval limit{10, 0};
      setsockopt(peer.get(), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
      fcntl(peer.get(), F_SETFL, 0);
      char answer = 0;
      send(peer.get(), "?", 1, MSG_NOSIGNAL);
      ssize_t got = 0;
      do {
        got = recv(peer.get(), &answer, 1, 0);
      } while (got < 0 && errno == EINTR);
      answered += got == 1;
      ended += got == 0 || (got < 0 && errno == ECONNRESET);
      if (got < 0 && errno == EAGAIN) break;  // it hangs
    }
    CHECK(answered == 1000);
    CHECK(ended == 500);
    (*reactor)->stop();
    loop.join();
    reactor->reset();
  }
}

TEST_CASE("a turn on a thread that an io_uring does not belong to returns") {
  if (!io_uring_abilities().sufficient()) return;
  Record record;
  Pair pair;
  auto reactor = Reactor::create({.backend = BackendKind::io_uring});
  (*reactor)->run_once(0);
  (*reactor)->add<Probe>(std::move(pair.engine), record);  // a request that only this thread can submit
  std::thread([&] { (*reactor)->run_once(0); }).join();
  write_all(pair.peer, "hello");
  CHECK(turn_until(**reactor, [&] { return record.received == "hello"; }));
  reactor->reset();
}

TEST_CASE("what is sent and closed in the last turn is still done when another thread destroys the reactor") {
  for (const BackendKind kind : real_backends()) {
    CAPTURE(std::string(to_string(kind)));
    const int before = open_descriptors();
    {
      auto reactor = Reactor::create({.backend = kind});
      EchoServer server(**reactor);
      std::vector<Fd> clients;
      for (int i = 0; i < 20; i++) clients.push_back(server.dial());
      std::thread loop([&] { (*reactor)->run(); });
      for (const Fd& client : clients) {  // each is served before the last turn
        write_all(client, "?");
        char answer = 0;
        REQUIRE(recv(client.get(), &answer, 1, 0) == 1);
      }
      (*reactor)->post([&] {
        for (std::size_t i = 0; i < server.records.size(); i++) {
          server.records[i].probe->send(to_bytes("bye"));
          if (i % 2 == 1) server.records[i].probe->close();
        }
        (*reactor)->stop();
      });
      loop.join();
      std::size_t greeted = 0, gone = 0;
      for (const Fd& client : clients) {
        std::string text;
        gone += read_some(client, text);
        greeted += text == "bye";
      }
      CHECK(greeted == 10);
      CHECK(gone == 10);
      const Address address = server.address;
      reactor->reset();
      server.reactor = nullptr;
      for (const Fd& client : clients) {  // blocks until the end arrives
        char rest[16];
        while (recv(client.get(), rest, sizeof rest, 0) > 0) {
        }
      }
      CHECK(listen_stream(address));  // the port is free
    }
    CHECK(open_descriptors() == before);
  }
}

TEST_CASE("destroying a reactor closes what is on it and tells each once") {
  for (const BackendKind kind : real_backends()) {
    CAPTURE(std::string(to_string(kind)));
    const int before = open_descriptors();
    {
      std::deque<Record> records(1500);
      std::deque<Fd> peers;
      auto reactor = Reactor::create({.backend = kind});
      for (Record& record : records) {
        int fds[2];
        REQUIRE(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds) == 0);
        peers.emplace_back(fds[1]);
        (*reactor)->add<Probe>(Fd(fds[0]), record)->send(to_bytes("unsent"));
      }
      (*reactor)->after(1000, [] {});
      (*reactor)->post([] {});
      reactor->reset();
      for (const Record& record : records) REQUIRE(record.closed == 1);
      std::string text;
      for (const Fd& peer : peers) REQUIRE(read_some(peer, text));
    }
    CHECK(open_descriptors() == before);
  }
}

TEST_CASE("what on_closed() begins while a reactor ends is refused, or dropped with it") {
  for (const BackendKind kind : real_backends()) {
    for (const bool destroys : {false, true}) {
      CAPTURE(std::string(to_string(kind)));
      CAPTURE(destroys);
      const int before = open_descriptors();
      {
        Pair first, second;
        Record record, refused;
        const auto alive = std::make_shared<int>();
        auto reactor = Reactor::create({.backend = kind});
        bool ran = false;
        record.on_closed = [&](Probe& probe) {
          Reactor& on = probe.reactor();
          CHECK(on.add<Probe>(std::move(second.engine), refused) == nullptr);
          CHECK(on.last_error().code == Errc::canceled);
          on.after(1, [&ran, alive] { ran = true; });
          if (destroys) on.post([&ran, alive] { ran = true; });
        };
        REQUIRE((*reactor)->add<Probe>(std::move(first.engine), record) != nullptr);
        if (destroys) {
          reactor->reset();
        } else {
          (*reactor)->close_all();
          CHECK((*reactor)->endpoints() == 0);
        }
        CHECK(record.closed == 1);
        CHECK_FALSE(ran);
        CHECK(alive.use_count() == 1);
        std::string text;
        CHECK(read_some(second.peer, text));
      }
      CHECK(open_descriptors() == before);
    }
  }
}

namespace {

// Another backend, and how often it was woken.
class Counting final : public Backend {
 public:
  static std::unique_ptr<Backend> make(Reactor& reactor, void* count) {
    return std::make_unique<Counting>(EpollBackend::make(reactor), *static_cast<std::atomic<int>*>(count));
  }
  Counting(std::unique_ptr<Backend> counted, std::atomic<int>& wakes)
      : counted_(std::move(counted)), wakes_(wakes) {}

  BackendKind kind() const override { return counted_->kind(); }
  Error start(Endpoint& endpoint) override { return counted_->start(endpoint); }
  void stop(Endpoint& endpoint) override { counted_->stop(endpoint); }
  Fd release(Stream& stream) override { return counted_->release(stream); }
  void pause(Endpoint& endpoint) override { counted_->pause(endpoint); }
  void resume(Endpoint& endpoint) override { counted_->resume(endpoint); }
  void set_direct(Stream& stream) override { counted_->set_direct(stream); }
  void flush() override { counted_->flush(); }
  void poll(int timeout_ms) override { counted_->poll(timeout_ms); }
  bool can_lend() const override { return counted_->can_lend(); }
  void shut_down(Stream& stream) override { counted_->shut_down(stream); }
  void wake() override {
    wakes_++;
    counted_->wake();
  }
  std::uint64_t now_ns() override { return counted_->now_ns(); }
  std::string describe() const override { return counted_->describe(); }

 private:
  std::unique_ptr<Backend> counted_;
  std::atomic<int>& wakes_;
};

}  // namespace

TEST_CASE(
    "what a turn posts and stops needs no wake-up; what comes from elsewhere does, also on the same thread") {
  std::atomic<int> wakes{0};
  Reactor reactor({}, Counting::make, &wakes);
  int ran = 0;
  reactor.post([&] {
    ran++;
    for (int i = 0; i < 10; i++) reactor.post([&] { ran++; });
  });
  CHECK(wakes == 1);
  reactor.run_once(0);
  reactor.run_once(-1);  // does not wait
  CHECK(ran == 11);
  CHECK(wakes == 1);
  std::thread([&] { reactor.post([&] { reactor.stop(); }); }).join();
  CHECK(wakes == 2);
  reactor.run();
  CHECK(wakes == 2);
  reactor.after(1, [&] {
    Reactor other({}, Counting::make, &wakes);
    other.run_once(0);
    reactor.post([&] { reactor.stop(); });  // still of this one's turn
  });
  reactor.run();
  CHECK(wakes == 2);
}

TEST_CASE("what waits for a reactor is bounded where that is asked for") {
  on_each_backend(
      [](Reactor& reactor) {
        int ran = 0;
        const auto count = [&ran] { ran++; };
        CHECK(reactor.post_bounded(count, 600));
        CHECK(reactor.post_bounded(count, 400));
        CHECK_FALSE(reactor.post_bounded(count, 1));
        CHECK_FALSE(reactor.post_bounded(count, ~std::size_t{0} - 500));
        reactor.post(count);
        CHECK(reactor.counters().posts_refused.value() == 2);
        reactor.run_once(0);
        CHECK(ran == 3);
        CHECK(reactor.post_bounded(count, 1000));
        CHECK_FALSE(reactor.post_bounded(count, 1));
        reactor.run_once(0);
        CHECK(ran == 4);
      },
      {.max_posted_bytes = 1000});
}

TEST_CASE("a listener that its owner paused accepts nothing until it is resumed, whatever else goes on") {
  on_each_backend([](Reactor& reactor) {
    EchoServer server(reactor);
    Fd first = server.dial();
    REQUIRE(turn_until(reactor, [&] { return server.records.size() == 1; }));
    server.listener->pause();
    server.listener->pause();
    for (int i = 0; i < 5; i++) reactor.run_once(1);  // an accept that was under way ends
    const Fd second = server.dial();
    CHECK(sleeps(reactor));  // longer than retry_ms
    const Fd hoard(dup(first.get()));
    server.records[0].probe->close();
    for (int i = 0; i < 5; i++) reactor.run_once(1);
    CHECK(server.records.size() == 1);
    server.listener->resume();
    CHECK(turn_until(reactor, [&] { return server.records.size() == 2; }));
  });
}

TEST_CASE("tasks that did not run are dropped on demand, and those that are posted then") {
  on_each_backend([](Reactor& reactor) {
    const auto alive = std::make_shared<int>();
    bool ran = false;
    reactor.post([&ran, alive] { ran = true; });
    reactor.discard_tasks();
    CHECK(alive.use_count() == 1);
    reactor.post([&ran, alive] { ran = true; });
    CHECK(alive.use_count() == 1);
    reactor.run_once(0);
    CHECK_FALSE(ran);
  });
}

TEST_CASE("a reactor's thread is bound while it runs, and only to a CPU that it may use") {
  const std::vector<int> before = allowed_cpus();
  for (const int cpu : before) {
    auto reactor = Reactor::create({.cpu = cpu});
    REQUIRE(reactor);
    std::vector<int> inside;
    (*reactor)->post([&] {
      inside = allowed_cpus();
      (*reactor)->stop();
    });
    (*reactor)->run();
    CHECK(inside == std::vector{cpu});
    CHECK(allowed_cpus() == before);
  }
  for (const int cpu : {CPU_SETSIZE - 1, CPU_SETSIZE, 1 << 30})
    CHECK(Reactor::create({.cpu = cpu}).error().code == Errc::invalid_argument);
}

TEST_CASE("the environment chooses the backend that the options leave open") {
  const char* const given = std::getenv("LEVADA_BACKEND");
  const std::string before = given == nullptr ? "" : given;
  const auto made = [](const char* value, BackendKind asked) {
    setenv("LEVADA_BACKEND", value, 1);
    return Reactor::create({.backend = asked});
  };
  CHECK((*made("epoll", BackendKind::automatic))->backend().kind() == BackendKind::epoll);
  CHECK((*made("epoll", BackendKind::automatic))->fallback_reason().empty());
  CHECK((*made("nonsense", BackendKind::epoll))->backend().kind() == BackendKind::epoll);
  CHECK(made("nonsense", BackendKind::automatic).error().code == Errc::invalid_argument);
  CHECK(made("", BackendKind::automatic).error().code == Errc::invalid_argument);
  auto uring = made("io_uring", BackendKind::automatic);
  auto best = made("auto", BackendKind::automatic);
  if (io_uring_abilities().sufficient()) {
    CHECK((*uring)->backend().kind() == BackendKind::io_uring);
    CHECK((*best)->backend().kind() == BackendKind::io_uring);
    CHECK((*made("io_uring", BackendKind::epoll))->backend().kind() == BackendKind::epoll);
  } else {
    CHECK(uring.error().code == io_uring_abilities().error.code);
    CHECK_FALSE((*best)->fallback_reason().empty());
  }
  if (given == nullptr) {
    unsetenv("LEVADA_BACKEND");
  } else {
    setenv("LEVADA_BACKEND", before.c_str(), 1);
  }
}

TEST_CASE("the backend that was asked for is the one that runs") {
  auto epoll = Reactor::create({.backend = BackendKind::epoll});
  REQUIRE(epoll);
  CHECK((*epoll)->backend().kind() == BackendKind::epoll);
  CHECK_FALSE((*epoll)->backend().describe().empty());
  auto uring = Reactor::create({.backend = BackendKind::io_uring});
  if (io_uring_abilities().sufficient()) {
    REQUIRE(uring);
    CHECK((*uring)->backend().kind() == BackendKind::io_uring);
  } else {
    CHECK_FALSE(uring);
    auto fallback = Reactor::create();
    REQUIRE(fallback);
    CHECK((*fallback)->backend().kind() == BackendKind::epoll);
    if (std::getenv("LEVADA_BACKEND") == nullptr) CHECK_FALSE((*fallback)->fallback_reason().empty());
  }
}
