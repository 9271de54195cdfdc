#include "distorch/server/confined_path.h"

#include <doctest/doctest.h>

#include <fstream>

#include "distorch/base/error.h"
#include "tests/support/temporary_folder.h"

using namespace distorch;
using namespace distorch::server;
using distorch::test::TemporaryFolder;
namespace fs = std::filesystem;

namespace {

/// Why a name is refused; "" where it is not.
std::string refusal(const fs::path& folder, std::string_view name) {
  try {
    confined_file(folder, name);
    return "";
  } catch (const Error& error) {
    CHECK(error.kind() == ErrorKind::Usage);
    return error.sentence();
  }
}

}  // namespace

TEST_CASE("confined path: ordinary names stay as they are") {
  TemporaryFolder folder("confined");
  CHECK(confined_path(folder, "a.png") == folder.path() / "a.png");
  CHECK(confined_path(folder, "a/b/c.json") == folder.path() / "a" / "b" / "c.json");
  CHECK(confined_path(folder, "a\\b.json") == folder.path() / "a" / "b.json");
  CHECK(confined_path(folder, "./a//b.json") == folder.path() / "a" / "b.json");
  CHECK(confined_path(folder, "") == folder.path());
  for (const char* name : {"..a.png", "a..b.png", "…", "комфи (1).png", "ab: c.json", ".index.json",
                           "console.json", "com10.txt", "nullable", "100%.json", "a b .json"})
    CHECK_MESSAGE(refusal(folder, name) == "", name);
}

TEST_CASE("confined path: names that lead out are refused") {
  TemporaryFolder folder("confined_out");
  for (const char* name : {"..", "../a", "a/../../b", "a/..", "a\\..\\..\\b", "..\\a", "./../a"})
    CHECK_MESSAGE(refusal(folder, name).find("'..'") != std::string::npos, name);
  for (const char* name : {"/etc/passwd", "\\a", "//host/share", "\\\\host\\share", "C:/a", "c:a"})
    CHECK_MESSAGE(refusal(folder, name).find("absolute") != std::string::npos, name);
}

TEST_CASE("confined path: odd bytes are refused") {
  TemporaryFolder folder("confined_bytes");
  using std::string_view_literals::operator""sv;
  for (auto name : {"a\0b"sv, "a\nb"sv, "a\x7f"sv, "\x1b[2J"sv})
    CHECK(refusal(folder, name).find("control") != std::string::npos);
  // Overlong spellings of "/" and ".", a surrogate, a byte alone, a character cut short, one above
  // the last.
  for (auto name :
       {"..\xc0\xaf"
        "a"sv,
        "\xe0\x80\xae"sv, "\xed\xa0\x80"sv, "\xff"sv, "a\xe2\x82"sv, "\xf4\x90\x80\x80"sv})
    CHECK(refusal(folder, name) == "is not UTF-8");
}

TEST_CASE("confined path: devices of Windows, dots and spaces, lengths, nothing") {
  TemporaryFolder folder("confined_names");
  for (const char* name :
       {"NUL", "con.png", "a/aux", "COM1.tar.gz", "lpt9", "Prn .txt", "com\xc2\xb2"})
    CHECK_MESSAGE(refusal(folder, name).find("device") != std::string::npos, name);
  for (const char* name : {"...", "a/ /b", ". ."})
    CHECK_MESSAGE(refusal(folder, name).find("dots and spaces") != std::string::npos, name);
  CHECK(refusal(folder, std::string(255, 'a')) == "");
  CHECK(refusal(folder, std::string(256, 'a')).find("256 bytes") != std::string::npos);
  std::string deep;
  for (int i = 0; i < 1500; ++i) deep += "a/";
  CHECK(refusal(folder, deep).find("more than the 2000") != std::string::npos);
  for (const char* name : {"", ".", "./", "a/.."}) CHECK(refusal(folder, name) != "");
}

TEST_CASE("confined path: links are followed, but not out of the folder") {
  TemporaryFolder outside("confined_outside"), place("confined_links");
  auto folder = place.path() / "real";
  fs::create_directories(folder / "sub");
  std::ofstream(outside.path() / "secret.txt") << "x";
  fs::create_directory_symlink(outside.path(), folder / "away");
  fs::create_symlink(outside.path() / "secret.txt", folder / "secret.txt");
  fs::create_symlink(outside.path() / "not there yet", folder / "dangling");
  fs::create_directory_symlink(folder / "sub", folder / "inside");
  fs::create_symlink("loop", folder / "loop");
  for (const char* name : {"away/secret.txt", "secret.txt", "away", "dangling", "away/new/file"})
    CHECK_MESSAGE(refusal(folder, name).find("through a link") != std::string::npos, name);
  CHECK(refusal(folder, "loop") != "");
  CHECK(refusal(folder, "inside/a.png") == "");
  // The folder itself may be a link, and may not be there yet.
  fs::create_directory_symlink(folder, place.path() / "linked");
  CHECK(refusal(place.path() / "linked", "sub/a.png") == "");
  CHECK(refusal(place.path() / "linked", "away/a.png") != "");
  CHECK(refusal(place.path() / "later", "sub/a.png") == "");
  CHECK(confined_path("no folder of this name", "sub/a.png") == "no folder of this name/sub/a.png");
}
