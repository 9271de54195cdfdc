#include "distorch/server/assets_routes.h"

#include <thread>

#include "distorch/base/blake3.h"
#include "distorch/server/openapi.h"
#include "tests/server/v2_server.h"

using namespace distorch;
using namespace distorch::server;
using namespace distorch::server::testing;
using distorch::test::content_of;
using distorch::test::header_of;
using distorch::test::json_of;

namespace {

std::string hash_of(const std::string& content) {
  Blake3 hash;
  hash.update(content);
  return "blake3:" + hash.hex();
}

/// A file with one tensor of no bytes.
std::string tensors() {
  std::string header = R"({"a":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}})";
  std::string bytes(8, '\0');
  bytes[0] = static_cast<char>(header.size());
  return bytes + header;
}

}  // namespace

TEST_CASE("assets: a file is stored once, found by its content, and named in graphs") {
  V2Server server("v2_assets");
  auto uploaded = server.upload("content", {{"file_path", "sub/a.png"}});
  CHECK(code_of(uploaded, 422) == "invalid_request");
  auto asset = json_of(server.upload("content", {{"file_path", "input/sub/a.png"},
                                                 {"content_type", "image/png"},
                                                 {"expected_hash", hash_of("content")}}),
                       201);
  auto id = asset["id"].get<std::string>();
  CHECK(asset["created_new"] == true);
  CHECK(asset["hash"] == hash_of("content"));
  CHECK(asset["size_bytes"] == 7);
  CHECK(asset["content_type"] == "image/png");
  CHECK(asset["file_path"] == "input/sub/a.png");
  CHECK(asset["url"] == "http://here:1/api/v2/assets/" + id + "/content");
  CHECK(read_file(server.folders.input / "sub" / "a.png") == "content");
  auto again = json_of(server.upload("content", {{"file_path", "b.png"}}));
  CHECK(again["id"] == id);
  CHECK(again["created_new"] == false);
  CHECK(server.ask(Method::Head, "/assets/by-hash/" + hash_of("content")).status == 200);
  CHECK(server.ask(Method::Head, "/assets/by-hash/" + hash_of("other")).status == 404);
  CHECK(server.ask(Method::Head, "/assets/by-hash/nonsense").status == 404);
  CHECK(json_of(server.post("/assets/from-hash", {{"hash", hash_of("content")}}))["id"] == id);
  CHECK(code_of(server.post("/assets/from-hash", {{"hash", hash_of("x")}}), 404) ==
        "blob_not_found");
  CHECK(content_of(server.get("/assets/" + id + "/content")) == "content");

  // Another content under the same name gets another one.
  auto other = json_of(server.upload("other", {{"file_path", "input/sub/a.png"}}), 201);
  auto graph = Json{{"1", {{"class_type", "Image"}, {"inputs", {{"name", nullptr}}}}},
                    {"2", {{"class_type", "Save"}, {"inputs", {{"images", {"1", 0}}}}}}};
  graph["1"]["inputs"]["name"] = {{"__type", "core/ASSET"}, {"info", {{"id", other["id"]}}}};
  auto made = server.post("/jobs", {{"workflow", graph}});
  if (made.status == 201) {
    auto job = json_of(made, 201)["id"].get<std::string>();
    auto ran = json_of(server.get("/jobs/" + job + "/workflow"))["workflow"];
    CHECK(ran["1"]["inputs"]["name"] == "sub/a (1).png");
  }

  server.stop();
  server.start();
  CHECK(json_of(server.get("/assets/" + id))["hash"] == hash_of("content"));
  CHECK(server.ask(Method::Delete, "/assets/" + id).status == 204);
  CHECK(code_of(server.get("/assets/" + id), 404) == "not_found");
  CHECK(code_of(server.ask(Method::Delete, "/assets/" + id), 404) == "not_found");
  CHECK(read_file(server.folders.input / "sub" / "a.png") == "content");
}

TEST_CASE("assets: a file that is gone or another one is not offered") {
  V2Server server("v2_assets_gone");
  auto id =
      json_of(server.upload("content", {{"file_path", "a.bin"}}), 201)["id"].get<std::string>();
  auto file = server.folders.input / "a.bin";
  auto known = [&] {
    return server.ask(Method::Head, "/assets/by-hash/" + hash_of("content")).status == 200;
  };
  CHECK(known());
  // Times of files are a few milliseconds coarse.
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  test::write(file, "CONTENT");
  CHECK(!known());
  test::write(file, "content");
  CHECK(known());
  std::filesystem::remove(file);
  CHECK(!known());
  CHECK(code_of(server.get("/assets/" + id + "/content"), 404) == "output_unavailable");
  CHECK(json_of(server.upload("content", {{"file_path", "c.bin"}}), 201)["id"] != id);
}

TEST_CASE("assets: names that lead elsewhere, contents that are not what they say") {
  V2Server server("v2_assets_refused");
  auto code = [&](const std::string& path, int status = 422) {
    return code_of(server.upload("x", {{"file_path", path}}), status);
  };
  for (const char* path : {"../a", "input/../loras/a.safetensors", "/etc/passwd", "\\a", "C:\\a",
                           "models", "custom_nodes/a.py", "configs/a.yaml", "NUL", "input/a\x01",
                           "loras/a.pt", "loras/a.safetensors"}) {
    CAPTURE(path);
    CHECK(code(path) == "invalid_request");
  }
  CHECK(code_of(server.upload("x", {}), 422) == "invalid_request");
  CHECK(code_of(server.upload("x", {{"file_path", "a"}, {"expected_hash", hash_of("y")}}), 409) ==
        "hash_mismatch");
  CHECK(code_of(server.post("/assets", Json::object()), 422) == "invalid_request");
  CHECK(!std::filesystem::exists(server.folders.input / "a"));
  std::filesystem::create_directories(server.folders.input);
  std::filesystem::create_directory_symlink(server.folder.path(), server.folders.input / "out");
  CHECK(code("input/out/a") == "invalid_request");
  auto page = json_of(server.upload("<script>", {{"file_path", "a.html"}}), 201);
  CHECK(page["content_type"] == "application/octet-stream");
  auto content = server.get("/assets/" + page["id"].get<std::string>() + "/content");
  CHECK(header_of(content, "Content-Disposition").starts_with("attachment"));
}

