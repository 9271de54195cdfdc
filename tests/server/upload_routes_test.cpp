#include "distorch/server/upload_routes.h"

#include <thread>

#include "distorch/media/jpeg.h"
#include "distorch/media/png.h"
#include "tests/server/ask.h"

using namespace distorch;
using namespace distorch::server;
using namespace distorch::test;
namespace fs = std::filesystem;

namespace {

struct Uploader {
  explicit Uploader(const std::string& name) : folder(name) { add_upload_routes(router, state); }
  Response upload(const std::vector<Field>& fields) {
    return post_form(router, "/upload/image", fields);
  }
  /// The name that a content is stored under.
  std::string stored(const std::string& name, const std::string& content,
                     std::vector<Field> more = {}) {
    more.push_back({"image", content, name});
    return json_of(upload(more))["name"].get<std::string>();
  }
  /// How many files there are in the whole folder, temporary ones too.
  int files() const {
    int count = 0;
    for (const auto& entry : fs::recursive_directory_iterator(folder.path()))
      count += entry.is_regular_file();
    return count;
  }

  TemporaryFolder folder;
  FileFolders folders{folder.path() / "input", folder.path() / "output", folder.path() / "temp",
                      folder.path() / "user"};
  UploadState state{folders};
  Router router;
};

}  // namespace

TEST_CASE("upload: the file is there, whole, and its place is answered") {
  Uploader server("upload");
  auto answer = json_of(server.upload({{"image", std::string("\0\r\n--x", 6), "a b.mp4"},
                                       {"type", "temp"},
                                       {"subfolder", "clips/one"}}));
  CHECK(answer.dump() == R"({"name":"a b.mp4","subfolder":"clips/one","type":"temp"})");
  CHECK(read_file(server.folders.temp / "clips" / "one" / "a b.mp4") ==
        std::string("\0\r\n--x", 6));
  CHECK(server.stored("комфи.png", "x") == "комфи.png");
  CHECK(read_file(server.folders.input / "комфи.png") == "x");
  CHECK(server.stored("sub/c.png", "x") == "sub/c.png");
  CHECK(server.stored("sub/c.png", "y") == "sub/c (1).png");
  CHECK(read_file(server.folders.input / "sub" / "c (1).png") == "y");
}

TEST_CASE("upload: a taken name is kept for the same content and numbered for another") {
  Uploader server("upload_names");
  CHECK(server.stored("a.png", "one") == "a.png");
  CHECK(server.stored("a.png", "one") == "a.png");
  CHECK(server.stored("a.png", "two") == "a (1).png");
  CHECK(server.stored("a.png", "six") == "a (2).png");
  CHECK(server.stored("a.png", "two") == "a (1).png");
  CHECK(server.files() == 3);
  CHECK(server.stored("a.png", "new", {{"overwrite", "true"}}) == "a.png");
  CHECK(server.stored("a.png", "newer", {{"overwrite", "1"}}) == "a.png");
  CHECK(read_file(server.folders.input / "a.png") == "newer");
  CHECK(server.stored("a.png", "third", {{"overwrite", "false"}}) == "a (3).png");
  CHECK(server.files() == 4);
}

TEST_CASE("upload: many at once lose nothing") {
  Uploader server("upload_threads");
  std::vector<std::thread> threads;
  for (int i = 0; i < 8; ++i)
    threads.emplace_back([&, i] {
      for (int j = 0; j < 5; ++j)
        server.upload({{"image", std::to_string(i % 4) + " " + std::to_string(j), "a.png"}});
    });
  for (auto& thread : threads) thread.join();
  // Twenty contents, each sent twice.
  std::map<std::string, int> seen;
  for (const auto& entry : fs::directory_iterator(server.folders.input))
    ++seen[read_file(entry.path())];
  CHECK(seen.size() == 20);
}

