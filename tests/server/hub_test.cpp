#include "distorch/server/hub.h"

#include <openssl/evp.h>

#include <fstream>
#include <map>

#include "distorch/base/atomic_file.h"
#include "distorch/base/error.h"
#include "distorch/base/run_token.h"
#include "distorch/graph/value.h"
#include "distorch/server/http_get.h"
#include "tests/server/scripted_server.h"
#include "tests/support/temporary_folder.h"

using namespace distorch;
using namespace distorch::test;
using graph::Json;
using server::Hub;
namespace fs = std::filesystem;

namespace {

std::string digest(const EVP_MD* kind, const std::string& text) {
  unsigned char sum[EVP_MAX_MD_SIZE];
  unsigned int size = 0;
  EVP_Digest(text.data(), text.size(), sum, &size, kind, nullptr);
  std::string digits;
  for (unsigned int i = 0; i < size; ++i) {
    char pair[3];
    std::snprintf(pair, sizeof(pair), "%02x", sum[i]);
    digits += pair;
  }
  return digits;
}

/// A repository as the hub shows it: large files lie elsewhere and are named by their SHA-256.
class TinyHub {
 public:
  TinyHub() {
    for (int i = 0; i < 300000; ++i) weights_ += static_cast<char>(i * 7 % 251);
    files_ = {{"config.json", "{\"width\": 1}"}, {"empty.txt", ""}, {"sub/notes.txt", "notes"}};
  }

  std::string answer(const ScriptedServer::Request& request) {
    if (change)
      if (auto text = change(request); !text.empty()) return text;
    const std::string files = "/author/name/resolve/main/";
    if (request.target.starts_with("/api/models/author/name/tree/main"))
      return http_answer("200 OK", list().dump());
    if (request.target == files + "model.safetensors")
      return http_answer("302 Found", "", "Location: /elsewhere/weights?key=1\r\n");
    if (request.target == "/elsewhere/weights?key=1") return ranged(request, weights_);
    if (request.target.starts_with(files))
      if (auto found = files_.find(request.target.substr(files.size())); found != files_.end())
        return ranged(request, found->second);
    return http_answer("404 Not Found", "no", "X-Error-Message: Entry not found\r\n");
  }

  Json list() const {
    Json all = Json::array();
    for (const auto& [path, text] : files_)
      all.push_back({{"type", "file"},
                     {"path", path},
                     {"size", text.size()},
                     {"oid", digest(EVP_sha1(), "blob " + std::to_string(text.size()) +
                                                    std::string(1, '\0') + text)}});
    all.push_back({{"type", "directory"}, {"path", "sub"}});
    all.push_back({{"type", "file"},
                   {"path", "model.safetensors"},
                   {"size", weights_.size()},
                   {"oid", "of the pointer"},
                   {"lfs", {{"oid", digest(EVP_sha256(), weights_)}, {"size", weights_.size()}}}});
    all.push_back({{"type", "file"}, {"path", "../out.json"}, {"size", 1}});
    return all;
  }

  static std::string ranged(const ScriptedServer::Request& request, const std::string& body) {
    const auto range = request.line("Range: bytes=");
    if (range.empty()) return http_answer("200 OK", body);
    return http_answer("206 Partial Content", body.substr(std::stoul(range)));
  }

  /// What is answered in place of the usual; "" leaves it.
  std::function<std::string(const ScriptedServer::Request&)> change;
  std::string weights_;
  std::map<std::string, std::string> files_;
};

std::vector<std::string> everything(const std::vector<std::string>& all) { return all; }

struct Setting {
  TinyHub hub;
  ScriptedServer server{
      [this](const ScriptedServer::Request& request) { return hub.answer(request); }};
  TemporaryFolder folder{"hub"};
  fs::path place() const { return fs::path(folder.path()) / "LLM" / "name"; }
  fs::path incomplete() const { return fs::path(folder.path()) / "LLM" / ".name.incomplete"; }

  double largest = 0, total = 0;
  void fetch(const std::string& token = "") {
    largest = 0;
    Hub(server.url(), token)
        .fetch("author/name", everything, place(), [this](double done, double all) {
          CHECK(done >= largest);
          largest = done;
          total = all;
        });
  }
  /// What is said where it fails; the folder is not there then.
  std::string error(ErrorKind kind) {
    try {
      fetch();
    } catch (const Error& problem) {
      CHECK(problem.kind() == kind);
      CHECK_FALSE(fs::exists(place()));
      return problem.what();
    }
    FAIL("no error");
    return "";
  }
};

bool says(const std::string& error, const std::string& part) {
  CAPTURE(error);
  return error.find(part) != std::string::npos;
}

bool is_weights(const ScriptedServer::Request& request) {
  return request.target.starts_with("/elsewhere/");
}

}  // namespace

