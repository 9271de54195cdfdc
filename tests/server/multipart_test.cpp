#include "distorch/server/multipart.h"

#include <doctest/doctest.h>

#include "distorch/base/error.h"

using namespace distorch;
using namespace distorch::server;

namespace {

const std::string kType = "multipart/form-data; boundary=\"a b\"";

std::string refusal(const std::string& body, const std::string& type = kType,
                    const FormLimits& limits = {}) {
  try {
    read_form(body, type, limits);
    return "";
  } catch (const Error& error) {
    CHECK(error.kind() == ErrorKind::Usage);
    return error.sentence();
  }
}

}  // namespace

TEST_CASE("form: fields, files, contents that look like boundaries") {
  std::string body =
      "preamble\r\n--a b\r\nContent-Disposition: form-data; name=\"image\"; "
      "filename=\"x \\\"y\\\" %22z%22.png\"\r\nContent-Type: image/png\r\n\r\n"
      "\x89PNG\r\n--a\r\n\r\n--a c\r\n\r\n--a b\t\r\n"
      "content-disposition: FORM-DATA;name=type ; other\r\n\r\ninput\r\n--a b\r\n"
      "Content-Disposition: form-data; filename*=utf-8''q; name=\"empty\"\r\n\r\n\r\n--a "
      "b--\r\nepilogue";
  auto form = read_form(body, kType);
  REQUIRE(form.size() == 3);
  CHECK(form[0].name == "image");
  CHECK(form[0].filename == "x \"y\" \"z\".png");
  CHECK(form[0].content_type == "image/png");
  CHECK(form[0].content == "\x89PNG\r\n--a\r\n\r\n--a c\r\n");
  CHECK(text_of(form, "type") == "input");
  CHECK(!form[1].filename);
  CHECK(part_of(form, "empty")->content.empty());
  CHECK(text_of(form, "nope", "otherwise") == "otherwise");
  CHECK(part_of(form, "nope") == nullptr);
}

TEST_CASE("form: a name from Windows keeps its backslashes") {
  auto form = read_form(
      "--a b\r\nContent-Disposition: form-data; name=\"image\"; filename=\"C:\\dir\\x.png\"\r\n\r\n"
      "\r\n--a b--",
      kType);
  CHECK(form[0].filename == "C:\\dir\\x.png");
}

TEST_CASE("form: no part at all") { CHECK(read_form("--a b--\r\n", kType).empty()); }

TEST_CASE("form: what is wrong is said") {
  std::string part = "--a b\r\nContent-Disposition: form-data; name=\"x\"\r\n\r\n1\r\n";
  CHECK(refusal(part + "--a b--") == "");
  CHECK(refusal(part).find("closing boundary") != std::string::npos);
  CHECK(refusal("").find("closing boundary") != std::string::npos);
  CHECK(refusal(part + "--a bc").find("line break") != std::string::npos);
  CHECK(refusal("--a b\r\nContent-Disposition: form-data\r\n\r\n1\r\n--a b--")
            .find("without a name") != std::string::npos);
  CHECK(refusal("--a b\r\nnonsense\r\n\r\n1\r\n--a b--").find("colon") != std::string::npos);
  CHECK(refusal("--a b\r\n\r\n1\r\n--a b--").find("without a name") != std::string::npos);
  CHECK(refusal("--a b\r\nX: " + std::string(9000, 'x')).find("8192") != std::string::npos);
  CHECK(refusal("x", "application/json").find("'application/json'") != std::string::npos);
  CHECK(refusal("x", "multipart/form-data").find("boundary of 1 to 70") != std::string::npos);
  CHECK(refusal("x", "multipart/form-data; boundary=" + std::string(71, 'b')) != "");
  std::string many;
  for (int i = 0; i < 65; ++i) many += part;
  CHECK(refusal(many + "--a b--").find("more than 64 parts") != std::string::npos);
}
