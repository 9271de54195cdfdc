// Names of LoRA files of every family and text encoder: each leads to weights that are there, to rows
// that they have; every matrix has a name; a file with a change behind each name is used whole.
#include <set>

#include "distorch/models/catalog.h"
#include "distorch/models/text_recipes.h"
#include "tests/models/tiny.h"

using namespace distorch;
using namespace distorch::test;
using namespace distorch::models;
using weights::LoraTarget;

namespace {

struct Targets {
  explicit Targets(const weights::Manifest& manifest) {
    for (const auto& weight : manifest.weights()) shapes[weight.name] = weight.shape;
  }
  void check(const std::string& name, const LoraTarget& target) {
    CAPTURE(name);
    auto found = shapes.find(target.weight);
    REQUIRE_MESSAGE(found != shapes.end(), target.weight);
    const auto& shape = found->second;
    reached.insert(target.weight);
    CHECK(target.first_row >= 0);
    CHECK(target.rows >= 0);
    if (target.rows > 0) CHECK(target.first_row + target.rows <= shape.at(0));
    CHECK((target.rows > 0 || target.first_row == 0));
    if (target.piece.of > 0) {
      CHECK(target.piece.count == (target.rows > 0 ? target.rows : shape.at(0)));
      CHECK(target.piece.first + target.piece.count <= target.piece.of);
    }
    if (target.swapped) CHECK((target.rows > 0 ? target.rows : shape.at(0)) % 2 == 0);
    std::int64_t covered = target.piece.count;
    for (const auto& other : target.others) {
      check(name, other);
      CHECK(other.piece.of == target.piece.of);
      CHECK(other.piece.first == covered);
      covered += other.piece.count;
    }
    if (!target.others.empty()) CHECK(covered == target.piece.of);
  }

  std::map<std::string, std::vector<std::int64_t>> shapes;
  std::set<std::string> reached;
};

/// Checks the names, and that each of them alone changes what it leads to.
void check(const std::string& what, const weights::Manifest& manifest, const LoraNames& names) {
  CAPTURE(what);
  REQUIRE_FALSE(names.empty());
  Targets targets(manifest);
  for (const auto& [name, target] : names) {
    CHECK_FALSE(name.empty());
    targets.check(name, target);
  }
  std::string unreached;
  for (const auto& [name, shape] : targets.shapes)
    if (shape.size() >= 2 && name.ends_with(".weight") && !targets.reached.count(name))
      unreached += " " + name;
  CHECK_MESSAGE(unreached.empty(), what, " has no LoRA name for", unreached);
}

}  // namespace

TEST_CASE("LoRA names: diffusion models of every family") {
  for (const char* name : {"unet_sd1", "unet_sd2", "unet_sdxl", "unet_refiner", "sd3_medium",
                           "sd3_large", "sd3_dual", "flux_dev", "flux_schnell", "flux2_dev",
                           "flux2_klein", "flux_diffusers", "z_image", "lumina2", "qwen_image"}) {
    TemporaryCheckpoint file(tiny_tensors({name}));
    auto family = detect_family(*file);
    auto network = family->make_network();
    check(name, network->manifest(), family->lora_names(network->manifest()));
  }
}

TEST_CASE("LoRA names: text encoders alone and in pairs") {
  for (const char* name : {"clip_l", "clip_h"}) {
    TemporaryCheckpoint file(tiny_tensors({name}));
    auto recipe = find_text(*file);
    REQUIRE_FALSE(recipe.empty());
    for (const auto& part : recipe.encoders) {
      auto encoder = part.make(nullptr);
      check(name, encoder->manifest(), part.lora_names(encoder->manifest()));
    }
  }
}

TEST_CASE("LoRA names: one low-rank change behind every name of SD 1.x is used, none is left") {
  TemporaryCheckpoint file(tiny_tensors({"unet_sd1"}));
  auto family = detect_family(*file);
  auto network = family->make_network();
  std::map<std::string, std::vector<std::int64_t>> shapes;
  for (const auto& weight : network->manifest().weights()) shapes[weight.name] = weight.shape;
  std::map<std::string, at::Tensor> tensors;
  std::set<std::string> weights_of_names;
  for (const auto& [name, target] : family->lora_names(network->manifest())) {
    const auto& shape = shapes.at(target.weight);
    if (!name.starts_with("lora_unet_") || shape.size() < 2) continue;
    auto down = shape;
    down[0] = 1;
    tensors[name + ".lora_up.weight"] = at::ones({shape[0], 1});
    tensors[name + ".lora_down.weight"] = at::ones(down);
    weights_of_names.insert(target.weight);
  }
  TemporaryCheckpoint lora(tensors);
  auto matched =
      weights::match_lora(*lora, family->lora_names(network->manifest()), network->manifest());
  CHECK(matched.left_out.empty());
  CHECK(matched.unknown.empty());
  CHECK(matched.adapters.size() == weights_of_names.size());
}
