#include <fmt/format.h>
#include <fmt/ranges.h>

#include <cmath>
#include <limits>

#include "distorch/base/error.h"
#include "distorch/sampling/guidance.h"

namespace distorch::sampling {
namespace {

using Box = PreparedItem::Box;

// "The whole of this dimension", for dimensions that an area does not name.
constexpr std::int64_t kWhole = std::numeric_limits<std::int32_t>::max();

// An area in cells. Fractions round half to even, and never to nothing.
Box to_cells(const Area& area, at::IntArrayRef dims) {
  if (area.size.size() != area.origin.size()) {
    throw Error(ErrorKind::Usage, "conditioning area", "has unequal numbers of sizes and origins");
  }
  if (area.fraction && area.size.size() < dims.size()) {
    throw Error(ErrorKind::Usage, "conditioning area",
                fmt::format("gives {} fractions, the latent has {} dimensions", area.size.size(),
                            dims.size()));
  }
  Box box;
  const std::size_t count = area.fraction ? dims.size() : area.size.size();
  for (std::size_t d = 0; d < count; ++d) {
    const double scale = area.fraction ? static_cast<double>(dims[d]) : 1.0;
    const auto size = static_cast<std::int64_t>(std::nearbyint(area.size[d] * scale));
    box.size.push_back(area.fraction ? std::max<std::int64_t>(1, size) : size);
    box.origin.push_back(static_cast<std::int64_t>(std::nearbyint(area.origin[d] * scale)));
  }
  // Video latents have frames before height and width: an area of two numbers means all frames.
  while (box.size.size() < dims.size()) {
    box.size.insert(box.size.begin(), kWhole);
    box.origin.insert(box.origin.begin(), 0);
  }
  box.size.resize(dims.size());
  box.origin.resize(dims.size());
  return box;
}

// The smallest box around what a mask [B, H, W] marks, at least 8 cells a side.
Box bounds_of(const at::Tensor& mask) {
  constexpr std::int64_t kSmallest = 8;
  const at::Tensor marked = mask.abs().amax(0).nonzero();  // [N, 2]: y, x
  if (marked.size(0) == 0) {
    return {{kSmallest, kSmallest}, {0, 0}};
  }
  const at::Tensor low = marked.amin(0);
  const at::Tensor high = marked.amax(0);
  Box box;
  for (int d = 0; d < 2; ++d) {
    const std::int64_t first = low[d].item().toLong();
    box.origin.push_back(first);
    box.size.push_back(std::max(kSmallest, high[d].item().toLong() - first + 1));
  }
  return box;
}

// A mask in the latent's height and width: [B or 1, H, W], on the latent's device.
at::Tensor to_latent_size(const at::Tensor& given, at::IntArrayRef dims, at::Device device) {
  at::Tensor mask = given.to(device, at::kFloat);
  if (mask.dim() == 2) {
    mask = mask.unsqueeze(0);
  }
  if (mask.dim() != 3) {
    throw Error(ErrorKind::Shape, "conditioning mask",
                fmt::format("has {} dimensions, 2 or 3 were expected", mask.dim()));
  }
  const std::int64_t height = dims[dims.size() - 2];
  const std::int64_t width = dims[dims.size() - 1];
  if (mask.size(1) != height || mask.size(2) != width) {
    mask = at::upsample_bilinear2d(mask.unsqueeze(1), {height, width}, false).squeeze(1);
  }
  return mask;
}

PreparedItem prepare(const X0Model& model, const ConditioningItem& item,
                     const EncodeContext& context) {
  const at::IntArrayRef dims = context.noise.sizes().slice(2);
  PreparedItem out;
  out.strength = item.strength;
  out.mask_strength = item.mask_strength;
  if (item.area) {
    out.box = to_cells(*item.area, dims);
  }
  if (item.mask.defined()) {
    out.mask = to_latent_size(item.mask, dims, context.noise.device());
    if (item.set_area_to_bounds && dims.size() == 2) {
      out.box = bounds_of(out.mask);
    }
  }
  if (item.start_percent) {
    out.sigma_start = static_cast<float>(model.sampling().percent_to_sigma(*item.start_percent));
  }
  if (item.end_percent) {
    out.sigma_end = static_cast<float>(model.sampling().percent_to_sigma(*item.end_percent));
  }
  out.inputs = model.encode(item, context);
  out.control = item.control;
  out.control_for_negative = item.control_for_negative;
  return out;
}

bool lies_inside(const Box& inner, const Box& outer) {
  for (std::size_t d = 0; d < inner.size.size(); ++d) {
    if (inner.origin[d] < outer.origin[d] ||
        inner.origin[d] + inner.size[d] > outer.origin[d] + outer.size[d]) {
      return false;
    }
  }
  return true;
}

double volume(const Box& box) {
  double product = 1;
  for (std::int64_t size : box.size) {
    product *= static_cast<double>(size);
  }
  return product;
}

// Guidance compares the two sides cell by cell: an item with an area needs a partner of that area,
// with the prompt of the smallest item of the other side that covers it.
void add_partner(const PreparedItem& item, std::vector<PreparedItem>& others) {
  if (!item.box) {
    return;
  }
  const PreparedItem* smallest = nullptr;
  for (const PreparedItem& other : others) {
    if (!other.box) {
      smallest = smallest == nullptr ? &other : smallest;
    } else if (lies_inside(*item.box, *other.box) &&
               (smallest == nullptr || !smallest->box ||
                volume(*smallest->box) > volume(*other.box))) {
      smallest = &other;
    }
  }
  if (smallest == nullptr || smallest->box == item.box) {
    return;
  }
  PreparedItem partner = item;
  partner.inputs = smallest->inputs;
  others.push_back(std::move(partner));
}

// A control set on the positive alone (the older node does) counts for the negative too, as long as
// no negative item has one: the k-th goes to the k-th item, beginning again at the end. Items with
// an area are left out on both sides.
void share_controls(const std::vector<PreparedItem>& positive,
                    std::vector<PreparedItem>& negative) {
  std::vector<PreparedItem*> takers;
  for (PreparedItem& item : negative) {
    if (item.box) {
      continue;
    }
    if (item.control) {
      return;
    }
    takers.push_back(&item);
  }
  std::size_t given = 0;
  for (const PreparedItem& item : positive) {
    if (!item.box && item.control && item.control_for_negative && !takers.empty()) {
      takers[given++ % takers.size()]->control = item.control;
    }
  }
}

}  // namespace

PreparedConditioning prepare_conditioning(const X0Model& model, const Conditioning& positive,
                                          const Conditioning& negative, EncodeContext context,
                                          const Conditioning& third) {
  PreparedConditioning out;
  const auto prepare_all = [&](const Conditioning& items, std::vector<PreparedItem>& list) {
    for (const ConditioningItem& item : items) {
      list.push_back(prepare(model, item, context));
    }
  };
  context.positive = true;
  prepare_all(positive, out.positive);
  context.positive = false;
  prepare_all(third, out.third);
  prepare_all(negative, out.negative);
  // A run without a third or a negative conditioning keeps these lists empty.
  std::vector<std::vector<PreparedItem>*> lists;
  for (auto* list : {&out.positive, &out.third, &out.negative}) {
    if (!list->empty()) {
      lists.push_back(list);
    }
  }
  for (auto* list : lists) {
    for (std::size_t i = 0; i < list->size(); ++i) {
      for (auto* other : lists) {
        if (other != list) {
          add_partner((*list)[i], *other);
        }
      }
    }
  }
  share_controls(out.positive, out.third);
  share_controls(out.positive, out.negative);
  return out;
}

}  // namespace distorch::sampling
