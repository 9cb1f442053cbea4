// An echo server with libwebsockets: `libwebsockets [--port N]`.
//
// On libuv's event loop where the library was built with it (its own loop polls all descriptors at every turn), with
// pieces of 64 KiB. A message leaves from the writable callback, as the library demands, and as many in one callback as
// the socket takes. A message on /broadcast goes to all connections of that path.
#include <libwebsockets.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <memory>
#include <new>
#include <unordered_set>
#include <vector>

#include "peer.h"

namespace {

struct Message {
  std::vector<unsigned char> bytes =
      std::vector<unsigned char>(LWS_PRE);  // lws_write() puts its header in front
  bool binary = false;
};

struct Session {
  lws* socket = nullptr;
  std::shared_ptr<Message> incoming;
  std::deque<std::shared_ptr<Message>> queue;
  bool broadcasts = false;
};

std::unordered_set<Session*> members;

void queue(Session& session, std::shared_ptr<Message> message) {
  session.queue.push_back(std::move(message));
  lws_callback_on_writable(session.socket);
}

void receive(Session& session, const void* data, std::size_t size) {
  if (!session.incoming) session.incoming = std::make_shared<Message>();
  auto& bytes = session.incoming->bytes;
  if (lws_is_first_fragment(session.socket) != 0)
    bytes.reserve(LWS_PRE + size + lws_remaining_packet_payload(session.socket));
  const auto* begin = static_cast<const unsigned char*>(data);
  bytes.insert(bytes.end(), begin, begin + size);
  if (lws_is_final_fragment(session.socket) == 0 || lws_remaining_packet_payload(session.socket) != 0) return;
  session.incoming->binary = lws_frame_is_binary(session.socket) != 0;
  auto message = std::move(session.incoming);
  session.incoming.reset();
  if (!session.broadcasts) return queue(session, std::move(message));
  for (Session* member : members) queue(*member, message);
}

// A message that many have is copied, because lws_write() uses the bytes in front of it.
int write_queue(Session& session) {
  while (!session.queue.empty()) {
    auto message = std::move(session.queue.front());
    session.queue.pop_front();
    if (session.broadcasts) message = std::make_shared<Message>(*message);
    const std::size_t size = message->bytes.size() - LWS_PRE;
    if (lws_write(session.socket, message->bytes.data() + LWS_PRE, size,
                  message->binary ? LWS_WRITE_BINARY : LWS_WRITE_TEXT) < 0)
      return -1;
    if (lws_send_pipe_choked(session.socket) != 0) break;
  }
  if (!session.queue.empty()) lws_callback_on_writable(session.socket);
  return 0;
}

void open(Session* session, lws* socket) {
  new (session) Session;
  session->socket = socket;
  char path[16] = {};
  lws_hdr_copy(socket, path, sizeof path, WSI_TOKEN_GET_URI);
  session->broadcasts = std::strcmp(path, "/broadcast") == 0;
  if (session->broadcasts) members.insert(session);
}

int callback(lws* socket, lws_callback_reasons reason, void* user, void* data, size_t size) {
  auto* session = static_cast<Session*>(user);
  switch (reason) {
    case LWS_CALLBACK_ESTABLISHED:
      open(session, socket);
      return 0;
    case LWS_CALLBACK_CLOSED:
      members.erase(session);
      session->~Session();
      return 0;
    case LWS_CALLBACK_RECEIVE:
      receive(*session, data, size);
      return 0;
    case LWS_CALLBACK_SERVER_WRITEABLE:
      return write_queue(*session);
    default:
      return lws_callback_http_dummy(socket, reason, user, data, size);
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (peer::asked_version(argc, argv)) return std::printf("%s\n", lws_get_library_version()) < 0;
  lws_set_log_level(0, nullptr);
  const lws_protocols protocols[] = {{"echo", callback, sizeof(Session), 64 << 10, 0, nullptr, 0},
                                     {nullptr, nullptr, 0, 0, 0, nullptr, 0}};
  lws_context_creation_info info{};
  info.port = peer::port(argc, argv);
  info.iface = "127.0.0.1";
  info.protocols = protocols;
  info.pt_serv_buf_size = 64 << 10;
  info.options = LWS_SERVER_OPTION_EXPLICIT_VHOSTS;
#if defined(LWS_WITH_LIBUV)
  info.options |= LWS_SERVER_OPTION_LIBUV;
  info.signal_cb = [](void*, int) { std::_Exit(0); };  // libuv's loop would keep SIGTERM to itself
#endif
  lws_context* context = lws_create_context(&info);
  lws_vhost* host = context == nullptr ? nullptr : lws_create_vhost(context, &info);
  if (host == nullptr) {
    std::fputs("libwebsockets: cannot listen\n", stderr);
    return 1;
  }
  peer::announce(lws_get_vhost_listen_port(host));
  while (lws_service(context, 0) >= 0) continue;
  lws_context_destroy(context);
}
