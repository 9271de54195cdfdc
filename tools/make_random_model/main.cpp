// Writes model files with the names, shapes and types of real ones and random numbers, for tests
// and measurements. --help says how.
#include <c10/core/InferenceMode.h>
#include <fmt/format.h>
#include <CLI/CLI.hpp>

#include "distorch/base/atomic_file.h"
#include "distorch/base/error.h"
#include "distorch/base/units.h"
#include "tools/make_random_model/workflow_files.h"

namespace {

using namespace distorch;
using namespace distorch::random_model;

void write_and_tell(const std::filesystem::path& path, const Kind& kind,
                    const WriteOptions& options) {
  write_model(path, kind, options);
  fmt::print("{} ({}, {:.3f} GB)\n", path.string(), kind.name,
             static_cast<double>(std::filesystem::file_size(path)) / 1e9);
}

int run(int argc, char** argv) {
  CLI::App app(
      "Writes model files with the names, shapes and types of real ones and random numbers.");
  std::string kind, file, workflow, models = "models";
  WriteOptions options;
  bool list = false;
  app.add_option("kind", kind, "What to write; --list shows the kinds");
  app.add_option("file", file, "Where to write it");
  app.add_flag("--list", list, "Print the kinds and leave");
  app.add_option("--workflow", workflow, "Write every model file that this workflow names");
  app.add_option("--models", models, "The folder of models that --workflow writes into")
      ->capture_default_str();
  std::map<std::string, Size> sizes = {
      {"full", Size::Full}, {"truncated", Size::Truncated}, {"tiny", Size::Tiny}};
  app.add_option("--size", options.size,
                 "full; truncated: the real widths, few blocks; tiny: narrow as well")
      ->transform(CLI::CheckedTransformer(sizes, CLI::ignore_case))
      ->default_str("full");
  app.add_option(
      "--dtype", options.dtype,
      "Type of the matrices: F32, F16, BF16, F8_E4M3, F8_E5M2 (default: the usual one); in "
      ".gguf files Q8_0, Q4_0 or Q4_K");
  app.add_flag("--scaled", options.scaled, "Put a scale beside each 8-bit matrix");
  app.add_flag("--empty", options.empty,
               "Leave holes in place of numbers: a file to plan with that takes no room");
  app.add_option("--seed", options.seed, "Other numbers for another seed")->capture_default_str();
  CLI11_PARSE(app, argc, argv);
  if (list) {
    for (const auto& one : kinds()) fmt::print("{:<16}{}\n", one.name, one.description);
    return 0;
  }
  if (!workflow.empty()) {
    for (auto& named : files_of_workflow(graph::Json::parse(read_file(workflow)))) {
      named.options.size = options.size;
      named.options.empty = options.empty;
      named.options.seed = options.seed;
      write_and_tell(std::filesystem::path(models) / named.path, *named.kind, named.options);
    }
    return 0;
  }
  if (kind.empty() || file.empty())
    throw Error(ErrorKind::Usage, "make_random_model", "wants a kind and a file; see --help");
  write_and_tell(file, find_kind(kind), options);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  c10::InferenceMode inference;
  try {
    return run(argc, argv);
  } catch (const std::exception& error) {
    fmt::print(stderr, "make_random_model: {}\n", error.what());
    return 1;
  }
}
