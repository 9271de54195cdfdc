#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <thread>

#include "distorch/base/atomic_file.h"
#include "distorch/base/error.h"
#include "distorch/base/run_token.h"
#include "distorch/base/units.h"

using namespace distorch;

TEST_CASE("sizes: powers of 1024 with and without the b") {
  CHECK(parse_bytes("10GiB") == 10737418240);
  CHECK(parse_bytes("1.5gb") == 1610612736);
  CHECK(parse_bytes("512 MiB") == 536870912);
  CHECK(parse_bytes("4096") == 4096);
  CHECK_THROWS_AS(parse_bytes("-1GiB"), Error);
  CHECK_THROWS_AS(parse_bytes("nan"), Error);
  CHECK_THROWS_AS(parse_bytes("5 parsecs"), Error);
  CHECK_THROWS_AS(parse_bytes("1e30GiB"), Error);
}

TEST_CASE("seconds and bytes read well") {
  CHECK(human_seconds(7.34) == "7.3 s");
  CHECK(human_seconds(245) == "4:05");
  CHECK(human_seconds(3723) == "1:02:03");
  CHECK(human_bytes(1536.0 * 1024 * 1024) == "1.50 GiB");
}

TEST_CASE("an error names its place and its kind") {
  Error error(ErrorKind::Format, "a.safetensors", "is cut short");
  CHECK(std::string(error.what()) == "a.safetensors: is cut short");
  CHECK(std::string(name_of(error.kind())) == "format");
}

TEST_CASE("atomic file: nothing is left behind without commit") {
  auto folder = std::filesystem::temp_directory_path() / "distorch_atomic_test";
  std::filesystem::remove_all(folder);
  std::filesystem::create_directories(folder);
  {
    AtomicFile file(folder / "a.txt");
    file.write("half");
  }
  CHECK(std::filesystem::is_empty(folder));
  write_file(folder / "a.txt", "whole");
  CHECK(read_file(folder / "a.txt") == "whole");
  AtomicFile second(folder / "b.txt");
  second.write("other");
  CHECK_FALSE(second.commit_if_absent(folder / "a.txt"));
  CHECK(second.commit_if_absent(folder / "c.txt"));
  CHECK(read_file(folder / "a.txt") == "whole");
  CHECK(read_file(folder / "c.txt") == "other");
  std::filesystem::remove_all(folder);
}

TEST_CASE("atomic file: nothing is left behind where the process is killed") {
  auto folder = std::filesystem::temp_directory_path() / "distorch_atomic_killed";
  std::filesystem::remove_all(folder);
  std::filesystem::create_directories(folder);
  int probe = ::open(folder.c_str(), O_WRONLY | O_TMPFILE | O_CLOEXEC, 0644);
  bool knows_nameless = probe >= 0;
  if (probe >= 0) ::close(probe);
  auto child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    AtomicFile file(folder / "a.txt");
    file.write("half");
    ::kill(::getpid(), SIGKILL);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  if (knows_nameless) CHECK(std::filesystem::is_empty(folder));
  CHECK_FALSE(std::filesystem::exists(folder / "a.txt"));
  std::filesystem::remove_all(folder);
}

TEST_CASE("atomic file: a folder that is not there is named") {
  CHECK_THROWS_WITH(AtomicFile("/nonexistent/x.png"),
                    "/nonexistent/x.png: cannot write: No such file or directory");
}

TEST_CASE("run token: what stops one run leaves the others alone") {
  auto first = std::make_shared<RunToken>("1"), second = std::make_shared<RunToken>("2");
  second->interrupt();
  CHECK_NOTHROW(throw_if_interrupted());
  {
    RunScope outer(first);
    CHECK(current_run() == first);
    CHECK_NOTHROW(throw_if_interrupted());
    {
      RunScope inner(second);
      CHECK(current_run()->prompt_id() == "2");
      CHECK_THROWS_AS(throw_if_interrupted(), Error);
    }
    CHECK_NOTHROW(throw_if_interrupted());
    std::thread([&] {
      CHECK(current_run() == nullptr);
      RunScope joined(second);
      CHECK_THROWS_AS(throw_if_interrupted(), Error);
    }).join();
    CHECK_NOTHROW(throw_if_interrupted());
  }
  CHECK(current_run() == nullptr);
}

TEST_CASE("run token: a run stops once its time is over") {
  RunToken token;
  token.set_deadline(RunToken::Clock::now() + std::chrono::hours(1));
  CHECK_NOTHROW(token.throw_if_stopped());
  token.set_deadline(RunToken::Clock::now() - std::chrono::seconds(1));
  CHECK_THROWS_WITH(token.throw_if_stopped(), "took longer than it was given");
}
