#pragma once
#include <chrono>
#include <cstdint>
#include <map>
#include <string>

namespace distorch::server {

/// A client of the tests: bytes to and from 127.0.0.1, and as much of HTTP and web sockets as they
/// need. Every wait ends after ten seconds.
class TestClient {
 public:
  explicit TestClient(std::uint16_t port);
  ~TestClient();
  TestClient(const TestClient&) = delete;

  struct Reply {
    int status = 0;
    std::map<std::string, std::string> headers;  // names in lower case
    std::string body;
  };

  /// False where the other side has closed.
  bool send(const std::string& bytes);
  /// Tells the other side that nothing more comes.
  void end_sending();
  /// The next answer; status 0 where the connection ended before one. `has_body` false for HEAD.
  Reply receive(bool has_body = true);
  /// "GET path" with Host and these further header lines ("Name: value\r\n").
  Reply get(const std::string& path, const std::string& headers = "");
  Reply post(const std::string& path, const std::string& body, const std::string& headers = "");
  /// Whether exactly these bytes come next.
  bool receive_text(const std::string& bytes);
  /// Whether the other side closes within this time.
  bool is_closed(std::chrono::milliseconds within = std::chrono::seconds(10));

  struct Message {
    int opcode = -1;  // 1 text, 2 binary, 8 close, 9 ping, 10 pong; -1 where the connection ended
    std::string payload;
  };
  /// Asks for a web socket; 101 where it opened.
  int open_socket(const std::string& path, const std::string& headers = "");
  void send_frame(int opcode, const std::string& payload, bool masked = true);
  Message receive_frame();
  /// Keeps the receive buffer of the system small, for a reader that does not read.
  void shrink_buffer();

 private:
  bool fill();

  int socket_ = -1;
  std::uint16_t port_;
  std::string buffer_;
};

}  // namespace distorch::server
