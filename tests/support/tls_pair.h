// Two TLS sessions back to back in memory: what one writes is what the other reads.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <levada/core/block_pool.h>
#include <levada/core/bytes.h>
#include <levada/net/tls_session.h>
#include <levada/net/turn_memory.h>

namespace levada::test {

// One end: its session, the records that it has written, and what it was told.
struct TlsEnd {
  TlsEnd() = default;
  TlsEnd(const TlsEnd&) = delete;
  TlsEnd& operator=(const TlsEnd&) = delete;

  net::TlsOutput output() {
    return {[](void* self, Bytes bytes) { static_cast<TlsEnd*>(self)->records.append(to_text(bytes)); },
            this};
  }
  std::string take_records() { return std::exchange(records, {}); }

  // Feeds ciphertext as one received piece, in memory that is changed as a receive buffer is.
  void feed(std::string_view bytes) {
    received.assign(bytes.begin(), bytes.end());
    MutableBytes input{received};
    for (;;) {
      const net::TlsRead read = session->read(input, memory);
      last = read.event;
      if (read.event == net::TlsEvent::established) established++;
      if (read.event == net::TlsEvent::data) plaintext += to_text(read.plaintext);
      if (read.event == net::TlsEvent::none || read.event == net::TlsEvent::ended ||
          read.event == net::TlsEvent::failed)
        break;
    }
    memory.reset();
  }

  BlockPool blocks{1 << 20};
  net::TurnMemory memory{blocks};
  std::vector<std::uint8_t> received;
  std::string records;
  std::string plaintext;
  int established = 0;
  net::TlsEvent last = net::TlsEvent::none;
  std::unique_ptr<net::TlsSession> session;
};

struct TlsPair {
  TlsPair(const net::TlsContext& client_context, const net::TlsContext& server_context,
          std::string_view host = "localhost") {
    server.session = std::move(net::TlsSession::accept(server_context, server.output()).value());
    client.session = std::move(net::TlsSession::connect(client_context, host, 443, client.output()).value());
  }

  // Carries records to and fro until neither end has any.
  void exchange() {
    while (!client.records.empty() || !server.records.empty()) {
      server.feed(client.take_records());
      client.feed(server.take_records());
    }
  }
  bool open() const { return client.session->is_open() && server.session->is_open(); }

  TlsEnd client, server;
};

}  // namespace levada::test
