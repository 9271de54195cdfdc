#include "tests/server/client.h"

#include <arpa/inet.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <stdexcept>

#include "distorch/base/text.h"

namespace distorch::server {
namespace {

constexpr int kPatienceMs = 10'000;

}  // namespace

TestClient::TestClient(std::uint16_t port) : port_(port) {
  socket_ = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (::connect(socket_, reinterpret_cast<sockaddr*>(&address), sizeof(address)) != 0)
    throw std::runtime_error("the test's client cannot connect");
}

TestClient::~TestClient() { ::close(socket_); }

bool TestClient::send(const std::string& bytes) {
  std::size_t done = 0;
  while (done < bytes.size()) {
    const ssize_t sent = ::send(socket_, bytes.data() + done, bytes.size() - done, MSG_NOSIGNAL);
    if (sent <= 0) return false;
    done += static_cast<std::size_t>(sent);
  }
  return true;
}

void TestClient::end_sending() { ::shutdown(socket_, SHUT_WR); }

bool TestClient::fill() {
  pollfd waiting{.fd = socket_, .events = POLLIN};
  if (::poll(&waiting, 1, kPatienceMs) <= 0) return false;
  char bytes[65536];
  const ssize_t got = ::recv(socket_, bytes, sizeof(bytes), 0);
  if (got <= 0) return false;
  buffer_.append(bytes, static_cast<std::size_t>(got));
  return true;
}

TestClient::Reply TestClient::receive(bool has_body) {
  std::size_t end = 0;
  while ((end = buffer_.find("\r\n\r\n")) == std::string::npos)
    if (!fill()) return {};
  Reply reply;
  const std::string head = buffer_.substr(0, end + 2);
  buffer_.erase(0, end + 4);
  reply.status = std::stoi(head.substr(9, 3));
  for (std::size_t at = head.find("\r\n") + 2; at < head.size();) {
    const std::size_t line_end = head.find("\r\n", at);
    const std::string line = head.substr(at, line_end - at);
    const std::size_t colon = line.find(": ");
    reply.headers[lower(line.substr(0, colon))] = line.substr(colon + 2);
    at = line_end + 2;
  }
  if (!has_body || !reply.headers.contains("content-length")) return reply;
  const std::size_t length = std::stoul(reply.headers["content-length"]);
  while (buffer_.size() < length)
    if (!fill()) return {};
  reply.body = buffer_.substr(0, length);
  buffer_.erase(0, length);
  return reply;
}

TestClient::Reply TestClient::get(const std::string& path, const std::string& headers) {
  send("GET " + path + " HTTP/1.1\r\nHost: 127.0.0.1:" + std::to_string(port_) + "\r\n" + headers +
       "\r\n");
  return receive();
}

TestClient::Reply TestClient::post(const std::string& path, const std::string& body,
                                   const std::string& headers) {
  send("POST " + path + " HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: " +
       std::to_string(body.size()) + "\r\n" + headers + "\r\n" + body);
  return receive();
}

bool TestClient::receive_text(const std::string& bytes) {
  while (buffer_.size() < bytes.size())
    if (!fill()) return false;
  if (!buffer_.starts_with(bytes)) return false;
  buffer_.erase(0, bytes.size());
  return true;
}

bool TestClient::is_closed(std::chrono::milliseconds within) {
  const auto end = std::chrono::steady_clock::now() + within;
  for (;;) {
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(
        end - std::chrono::steady_clock::now());
    pollfd waiting{.fd = socket_, .events = POLLIN};
    if (left.count() <= 0 || ::poll(&waiting, 1, static_cast<int>(left.count())) <= 0) return false;
    char bytes[65536];
    if (::recv(socket_, bytes, sizeof(bytes), 0) <= 0) return true;
  }
}

int TestClient::open_socket(const std::string& path, const std::string& headers) {
  return get(path,
             "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
             "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n" +
                 headers)
      .status;
}

void TestClient::send_frame(int opcode, const std::string& payload, bool masked) {
  std::string frame(1, static_cast<char>(0x80 | opcode));
  const char mark = static_cast<char>(masked ? 0x80 : 0);
  if (payload.size() < 126) {
    frame += static_cast<char>(mark | static_cast<char>(payload.size()));
  } else {
    frame += static_cast<char>(mark | 127);
    for (int shift = 56; shift >= 0; shift -= 8)
      frame += static_cast<char>(payload.size() >> shift & 255);
  }
  // A mask of zeros leaves the payload as it is.
  if (masked) frame += std::string(4, '\0');
  send(frame + payload);
}

TestClient::Message TestClient::receive_frame() {
  auto need = [this](std::size_t bytes) {
    while (buffer_.size() < bytes)
      if (!fill()) return false;
    return true;
  };
  if (!need(2)) return {};
  std::size_t length = static_cast<unsigned char>(buffer_[1]) & 127;
  std::size_t head = 2;
  if (length >= 126) {
    const std::size_t bytes = length == 126 ? 2 : 8;
    if (!need(2 + bytes)) return {};
    length = 0;
    for (std::size_t i = 0; i < bytes; ++i)
      length = length << 8 | static_cast<unsigned char>(buffer_[2 + i]);
    head += bytes;
  }
  if (!need(head + length)) return {};
  Message message{buffer_[0] & 15, buffer_.substr(head, length)};
  buffer_.erase(0, head + length);
  return message;
}

void TestClient::shrink_buffer() {
  const int bytes = 4096;
  ::setsockopt(socket_, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof(bytes));
}

}  // namespace distorch::server
