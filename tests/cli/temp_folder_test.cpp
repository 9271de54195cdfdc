#include "distorch/cli/temp_folder.h"

#include <doctest/doctest.h>
#include <unistd.h>

#include "tests/server/ask.h"

using namespace distorch;
using namespace distorch::test;
namespace fs = std::filesystem;

TEST_CASE("temp folder: everything goes, but nothing behind links and no weights in use") {
  TemporaryFolder folder("temp_folder");
  auto temp = folder.path() / "temp";
  auto own = std::to_string(::getpid()) + "-1.safetensors";
  write(folder.path() / "kept" / "a.png", "");
  write(temp / "a.png", "");
  write(temp / "sub" / "b.png", "");
  write(temp / "mixed" / own, "");
  write(temp / "mixed" / "999999999-1.safetensors", "");
  fs::create_directory_symlink(folder.path() / "kept", temp / "link");
  cli::empty_temp_folder(temp / "");
  CHECK(fs::exists(folder.path() / "kept" / "a.png"));
  CHECK(fs::exists(temp / "mixed" / own));
  fs::remove_all(temp / "mixed" / own);
  cli::empty_temp_folder(temp);
  CHECK(fs::is_empty(temp / "mixed"));
  fs::remove(temp / "mixed");
  CHECK(fs::is_empty(temp));
}

TEST_CASE("temp folder: only one of that name is emptied") {
  TemporaryFolder folder("other_folder");
  write(folder.path() / "pictures" / "a.png", "");
  cli::empty_temp_folder(folder.path() / "pictures");
  cli::empty_temp_folder(folder.path() / "none" / "temp");
  CHECK(fs::exists(folder.path() / "pictures" / "a.png"));
}
