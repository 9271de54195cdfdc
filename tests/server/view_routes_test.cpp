#include "distorch/server/view_routes.h"

#include "distorch/media/jpeg.h"
#include "distorch/media/png.h"
#include "distorch/media/webp.h"
#include "tests/server/ask.h"
#include "tests/server/fake_surroundings.h"

using namespace distorch;
using namespace distorch::server;
using namespace distorch::test;
namespace fs = std::filesystem;

namespace {

/// Four pixels: the alpha goes up, the red too.
media::Image small_picture() {
  auto picture = media::blank_image(2, 2, 4);
  picture.pixels = {10, 200, 30, 0, 20, 200, 30, 85, 30, 200, 30, 170, 40, 200, 30, 255};
  return picture;
}

struct Viewer {
  explicit Viewer(const std::string& name) : folder(name) {
    write(folder.path() / "output" / "a.png", media::encode_png(small_picture()));
    add_view_routes(router, state);
  }
  Response view(const std::string& query) { return get(router, "/view?" + query); }
  media::Image seen(const std::string& query) {
    auto answer = view(query);
    CHECK_MESSAGE(answer.status == 200, answer.body);
    return media::decode_png(content_of(answer), "answer");
  }

  TemporaryFolder folder;
  FileFolders folders{folder.path() / "input", folder.path() / "output", folder.path() / "temp",
                      folder.path() / "user"};
  FakeModels models;
  ViewState state{folders, models};
  Router router;
};

/// A safetensors file whose header is this text.
std::string with_header(const std::string& header, std::uint64_t claimed = 0) {
  std::string bytes(8, '\0');
  std::uint64_t length = claimed ? claimed : header.size();
  for (int i = 0; i < 8; ++i) bytes[i] = static_cast<char>(length >> 8 * i);
  return bytes + header;
}

}  // namespace

TEST_CASE("view: a file as it is, from the folder that type, subfolder and name say") {
  Viewer server("view");
  auto answer = server.view("filename=a.png&rand=0.5");
  CHECK(answer.status == 200);
  CHECK(answer.file == server.folders.output / "a.png");
  CHECK(header_of(answer, "Content-Type") == "image/png");
  CHECK(header_of(answer, "Content-Disposition") == "filename=\"a.png\"");
  CHECK(header_of(answer, "X-Content-Type-Options") == "nosniff");
  write(server.folders.input / "sub dir" / "b.png", "input");
  write(server.folders.temp / "b.png", "temp");
  CHECK(content_of(server.view("type=input&filename=b.png&subfolder=sub%20dir")) == "input");
  CHECK(content_of(server.view("type=input&filename=sub/b.png&subfolder=sub+dir")) == "input");
  CHECK(content_of(server.view("type=input&filename=b.png%20%5Btemp%5D")) == "temp");
  CHECK(get(server.router, "/api/view?filename=a.png").status == 200);
  CHECK(ask(server.router, Method::Head, "/view?filename=a.png").status == 200);
}

TEST_CASE("view: what is refused, and how") {
  Viewer server("view_refused");
  CHECK(server.view("").status == 404);
  CHECK(server.view("filename=nope.png").status == 404);
  for (const char* query :
       {"filename=", "filename=a.png&type=user", "filename=/etc/passwd", "filename=../a.png",
        "filename=%2e%2e/a.png", "filename=a%00.png", "filename=%5Ca.png", "filename=NUL",
        "filename=a.png/", "filename=%ff.png", "filename=[output]"})
    CHECK_MESSAGE(server.view(query).status == 400, query);
  for (const char* subfolder : {"..", "../output", "/etc", "a/../../..", "..%5C..", "C:%5Cwindows"})
    CHECK_MESSAGE(server.view(std::string("filename=a.png&subfolder=") + subfolder).status == 403,
                  subfolder);
  fs::create_symlink("/etc/hostname", server.folders.output / "link.png");
  CHECK(server.view("filename=link.png").status == 400);
  fs::create_directory(server.folders.output / "folder.png");
  CHECK(server.view("filename=folder.png").status == 404);
}

TEST_CASE("view: pages, scripts and drawings are never served as such") {
  Viewer server("view_types");
  for (const char* name : {"a.html", "a.svg", "a.js", "a.xml", "A.HTML"}) {
    write(server.folders.output / name, "<script>alert(1)</script>");
    auto answer =
        get(server.router, std::string("/view?filename=") + name, {{"sec-fetch-dest", "image"}});
    CHECK(header_of(answer, "Content-Type") == "application/octet-stream");
    CHECK(header_of(answer, "Content-Disposition").find("attachment; ") == 0);
  }
}