TEST_CASE("upload: what is refused leaves nothing behind") {
  Uploader server("upload_refused");
  auto status = [&](const std::vector<Field>& fields) { return server.upload(fields).status; };
  CHECK(status({}) == 400);
  CHECK(status({{"image", "x"}}) == 400);
  CHECK(status({{"image", "x", "a.png"}, {"type", "user"}}) == 400);
  for (const char* name : {"../a.png", "/etc/a.png", "..\\a.png", "C:\\a.png", "nul.png", ".."})
    CHECK_MESSAGE(status({{"image", "x", name}}) == 400, name);
  for (const char* folder : {"..", "/tmp", "a/../.."})
    CHECK_MESSAGE(status({{"image", "x", "a.png"}, {"subfolder", folder}}) == 400, folder);
  fs::create_directories(server.folders.input / "folder.png");
  CHECK(status({{"image", "x", "folder.png"}}) == 400);
  CHECK(post(server.router, "/upload/image", "{}", {{"content-type", "application/json"}}).status ==
        400);
  auto cut = form({{"image", "x", "a.png"}});
  cut.resize(cut.size() - 12);
  CHECK(post(server.router, "/upload/image", cut, {{"content-type", kFormType}}).status == 400);
  CHECK(server.files() == 0);
}

TEST_CASE("upload mask: the original's colours and texts with the alpha of the mask") {
  Uploader server("upload_mask");
  auto original = media::blank_image(2, 1, 3);
  original.pixels = {1, 2, 3, 4, 5, 6};
  media::PngOptions options;
  options.texts = {{"prompt", "{}"}, {"workflow", "{\"a\":1}"}};
  write(server.folders.output / "sub" / "a.png", media::encode_png(original, options));
  auto mask = media::blank_image(2, 1, 4);
  mask.pixels = {9, 9, 9, 7, 9, 9, 9, 255};
  auto send = [&](const std::string& reference, const std::string& picture) {
    return post_form(server.router, "/upload/mask",
                     {{"image", picture, "masked.png"}, {"original_ref", reference}});
  };
  auto bytes = media::encode_png(mask);
  auto answer = json_of(send(R"({"filename":"a.png","subfolder":"sub"})", bytes));
  CHECK(answer.dump() == R"({"name":"masked.png","subfolder":"","type":"input"})");
  auto stored = read_file(server.folders.input / "masked.png");
  CHECK(media::decode_png(stored, "stored").pixels ==
        std::vector<std::uint8_t>{1, 2, 3, 7, 4, 5, 6, 255});
  CHECK(media::png_texts(stored, "stored") == options.texts);
  // The same again is the same file.
  CHECK(json_of(send(R"({"filename":"a.png","subfolder":"sub","type":"output"})", bytes))["name"] ==
        "masked.png");
  CHECK(json_of(send(R"({"filename":"masked.png [input]"})", bytes))["name"] == "masked.png");
  // A mask without alpha covers nothing.
  CHECK(json_of(send(R"({"filename":"a.png","subfolder":"sub"})",
                     media::encode_jpeg(media::to_rgb(mask))))["name"] == "masked (1).png");
  auto files = server.files();
  for (auto wrong : {std::pair{R"({"filename":"nope.png"})", 404},
                     {R"({"filename":"a.png","subfolder":"../.."})", 403},
                     {R"({"filename":"../a.png"})", 400},
                     {R"({"filename":"a.png","type":"x"})", 400},
                     {R"({"filename":7})", 400},
                     {R"([1])", 400},
                     {R"({)", 400}})
    CHECK_MESSAGE(send(wrong.first, bytes).status == wrong.second, wrong.first);
  CHECK(post_form(server.router, "/upload/mask", {{"image", bytes, "masked.png"}}).status == 400);
  auto wider = send(R"({"filename":"a.png","subfolder":"sub"})",
                    media::encode_png(media::blank_image(3, 1, 4)));
  CHECK(wider.status == 400);
  CHECK(wider.body.find("3 x 1") != std::string::npos);
  CHECK(send(R"({"filename":"a.png","subfolder":"sub"})", "no picture").status == 400);
  auto bomb = bytes;
  for (int at : {16, 20}) bomb.replace(at, 4, std::string("\0\0\x4e\x20", 4));
  CHECK(send(R"({"filename":"a.png","subfolder":"sub"})", bomb).status == 400);
  CHECK(server.files() == files);
}
