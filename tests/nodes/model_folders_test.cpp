#include "distorch/nodes/model_folders.h"

#include <cstdlib>
#include <fstream>

#include "distorch/base/error.h"
#include "distorch/nodes/model_endings.h"
#include "tests/nodes/tiny_app.h"

using namespace distorch;
using namespace distorch::test;
using nodes::ModelFolders;
using Names = std::vector<std::string>;

namespace {

void touch(const fs::path& file) {
  fs::create_directories(file.parent_path());
  std::ofstream(file) << "x";
}

}  // namespace

TEST_CASE("model folders: recursive, sorted, merged; the first place that holds a file wins") {
  TemporaryFolder root("folders");
  const fs::path& base = root;
  touch(base / "unet" / "b.safetensors");
  touch(base / "unet" / "sub" / "A.SAFETENSORS");
  touch(base / "unet" / ".git" / "hidden.safetensors");
  touch(base / "unet" / "notes.txt");
  touch(base / "diffusion_models" / "b.safetensors");
  touch(base / "diffusion_models" / "c.gguf");
  ModelFolders folders(base);
  CHECK(folders.list("diffusion_models") == Names{"b.safetensors", "c.gguf", "sub/A.SAFETENSORS"});
  CHECK(folders.list("unet") == folders.list("diffusion_models"));
  CHECK(*folders.find("diffusion_models", "b.safetensors") == base / "unet" / "b.safetensors");
  CHECK(*folders.find("unet", "sub\\A.SAFETENSORS") == base / "unet" / "sub" / "A.SAFETENSORS");
  touch(base / "outside.safetensors");
  CHECK_FALSE(folders.find("unet", "../outside.safetensors"));
  CHECK(folders.list("nonsense").empty());

  touch(base / "unet" / "new.safetensors");
  CHECK(folders.list("unet").size() == 4);
}

TEST_CASE("model folders: links are followed, a loop ends") {
  TemporaryFolder root("links");
  touch(root.path() / "elsewhere" / "x.safetensors");
  fs::create_directories(root.path() / "loras");
  fs::create_directory_symlink(root.path() / "elsewhere", root.path() / "loras" / "more");
  fs::create_directory_symlink(root.path() / "loras", root.path() / "elsewhere" / "back");
  ModelFolders folders(root);
  CHECK(folders.list("loras") == Names{"more/x.safetensors"});
}

TEST_CASE("model folders: extra paths in YAML") {
  TemporaryFolder root("yaml");
  const fs::path& base = root;
  touch(base / "disk" / "sd" / "one.safetensors");
  touch(base / "disk" / "flux" / "two.safetensors");
  touch(base / "own" / "checkpoints" / "one.safetensors");
  touch(base / "beside" / "three.safetensors");
  setenv("DISTORCH_TEST_DISK", (base / "disk").c_str(), 1);
  std::ofstream(base / "extra.yaml") << "big_disk:\n"
                                        "  base_path: ${DISTORCH_TEST_DISK}\n"
                                        "  is_default: true\n"
                                        "  checkpoints: sd\n"
                                        "  unet: |\n"
                                        "    nowhere\n"
                                        "    flux\n"
                                        "empty:\n"
                                        "plain:\n"
                                        "  loras: beside\n"
                                        "  my_type: beside\n";
  ModelFolders folders(base / "own");
  folders.read_extra_paths(base / "extra.yaml");
  CHECK(*folders.find("checkpoints", "one.safetensors") ==
        base / "disk" / "sd" / "one.safetensors");
  CHECK(*folders.find("diffusion_models", "two.safetensors") ==
        base / "disk" / "flux" / "two.safetensors");
  CHECK(folders.list("loras") == Names{"three.safetensors"});
  CHECK(folders.list("my_type") == Names{"three.safetensors"});
}

TEST_CASE("model folders: bad YAML is named") {
  TemporaryFolder root("badyaml");
  auto file = root.path() / "extra.yaml";
  auto read = [&](const char* text) {
    std::ofstream(file) << text;
    ModelFolders().read_extra_paths(file);
  };
  CHECK_THROWS_WITH_AS(read("a: [1, 2"), doctest::Contains("is no YAML"), Error);
  CHECK_THROWS_WITH_AS(read("- a\n"), doctest::Contains("named groups"), Error);
  CHECK_THROWS_WITH_AS(read("group:\n  loras: [a, b]\n"),
                       doctest::Contains("group 'group': 'loras'"), Error);
  CHECK_NOTHROW(read(""));
  CHECK_THROWS_AS(ModelFolders().read_extra_paths(root.path() / "none.yaml"), Error);
}

TEST_CASE("model folders: a missing file names the folders searched and near names") {
  TemporaryFolder root("missing");
  touch(root.path() / "checkpoints" / "v1-5-pruned.safetensors");
  ModelFolders folders(root);
  try {
    folders.get("checkpoints", "v1-5-prunde.safetensors");
    FAIL("found");
  } catch (const Error& error) {
    CHECK(error.kind() == ErrorKind::MissingFile);
    std::string what = error.what();
    CHECK(what.find("v1-5-prunde.safetensors") == 0);
    CHECK(what.find((root.path() / "checkpoints").string()) != std::string::npos);
    CHECK(what.find("'v1-5-pruned.safetensors'") != std::string::npos);
  }
}

TEST_CASE("model folders: the types that a server of today lists, then those of add-ons") {
  auto types = ModelFolders("models").types();
  CHECK(types == Names{"checkpoints",
                       "configs",
                       "loras",
                       "vae",
                       "text_encoders",
                       "diffusion_models",
                       "clip_vision",
                       "style_models",
                       "embeddings",
                       "diffusers",
                       "vae_approx",
                       "controlnet",
                       "gligen",
                       "upscale_models",
                       "latent_upscale_models",
                       "custom_nodes",
                       "datasets",
                       "hypernetworks",
                       "photomaker",
                       "classifiers",
                       "model_patches",
                       "audio_encoders",
                       "background_removal",
                       "frame_interpolation",
                       "geometry_estimation",
                       "optical_flow",
                       "detection",
                       "xlabs_loras",
                       "xlabs_controlnets",
                       "xlabs_ipadapters",
                       "mmaudio",
                       "pulid",
                       "unet_gguf",
                       "clip_gguf",
                       "LLM",
                       "facexlib",
                       "insightface",
                       "transformers",
                       "wav2vec2"});
  CHECK(nodes::model_endings("datasets").empty());
  CHECK(ModelFolders("models").folders("detection") == std::vector<fs::path>{"models/detection"});
}
