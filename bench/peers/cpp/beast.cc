// An asynchronous echo server with Boost.Beast: `beast [--port N]`.
//
// As Beast's own examples for throughput: one thread, concrete executors, a buffer for each connection that is used
// again, messages sent in one frame. A message on /broadcast goes to all connections of that path.
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_set>
#include <utility>

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/beast/core.hpp>
#include <boost/beast/http.hpp>
#include <boost/beast/version.hpp>
#include <boost/beast/websocket.hpp>

#include "peer.h"

namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = beast::http;
namespace websocket = beast::websocket;
using Tcp = asio::ip::tcp;
using Executor = asio::io_context::executor_type;
using Stream = beast::basic_stream<Tcp, Executor>;

class Session;
std::unordered_set<Session*> members;

struct Message {
  bool binary;
  std::string payload;
};

class Session : public std::enable_shared_from_this<Session> {
 public:
  explicit Session(asio::basic_stream_socket<Tcp, Executor>&& socket) : stream_(std::move(socket)) {}
  ~Session() { members.erase(this); }

  void start() {
    beast::get_lowest_layer(stream_).socket().set_option(Tcp::no_delay(true));
    beast::get_lowest_layer(stream_).expires_after(std::chrono::seconds(30));
    http::async_read(beast::get_lowest_layer(stream_), buffer_, request_,
                     [self = shared_from_this()](beast::error_code error, std::size_t) {
                       if (!error) self->upgrade();
                     });
  }

 private:
  void upgrade() {
    beast::get_lowest_layer(stream_).expires_never();
    stream_.set_option(websocket::stream_base::timeout::suggested(beast::role_type::server));
    stream_.auto_fragment(false);
    stream_.read_message_max(peer::max_message);
    broadcasts_ = request_.target() == "/broadcast";
    stream_.async_accept(request_, [self = shared_from_this()](beast::error_code error) {
      if (error) return;
      self->request_ = {};
      self->buffer_.clear();
      if (self->broadcasts_) members.insert(self.get());
      self->read();
    });
  }

  void read() {
    stream_.async_read(buffer_, [self = shared_from_this()](beast::error_code error, std::size_t) {
      if (error) return;
      if (self->broadcasts_)
        self->relay();
      else
        self->echo();
    });
  }

  void echo() {
    stream_.binary(stream_.got_binary());
    stream_.async_write(buffer_.data(), [self = shared_from_this()](beast::error_code error, std::size_t) {
      if (error) return;
      self->buffer_.consume(self->buffer_.size());
      self->read();
    });
  }

  // One payload, shared by all that it is queued for.
  void relay() {
    auto message = std::make_shared<const Message>(
        Message{stream_.got_binary(), beast::buffers_to_string(buffer_.data())});
    buffer_.consume(buffer_.size());
    for (Session* member : members) member->queue(message);
    read();
  }

  void queue(std::shared_ptr<const Message> message) {
    queue_.push_back(std::move(message));
    if (queue_.size() == 1) write();
  }

  void write() {
    stream_.binary(queue_.front()->binary);
    stream_.async_write(asio::buffer(queue_.front()->payload),
                        [self = shared_from_this()](beast::error_code error, std::size_t) {
                          if (error) return;
                          self->queue_.pop_front();
                          if (!self->queue_.empty()) self->write();
                        });
  }

  websocket::stream<Stream> stream_;
  beast::flat_buffer buffer_;
  http::request<http::empty_body> request_;
  std::deque<std::shared_ptr<const Message>> queue_;
  bool broadcasts_ = false;
};

class Listener {
 public:
  Listener(asio::io_context& context, unsigned short port)
      : acceptor_(context, {asio::ip::address_v4::loopback(), port}) {
    peer::announce(acceptor_.local_endpoint().port());
  }

  void accept() {
    acceptor_.async_accept([this](beast::error_code error, asio::basic_stream_socket<Tcp, Executor> socket) {
      if (!error) std::make_shared<Session>(std::move(socket))->start();
      accept();
    });
  }

 private:
  asio::basic_socket_acceptor<Tcp, Executor> acceptor_;
};

}  // namespace

int main(int argc, char** argv) {
  if (peer::asked_version(argc, argv))
    return std::printf("%d (Boost %s)\n", BOOST_BEAST_VERSION, BOOST_LIB_VERSION) < 0;
  asio::io_context context{1};
  Listener listener(context, peer::port(argc, argv));
  listener.accept();
  context.run();
}