TEST_CASE("hub: a model comes whole, from where the mirror leads") {
  Setting one;
  one.fetch();
  CHECK(read_file(one.place() / "model.safetensors") == one.hub.weights_);
  CHECK(read_file(one.place() / "config.json") == "{\"width\": 1}");
  CHECK(read_file(one.place() / "sub" / "notes.txt") == "notes");
  CHECK(fs::file_size(one.place() / "empty.txt") == 0);
  CHECK_FALSE(fs::exists(one.incomplete()));
  CHECK_FALSE(fs::exists(one.place().parent_path() / "out.json"));
  CHECK(one.largest == one.total);
  CHECK(one.total == static_cast<double>(one.hub.weights_.size() + 17));
}

TEST_CASE(
    "hub: a connection that breaks is gone on with, without asking for the same bytes again") {
  Setting one;
  int asked = 0;
  std::string second_range;
  one.hub.change = [&](const ScriptedServer::Request& request) -> std::string {
    if (!is_weights(request)) return "";
    if (++asked == 1) return http_answer("200 OK", one.hub.weights_).substr(0, 200000);
    second_range = request.line("Range: ");
    return "";
  };
  one.fetch();
  CHECK(asked == 2);
  CHECK(second_range.starts_with("bytes=1"));
  CHECK(read_file(one.place() / "model.safetensors") == one.hub.weights_);
}

TEST_CASE("hub: a later call goes on where an earlier one stopped") {
  Setting one;
  auto token = std::make_shared<RunToken>();
  one.hub.change = [&](const ScriptedServer::Request& request) -> std::string {
    if (!is_weights(request)) return "";
    token->interrupt();
    return http_answer("200 OK", one.hub.weights_).substr(0, 100000);
  };
  {
    RunScope scope(token);
    CHECK(says(one.error(ErrorKind::Interrupted), ""));
  }
  const auto part = one.incomplete() / "model.safetensors.part";
  REQUIRE(fs::exists(part));
  const auto there = fs::file_size(part);
  CHECK(fs::exists(one.incomplete() / "config.json"));
  const auto before = one.server.requests().size();
  std::string range;
  one.hub.change = [&](const ScriptedServer::Request& request) -> std::string {
    if (is_weights(request)) range = request.line("Range: ");
    return "";
  };
  one.fetch();
  CHECK(range == (there > 0 ? "bytes=" + std::to_string(there) + "-" : ""));
  CHECK(read_file(one.place() / "model.safetensors") == one.hub.weights_);
  // The list and the weights alone: the other files were there.
  CHECK(one.server.requests().size() == before + 3);
}

TEST_CASE("hub: a mirror without ranges begins again") {
  Setting one;
  fs::create_directories(one.incomplete());
  std::ofstream(one.incomplete() / "model.safetensors.part") << "the beginning of something else";
  one.hub.change = [&](const ScriptedServer::Request& request) -> std::string {
    return is_weights(request) ? http_answer("200 OK", one.hub.weights_) : "";
  };
  one.fetch();
  CHECK(read_file(one.place() / "model.safetensors") == one.hub.weights_);
}

TEST_CASE("hub: what came wrong is removed and told") {
  Setting one;
  one.hub.change = [&](const ScriptedServer::Request& request) -> std::string {
    auto other = one.hub.weights_;
    other[12345] ^= 1;
    return is_weights(request) ? http_answer("200 OK", other) : "";
  };
  CHECK(says(one.error(ErrorKind::Format), "came with the checksum"));
  CHECK_FALSE(fs::exists(one.incomplete() / "model.safetensors.part"));
  one.hub.change = [&](const ScriptedServer::Request& request) -> std::string {
    return is_weights(request) ? http_answer("200 OK", one.hub.weights_ + "!") : "";
  };
  CHECK(says(one.error(ErrorKind::Format), "gives more than the 300000 bytes"));
  one.hub.change = [&](const ScriptedServer::Request& request) -> std::string {
    return request.target.ends_with("config.json") ? http_answer("200 OK", "{\"width\": 2}") : "";
  };
  fs::remove(one.incomplete() / "config.json");
  CHECK(says(one.error(ErrorKind::Format), "config.json: came with the checksum"));
  one.hub.change = [&](const ScriptedServer::Request& request) -> std::string {
    return is_weights(request) ? http_answer("200 OK", one.hub.weights_.substr(1)) : "";
  };
  CHECK(says(one.error(ErrorKind::Format), "has 299999 bytes, and the mirror says 300000"));
  one.hub.change = nullptr;
  one.fetch();
  CHECK(read_file(one.place() / "model.safetensors") == one.hub.weights_);
}

