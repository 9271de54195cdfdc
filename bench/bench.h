#pragma once
#include <fmt/format.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>
#include <vector>

#include "distorch/base/atomic_file.h"

/// What the benchmark programs share: options, rows of results, memory of the process, child
/// processes.
namespace bench {

using Json = nlohmann::json;

inline double now_s() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

inline double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  auto n = values.size();
  return n == 0 ? 0 : n % 2 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2;
}

/// "--key VALUE" of the command line, or `fallback`.
inline std::string option(int argc, char** argv, const std::string& key,
                          const std::string& fallback = "") {
  for (int i = 1; i + 1 < argc; ++i)
    if (argv[i] == key) return argv[i + 1];
  return fallback;
}

/// The folder for results and weight files: --out, else build/bench of the source tree.
inline std::filesystem::path out_folder(int argc, char** argv) {
  std::filesystem::path folder = option(argc, argv, "--out", DISTORCH_SOURCE_DIR "/build/bench");
  std::filesystem::create_directories(folder);
  return std::filesystem::absolute(folder);
}

/// A line of /proc/self/status in bytes: "VmRSS", "VmHWM", "RssAnon".
inline std::int64_t process_bytes(const std::string& key) {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);)
    if (line.rfind(key + ":", 0) == 0) return std::stoll(line.substr(key.size() + 1)) * 1024;
  return 0;
}

/// From now on VmHWM counts anew.
inline void reset_peak() { std::ofstream("/proc/self/clear_refs") << "5"; }

/// Average number of runnable processes in the last minute: figures of a busy machine say little.
inline double load() {
  double value = 0;
  std::ifstream("/proc/loadavg") >> value;
  return value;
}

/// The rows of one program; printed as they come, written at the end.
class Results {
 public:
  Results(std::string name, std::filesystem::path folder)
      : name_(std::move(name)), folder_(std::move(folder)) {}

  /// `peer`: what it is compared with (a limit, another way); NaN: nothing. ratio = ours / peer.
  void add(const std::string& what, double ours, double peer, const std::string& unit,
           Json more = Json::object()) {
    Json row{{"name", what}, {"ours", ours}, {"unit", unit}, {"load", load()}};
    bool compared = std::isfinite(peer) && peer != 0;
    row["peer"] = compared ? Json(peer) : Json();
    row["ratio"] = compared ? Json(ours / peer) : Json();
    row.update(more);
    fmt::print("{:<66}{:>10.4g}{:>11}{:>9}  {}\n", what, ours,
               compared ? fmt::format("{:.4g}", peer) : "-",
               compared ? fmt::format("{:.4f}", ours / peer) : "-", unit);
    std::fflush(stdout);
    rows_.push_back(std::move(row));
  }
  void write() const {
    distorch::write_file(folder_ / (name_ + ".json"), rows_.dump(1) + "\n");
    fmt::print("written to {}\n", (folder_ / (name_ + ".json")).string());
  }
  static void head() { fmt::print("{:<66}{:>10}{:>11}{:>9}  unit\n", "", "ours", "peer", "ratio"); }

 private:
  std::string name_;
  std::filesystem::path folder_;
  Json rows_ = Json::array();
};

/// Runs this program again with other arguments and returns what it printed to standard output.
/// `first` is done in the child before it starts. Throws where the child fails.
template <class First>
std::string run_self(const std::vector<std::string>& arguments, First first) {
  int pipe_ends[2];
  if (::pipe(pipe_ends) != 0) throw std::runtime_error("no pipe");
  auto child = ::fork();
  if (child == 0) {
    ::dup2(pipe_ends[1], 1);
    ::close(pipe_ends[0]);
    first();
    std::vector<char*> argv{const_cast<char*>("bench")};
    for (const auto& argument : arguments) argv.push_back(const_cast<char*>(argument.c_str()));
    argv.push_back(nullptr);
    ::execv("/proc/self/exe", argv.data());
    ::_exit(127);
  }
  ::close(pipe_ends[1]);
  std::string text;
  char buffer[4096];
  for (ssize_t count; (count = ::read(pipe_ends[0], buffer, sizeof buffer)) > 0;)
    text.append(buffer, static_cast<std::size_t>(count));
  ::close(pipe_ends[0]);
  int status = 0;
  ::waitpid(child, &status, 0);
  if (status != 0)
    throw std::runtime_error(fmt::format("a part of the benchmark failed (status {})", status));
  return text;
}
inline std::string run_self(const std::vector<std::string>& arguments) {
  return run_self(arguments, [] {});
}

}  // namespace bench
