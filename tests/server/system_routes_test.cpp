#include "distorch/server/system_routes.h"

#include "tests/server/ask.h"
#include "tests/server/fake_surroundings.h"

using namespace distorch;
using namespace distorch::server;
using namespace distorch::test;
namespace fs = std::filesystem;

namespace {

struct TwoDevices : Machine {
  std::int64_t ram_total() const override { return 64; }
  std::int64_t ram_free() const override { return 32; }
  std::vector<DeviceState> devices() const override {
    return {{"cuda:0 Fast", "cuda", 0, 24, 20, 3, 1}, {"cpu", "cpu", {}, 64, 32, 64, 32}};
  }
};

graph::NodeType type_named(const std::string& name) {
  graph::NodeType type;
  type.name = name;
  type.run = [](graph::Call&) {};
  return type;
}

struct SystemServer {
  explicit SystemServer(const std::string& name) : folder(name) {
    state.facts.distorch_version = "0.1.0";
    state.facts.torch_version = "2.11.0";
    state.facts.arguments = {"distorch", "serve", "--auth-token",       "secret",
                             "--port",   "8188",  "--auth-token=secret"};
    add_system_routes(router, state);
  }

  TemporaryFolder folder;
  FileFolders folders{folder.path() / "input", folder.path() / "output", folder.path() / "temp",
                      folder.path() / "user"};
  TwoDevices machine;
  FakeModels models;
  graph::Catalog catalog;
  SystemState state{machine, models, folders, catalog, {}, {}};
  Router router;
};

}  // namespace

TEST_CASE("system stats: every device, the one that computes first; nothing secret") {
  SystemServer server("system_stats");
  auto stats = json_of(get(server.router, "/api/system_stats"));
  CHECK(stats["devices"][0].dump() ==
        R"({"name":"cuda:0 Fast","type":"cuda","index":0,"vram_total":24,"vram_free":20,)"
        R"("torch_vram_total":3,"torch_vram_free":1})");
  CHECK(stats["devices"][1]["index"].is_null());
  auto system = stats["system"];
  CHECK(system["ram_total"] == 64);
  CHECK(system["ram_free"] == 32);
  CHECK(system["pytorch_version"] == "2.11.0");
  CHECK(system["comfyui_version"].get<std::string>().find("0.33") == 0);
  CHECK(system["required_frontend_version"].is_null());
  CHECK(system["argv"].dump() ==
        R"(["distorch","serve","--auth-token","***","--port","8188","--auth-token=***"])");
  CHECK(stats.dump().find("secret") == std::string::npos);
}

TEST_CASE("features: only what exists") {
  SystemServer server("features");
  auto features = json_of(get(server.router, "/features"));
  CHECK(features["supports_preview_metadata"] == true);
  CHECK(features["max_upload_size"] == 104857600);
  CHECK(features["assets"] == false);
  CHECK(features["extension"]["manager"]["supports_v4"] == false);
  CHECK(features == server_features(server.state));
}

TEST_CASE("node replacements: old types that are gone, whose new ones are there") {
  SystemServer server("replacements");
  CHECK(json_of(get(server.router, "/node_replacements")).dump() == "{}");
  server.catalog.add(type_named("ControlNetLoader"));
  graph::VariantOptions options;
  options.devices = std::vector<std::string>{"cpu"};
  auto loader = type_named("CheckpointLoaderSimple");
  loader.outputs = {{"MODEL"}};
  graph::add_loader(server.catalog, loader, options);
  auto all = json_of(get(server.router, "/api/node_replacements"));
  CHECK(all.size() == 2);
  CHECK(
      all["T2IAdapterLoader"].dump() ==
      R"([{"new_node_id":"ControlNetLoader","old_node_id":"T2IAdapterLoader","old_widget_ids":null,)"
      R"("input_mapping":[{"new_id":"control_net_name","old_id":"t2i_adapter_name"}],)"
      R"("output_mapping":null}])");
  CHECK(all["CheckpointLoaderSimpleDistorch2MultiGPU"][0]["new_node_id"] ==
        "CheckpointLoaderSimpleDisTorch2MultiGPU");
  server.catalog.add(type_named("T2IAdapterLoader"));
  CHECK(json_of(get(server.router, "/node_replacements")).size() == 1);
}

TEST_CASE("extensions: the page's own scripts and those of folders beside it") {
  SystemServer server("extensions");
  CHECK(json_of(get(server.router, "/extensions")).dump() == "[]");
  auto page = server.folder.path() / "page", panel = server.folder.path() / "panel";
  write(page / "extensions" / "core" / "b.js", "");
  write(page / "extensions" / "core" / "b.css", "");
  write(page / "index.js", "");
  write(panel / "js" / "a.js", "");
  server.state.scripts = {page, {{"my panel", panel}}, {"/extensions/own/c.js"}};
  CHECK(json_of(get(server.router, "/api/extensions")).dump() ==
        R"(["/extensions/core/b.js","/extensions/my%20panel/js/a.js","/extensions/own/c.js"])");
}

TEST_CASE("internal: folders of models and newest files of a folder") {
  SystemServer server("internal");
  server.models.places["loras"] = {server.folder.path() / "l"};
  CHECK(json_of(get(server.router, "/internal/folder_paths")).dump() ==
        Json{{"loras", {(server.folder.path() / "l").string()}}}.dump());
  CHECK(get(server.router, "/api/internal/folder_paths").status == 404);
  CHECK(json_of(get(server.router, "/internal/files/input")).dump() == "[]");
  write(server.folders.output / "old.png", "");
  write(server.folders.output / "new.png", "");
  write(server.folders.output / ".hidden", "");
  write(server.folders.output / "sub" / "x.png", "");
  auto now = fs::file_time_type::clock::now();
  fs::last_write_time(server.folders.output / "old.png", now - std::chrono::hours(1));
  CHECK(json_of(get(server.router, "/internal/files/output")).dump() ==
        R"(["new.png [output]","old.png [output]"])");
  CHECK(get(server.router, "/internal/files/user").status == 400);
}

TEST_CASE("what add-ons would bring is empty, not missing") {
  SystemServer server("nothing");
  CHECK(json_of(get(server.router, "/i18n")).dump() == "{}");
  CHECK(json_of(get(server.router, "/global_subgraphs")).dump() == "{}");
  CHECK(json_of(get(server.router, "/global_subgraphs/x")).is_null());
}