TEST_CASE("assets: models are taken where they are safetensors files, and never replaced") {
  V2Server server("v2_assets_models");
  auto asset =
      json_of(server.upload(tensors(), {{"file_path", "models/loras/a.safetensors"}}), 201);
  CHECK(read_file(server.folder.path() / "loras" / "a.safetensors") == tensors());
  CHECK(Assets::input_value(*server.assets->by_id(asset["id"])) == "a.safetensors");
  CHECK(code_of(server.upload(tensors() + "more", {{"file_path", "loras/a.safetensors"}}), 409) ==
        "hash_mismatch");
  CHECK(looks_like_safetensors(tensors()));
  CHECK(!looks_like_safetensors(tensors().substr(0, 20)));
  CHECK(!looks_like_safetensors(std::string(8, '\xff') + "{}"));
  CHECK(!looks_like_safetensors(std::string("\2\0\0\0\0\0\0\0[]", 10)));
}

TEST_CASE("assets: files of the server's own folders, without copying") {
  V2Server server("v2_assets_known");
  test::write(server.folders.output / "b" / "a.png", "picture");
  test::write(server.folder.path() / "elsewhere", "secret");
  test::write(server.folder.path() / "loras" / "l.safetensors", tensors());
  auto know = [&](const std::filesystem::path& file) {
    return server.post("/assets/from-path", {{"path", file.string()}});
  };
  auto asset = json_of(know(server.folders.output / "b" / "a.png"), 201);
  CHECK(asset["file_path"] == "b/a.png");
  CHECK(Assets::input_value(*server.assets->by_id(asset["id"])) == "b/a.png [output]");
  CHECK(json_of(know(server.folder.path() / "loras" / "l.safetensors"), 201)["size_bytes"] ==
        tensors().size());
  CHECK(code_of(know(server.folder.path() / "elsewhere"), 422) == "invalid_request");
  CHECK(code_of(know(server.folders.output / "none"), 404) == "blob_not_found");
  CHECK(code_of(know("relative"), 422) == "invalid_request");
  CHECK(code_of(server.post("/assets/from-path"), 422) == "invalid_request");
}

TEST_CASE("assets: outputs of jobs are assets, and no id names anything else") {
  V2Server server("v2_assets_outputs");
  test::write(server.folders.output / "a_00001_.png", "picture");
  test::write(server.folders.output / "secret.png", "secret");
  server.prompts->worker.start();
  auto job = server.submit(draw_graph())["id"].get<std::string>();
  REQUIRE(server.reaches(job, "succeeded"));
  auto output = server.job(job)["outputs"][0];
  CHECK(output["size_bytes"] == 7);
  auto id = output["id"].get<std::string>();
  CHECK(content_of(server.get("/assets/" + id + "/content")) == "picture");
  auto asset = json_of(server.get("/assets/" + id));
  CHECK(asset["job_id"] == job);
  CHECK(asset["file_path"] == "a_00001_.png");
  auto key = output_key(id);
  REQUIRE(key);
  CHECK(key->job == job);
  CHECK(output_id(job, {"9", "images", 0, {}}) == id);
  for (const auto& other :
       {output_id(job, {"9", "images", 1, {}}), output_id("x", {"9", "images", 0, {}}),
        output_id(job, {"8", "images", 0, {}}), std::string("AAAA"), id + "A"})
    CHECK(code_of(server.get("/assets/" + other + "/content"), 404) == "not_found");
  server.stop();
  server.start();
  CHECK(content_of(server.get("/assets/" + id + "/content")) == "picture");
  std::filesystem::remove(server.folders.output / "a_00001_.png");
  CHECK(code_of(server.get("/assets/" + id + "/content"), 404) == "output_unavailable");
}

TEST_CASE("assets: one content that comes many times at once is one asset") {
  V2Server server("v2_assets_race");
  std::vector<std::thread> threads;
  std::atomic<int> created{0};
  for (int i = 0; i < 8; ++i)
    threads.emplace_back([&, i] {
      auto answer = server.upload(std::string(100'000, 'x'),
                                  {{"file_path", "a" + std::to_string(i) + ".bin"}});
      created += answer.status == 201;
    });
  for (auto& thread : threads) thread.join();
  CHECK(created == 1);
}

TEST_CASE("assets: the description of the interface has them") {
  V2Server server("v2_assets_described");
  auto paths = openapi_of(server.router->routes(), "1")["paths"];
  for (const char* path : {"/v2/assets", "/v2/assets/from-hash", "/v2/assets/{asset_id}/content",
                           "/v2/jobs", "/v2/jobs/{job_id}/events"})
    CHECK_MESSAGE(paths.contains(path), path);
  CHECK(paths["/v2/assets/{asset_id}"].contains("delete"));
  CHECK(paths["/v2/jobs"]["get"]["servers"].dump() == R"([{"url":"/api"}])");
}
