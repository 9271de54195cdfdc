// Sizes, times and files at the edges of what they can be.
#include <doctest/doctest.h>
#include <unistd.h>

#include <cmath>
#include <filesystem>
#include <limits>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "distorch/base/align.h"
#include "distorch/base/atomic_file.h"
#include "distorch/base/cache_folder.h"
#include "distorch/base/error.h"
#include "distorch/base/run_token.h"
#include "distorch/base/units.h"

using namespace distorch;

namespace {

struct Folder {
  std::filesystem::path path =
      std::filesystem::temp_directory_path() / ("distorch_limits_" + std::to_string(::getpid()));
  Folder() { std::filesystem::create_directories(path); }
  ~Folder() { std::filesystem::remove_all(path); }
  std::size_t count() const {
    return static_cast<std::size_t>(std::distance(std::filesystem::directory_iterator(path), {}));
  }
};

template <class Call>
std::string refusal(Call call, ErrorKind kind) {
  try {
    call();
  } catch (const Error& error) {
    CHECK((error.kind() == kind));
    return error.what();
  }
  return "accepted";
}

/// An environment variable for as long as the object lives.
class Variable {
 public:
  Variable(const char* name, const char* value) : name_(name) {
    if (const char* there = std::getenv(name)) before_ = there;
    value ? ::setenv(name, value, 1) : ::unsetenv(name);
  }
  ~Variable() { before_ ? ::setenv(name_, before_->c_str(), 1) : ::unsetenv(name_); }

 private:
  const char* name_;
  std::optional<std::string> before_;
};

}  // namespace

TEST_CASE("sizes: every unit in every spelling, blanks around it") {
  std::int64_t power = 1;
  for (std::string letter : {"", "k", "m", "g", "t"}) {
    for (std::string tail : {"", "b", "ib"}) {
      if (letter.empty() && tail == "ib") continue;
      auto unit = letter + tail;
      for (std::string text : {"3" + unit, "3 " + unit, "3\t" + unit + " ", " 3" + unit}) {
        CAPTURE(text);
        CHECK(parse_bytes(text) == 3 * power);
      }
      for (char& c : unit) c = static_cast<char>(std::toupper(c));
      CHECK(parse_bytes("0.5" + unit) == power / 2);
    }
    power *= 1024;
  }
  CHECK(parse_bytes("0") == 0);
  CHECK(parse_bytes("8000000t") == 8000000 * (std::int64_t{1} << 40));
}

TEST_CASE("sizes: what is none says what it lacks and what would do") {
  const std::string help = "; write for example 10GiB, 512MiB or 4096";
  auto said = [](const std::string& text) {
    return refusal([&] { parse_bytes(text); }, ErrorKind::Usage);
  };
  for (std::string text : {"", "GiB", "inf", "nan", "-inf"}) {
    CAPTURE(text);
    CHECK(said(text) == "size '" + text + "': is not a number with a unit" + help);
  }
  CHECK(said("-0.1k") == "size '-0.1k': is negative" + help);
  for (std::string text : {"1 x", "1 ki", "1 bb", "1 kbb", "1 kb b", "1 p", "1,5 g", "1ibk"}) {
    CAPTURE(text);
    CHECK(said(text) == "size '" + text + "': has an unknown unit" + help);
  }
  CHECK(said("9000000t") == "size '9000000t': is too large" + help);
}

TEST_CASE("sizes and times are printed in the unit that they reach") {
  const std::vector<std::pair<double, const char*>> bytes = {
      {0, "0 B"},         {1023, "1023 B"},           {1024, "1.0 KiB"},
      {1536, "1.5 KiB"},  {1024.0 * 1024, "1.0 MiB"}, {1024.0 * 1024 * 1024, "1.00 GiB"},
      {-2048, "-2.0 KiB"}};
  for (auto [size, text] : bytes) CHECK(human_bytes(size) == text);
  const std::vector<std::pair<double, const char*>> seconds = {
      {0, "0.0 s"},        {59.94, "59.9 s"},   {59.96, "1:00"},
      {60, "1:00"},        {61.4, "1:01"},      {3599.4, "59:59"},
      {3599.6, "1:00:00"}, {86399, "23:59:59"}, {360000, "100:00:00"}};
  for (auto [time, text] : seconds) CHECK(human_seconds(time) == text);
  CHECK(human_seconds(std::numeric_limits<double>::infinity()) == "?");
  CHECK(human_seconds(std::nan("")) == "?");
}

