// Whole requests from strangers, by way of the router, for everything that a page asks beside
// prompts: files, uploads, user data, settings, models, the log. First byte: the method; first line:
// the address; second line: the content type; the rest is the body. The answer is no fault of ours,
// and nothing appears outside the server's folders.
#include <array>
#include <cstdlib>
#include <filesystem>
#include <string>

#include "distorch/base/atomic_file.h"
#include "distorch/server/answer.h"
#include "distorch/server/openapi.h"
#include "distorch/server/page_services.h"
#include "tests/server/fake_surroundings.h"
#include "tests/support/temporary_folder.h"

using namespace distorch;
using namespace distorch::server;
namespace fs = std::filesystem;

namespace {

constexpr std::array kMethods = {Method::Get,   Method::Head,   Method::Post,   Method::Put,
                                 Method::Patch, Method::Delete, Method::Options};
constexpr std::size_t kBetweenCleanings = 256;

struct Surroundings : Machine, NodeChoices, Messages {
  std::int64_t ram_total() const override { return 1; }
  std::int64_t ram_free() const override { return 1; }
  std::vector<DeviceState> devices() const override { return {}; }
  std::string state() const override { return ""; }
  void send(const std::string&, const std::string&, const Json&) override {}
  void send_binary(const std::string&, std::uint32_t, const std::string&) override {}
  Json features_of(const std::string&) const override { return Json::object(); }
};

struct Server {
  Server() {
    fill();
    models.places["checkpoints"] = {inside() / "models"};
    PageOptions options;
    options.folders = {inside() / "input", inside() / "output", inside() / "temp",
                       inside() / "user"};
    services.emplace(options, catalog, models, surroundings, surroundings, surroundings);
    services->add_routes(router);
    add_openapi_route(router, "0.1.0");
  }
  fs::path inside() const { return folder.path() / "inside"; }
  // What requests wrote goes, so that it does not pile up.
  void fill() const {
    fs::remove_all(inside());
    for (const char* name : {"input", "output", "temp", "user/default/workflows", "models"})
      fs::create_directories(inside() / name);
    write_file(inside() / "models/a.safetensors", std::string("\x02\0\0\0\0\0\0\0{}", 10));
    write_file(inside() / "input/a.png", "no picture");
    write_file(inside() / "user/default/workflows/a.json", "{}");
  }
  void look_outside() const {
    for (const auto& entry : fs::directory_iterator(folder.path()))
      if (entry.path() != inside()) std::abort();
  }

  distorch::test::TemporaryFolder folder{"router_fuzz"};
  Surroundings surroundings;
  distorch::test::FakeModels models;
  graph::Catalog catalog;
  std::optional<PageServices> services;
  Router router;
};

std::string line(std::string_view& text) {
  auto end = std::min(text.find('\n'), text.size());
  std::string result(text.substr(0, end));
  text.remove_prefix(std::min(end + 1, text.size()));
  return result;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size) {
  static Server server;
  static std::size_t runs = 0;
  if (size == 0) return 0;
  std::string_view text(reinterpret_cast<const char*>(data) + 1, size - 1);
  Request request{.method = kMethods[data[0] % kMethods.size()]};
  request.path = line(text);
  request.headers["content-type"] = line(text);
  request.body = text;
  auto response = server.router.handle(request);
  if (response.status >= 500) std::abort();
  auto answer = make_answer(request, std::move(response), {.compress = true});
  if (answer.head.find("\r\n\r\n") != answer.head.size() - 4) std::abort();
  if (++runs % kBetweenCleanings == 0) {
    server.look_outside();
    server.fill();
  }
  return 0;
}
