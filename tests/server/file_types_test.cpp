#include "distorch/server/file_types.h"

#include <doctest/doctest.h>

using namespace distorch::server;

TEST_CASE("file types: by the ending, whatever its case") {
  CHECK(type_of_name("a.PNG") == "image/png");
  CHECK(type_of_name("a.b.Webm") == "video/webm");
  CHECK(type_of_name("a") == "application/octet-stream");
  CHECK(type_of_name("a.unknown") == "application/octet-stream");
  CHECK(type_of_name("png") == "application/octet-stream");
}

TEST_CASE("file types: what a browser would run or render as a page") {
  for (const char* type :
       {"text/html", "TEXT/HTML; charset=utf-8", " text/html ;a=b", "application/xhtml+xml",
        "image/svg+xml", "application/rss+xml", "text/xml", "application/xml", "text/javascript",
        "application/x-javascript", "application/ecmascript", "text/css", "text/html-sandboxed"})
    CHECK_MESSAGE(may_run(type), type);
  for (const char* type : {"image/png", "text/plain", "application/json", "video/mp4", ""})
    CHECK_MESSAGE(!may_run(type), type);
}

TEST_CASE("file types: pages, scripts and drawings leave as downloads of unknown bytes") {
  auto header = [](const Response& response, const std::string& name) {
    for (const auto& [key, value] : response.headers)
      if (key == name) return value;
    return std::string();
  };
  for (const char* name : {"a.html", "a.HTM", "a.svg", "a.js", "a.mjs", "a.css", "a.xml"}) {
    auto answer = users_file(std::filesystem::path("/x") / name, true);
    CHECK(header(answer, "Content-Type") == "application/octet-stream");
    CHECK(header(answer, "Content-Disposition").find("attachment") == 0);
    CHECK(header(answer, "X-Content-Type-Options") == "nosniff");
  }
  auto picture = users_file("/x/a \"b\".png", true);
  CHECK(header(picture, "Content-Type") == "image/png");
  CHECK(header(picture, "Content-Disposition") == "filename=\"a \\\"b\\\".png\"");
  CHECK(header(users_file("/x/a.png", false), "Content-Disposition").find("attachment") == 0);
}
