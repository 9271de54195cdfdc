#include "distorch/server/static_files.h"

#include <doctest/doctest.h>
#include <unistd.h>

#include <fstream>

#include "distorch/server/answer.h"

using namespace distorch::server;
namespace fs = std::filesystem;

namespace {

// A page of a few files; gone with the object.
struct Page {
  Page() : root(fs::temp_directory_path() / ("distorch_page_" + std::to_string(::getpid()))) {
    write("page/index.html", "<html>" + std::string(3000, 'x'));
    write("page/assets/app-AbCd1234.js", std::string(5000, 'j'));
    write("page/assets/images/a.svg", std::string(5000, 's'));
    write("page/scripts/app.js", "export {}");
    write("page/user.css", "a{}");
    write("page/assets/font-AbCd1234.woff2", std::string(5000, 'f'));
    write("outside.txt", "secret");
    write("page/.hidden", "secret");
    fs::create_symlink(root / "outside.txt", root / "page/link.txt");
  }
  ~Page() { fs::remove_all(root); }

  void write(const std::string& name, const std::string& content) const {
    fs::create_directories((root / name).parent_path());
    std::ofstream(root / name, std::ios::binary) << content;
  }
  fs::path root;
};

std::string header_of(const Response& response, const std::string& name) {
  for (const auto& [key, value] : response.headers)
    if (key == name) return value;
  return "";
}

Request from(const std::string& peer) {
  return {.headers = {{"accept-encoding", "gzip"}}, .peer = peer};
}

}  // namespace

TEST_CASE("static files: types and how long they may be kept") {
  Page page;
  StaticFiles files(page.root / "page");
  auto js = files.answer({}, "assets/app-AbCd1234.js");
  CHECK(js.status == 200);
  CHECK(header_of(js, "Content-Type") == "text/javascript; charset=utf-8");
  CHECK(header_of(js, "Cache-Control") == "public, max-age=31536000, immutable");
  CHECK(header_of(files.answer({}, "index.html"), "Cache-Control") == "no-cache");
  CHECK(header_of(files.answer({}, "scripts/app.js"), "Cache-Control") == "no-cache");
  CHECK(header_of(files.answer({}, "user.css"), "Content-Type") == "text/css; charset=utf-8");
  auto picture = files.answer({}, "assets/images/a.svg");
  CHECK(header_of(picture, "Content-Type") == "image/svg+xml");
  CHECK(header_of(picture, "Cache-Control") == "public, max-age=86400");
  CHECK(static_content_type("a.WASM") == "application/wasm");
  CHECK(static_content_type("a.mjs") == "text/javascript; charset=utf-8");
  CHECK(static_content_type("x") == "application/octet-stream");
}

TEST_CASE("static files: nothing outside of the folder") {
  Page page;
  StaticFiles files(page.root / "page");
  const std::string outside[] = {
      "",           "..",      "../outside.txt", "/etc/passwd", "a/../b",
      "./user.css", ".hidden", "assets",         "link.txt",    "assets//x",
      "a\\b",       "assets/", "none.html",      "user.css/x",  std::string("user.css\0", 9)};
  for (const std::string& name : outside) {
    CAPTURE(name);
    CHECK(files.answer({}, name).status == 404);
  }
}

TEST_CASE("static files: texts are packed once for other machines") {
  Page page;
  StaticFiles files(page.root / "page");
  auto near = files.answer(from("127.0.0.1"), "assets/app-AbCd1234.js");
  CHECK(near.file);
  CHECK(files.cached_bytes() == 0);
  auto far = files.answer(from("192.168.1.2"), "assets/app-AbCd1234.js");
  CHECK_FALSE(far.file);
  CHECK(header_of(far, "Content-Encoding") == "gzip");
  CHECK(header_of(far, "Vary") == "Accept-Encoding");
  CHECK(far.body.size() < 200);
  CHECK(files.cached_bytes() == far.body.size());
  CHECK(files.answer(from("192.168.1.2"), "assets/app-AbCd1234.js").body == far.body);
  CHECK(files.cached_bytes() == far.body.size());
  CHECK(files.answer(from("192.168.1.2"), "assets/font-AbCd1234.woff2").file);
  CHECK(files.answer(from("192.168.1.2"), "user.css").file);
  // An unchanged one is not sent again.
  Request again = from("192.168.1.2");
  again.headers["if-none-match"] = header_of(far, "ETag");
  CHECK(make_answer(again, far).head.starts_with("HTTP/1.1 304"));
  // A changed one is packed again.
  page.write("page/assets/app-AbCd1234.js", std::string(9000, 'k'));
  auto changed = files.answer(from("192.168.1.2"), "assets/app-AbCd1234.js");
  CHECK(header_of(changed, "ETag") != header_of(far, "ETag"));
  CHECK(files.cached_bytes() == changed.body.size());
}

