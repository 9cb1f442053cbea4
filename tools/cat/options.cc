#include <levada/tools/cat/options.h>

#include <cstdio>

#include <CLI/CLI.hpp>

#include <levada/ws/handshake.h>

namespace levada::cat {
namespace {

constexpr const char* help_text =
    R"(Connects standard input and output to a WebSocket: lines in, messages out.

  levada-cat URL [OPTIONS]       URL: ws://HOST[:PORT][/PATH] or ws+unix:/SOCKET[:/PATH]

      --binary             send binary messages, each what one read of the input gave; write messages as they are
      --one                end after the first message that comes, at the latest --timeout after the input's end
      --header 'NAME: VALUE'   a field of the request; may be repeated
      --subprotocol NAME   offer this subprotocol; may be repeated, the preferred one first
      --origin ORIGIN      the request's Origin
      --ca FILE            of wss: trust the CAs in this PEM file instead of the system's
      --insecure           of wss: accept any certificate
      --ping SECONDS       send a ping that often; without an answer by the next one the connection is lost
      --timeout SECONDS    for connecting, and for the close handshake (10)
      --max-message BYTES  longest message and longest line (16777216)
      --quiet              say nothing on standard error about how it ended
  -h, --help               this text

Without --binary each line of the input is a text message, without its end, and each message is written with a line
end behind it. At the end of the input, or when it is interrupted, the connection is closed properly; messages that
come until then are still written.

Exit status: 0 closed by either side as usual; 1 no connection; 2 wrong usage, or a line that is not UTF-8 or too long;
3 the server refused the WebSocket; 4 it closed with another code than 1000 or 1001; 5 the connection was lost; 6 the
server broke the protocol; 7 with --one: closed before a message came; 8 nobody reads the output any more.
)";

}  // namespace

bool parse_header(std::string_view text, ws::HttpField& field) {
  const std::size_t colon = text.find(':');
  if (colon == text.npos) return false;
  field = {text.substr(0, colon), ws::trim(text.substr(colon + 1))};
  return ws::is_writable(field);
}

bool parse(int argc, char** argv, Options& options, int& status) {
  CLI::App app;
  app.formatter_fn(
      [](const CLI::App*, const std::string&, CLI::AppFormatMode) { return std::string(help_text); });
  const auto is_header = [](const std::string& text) {
    ws::HttpField field;
    return parse_header(text, field) ? std::string() : "is no header: " + text;
  };
  const auto is_token = [](const std::string& text) {
    return ws::is_token(text) ? std::string() : "is no subprotocol: " + text;
  };
  app.add_option("URL", options.url)->required();
  app.add_flag("--binary", options.binary);
  app.add_flag("--one", options.one);
  app.add_flag("--quiet", options.quiet);
  app.add_option("--header", options.headers)->check(is_header)->expected(1)->take_all();
  app.add_option("--subprotocol", options.subprotocols)->check(is_token)->expected(1)->take_all();
  app.add_option("--origin", options.origin);
  app.add_option("--ca", options.tls.ca.file);
  app.add_flag("--insecure", options.tls.insecure_no_verification);
  app.add_option("--ping", options.ping_seconds)->check(CLI::Range(0.01, 86400.0));
  app.add_option("--timeout", options.timeout_seconds)->check(CLI::Range(0.01, 86400.0));
  app.add_option("--max-message", options.max_message_bytes)
      ->check(CLI::Range(std::uint64_t{1}, std::uint64_t{1} << 32));
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    status = app.exit(error) == 0 ? 0 : static_cast<int>(Status::usage);
    return false;
  }
  return true;
}

}  // namespace levada::cat
