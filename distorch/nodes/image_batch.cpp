#include "distorch/base/error.h"
#include "distorch/graph/dynamic_inputs.h"
#include "distorch/nodes/batch_place.h"
#include "distorch/nodes/catalog.h"
#include "distorch/nodes/pictures.h"

namespace distorch::nodes {

using at::Tensor;
using graph::Call;
using graph::integer;
using graph::link;
using graph::Value;
using sampling::Latent;

namespace {

constexpr int kMost = 50;  // inputs of a growing list

void run_repeat(Call& call) {
  const auto& image = image_input(call, "image");
  image_out(call, 0, image.repeat({call.integer("amount"), 1, 1, 1}));
}

void run_from_batch(Call& call) {
  const auto& image = image_input(call, "image");
  auto first = place_in_batch(call, image.size(0));
  image_out(call, 0,
            image.narrow(0, first, std::min(image.size(0) - first, call.integer("length"))));
}

/// Of an input that comes as a list of one.
std::int64_t batch_size(const Call& call) {
  return std::max<std::int64_t>(1, call.list("batch_size").at(0).as<graph::Json>());
}

void run_rebatch_images(Call& call) {
  std::vector<Tensor> images;
  for (const auto& batch : call.list("images"))
    for (const auto& image : batch.as<Tensor>().split(1)) images.push_back(image);
  auto size = static_cast<std::size_t>(batch_size(call));
  std::vector<Value> batches;
  for (std::size_t i = 0; i < images.size(); i += size) {
    auto end = std::min(images.size(), i + size);
    batches.push_back(Value::of("IMAGE", at::cat(at::TensorList(images).slice(i, end - i))));
  }
  call.out_list(0, std::move(batches));
}

/// A batch of latents with a mask and a number for each.
struct LatentBatch {
  Tensor samples, mask;
  std::vector<std::int64_t> index;

