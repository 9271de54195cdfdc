#pragma once
#include <arpa/inet.h>
#include <doctest/doctest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <functional>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

namespace distorch::test {

/// A server on a port of 127.0.0.1 that answers each request with what a function says, byte for
/// byte, and closes the connection.
class ScriptedServer {
 public:
  struct Request {
    std::string target;  // "/api/models/..."
    std::string head;    // all lines
    /// The rest of a line of the head that begins so ("Range: "); "" where there is none.
    std::string line(const std::string& beginning) const {
      auto at = head.find("\r\n" + beginning);
      if (at == std::string::npos) return "";
      at += 2 + beginning.size();
      return head.substr(at, head.find("\r\n", at) - at);
    }
  };
  using Answer = std::function<std::string(const Request&)>;

  explicit ScriptedServer(Answer answer) : answer_(std::move(answer)) {
    listener_ = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof(address);
    REQUIRE(::bind(listener_, reinterpret_cast<sockaddr*>(&address), size) == 0);
    REQUIRE(::listen(listener_, 16) == 0);
    REQUIRE(::getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &size) == 0);
    port_ = ntohs(address.sin_port);
    thread_ = std::thread([this] { serve(); });
  }
  ~ScriptedServer() {
    ended_ = true;
    ::shutdown(listener_, SHUT_RDWR);
    thread_.join();
    ::close(listener_);
  }
  ScriptedServer(const ScriptedServer&) = delete;

  std::string url() const { return "http://127.0.0.1:" + std::to_string(port_); }
  std::vector<Request> requests() {
    std::lock_guard lock(mutex_);
    return requests_;
  }

 private:
  void serve() {
    while (!ended_) {
      const int connection = ::accept(listener_, nullptr, nullptr);
      if (connection < 0) return;
      std::string head;
      for (char bytes[4096]; head.find("\r\n\r\n") == std::string::npos;) {
        const auto count = ::recv(connection, bytes, sizeof(bytes), 0);
        if (count <= 0) break;
        head.append(bytes, static_cast<std::size_t>(count));
      }
      Request request;
      if (const auto first = head.find(' '); first != std::string::npos)
        request.target = head.substr(first + 1, head.find(' ', first + 1) - first - 1);
      request.head = head;
      {
        std::lock_guard lock(mutex_);
        requests_.push_back(request);
      }
      const auto text = answer_(request);
      for (std::size_t sent = 0; sent < text.size();) {
        const auto count = ::send(connection, text.data() + sent, text.size() - sent, MSG_NOSIGNAL);
        if (count <= 0) break;
        sent += static_cast<std::size_t>(count);
      }
      ::shutdown(connection, SHUT_WR);
      ::close(connection);
    }
  }

  Answer answer_;
  int listener_ = -1;
  std::uint16_t port_ = 0;
  std::atomic<bool> ended_{false};
  std::mutex mutex_;
  std::vector<Request> requests_;
  std::thread thread_;
};

/// An answer with that body.
inline std::string http_answer(const std::string& status, const std::string& body,
                               const std::string& headers = "") {
  return "HTTP/1.1 " + status + "\r\nContent-Length: " + std::to_string(body.size()) + "\r\n" +
         headers + "\r\n" + body;
}

}  // namespace distorch::test