TEST_CASE("static files: packed forms have a limit") {
  Page page;
  for (int i = 0; i < 20; ++i)
    page.write("page/" + std::to_string(i) + ".txt", std::string(5000, 'x'));
  StaticFiles files(page.root / "page", {.cache_bytes = 150});
  for (int i = 0; i < 20; ++i) {
    auto answer = files.answer(from("10.0.0.1"), std::to_string(i) + ".txt");
    CHECK(header_of(answer, "Content-Encoding") == "gzip");
    CHECK(files.cached_bytes() <= 150);
  }
  CHECK(files.cached_bytes() > 0);
}

TEST_CASE("page: its routes, and what is said without it") {
  Page page;
  page.write("docs/KSampler/en.md", "# KSampler");
  page.write("templates/default.json", "{}");
  PageState state({page.root / "page", page.root / "templates", page.root / "docs"});
  Router router;
  add_page_routes(router, state);
  CHECK(router.handle({.path = "/"}).status == 200);
  CHECK(header_of(router.handle({.path = "/"}), "Content-Type") == "text/html; charset=utf-8");
  CHECK(router.handle({.path = "/assets/app-AbCd1234.js"}).status == 200);
  CHECK(router.handle({.path = "/docs/KSampler/en.md"}).status == 200);
  CHECK(router.handle({.path = "/templates/default.json"}).status == 200);
  CHECK(router.handle({.path = "/api/workflow_templates"}).body == "{}");
  CHECK(router.handle({.path = "/%2e%2e/outside.txt"}).status == 404);
  CHECK(router.handle({.path = "/..%2foutside.txt"}).status == 404);
  CHECK(router.handle({.path = "/api/nothing"}).status == 404);

  PageState nothing(PageFolders{page.root / "no", page.root / "no", page.root / "no"});
  Router bare;
  add_page_routes(bare, nothing);
  auto said = bare.handle({.path = "/"});
  CHECK(said.status == 503);
  CHECK(said.body.find("tools/setup.sh") != std::string::npos);
  CHECK(bare.handle({.path = "/templates/index.json"}).status == 404);
}

TEST_CASE("page: the list of templates names those that can run") {
  Page page;
  page.write("templates/index.json", R"([
    {"title": "A", "templates": [{"name": "good"}, {"name": "bad"}, {"name": "inside"}, {"name": "gone"}]},
    {"title": "B", "templates": [{"name": "bad"}]}])");
  page.write("templates/index.de.json", R"([{"title": "C", "templates": [{"name": "good"}]}])");
  page.write("templates/good.json", R"({"nodes": [{"type": "KSampler"}, {"type": "Note"},
    {"type": "sub"}], "definitions": {"subgraphs": [{"id": "sub", "nodes": [{"type": "KSampler"}]}]}})");
  page.write("templates/bad.json", R"({"nodes": [{"type": "Unknown"}]})");
  page.write("templates/inside.json", R"({"nodes": [{"type": "sub"}],
    "definitions": {"subgraphs": [{"id": "sub", "nodes": [{"type": "Unknown"}]}]}})");
  PageState state({page.root / "page", page.root / "templates", page.root / "docs"});
  state.knows_node = [](const std::string& type) { return type == "KSampler"; };
  Router router;
  add_page_routes(router, state);
  auto list = router.handle({.path = "/templates/index.json"});
  CHECK(list.body == R"([{"title":"A","templates":[{"name":"good"}]}])");
  CHECK(header_of(list, "Content-Type").starts_with("application/json"));
  CHECK(router.handle({.path = "/templates/index.de.json"}).body ==
        R"([{"title":"C","templates":[{"name":"good"}]}])");
  CHECK(router.handle({.path = "/templates/good.json"}).status == 200);
}
