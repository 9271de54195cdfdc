#include "distorch/cli/prompt_engine.h"

#include <doctest/doctest.h>

#include <fstream>

using namespace distorch;
using namespace distorch::cli;
using graph::Json;

TEST_CASE("the model files that a prompt names, each once") {
  namespace fs = std::filesystem;
  std::string name = (fs::temp_directory_path() / "distorch_engine_XXXXXX").string();
  REQUIRE(::mkdtemp(name.data()));
  fs::path root = name;
  for (const char* file : {"checkpoints/a.safetensors", "loras/b.safetensors", "vae/c.pt"}) {
    fs::create_directories((root / file).parent_path());
    std::ofstream(root / file) << "x";
  }
  nodes::ModelFolders folders(root);
  Json prompt = {{"1", {{"inputs", {{"ckpt_name", "a.safetensors"}, {"steps", 5}}}}},
                 {"2", {{"inputs", {{"lora_name", "b.safetensors"}, {"model", {"1", 0}}}}}},
                 {"3", {{"inputs", {{"ckpt_name", "a.safetensors"}, {"text", "c"}}}}},
                 {"4", {{"inputs", {{"vae_name", "missing.pt"}}}}},
                 {"5", 7}};
  auto files = model_files_of(prompt, folders);
  REQUIRE(files.size() == 2);
  CHECK(files[0] == root / "checkpoints/a.safetensors");
  CHECK(files[1] == root / "loras/b.safetensors");
  fs::remove_all(root);
}