TEST_CASE("align: the multiples around every number") {
  for (std::int64_t to : {1, 2, 3, 512, 4096})
    for (std::int64_t value = 0; value < 3 * to; value += std::max<std::int64_t>(1, to / 3)) {
      CHECK(align_down(value, to) % to == 0);
      CHECK(align_up(value, to) % to == 0);
      CHECK(align_down(value, to) <= value);
      CHECK(value - align_down(value, to) < to);
      CHECK(align_up(value, to) >= value);
      CHECK(align_up(value, to) - value < to);
    }
}

TEST_CASE("error: no place, no colon; every kind has its own word") {
  CHECK(std::string(Error(ErrorKind::Usage, "", "is wrong").what()) == "is wrong");
  std::set<std::string> words;
  for (auto kind :
       {ErrorKind::Usage, ErrorKind::Format, ErrorKind::MissingFile, ErrorKind::MissingWeight,
        ErrorKind::Shape, ErrorKind::OutOfMemory, ErrorKind::Interrupted, ErrorKind::Internal})
    words.insert(name_of(kind));
  CHECK(words.size() == 8);
}

TEST_CASE("files: holes are zeros, a name is given once, what was there is replaced whole") {
  Folder folder;
  auto path = folder.path / "a";
  write_file(path, "before");
  {
    AtomicFile file(path);
    file.write("x");
    file.write_hole(5000);
    file.write("y");
    CHECK(read_file(path) == "before");
    file.commit();
  }
  auto bytes = read_file(path);
  CHECK(bytes == "x" + std::string(5000, '\0') + "y");
  CHECK(folder.count() == 1);
  {
    AtomicFile file(path);
    file.write("end");
    file.write_hole(3);
    CHECK(file.commit_if_absent(folder.path / "b"));
    CHECK(file.path() == folder.path / "b");
  }
  CHECK(read_file(folder.path / "b") == std::string("end\0\0\0", 6));
  CHECK(folder.count() == 2);
  // Two writers of one name do not meet before they commit.
  {
    AtomicFile first(path), second(path);
    first.write("1");
    second.write("2");
    second.commit();
    first.commit();
  }
  CHECK(read_file(path) == "1");
  CHECK(folder.count() == 2);
}

TEST_CASE("files: a limit, a folder, a file that is not there") {
  Folder folder;
  auto path = folder.path / "five";
  write_file(path, "12345");
  CHECK(read_file(path, 5) == "12345");
  CHECK(refusal([&] { read_file(path, 4); }, ErrorKind::Format) ==
        path.string() + ": has 5 bytes, more than the 4 expected here");
  CHECK(refusal([&] { read_file(folder.path); }, ErrorKind::MissingFile) ==
        folder.path.string() + ": is a folder, not a file");
  CHECK(refusal([&] { read_file(folder.path / "none"); }, ErrorKind::MissingFile) ==
        (folder.path / "none").string() + ": cannot be read: No such file or directory");
  write_file(folder.path / "empty", "");
  CHECK(read_file(folder.path / "empty", 0).empty());
  // A folder of that name cannot be replaced, and what was written is gone.
  std::filesystem::create_directories(folder.path / "taken" / "inside");
  CHECK(refusal([&] { write_file(folder.path / "taken", "x"); }, ErrorKind::Usage)
            .find("cannot rename into place") != std::string::npos);
  CHECK(folder.count() == 3);
}

TEST_CASE("cache folder: the variable of its kind, else below home, else here") {
  {
    Variable cache("XDG_CACHE_HOME", "/c"), home("HOME", "/h");
    CHECK(cache_folder() == "/c/distorch");
  }
  for (const char* none : {static_cast<const char*>(nullptr), ""}) {
    Variable cache("XDG_CACHE_HOME", none);
    {
      Variable home("HOME", "/h");
      CHECK(cache_folder() == "/h/.cache/distorch");
    }
    Variable home("HOME", none);
    CHECK(cache_folder() == "./.cache/distorch");
  }
}

TEST_CASE("run token: an interrupt says so and stays, an end is no interrupt") {
  RunToken token("7");
  CHECK(token.prompt_id() == "7");
  token.end();
  CHECK(token.ended());
  CHECK_NOTHROW(token.throw_if_stopped());
  token.interrupt();
  for (int i = 0; i < 2; ++i)
    CHECK(refusal([&] { token.throw_if_stopped(); }, ErrorKind::Interrupted) == "interrupted");
  // What was asked first is what is told, though the time is over too.
  token.set_deadline(RunToken::Clock::now() - std::chrono::seconds(1));
  CHECK(refusal([&] { token.throw_if_stopped(); }, ErrorKind::Interrupted) == "interrupted");
  CHECK_FALSE(RunToken().interrupted());
}