TEST_CASE("view: channels") {
  Viewer server("view_channels");
  auto colours = server.seen("filename=a.png&channel=rgb");
  CHECK(colours.channels == 3);
  CHECK(colours.pixels ==
        std::vector<std::uint8_t>{10, 200, 30, 20, 200, 30, 30, 200, 30, 40, 200, 30});
  auto alpha = server.seen("filename=a.png&channel=a");
  CHECK(alpha.pixels ==
        std::vector<std::uint8_t>{0, 0, 0, 0, 0, 0, 0, 85, 0, 0, 0, 170, 0, 0, 0, 255});
  CHECK(server.seen("filename=a.png&channel=rgba") == small_picture());
  CHECK(server.view("filename=a.png&channel=rgba").file);
  write(server.folders.output / "opaque.png", media::encode_png(media::to_rgb(small_picture())));
  auto opaque = server.seen("filename=opaque.png&channel=a");
  CHECK(opaque.pixels[3] == 255);
  CHECK(opaque.pixels[0] == 0);
}

TEST_CASE("view: previews") {
  Viewer server("view_previews");
  auto type = [&](const std::string& query) {
    auto answer = server.view("filename=a.png&" + query);
    CHECK(answer.status == 200);
    auto bytes = content_of(answer);
    bool jpeg = media::is_jpeg(bytes);
    CHECK(header_of(answer, "Content-Type") == (jpeg ? "image/jpeg" : "image/webp"));
    if (jpeg) return std::string("jpeg");
    return "webp " + std::to_string(media::decode_webp(bytes, "answer").channels);
  };
  CHECK(type("preview=webp;90") == "webp 4");
  CHECK(type("preview=jpeg;80") == "jpeg");
  CHECK(type("preview=jpeg") == "jpeg");
  CHECK(type("preview=png;90") == "webp 4");
  CHECK(type("preview=jpeg&channel=rgba") == "webp 4");
  CHECK(type("preview=webp&channel=rgb") == "webp 3");
  CHECK(type("preview=webp;999999999999") == "webp 4");
  CHECK(type("preview=") == "webp 4");
  // The quality is obeyed.
  auto noise = media::blank_image(64, 64, 3);
  for (std::size_t i = 0; i < noise.pixels.size(); ++i)
    noise.pixels[i] = static_cast<std::uint8_t>(i * 2654435761u >> 13);
  write(server.folders.output / "noise.png", media::encode_png(noise));
  auto size = [&](const std::string& preview) {
    return content_of(server.view("filename=noise.png&preview=" + preview)).size();
  };
  CHECK(size("jpeg;20") * 2 < size("jpeg;95"));
  CHECK(size("webp;20") * 2 < size("webp;95"));
}

TEST_CASE("view: what is no picture, or claims to be a giant one, is not decoded") {
  Viewer server("view_bomb");
  write(server.folders.output / "text.png", "no picture");
  CHECK(server.view("filename=text.png&preview=webp").status == 400);
  auto bytes = media::encode_png(small_picture());
  // 20,000 x 20,000 pixels.
  for (int at : {16, 20}) bytes.replace(at, 4, std::string("\0\0\x4e\x20", 4));
  write(server.folders.output / "bomb.png", bytes);
  auto answer = server.view("filename=bomb.png&channel=a");
  CHECK(answer.status == 400);
  CHECK(answer.body.find("20000 x 20000") != std::string::npos);
  CHECK(server.view("filename=bomb.png").status == 200);
}

TEST_CASE("view metadata: what a model file says about itself") {
  Viewer server("view_metadata");
  auto loras = server.folder.path() / "loras";
  server.models.places["loras"] = {loras};
  write(
      loras / "a.safetensors",
      with_header(R"({"__metadata__":{"ss_b":"2","ss_a":"1"},"w":{"dtype":"F32","shape":[1,2]}})"));
  CHECK(json_of(get(server.router, "/view_metadata/loras?filename=a.safetensors")).dump() ==
        R"({"ss_b":"2","ss_a":"1"})");
  write(loras / "none.safetensors", with_header(R"({"w":{"dtype":"F32"}})"));
  write(loras / "nested.safetensors", with_header(R"({"w":{"__metadata__":{"a":"b"}}})"));
  write(loras / "broken.safetensors", with_header("{\"__metadata__\":{"));
  write(loras / "short.safetensors", "abc");
  write(loras / "lying.safetensors", with_header("{}", 1 << 19));
  write(loras / "long.safetensors", with_header("{}", std::uint64_t{1} << 62));
  write(loras / "a.pt", "x");
  for (const char* name :
       {"none.safetensors", "nested.safetensors", "broken.safetensors", "short.safetensors",
        "lying.safetensors", "long.safetensors", "a.pt", "absent.safetensors", ""})
    CHECK_MESSAGE(
        get(server.router, std::string("/view_metadata/loras?filename=") + name).status == 404,
        name);
  CHECK(get(server.router, "/view_metadata/nope?filename=a.safetensors").status == 404);
}
