#include <arpa/inet.h>
#include <doctest/doctest.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <memory>

#include "distorch/server/listener.h"
#include "distorch/server/sockets.h"

using namespace distorch::server;
namespace fs = std::filesystem;

namespace {

// A key and a certificate for it, signed by itself, that are valid for an hour.
struct TestKeys {
  TestKeys() : folder(fs::temp_directory_path() / ("distorch_tls_" + std::to_string(::getpid()))) {
    fs::create_directories(folder);
    EVP_PKEY* key = EVP_EC_gen("P-256");
    X509* certificate = X509_new();
    ASN1_INTEGER_set(X509_get_serialNumber(certificate), 1);
    X509_gmtime_adj(X509_getm_notBefore(certificate), 0);
    X509_gmtime_adj(X509_getm_notAfter(certificate), 3600);
    X509_set_pubkey(certificate, key);
    X509_NAME* name = X509_get_subject_name(certificate);
    X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC,
                               reinterpret_cast<const unsigned char*>("localhost"), -1, -1, 0);
    X509_set_issuer_name(certificate, name);
    X509_sign(certificate, key, EVP_sha256());
    write(pair().key, [&](FILE* file) {
      return PEM_write_PrivateKey(file, key, nullptr, nullptr, 0, nullptr, nullptr);
    });
    write(pair().certificate, [&](FILE* file) { return PEM_write_X509(file, certificate); });
    X509_free(certificate);
    EVP_PKEY_free(key);
  }
  ~TestKeys() { fs::remove_all(folder); }

  KeyPair pair() const { return {folder / "certificate.pem", folder / "key.pem"}; }
  fs::path folder;

 private:
  template <class Write>
  void write(const fs::path& path, Write write_to) {
    FILE* file = std::fopen(path.c_str(), "w");
    REQUIRE(file);
    CHECK(write_to(file) == 1);
    std::fclose(file);
  }
};

int connected(std::uint16_t port) {
  const int descriptor = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  REQUIRE(::connect(descriptor, reinterpret_cast<sockaddr*>(&address), sizeof(address)) == 0);
  return descriptor;
}

// Sends a text over TLS, another one after the first piece of the answer, and gives all that comes
// until the other side closes.
std::string ask(std::uint16_t port, const std::string& text, std::string later = "") {
  const int descriptor = connected(port);
  SSL_CTX* context = SSL_CTX_new(TLS_client_method());
  SSL* tls = SSL_new(context);
  SSL_set_fd(tls, descriptor);
  std::string result;
  if (SSL_connect(tls) == 1) {
    SSL_write(tls, text.data(), static_cast<int>(text.size()));
    char bytes[16384];
    for (int got = 0; (got = SSL_read(tls, bytes, sizeof(bytes))) > 0; later.clear()) {
      result.append(bytes, static_cast<std::size_t>(got));
      if (!later.empty()) SSL_write(tls, later.data(), static_cast<int>(later.size()));
    }
  }
  SSL_free(tls);
  SSL_CTX_free(context);
  ::close(descriptor);
  return result;
}

}  // namespace

TEST_CASE("tls: answers and web sockets over a key pair; what is no TLS is closed") {
  TestKeys keys;
  Router router;
  router.add({.pattern = "/large", .handler = [](const Request&) {
                return Response::bytes(std::string(1'000'000, 'x'), "text/plain");
              }});
  Gate gate;
  Sockets sockets(Json::object());
  ListenerOptions options;
  options.port = 0;
  options.tls = keys.pair();
  Listener listener(options, router, gate, &sockets);
  listener.start();
  CHECK(listener.urls().front() == "https://127.0.0.1:" + std::to_string(listener.port()));
  const std::string close = " HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
  const std::string answer = ask(listener.port(), "GET /large" + close);
  CHECK(answer.starts_with("HTTP/1.1 200 OK\r\n"));
  CHECK(answer.ends_with("\r\n\r\n" + std::string(1'000'000, 'x')));
  // Opens a socket; a frame that no rule allows makes the server close it.
  const std::string socket =
      ask(listener.port(),
          "GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
          "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
          std::string(14, '\xff'));
  CHECK(socket.starts_with("HTTP/1.1 101"));
  const int plain = connected(listener.port());
  const std::string request = "GET /large" + close;
  CHECK(::send(plain, request.data(), request.size(), MSG_NOSIGNAL) > 0);
  char bytes[64];
  while (::recv(plain, bytes, sizeof(bytes), 0) > 0) {
  }
  ::close(plain);
  CHECK(ask(listener.port(), "GET /large" + close).size() > 1'000'000);
}
