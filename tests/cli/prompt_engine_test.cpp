#include "distorch/cli/prompt_engine.h"

#include <doctest/doctest.h>

#include <fstream>

#include "distorch/base/rig.h"
#include "tests/support/source_dir.h"

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

TEST_CASE("looking ahead plans a prompt beside the one that runs, and says what is wrong with it") {
  namespace fs = std::filesystem;
  std::string name = (fs::temp_directory_path() / "distorch_ahead_XXXXXX").string();
  REQUIRE(::mkdtemp(name.data()));
  fs::path root = name;
  fs::create_directories(root / "models" / "checkpoints");
  fs::create_symlink(
      test::source_dir() / "assets/demo/models/checkpoints/distorch-emoji-v1.safetensors",
      root / "models/checkpoints/emoji.safetensors");
  MachineOptions options;
  options.models = {(root / "models").string()};
  options.output = (root / "output").string();
  options.device = "cpu";
  auto app = make_app(options, {}, false);
  PromptEngine engine(*app, options);
  server::Job job;
  job.id = "next";
  std::ifstream file(test::source_dir() / "tests/cli/prompts/picture.json");
  job.prompt = Json::parse(file);
  auto validation = engine.validate(job.prompt, {});
  REQUIRE(validation.clean());
  job.outputs = validation.good_outputs;
  auto token = std::make_shared<RunToken>("next");
  auto plan = engine.look_ahead(job, token);
  CHECK(plan["seconds"].get<double>() > 0);
  CHECK(plan["models"].size() >= 1);
  // The nodes that use a model have what the plan as a whole has; the others are not known.
  double sum = 0;
  std::size_t unknown = 0;
  for (const auto& [node, seconds] : plan["nodes"].items()) {
    if (seconds.is_null())
      ++unknown;
    else
      sum += seconds.get<double>();
  }
  CHECK(sum == doctest::Approx(plan["seconds"].get<double>()));
  CHECK(plan["nodes"].size() == job.prompt.size());
  CHECK(unknown > 0);
  CHECK(unknown < job.prompt.size());
  CHECK(engine.predict(job, token)["nodes"].size() == job.prompt.size());
  CHECK(plan["models"].size() == engine.plan(job.prompt, job.outputs)["models"].size());
  CHECK_FALSE(fs::exists(root / "output"));

  auto stopped = std::make_shared<RunToken>("next");
  stopped->interrupt();
  CHECK_THROWS_AS(engine.look_ahead(job, stopped), Error);

  fs::remove(root / "models/checkpoints/emoji.safetensors");
  CHECK_THROWS_WITH_AS(engine.look_ahead(job, token), doctest::Contains("emoji.safetensors"),
                       Error);
  fs::remove_all(root);
}

TEST_CASE("a plan names the accelerators of a rig as the rig does, however a prompt calls them") {
  MachineOptions options;
  options.models = {(test::source_dir() / "assets/demo/models").string()};
  options.rig = (test::source_dir() / "rigs/demo.yaml").string();
  options.device_map = {"cuda:0=sim:1", "cuda:7=sim:0"};
  auto app = make_app(options, read_rig(options.rig), true);
  PromptEngine engine(*app, options);
  std::ifstream file(test::source_dir() / "tests/cli/prompts/picture.json");
  auto prompt = Json::parse(file);
  prompt["1"]["class_type"] = "CheckpointLoaderSimpleMultiGPU";
  prompt["1"]["inputs"]["ckpt_name"] = "distorch-emoji-v1.safetensors";
  std::vector<std::string> outputs;
  for (const auto& [id, node] : prompt.items())
    if (node["class_type"] == "SaveImage") outputs.push_back(id);
  REQUIRE(!outputs.empty());
  auto planned_on = [&](const char* device) {
    prompt["1"]["inputs"]["device"] = device;
    Json found;
    const auto plan = engine.plan(prompt, outputs);
    for (const auto& model : plan["models"])
      if (model["steps"] == 2) found = model["compute"];
    return found;
  };
  CHECK(planned_on("cuda:0") == "cuda:1");
  CHECK(planned_on("cuda:7") == "cuda:0");
  CHECK(planned_on("sim:0") == "cuda:0");
  CHECK(planned_on("sim:1") == "cuda:1");
}
