// FLUX files with diffusers' names whose weights are packed: the pieces of a fused projection are
// packed each by itself, and give the bits of the same file under the original names.
#include <doctest/doctest.h>

#include <set>

#include "distorch/models/flux/config.h"
#include "tests/nodes/packed_files.h"
#include "tests/nodes/simulated.h"
#include "tests/nodes/tiny_flux.h"
#include "tests/nodes/tiny_gguf.h"

using namespace distorch;
using namespace distorch::test;

namespace {

/// The tiny FLUX.1 dev under the original names.
TensorMap original_tensors() {
  TensorMap result;
  for (auto& [name, tensor] : tiny_tensors({"flux_dev"})) {
    auto norm = name.find("_norm.weight");
    result[norm == std::string::npos ? name : name.substr(0, norm) + "_norm.scale"] = tensor;
  }
  return result;
}

/// Where a piece under a name of diffusers lies: which rows of which original tensor.
struct Source {
  std::string original;
  std::int64_t first = 0, rows = 0;
  bool swapped = false;
};

/// Diffusers' names, by those of the original tensors that their rows come from.
std::map<std::string, Source> diffusers_names(const TensorMap& original) {
  const TemporaryCheckpoint file(original);
  const auto places = models::flux::diffusers_places(models::flux::config_of(*file));
  std::map<std::string, Source> names;
  for (const auto& [theirs, place] : places) {
    if (place.name.ends_with(".scale")) {
      names[theirs + ".weight"] = {place.name, 0, original.at(place.name).size(0)};
      continue;
    }
    for (const char* ending : {".weight", ".bias"})
      if (auto found = original.find(place.name + ending); found != original.end())
        names[theirs + ending] = {found->first, place.first_row,
                                  place.rows ? place.rows : found->second.size(0), place.swapped};
  }
  return names;
}

at::Tensor piece_of(const at::Tensor& whole, const Source& source) {
  auto rows = whole.narrow(0, source.first, source.rows);
  return (source.swapped ? rows.roll(rows.size(0) / 2, 0) : rows).contiguous();
}

using Make = std::function<quant::Packed(const at::Tensor&)>;

bool is_packed(const std::string& name, const at::Tensor& tensor) {
  return name.ends_with(".weight") && tensor.dim() == 2 && tensor.size(1) % 64 == 0;
}

/// NAME.safetensors and NAME_diffusers.safetensors, with nearly every matrix packed by `make` as a
/// whole, and rows of what that gave.
void write_both(const std::string& name, const Make& make) {
  const auto original = original_tensors();
  const auto places = diffusers_names(original);
  // Plain numbers in both: a piece of one kind among others, and what has its rows in another order.
  std::set<std::string> plain = {"double_blocks.0.txt_mlp.0.weight"};
  for (const auto& [theirs, source] : places)
    if (source.swapped) plain.insert(source.original);
  std::map<std::string, quant::Packed> packed;
  TensorMap ours, theirs;
  for (const auto& [tensor, value] : original)
    if (!plain.contains(tensor) && is_packed(tensor, value)) {
      packed[tensor] = make(value);
      add_packed(ours, tensor, packed[tensor]);
    } else {
      ours[tensor] = value;
    }
  for (const auto& [tensor, source] : places) {
    auto whole = packed.find(source.original);
    if (whole == packed.end())
      theirs[tensor] = piece_of(original.at(source.original), source);
    else
      add_packed(theirs, tensor, whole->second.rows(source.first, source.rows));
  }
  CHECK(packed.size() > 10);
  const auto folder = tiny_models() / "diffusion_models";
  fs::create_directories(folder);
  write_tensors(folder / (name + ".safetensors"), ours);
  write_tensors(folder / (name + "_diffusers.safetensors"), theirs);
}

graph::Json with_loader(const std::string& type, const graph::Json& inputs) {
  auto one = workflow_case("nodes_flux", "guidance");
  one["workflow"]["1"] = {{"class_type", type}, {"inputs", inputs}};
  return one;
}

graph::Json plain(const std::string& name) {
  return with_loader("UNETLoader",
                     {{"unet_name", name + ".safetensors"}, {"weight_dtype", "default"}});
}

}  // namespace

TEST_CASE("flux: packed pieces under diffusers' names give the bits of the original names") {
  const std::vector<std::pair<std::string, Make>> kinds = {
      {"rotated", [](const at::Tensor& w) { return quant::to_int8(w, true, 64); }},
      {"int8", [](const at::Tensor& w) { return quant::to_int8(w, false, 0); }},
      {"fp8", [](const at::Tensor& w) { return quant::to_float8(w, at::kFloat8_e4m3fn); }}};
  for (const auto& [name, make] : kinds) {
    CAPTURE(name);
    write_both(name, make);
    // On the processor plain weights are used where the file has them, at other addresses here and
    // there, by which products differ in their last bits and inputs are rounded the other way.
    TinyFluxApp tiny("packed_flux");
    const auto wanted = tiny.latent(plain(name));
    CHECK(difference(tiny.latent(plain(name + "_diffusers")), wanted) < 0.02);
    TinyFluxApp there("packed_flux_sim", simulated());
    const auto on_sim = there.latent(plain(name));
    CHECK(difference(there.latent(plain(name + "_diffusers")), on_sim) == 0);
    // Half of it streams.
    auto split = plain(name + "_diffusers");
    split["workflow"] = with_split_model(split["workflow"], "sim:0,50%;cpu,*");
    CHECK(difference(there.latent(split), on_sim) == 0);
  }
}

TEST_CASE("flux: pieces in blocks of a file's own, decoded as they are") {
  TensorMap original = original_tensors(), theirs, numbers;
  for (const auto& [name, source] : diffusers_names(original)) {
    theirs[name] = piece_of(original.at(source.original), source);
    numbers[name] = theirs[name];
    if (!is_packed(name, theirs[name])) continue;
    const auto packed = quant::to_nvfp4(theirs[name]);
    numbers[name] = quant::decode(packed, at::kFloat);
    add_packed(theirs, name, packed);
  }
  const auto folder = tiny_models() / "diffusion_models";
  fs::create_directories(folder);
  write_tensors(folder / "nvfp4_pieces.safetensors", theirs);
  write_tensors(folder / "nvfp4_numbers.safetensors", numbers);
  TinyFluxApp tiny("packed_flux");
  CHECK(difference(tiny.latent(plain("nvfp4_pieces")), tiny.latent(plain("nvfp4_numbers"))) < 1e-5);
}

TEST_CASE("flux: a GGUF file with diffusers' names gives the bits of the original names") {
  const auto original = original_tensors();
  TensorMap theirs;
  for (const auto& [name, source] : diffusers_names(original))
    theirs[name] = piece_of(original.at(source.original), source);
  const auto folder = tiny_models() / "unet";
  write_tiny_gguf(folder / "flux_original.gguf", original, "Q8_0", "flux");
  write_tiny_gguf(folder / "flux_diffusers.gguf", theirs, "Q8_0", "flux");
  TinyFluxApp there("packed_flux_sim", simulated());
  auto latent = [&](const std::string& name) {
    return there.latent(with_loader("UnetLoaderGGUF", {{"unet_name", name + ".gguf"}}));
  };
  CHECK(difference(latent("flux_diffusers"), latent("flux_original")) == 0);
}
