#include "distorch/nodes/output_numbers.h"

#include <doctest/doctest.h>

#include <fstream>
#include <thread>

#include "distorch/nodes/output_files.h"
#include "tests/nodes/tiny_app.h"

using namespace distorch;
using namespace distorch::test;
using nodes::output_numbers;
using nodes::write_numbered;

namespace {

void touch(const fs::path& file) { std::ofstream(file) << "foreign"; }

/// Two changes of a folder are to have two times.
void let_the_clock_tick() { std::this_thread::sleep_for(std::chrono::milliseconds(150)); }

std::string content_of(const fs::path& file) {
  std::ifstream in(file);
  return {std::istreambuf_iterator<char>(in), {}};
}

}  // namespace

TEST_CASE("output numbers: a folder is looked through at the first save, not at each") {
  TemporaryFolder folder("looked_once");
  auto a = nodes::output_place("a", folder), b = nodes::output_place("b", folder);
  auto before = output_numbers().looks();
  for (int i = 0; i < 50; ++i) {
    write_numbered(a, ".png", "x");
    write_numbered(b, ".webp", "y", "");
  }
  // Twice for a name at most: the folder has just been made, and may change again within the tick.
  CHECK(output_numbers().looks() - before <= 4);
  CHECK(fs::exists(folder.path() / "a_00050_.png"));
  CHECK(fs::exists(folder.path() / "b_00050.webp"));
}

TEST_CASE("output numbers: a foreign file in between is seen, and never written over") {
  TemporaryFolder folder("foreign");
  auto place = nodes::output_place("a", folder);
  CHECK(write_numbered(place, ".png", "ours") == "a_00001_.png");
  // Within the same tick as ours: it may not be seen, but its name is taken.
  touch(folder.path() / "a_00002_.png");
  CHECK(write_numbered(place, ".png", "ours") == "a_00003_.png");
  CHECK(content_of(folder.path() / "a_00002_.png") == "foreign");
  let_the_clock_tick();
  touch(folder.path() / "a_00020_.webp");
  CHECK(write_numbered(place, ".png", "ours") == "a_00021_.png");
  // Emptied, it begins anew.
  let_the_clock_tick();
  for (const auto& entry : fs::directory_iterator(folder.path())) fs::remove(entry);
  CHECK(write_numbered(place, ".png", "ours") == "a_00001_.png");
  fs::remove_all(folder.path());
  fs::create_directories(folder.path());
  CHECK(write_numbered(place, ".png", "ours") == "a_00001_.png");
}

TEST_CASE("output numbers: two who save at one time get two names for two files") {
  TemporaryFolder folder("two");
  auto place = nodes::output_place("a", folder);
  constexpr int kEach = 40;
  auto save = [&](const std::string& content) {
    for (int i = 0; i < kEach; ++i) write_numbered(place, ".png", content);
  };
  std::thread other(save, "other");
  save("one");
  other.join();
  int ones = 0, others = 0;
  for (const auto& entry : fs::directory_iterator(folder.path()))
    (content_of(entry.path()) == "one" ? ones : others) += 1;
  CHECK(ones == kEach);
  CHECK(others == kEach);
}