  LatentBatch part(std::int64_t from, std::int64_t items) const {
    return {samples.narrow(0, from, items),
            mask.narrow(0, from, items),
            {index.begin() + from, index.begin() + from + items}};
  }
};

/// `offset`: how many latents there were before, where the latent brings no numbers.
LatentBatch batch_of(const Latent& latent, std::int64_t offset) {
  auto items = latent.samples.size(0);
  auto height = latent.samples.size(-2) * 8, width = latent.samples.size(-1) * 8;
  LatentBatch batch{latent.samples, {}, latent.batch_index};
  if (latent.noise_mask.defined()) {
    const auto& mask = latent.noise_mask;
    batch.mask = fit_batch(mask.reshape({-1, 1, mask.size(-2), mask.size(-1)}), items);
  } else {
    batch.mask = at::ones({items, 1, height, width});
  }
  if (batch.index.empty())
    for (std::int64_t i = 0; i < items; ++i) batch.index.push_back(offset + i);
  return batch;
}

LatentBatch joined(LatentBatch first, const LatentBatch& second) {
  auto mask = second.mask;
  if (mask.sizes().slice(1) != first.mask.sizes().slice(1))
    mask = at::upsample_bilinear2d(mask, {first.mask.size(2), first.mask.size(3)}, false);
  first.samples = at::cat({first.samples, second.samples});
  first.mask = at::cat({first.mask, mask});
  first.index.insert(first.index.end(), second.index.begin(), second.index.end());
  return first;
}

/// Latents of one size follow each other in batches of `size`; a new size begins a new batch.
std::vector<LatentBatch> rebatched(const std::vector<Value>& latents, std::int64_t size) {
  std::vector<LatentBatch> result;
  std::optional<LatentBatch> open;
  std::int64_t seen = 0;
  for (const auto& value : latents) {
    auto next = batch_of(value.as<Latent>(), seen);
    seen += next.samples.size(0);
    if (!open) {
      open = std::move(next);
    } else if (next.samples.sizes().slice(1) != open->samples.sizes().slice(1)) {
      result.push_back(std::move(*open));
      open = std::move(next);
    } else {
      open = joined(std::move(*open), next);
    }
    while (open && open->samples.size(0) > size) {
      result.push_back(open->part(0, size));
      open = open->part(size, open->samples.size(0) - size);
    }
  }
  if (open) result.push_back(std::move(*open));
  return result;
}

void run_rebatch_latents(Call& call) {
  std::vector<Value> values;
  for (auto& batch : rebatched(call.list("latents"), batch_size(call))) {
    // A mask that marks everything is none.
    bool masked = batch.mask.mean().item<float>() != 1.0f;
    values.push_back(Value::of(
        "LATENT", Latent{batch.samples, masked ? batch.mask : Tensor(), std::move(batch.index)}));
  }
  call.out_list(0, std::move(values));
}

/// The inputs of a growing list that are given, in order.
std::vector<std::string> members(const Call& call, const std::string& prefix) {
  std::vector<std::string> names;
  for (int i = 0; i < kMost; ++i)
    if (auto name = prefix + std::to_string(i); call.has(name)) names.push_back(name);
  return names;
}

void run_images(Call& call) {
  std::vector<Tensor> images;
  std::int64_t channels = 0;
  for (const auto& name : members(call, "images.image")) {
    images.push_back(image_input(call, name.c_str()));
    channels = std::max(channels, images.back().size(3));
  }
  for (auto& image : images) {
    image = match_channels(image, channels);
    const auto& first = images.front();
    if (image.sizes().slice(1, 2) != first.sizes().slice(1, 2))
      image = resize_image(image, {first.size(2), first.size(1), "bilinear", true});
  }
  image_out(call, 0, at::cat(images));
}

void run_masks(Call& call) {
  std::vector<Tensor> masks;
  for (const auto& name : members(call, "masks.mask")) {
    auto mask = mask_input(call, name.c_str());
    if (!masks.empty() && mask.sizes().slice(1) != masks.front().sizes().slice(1)) {
      const auto& first = masks.front();
      mask = resize(mask.unsqueeze(1), {first.size(2), first.size(1), "bilinear", true}).squeeze(1);
    }
    masks.push_back(mask);
  }
  mask_out(call, 0, at::cat(masks));
}

void run_latents(Call& call) {
  Latent result;
  std::vector<Tensor> samples;
  for (const auto& name : members(call, "latents.latent")) {
    const auto& latent = latent_input(call, name.c_str());
    if (samples.empty()) {
      result = latent;
      result.batch_index.clear();
    } else if (latent.samples.dim() != samples.front().dim() ||
               latent.samples.size(1) != samples.front().size(1)) {
      throw Error(ErrorKind::Shape, call.place(),
                  "'" + name + "' is a latent of another kind than the first one");
    }
    samples.push_back(samples.empty() ? latent.samples
                                      : latent_like(latent.samples, samples.front()));
    for (std::int64_t i = 0; i < latent.samples.size(0); ++i)
      result.batch_index.push_back(
          latent.batch_index.empty() ? i : latent.batch_index.at(static_cast<std::size_t>(i)));
  }
  result.samples = at::cat(samples);
  latent_out(call, std::move(result));
}

void add_growing(graph::Catalog& catalog, const char* name, const char* title, const char* category,
                 const char* type, const std::string& one, void (*run)(Call&)) {
  catalog.add({
      .name = name,
      .display_name = title,
      .category = category,
      .python_module = "comfy_extras.nodes_post_processing",
      .inputs = {graph::growing(one + "s", link(one, type), one, 1, kMost)},
      .outputs = {type},
      .newer_schema = true,
      .run = run,
  });
}

}  // namespace

void add_image_batch_nodes(graph::Catalog& catalog) {
  catalog.add({
      .name = "RepeatImageBatch",
      .category = "image/batch",
      .python_module = "comfy_extras.nodes_images",
      .inputs = {link("image", "IMAGE"), integer("amount", {.def = 1, .min = 1, .max = 4096})},
      .outputs = {"IMAGE"},
      .run = run_repeat,
  });
  catalog.add({
      .name = "ImageFromBatch",
      .category = "image/batch",
      .python_module = "comfy_extras.nodes_images",
      .inputs = {link("image", "IMAGE"),
                 integer("batch_index", {.def = 0, .min = -16384, .max = 16384}),
                 integer("length", {.def = 1, .min = 1, .max = 4096})},
      .outputs = {"IMAGE"},
      .run = run_from_batch,
  });
  auto size = integer("batch_size", {.def = 1, .min = 1, .max = 4096});
  catalog.add({
      .name = "RebatchImages",
      .display_name = "Rebatch Images",
      .category = "image/batch",
      .python_module = "comfy_extras.nodes_rebatch",
      .inputs = {link("images", "IMAGE"), size},
      .outputs = {{"IMAGE", "", "", true}},
      .newer_schema = true,
      .input_is_list = true,
      .run = run_rebatch_images,
  });
  catalog.add({
      .name = "RebatchLatents",
      .display_name = "Rebatch Latents",
      .category = "latent/batch",
      .python_module = "comfy_extras.nodes_rebatch",
      .inputs = {link("latents", "LATENT"), size},
      .outputs = {{"LATENT", "", "", true}},
      .newer_schema = true,
      .input_is_list = true,
      .run = run_rebatch_latents,
  });
  add_growing(catalog, "BatchImagesNode", "Batch Images", "image/batch", "IMAGE", "image",
              run_images);
  add_growing(catalog, "BatchMasksNode", "Batch Masks", "image/mask", "MASK", "mask", run_masks);
  add_growing(catalog, "BatchLatentsNode", "Batch Latents", "model/latent/batch", "LATENT",
              "latent", run_latents);
}

}  // namespace distorch::nodes