TEST_CASE("hub: refusals say what can be done") {
  Setting one;
  auto always = [&](const std::string& status) {
    one.hub.change = [status](const ScriptedServer::Request&) {
      return http_answer(status, "no", "X-Error-Message: Access is restricted\r\n");
    };
  };
  for (const char* status : {"401 Unauthorized", "403 Forbidden"}) {
    always(status);
    const auto error = one.error(ErrorKind::Usage);
    CHECK(says(error, one.server.url() + "/author/name: is not given to everybody"));
    CHECK(says(error, "Access is restricted"));
    CHECK(says(error, "--download-token"));
  }
  always("404 Not Found");
  CHECK(says(one.error(ErrorKind::MissingFile), "is not there (404)"));
  always("503 Busy");
  CHECK(says(one.error(ErrorKind::Format), "answers 503"));
  one.hub.change = [](const ScriptedServer::Request&) { return http_answer("200 OK", "<html>"); };
  CHECK(says(one.error(ErrorKind::Format), "/api/models/author/name/tree/main"));
  one.hub.change = [](const ScriptedServer::Request&) { return http_answer("200 OK", "[]"); };
  CHECK(says(one.error(ErrorKind::MissingFile), "holds no files that such a model needs"));
  one.hub.change = [](const ScriptedServer::Request& request) {
    return http_answer("302 Found", "", "Location: " + request.target + "x\r\n");
  };
  CHECK(says(one.error(ErrorKind::Format), "without an end"));
  CHECK_THROWS_WITH(Hub(one.server.url(), "").files("../name"),
                    doctest::Contains("is no name of a published model"));
  CHECK_THROWS_WITH(Hub("huggingface.co", ""), doctest::Contains("begins with http"));
  // Port 1 of this machine: nobody listens there.
  CHECK_THROWS_WITH(Hub("http://127.0.0.1:1", "").files("author/name"),
                    doctest::Contains("does not answer"));
}

TEST_CASE("hub: the token is shown to the mirror and to nobody that it leads to") {
  Setting one;
  std::string seen;
  ScriptedServer other([&](const ScriptedServer::Request& request) {
    seen = request.head;
    return TinyHub::ranged(request, one.hub.weights_);
  });
  one.hub.change = [&](const ScriptedServer::Request& request) -> std::string {
    CHECK(request.line("Authorization: ") == "Bearer secret");
    if (request.target.ends_with("model.safetensors"))
      return http_answer("302 Found", "", "Location: " + other.url() + "/w\r\n");
    return "";
  };
  one.fetch("secret");
  CHECK_FALSE(seen.empty());
  CHECK(seen.find("secret") == std::string::npos);
  CHECK(read_file(one.place() / "model.safetensors") == one.hub.weights_);
}

TEST_CASE("hub: a list in several parts") {
  Setting one;
  one.hub.change = [&](const ScriptedServer::Request& request) -> std::string {
    if (!request.target.starts_with("/api/")) return "";
    const auto all = one.hub.list();
    Json first = Json::array({all[0]}), rest = Json::array();
    for (std::size_t i = 1; i < all.size(); ++i) rest.push_back(all[i]);
    if (request.target.find("cursor") != std::string::npos)
      return http_answer("200 OK", rest.dump());
    return http_answer(
        "200 OK", first.dump(),
        "Link: <" + one.server.url() + request.target + "&cursor=2>; rel=\"next\"\r\n");
  };
  one.fetch();
  CHECK(read_file(one.place() / "model.safetensors") == one.hub.weights_);
}

TEST_CASE("hub: a full disk is told, and what came is removed") {
  Setting one;
  fs::create_directories(one.incomplete());
  const auto part = one.incomplete() / "model.safetensors.part";
  fs::create_symlink("/dev/full", part);
  CHECK(says(one.error(ErrorKind::OutOfMemory), "does not fit on the disk"));
  CHECK_FALSE(fs::is_symlink(part));
  // A model that no disk has room for is not begun.
  one.hub.change = [](const ScriptedServer::Request&) {
    return http_answer("200 OK",
                       R"([{"type": "file", "path": "a.json", "size": 1000000000000000}])");
  };
  const auto before = one.server.requests().size();
  CHECK(says(one.error(ErrorKind::OutOfMemory), "has no room for author/name"));
  CHECK(one.server.requests().size() == before + 1);
}

TEST_CASE("hub: two at a time do not write the same file") {
  Setting one;
  std::string second;
  one.hub.change = [&](const ScriptedServer::Request& request) -> std::string {
    if (!is_weights(request) || !second.empty()) return "";
    second = "asked";
    std::thread([&] {
      // While the first holds the file, before it gets its bytes.
      TinyHub same;
      ScriptedServer server([&](const ScriptedServer::Request& r) { return same.answer(r); });
      try {
        Hub(server.url(), "").fetch("author/name", everything, one.place(), [](double, double) {});
        second = "no error";
      } catch (const Error& problem) {
        second = problem.what();
      }
    }).join();
    return "";
  };
  one.fetch();
  CHECK(says(second, "is being downloaded by another process"));
}

TEST_CASE("addresses that redirections lead to") {
  using server::redirected;
  CHECK(redirected("http://a/b/c?d", "http://e/f") == "http://e/f");
  CHECK(redirected("http://a:80/b/c?d=/x", "/f?g") == "http://a:80/f?g");
  CHECK(redirected("https://a/b", "//e/f") == "https://e/f");
  CHECK(redirected("http://a/b/c?d=/x", "f") == "http://a/b/f");
  CHECK_THROWS_WITH(redirected("https://a/b", "http://a/b"),
                    doctest::Contains("which is not encrypted"));
  CHECK(server::origin_of("https://a/b?c") == "https://a:443");
  CHECK(server::origin_of("http://[::1]/") == "http://[::1]:80");
}
