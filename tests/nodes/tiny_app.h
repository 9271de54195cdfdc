#pragma once
#include <filesystem>
#include <map>

#include "distorch/base/log.h"
#include "distorch/graph/executor.h"
#include "distorch/graph/validation.h"
#include "distorch/nodes/catalog.h"
#include "tests/models/tiny.h"
#include "tests/support/tensor_files.h"

/// Workflows on the tiny models of tests/parity, run by the real executor with the real nodes.
namespace distorch::test {

namespace fs = std::filesystem;

/// A node of a workflow in the API's form; its links are ["id", slot].
inline graph::Json node(const std::string& type, graph::Json inputs = graph::Json::object()) {
  return {{"class_type", type}, {"inputs", std::move(inputs)}};
}

/// A folder that goes away with the process.
class TemporaryFolder {
 public:
  explicit TemporaryFolder(const std::string& name)
      : path_(fs::temp_directory_path() /
              ("distorch_nodes_" + std::to_string(::getpid()) + "_" + name)) {
    fs::remove_all(path_);
    fs::create_directories(path_);
  }
  ~TemporaryFolder() { fs::remove_all(path_); }
  TemporaryFolder(const TemporaryFolder&) = delete;
  const fs::path& path() const { return path_; }
  operator const fs::path&() const { return path_; }

 private:
  fs::path path_;
};

inline void write_tensors(const fs::path& path, const std::map<std::string, at::Tensor>& tensors) {
  std::vector<formats::TensorToWrite> list;
  for (const auto& [name, tensor] : tensors)
    list.push_back({name,
                    dtype_of(tensor.scalar_type()),
                    tensor.sizes().vec(),
                    {static_cast<const std::byte*>(tensor.const_data_ptr()), tensor.nbytes()}});
  formats::write_safetensors(path, list);
}

/// A model folder with checkpoints/tiny_sd1.safetensors, tiny_sd2, tiny_sdxl, tiny_sdxl_b and
/// tiny_refiner, made once.
inline const fs::path& tiny_models() {
  static const TemporaryFolder folder("models");
  static const bool made = [] {
    fs::create_directories(folder.path() / "checkpoints");
    write_tensors(folder.path() / "checkpoints" / "tiny_sd1.safetensors",
                  tiny_tensors({"unet_sd1", "vae", "clip_l"}));
    write_tensors(folder.path() / "checkpoints" / "tiny_sd2.safetensors",
                  tiny_tensors({"unet_sd2", "vae", "clip_h"}));
    write_tensors(folder.path() / "checkpoints" / "tiny_sdxl.safetensors",
                  tiny_tensors({"unet_sdxl", "vae", "text_sdxl"}));
    write_tensors(folder.path() / "checkpoints" / "tiny_refiner.safetensors",
                  tiny_tensors({"unet_refiner", "vae", "clip_g"}));
    // Another checkpoint of SDXL's shapes.
    auto other = tiny_tensors({"unet_sdxl", "vae", "text_sdxl"});
    for (auto& [name, tensor] : other) tensor = tiny_weight("b." + name, tensor.sizes().vec());
    write_tensors(folder.path() / "checkpoints" / "tiny_sdxl_b.safetensors", other);
    return true;
  }();
  (void)made;
  return folder;
}

inline nodes::Settings tiny_settings(const fs::path& output) {
  nodes::Settings settings;
  settings.force_fp32 = true;
  settings.input_folder = parity_dir() / "inputs";
  settings.output_folder = output / "output";
  settings.temp_folder = output / "temp";
  const char* tokenizers = std::getenv("DISTORCH_TOKENIZERS");
  settings.tokenizer_folder = tokenizers && *tokenizers
                                  ? fs::path(tokenizers)
                                  : source_dir() / ".deps" / "tokenizers" / "clip";
  return settings;
}

inline nodes::ModelFolders tiny_folders() {
  nodes::ModelFolders folders(tiny_models());
  folders.add("loras", parity_dir() / "loras");
  folders.add("embeddings", parity_dir() / "embeddings");
  return folders;
}

/// Checkpoint, two prompts, a small latent, four steps; the result in node 5.
inline graph::Json sampling_prompt(const std::string& checkpoint = "tiny_sd1.safetensors") {
  return {
      {"1", {{"class_type", "CheckpointLoaderSimple"}, {"inputs", {{"ckpt_name", checkpoint}}}}},
      {"2",
       {{"class_type", "CLIPTextEncode"}, {"inputs", {{"text", "a cat"}, {"clip", {"1", 1}}}}}},
      {"3", {{"class_type", "CLIPTextEncode"}, {"inputs", {{"text", ""}, {"clip", {"1", 1}}}}}},
      {"4",
       {{"class_type", "EmptyLatentImage"},
        {"inputs", {{"width", 64}, {"height", 64}, {"batch_size", 1}}}}},
      {"5",
       {{"class_type", "KSampler"},
        {"inputs",
         {{"model", {"1", 0}},
          {"positive", {"2", 0}},
          {"negative", {"3", 0}},
          {"latent_image", {"4", 0}},
          {"seed", 1},
          {"steps", 4},
          {"cfg", 2.0},
          {"sampler_name", "euler"},
          {"scheduler", "normal"},
          {"denoise", 1.0}}}}}};
}

/// Runs prompts and keeps what "Keep" nodes were given.
class TinyApp {
 public:
  explicit TinyApp(streaming::EngineOptions engine = {}, const std::string& name = "app")
      : folder_(name),
        app(tiny_settings(folder_), tiny_folders(), quiet(std::move(engine))),
        context_(app.context()) {
    nodes::add_all(catalog, app);
    catalog.add({
        .name = "Keep",
        .inputs = {graph::link("value", "*")},
        .output_node = true,
        .not_idempotent = true,  // each keeps under its own id
        .run = [this](graph::Call& call) { kept[call.node_id()] = call.in("value"); },
    });
  }

