#include "distorch/cli/server_surroundings.h"

#include <doctest/doctest.h>

#include "distorch/nodes/catalog.h"
#include "tests/server/ask.h"
#include "tests/server/fake_messages.h"

using namespace distorch;
using namespace distorch::test;
using server::Json;
namespace fs = std::filesystem;

namespace {

nodes::Settings settings_in(const fs::path& folder) {
  nodes::Settings settings;
  settings.input_folder = folder / "input";
  settings.output_folder = folder / "output";
  settings.temp_folder = folder / "temp";
  return settings;
}

server::PageOptions options_in(const fs::path& folder) {
  server::PageOptions options;
  options.folders.user = folder / "user";
  return options;
}

/// The server's routes over an application with all its nodes.
struct Served {
  explicit Served(const std::string& name)
      : folder(name), app(settings_in(folder), nodes::ModelFolders(folder.path() / "models")) {
    nodes::add_all(catalog, app);
    surroundings.services().add_routes(router);
  }

  TemporaryFolder folder;
  nodes::App app;
  graph::Catalog catalog;
  FakeMessages messages;
  cli::ServerSurroundings surroundings{app, catalog, options_in(folder), messages};
  server::Router router;
};

}  // namespace

TEST_CASE("server surroundings: devices of this machine, the one that computes first") {
  Served served("surroundings_devices");
  auto stats = json_of(get(served.router, "/system_stats"));
  REQUIRE(!stats["devices"].empty());
  CHECK(stats["devices"].size() == served.app.engine.devices().size());
  auto first = stats["devices"][0];
  CHECK(first["type"].get<std::string>() + (first["index"].is_null() ? "" : ":0") ==
        served.app.engine.device_for(""));
  for (const auto& device : stats["devices"]) {
    CHECK(device["vram_total"].get<std::int64_t>() > 0);
    CHECK(device["vram_free"].get<std::int64_t>() <= device["vram_total"].get<std::int64_t>());
  }
  CHECK(stats["system"]["ram_total"].get<std::int64_t>() > 0);
  CHECK(stats["system"]["pytorch_version"].get<std::string>().find('.') != std::string::npos);
}

TEST_CASE("server surroundings: model folders with their endings") {
  Served served("surroundings_models");
  write(served.folder.path() / "models" / "loras" / "sub" / "a.safetensors", "12");
  write(served.folder.path() / "models" / "loras" / "b.txt", "1");
  CHECK(json_of(get(served.router, "/models/loras")).dump() == R"(["sub/a.safetensors"])");
  CHECK(get(served.router, "/models/unet").status == 404);
  auto types = json_of(get(served.router, "/models"));
  CHECK(std::find(types.begin(), types.end(), "diffusion_models") != types.end());
  auto files = json_of(get(served.router, "/experiment/models/loras"));
  REQUIRE(files.size() == 1);
  CHECK(files[0]["size"] == 2);
  auto folders = json_of(get(served.router, "/experiment/models"));
  CHECK(folders[0]["name"] == "checkpoints");
  CHECK(folders[0]["extensions"][0] == ".bin");
  auto paths = json_of(get(served.router, "/internal/folder_paths"));
  CHECK(paths["diffusion_models"].size() == 2);
}

TEST_CASE("server surroundings: object_info shows a new model and a new picture at once") {
  Served served("surroundings_choices");
  auto choices = [&](const char* type, const char* input) {
    auto all = json_of(get(served.router, "/object_info"));
    CHECK(all.size() > 200);
    return all[type]["input"]["required"][input][0];
  };
  CHECK(choices("CheckpointLoaderSimple", "ckpt_name").dump() == "[]");
  CHECK(choices("LoadImage", "image").dump() == "[]");
  write(served.folder.path() / "models" / "checkpoints" / "a.safetensors", "1");
  CHECK(choices("CheckpointLoaderSimple", "ckpt_name").dump() == R"(["a.safetensors"])");
  auto answer = post_form(served.router, "/upload/image", {{"image", "x", "p.png"}});
  CHECK(answer.status == 200);
  CHECK(choices("LoadImage", "image").dump() == R"(["p.png"])");
  CHECK(json_of(get(served.router,
                    "/object_info/LoadImage"))["LoadImage"]["input"]["required"]["image"][0]
            .dump() == R"(["p.png"])");
}

TEST_CASE("server surroundings: pictures of the application's folders are shown") {
  Served served("surroundings_files");
  write(served.folder.path() / "output" / "a.txt", "made");
  CHECK(content_of(get(served.router, "/view?filename=a.txt")) == "made");
  CHECK(post(served.router, "/userdata/a.json", "{}").status == 200);
  CHECK(fs::exists(served.folder.path() / "user" / "default" / "a.json"));
}
