#include "distorch/server/models_routes.h"

#include "distorch/media/png.h"
#include "distorch/media/webp.h"
#include "distorch/server/model_pictures.h"
#include "tests/server/ask.h"
#include "tests/server/fake_surroundings.h"

using namespace distorch;
using namespace distorch::server;
using namespace distorch::test;
namespace fs = std::filesystem;

namespace {

std::string picture(int width) { return media::encode_png(media::blank_image(width, 4, 3)); }

std::string base64(std::string_view bytes) {
  const char* letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string text;
  for (std::size_t i = 0; i < bytes.size(); i += 3) {
    std::uint32_t three = 0;
    for (std::size_t j = 0; j < 3; ++j)
      three = three << 8 | (i + j < bytes.size() ? static_cast<unsigned char>(bytes[i + j]) : 0);
    for (int j = 3; j >= 0; --j) text += letters[three >> 6 * j & 63];
  }
  for (std::size_t i = 0; i < (3 - bytes.size() % 3) % 3; ++i) text[text.size() - 1 - i] = '=';
  return text;
}

std::string safetensors(const Json& header) {
  auto text = header.dump();
  std::string bytes(8, '\0');
  for (int i = 0; i < 8; ++i) bytes[i] = static_cast<char>(text.size() >> 8 * i);
  return bytes + text;
}

struct ModelServer {
  explicit ModelServer(const std::string& name) : folder(name) {
    models.places = {{"checkpoints", {folder.path() / "one", folder.path() / "two"}},
                     {"configs", {folder.path() / "configs"}},
                     {"custom_nodes", {}},
                     {"embeddings", {folder.path() / "embeddings"}}};
    add_models_routes(router, state);
  }
  int width(const std::string& address) {
    auto answer = get(router, "/api/experiment/models/preview/" + address);
    if (answer.status != 200) return -answer.status;
    CHECK(header_of(answer, "Content-Type") == "image/webp");
    return media::decode_webp(content_of(answer), "answer").width;
  }

  TemporaryFolder folder;
  FakeModels models;
  ModelsState state{models};
  Router router;
};

}  // namespace

TEST_CASE("models: types, files, embeddings") {
  ModelServer server("models");
  write(server.folder.path() / "one" / "b.safetensors", "1");
  write(server.folder.path() / "two" / "a.pt", "1");
  write(server.folder.path() / "embeddings" / "easy.v2.pt", "1");
  CHECK(json_of(get(server.router, "/models")).dump() ==
        R"(["checkpoints","configs","custom_nodes","embeddings"])");
  CHECK(json_of(get(server.router, "/api/models/checkpoints")).dump() ==
        R"(["a.pt","b.safetensors"])");
  CHECK(get(server.router, "/models/unet").status == 404);
  CHECK(json_of(get(server.router, "/embeddings")).dump() == R"(["easy.v2"])");
}

TEST_CASE("models: folders, and files with sizes and times") {
  ModelServer server("models_sizes");
  auto folders = json_of(get(server.router, "/experiment/models"));
  CHECK(folders.size() == 2);
  CHECK(folders[0]["name"] == "checkpoints");
  CHECK(folders[0]["folders"][1] == (server.folder.path() / "two").string());
  CHECK(folders[0]["extensions"].dump() == R"([".pt",".safetensors"])");
  write(server.folder.path() / "one" / "sub" / "b.SAFETENSORS", "123");
  write(server.folder.path() / "one" / "c.txt", "1");
  write(server.folder.path() / "one" / ".git" / "d.pt", "1");
  write(server.folder.path() / "one" / ".e.pt", "1");
  write(server.folder.path() / "two" / "a.pt", "1");
  // A model on another disk, and a loop.
  write(server.folder.path() / "elsewhere" / "f.pt", "12");
  fs::create_symlink(server.folder.path() / "elsewhere" / "f.pt",
                     server.folder.path() / "two" / "f.pt");
  fs::create_directory_symlink(server.folder.path() / "two",
                               server.folder.path() / "two" / "again");
  auto files = json_of(get(server.router, "/experiment/models/checkpoints"));
  REQUIRE(files.size() == 3);
  CHECK(files[0]["name"] == "sub/b.SAFETENSORS");
  CHECK(files[0]["pathIndex"] == 0);
  CHECK(files[0]["size"] == 3);
  CHECK(files[0]["modified"].get<double>() > 1.7e9);
  CHECK(files[0]["created"].get<double>() > 1.7e9);
  CHECK(files[1]["name"] == "a.pt");
  CHECK(files[2]["name"] == "f.pt");
  CHECK(files[2]["pathIndex"] == 1);
  CHECK(get(server.router, "/experiment/models/unet").status == 404);
}

TEST_CASE("models: the picture beside a model, else the one inside it") {
  ModelServer server("models_pictures");
  auto one = server.folder.path() / "one";
  write(one / "a.safetensors", "1");
  write(one / "a.preview.png", picture(20));
  CHECK(server.width("checkpoints/0/a.safetensors") == 20);
  write(one / "a.png", picture(10));
  write(one / "ab.png", picture(11));
  CHECK(server.width("checkpoints/0/a.safetensors") == 10);
  write(one / "sub" / "b.pt", "1");
  write(one / "sub" / "b.png", picture(30));
  CHECK(server.width("checkpoints/0/sub/b.pt") == 30);
  CHECK(server.width("checkpoints/0/sub%2Fb.pt") == 30);
  Json covers = Json::array({base64(picture(40))});
  write(one / "c.safetensors",
        safetensors({{"__metadata__", {{"ssmd_cover_images", covers.dump()}}}}));
  CHECK(server.width("checkpoints/0/c.safetensors") == 40);
  for (const char* text : {"[]", "[7]", "nonsense", "[\"*\"]"})
    write(one / (std::string("bad") + text[1] + ".safetensors"),
          safetensors({{"__metadata__", {{"ssmd_cover_images", text}}}}));
  for (const char* name : {"bad].safetensors", "bad7.safetensors", "bado.safetensors",
                           "bad%22.safetensors", "d.safetensors"})
    CHECK_MESSAGE(server.width(std::string("checkpoints/0/") + name) == -404, name);
}

TEST_CASE("models: pictures outside of the model folders are not shown") {
  ModelServer server("models_outside");
  write(server.folder.path() / "secret.png", picture(50));
  write(server.folder.path() / "one" / "a.pt", "1");
  fs::create_symlink(server.folder.path() / "secret.png", server.folder.path() / "one" / "a.png");
  CHECK(server.width("checkpoints/0/a.pt") == -404);
  CHECK(server.width("checkpoints/0/..%2Fsecret.pt") == -403);
  CHECK(server.width("checkpoints/0/%2Fetc%2Fpasswd") == -403);
  CHECK(server.width("checkpoints/2/a.pt") == -404);
  CHECK(server.width("checkpoints/-1/a.pt") == -400);
  CHECK(server.width("checkpoints/x/a.pt") == -400);
  CHECK(server.width("checkpoints/0/") == -400);
  CHECK(server.width("nope/0/a.pt") == -404);
}

TEST_CASE("base64: whole, with line breaks, refused") {
  CHECK(base64_decoded("aGVsbG8=") == "hello");
  CHECK(base64_decoded("aGVs\r\nbG8") == "hello");
  CHECK(base64_decoded("") == "");
  CHECK(!base64_decoded("aGV$"));
  std::string every;
  for (int i = 0; i < 256; ++i) every += static_cast<char>(i);
  CHECK(base64_decoded(base64(every)) == every);
}