  struct Result {
    graph::Validation validation;
    graph::RunResult run;
    std::string error;  // of the node that failed
  };

  /// Validates and runs; `events` may be null.
  Result run(graph::Json prompt, graph::EventSink* events = nullptr) {
    Result result;
    result.validation = graph::validate(prompt, catalog, {.context = &context_});
    if (!result.validation.clean()) return result;
    struct Silent : graph::EventSink {
      void send(const graph::Event&) override {}
    } silent;
    graph::RunRequest request;
    request.prompt = std::move(prompt);
    request.outputs = result.validation.good_outputs;
    request.extra_pnginfo = {{"workflow", {{"note", "gr\u00fc\u00df"}}}};
    request.context = &context_;
    result.run = executor_.run(request, events ? *events : silent);
    if (result.run.exception) try {
        std::rethrow_exception(result.run.exception);
      } catch (const std::exception& problem) {
        result.error = problem.what();
      }
    return result;
  }

  /// Runs and fails the test unless everything went well.
  void run_well(const graph::Json& prompt) {
    auto result = run(prompt);
    for (const auto& line : result.validation.lines()) FAIL_CHECK(line);
    if (result.run.status != graph::RunStatus::Success) FAIL(result.error);
  }

  /// Runs one node of a prompt and gives one of its outputs.
  graph::Value value_of(graph::Json prompt, const graph::Json& link) {
    prompt["keep"] = {{"class_type", "Keep"}, {"inputs", {{"value", link}}}};
    run_well(prompt);
    return kept.at("keep");
  }

  /// So that the next prompt runs every node again and models may go.
  void forget_results() { executor_.release(); }

  const fs::path& folder() const { return folder_; }

 private:
  static streaming::EngineOptions quiet(streaming::EngineOptions options) {
    options.log_tables = false;
    // What an earlier case installed is no device of this one.
    if (options.default_device.empty() && !options.rig) options.default_device = "cpu";
    return options;
  }
  TemporaryFolder folder_;

 public:
  nodes::App app;
  graph::Catalog catalog;
  std::map<std::string, graph::Value> kept;

 private:
  graph::Context context_;
  graph::Executor executor_{catalog};
};

}  // namespace distorch::test
