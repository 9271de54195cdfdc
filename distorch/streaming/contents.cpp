#include "distorch/streaming/contents.h"

#include <algorithm>
#include <map>
#include <numeric>

#include "distorch/base/align.h"
#include "distorch/quant/fp8_operators.h"
#include "distorch/quant/gguf.h"
#include "distorch/quant/joined.h"

namespace distorch::streaming {

namespace {

// What ATen aligns CPU tensors to, by which kernels choose their path.
constexpr std::int64_t value_alignment = 64;

/// A joined weight as the tensor that its pieces make up where they lie one behind the other;
/// undefined where they don't.
at::Tensor as_one_tensor(const weights::Stored& stored, const at::Tensor* pieces) {
  auto next = pieces[0].storage_offset() * static_cast<std::int64_t>(pieces[0].element_size());
  for (std::size_t i = 0; i < stored.parts.size(); ++i) {
    const auto offset =
        pieces[i].storage_offset() * static_cast<std::int64_t>(pieces[i].element_size());
    if (!pieces[i].is_alias_of(pieces[0]) || offset != next || !pieces[i].is_contiguous())
      return {};
    next += static_cast<std::int64_t>(pieces[i].nbytes());
  }
  return pieces[0].as_strided(stored.shape, c10::contiguous_strides(stored.shape));
}

}  // namespace

std::int64_t dense_bytes(const weights::Stored& stored, at::ScalarType dtype) {
  auto bytes =
      c10::multiply_integers(stored.shape) * static_cast<std::int64_t>(c10::elementSize(dtype));
  return align_up(bytes, value_alignment);
}

/// Whether the pieces of a joined weight can lie one behind the other as one tensor.
bool is_one_tensor(const weights::Stored& stored) {
  if (stored.encoding != &quant::joined()) return false;
  for (const auto& piece : stored.parts)
    if (piece.dtype != stored.dtype ||
        (&piece != &stored.parts.back() && piece.size_bytes % stretch_alignment != 0))
      return false;
  return true;
}

/// Whether a packed weight stays so. Of those that are to be kept in a type of few bits only what is
/// plain in the file is rounded to it.
bool Contents::rests_packed(const quant::Encoding& encoding) const {
  return options_.kept_in.has_value() || encoding.rests_packed_for(options_.compute);
}

/// Whether conversion leaves it as it is.
bool Contents::is_as_computed(const weights::Stored& stored) const {
  if (stored.encoding == &quant::joined())
    return is_one_tensor(stored) && weights::to_torch(stored) == rest_dtype();
  if (stored.encoding) return rests_packed(*stored.encoding);
  return weights::to_torch(stored) == rest_dtype();
}

/// Whether a packed weight becomes plain numbers where it is converted.
bool Contents::is_converted(const quant::Packed& packed) const {
  if (packed.encoding == &quant::joined()) return true;
  return !rests_packed(*packed.encoding);
}

std::int64_t Contents::converted_bytes_of(const weights::Stored& stored) const {
  const bool packed =
      stored.encoding && stored.encoding != &quant::joined() && rests_packed(*stored.encoding);
  if (!packed) return dense_bytes(stored, rest_dtype());
  std::int64_t bytes = 0;
  for (const auto& tensor : weights::tensors_of(stored))
    bytes += dense_bytes(tensor, weights::to_torch(tensor));
  return bytes;
}

Contents::Contents(weights::Manifest& manifest, const weights::Checkpoint& checkpoint,
                   Options options)
    : manifest_(manifest), options_(std::move(options)), blocks_(manifest.blocks().size()) {
  weights::check_complete(manifest_, checkpoint, options_.name);
  const auto& declared = manifest_.weights();
  for (std::size_t i = 0; i < declared.size(); ++i)
    if (const auto* stored = checkpoint.find(declared[i].name))
      blocks_[declared[i].block].stored.emplace_back(static_cast<int>(i), *stored);
  for (auto& block : blocks_) {
    std::vector<weights::Stored> tensors;
    std::vector<bool> follows;
    for (const auto& [weight, stored] : block.stored) {
      const bool one = is_one_tensor(stored);
      const auto first = tensors.size();
      for (auto& tensor : weights::tensors_of(stored)) {
        follows.push_back(one && tensors.size() > first);
        tensors.push_back(std::move(tensor));
      }
      block.needs_conversion = block.needs_conversion || !is_as_computed(stored);
      block.converted_bytes += converted_bytes_of(stored);
    }
    block.weights = lay_out(tensors, follows);
    block.all = block.weights;
    find_parts(block);
    if (!options_.channels_last || options_.kept_in) continue;
    const auto& items = block.weights.items;
    for (std::size_t i = 0; i < items.size(); ++i) {
      const auto& shape = items[i].stored.shape;
      if (is_as_computed(items[i].stored) && shape.size() == 4 && shape[2] * shape[3] > 1)
        block.channels_last.push_back(static_cast<int>(i));
    }
  }
  manifest_.compute_with(arithmetic());
}

/// Fills part_bytes and part_of.
void Contents::find_parts(Block& block) {
  constexpr std::int64_t tiny = 512, small = 48;  // shares of the block
  constexpr std::int64_t granule = 512;           // of device allocators
  // What a tensor takes apart from the others: the room before it, too, where it begins oddly.
  std::vector<std::int64_t> bytes(block.weights.items.size());
  for (const auto& item : block.weights.items)
    bytes[item.index] = align_up(item.stored.size_bytes, stretch_alignment) +
                        (item.slot_offset % stretch_alignment == 0 ? 0 : stretch_alignment);
  block.part_of.assign(bytes.size(), 0);
  const auto total = std::accumulate(bytes.begin(), bytes.end(), std::int64_t{0});
  if (total == 0) return;
  int open = -1;  // the part that small weights go to
  std::size_t first = 0;
  auto& parts = block.part_bytes;
  parts.assign(1, 0);
  for (const auto& [weight, stored] : block.stored) {
    const auto end = first + weights::tensors_of(stored).size();
    std::int64_t own = 0;
    for (auto i = first; i < end; ++i) own += bytes[i];
    int part = 0;
    if (own * small >= total) {
      part = static_cast<int>(parts.size());
      parts.push_back(0);
    } else if (own * tiny >= total) {
      if (open < 0) {
        open = static_cast<int>(parts.size());
        parts.push_back(0);
      }
      part = open;
    }
    parts[part] += own;
    if (part == open && parts[part] * small >= total) open = -1;
    for (auto i = first; i < end; ++i) block.part_of[i] = part;
    first = end;
  }
  if (parts.front() == 0) {
    parts.erase(parts.begin());
    for (int& part : block.part_of) --part;
  }
  for (auto& part : parts) part = align_up(part, granule);
}

SplitBlock Contents::split(int block, std::uint64_t rests) const {
  const auto& whole = blocks_[block];
  std::vector<bool> resting, streamed;
  for (int part : whole.part_of) {
    resting.push_back(rests >> part & 1);
    streamed.push_back(!resting.back());
  }
  SplitBlock split{part_of(whole.weights, resting), part_of(whole.weights, streamed), {}, {}, {}};
  split.with_loras = joined(split.streams.layout, whole.loras);
  const auto images = [&](const PartLayout& part) {
    std::vector<int> items;
    for (std::size_t i = 0; i < part.items.size(); ++i)
      if (std::find(whole.channels_last.begin(), whole.channels_last.end(), part.items[i]) !=
          whole.channels_last.end())
        items.push_back(static_cast<int>(i));
    return items;
  };
  split.resting_images = images(split.rests);
  split.streamed_images = images(split.streams);
  return split;
}

BlockValues Contents::values(int block, const std::vector<at::Tensor>& tensors) const {
  BlockValues values;
  const auto* next = tensors.data();
  for (const auto& [weight, stored] : blocks_[block].stored) {
    auto& slot = values.emplace_back(SlotValue{weight, {}, nullptr, {}});
    if (is_one_tensor(stored)) slot.value = as_one_tensor(stored, next);
    if (!slot.value.defined() && stored.encoding)
      slot.packed = std::make_shared<quant::Packed>(weights::packed_from(stored, next));
    else if (!slot.value.defined())
      slot.value = *next;
    next += weights::tensors_of(stored).size();
  }
  return values;
}

bool Contents::other_strengths_only(const std::vector<LoraUse>& loras) const {
  return std::equal(loras.begin(), loras.end(), loras_.begin(), loras_.end(),
                    [](const LoraUse& a, const LoraUse& b) {
                      return a.key == b.key && a.adapters == b.adapters;
                    });
}

std::vector<int> Contents::set_loras(const std::vector<LoraUse>& loras) {
  if (other_strengths_only(loras)) {
    loras_ = loras;
    return {};
  }
  std::map<std::string, std::pair<int, int>> places;  // weight -> block, place in it
  const auto& declared = manifest_.weights();
  for (std::size_t block = 0; block < blocks_.size(); ++block)
    for (std::size_t place = 0; place < blocks_[block].stored.size(); ++place)
      places[declared[blocks_[block].stored[place].first].name] = {static_cast<int>(block),
                                                                   static_cast<int>(place)};
  std::vector<std::vector<LoraPart>> adapters(blocks_.size());
  std::vector<std::vector<weights::Stored>> tensors(blocks_.size());
  for (std::size_t lora = 0; lora < loras.size(); ++lora)
    for (const auto& named : *loras[lora].adapters) {
      auto at = places.find(named.weight);
      if (at == places.end()) continue;
      auto [block, place] = at->second;
      adapters[block].push_back({place, lora, &named});
      for (const auto& [part, stored] : named.parts) tensors[block].push_back(stored);
    }
  std::vector<Layout> added(blocks_.size()), all(blocks_.size());
  std::vector<int> changed;
  for (std::size_t block = 0; block < blocks_.size(); ++block) {
    if (tensors[block].empty() && blocks_[block].adapters.empty()) continue;
    added[block] = lay_out(tensors[block]);
    all[block] = joined(blocks_[block].weights, added[block]);
    changed.push_back(static_cast<int>(block));
  }
  for (int block : changed) {
    blocks_[block].adapters = std::move(adapters[block]);
    blocks_[block].loras = std::move(added[block]);
    blocks_[block].all = std::move(all[block]);
  }
  loras_ = loras;
  return changed;
}

BlockValues Contents::with_loras(int block, BlockValues values, const at::Tensor* first) const {
  for (auto& slot : values) slot.adapters.clear();
  for (const auto& [place, lora, named] : blocks_[block].adapters) {
    std::vector<at::Tensor> parts(first, first + named->parts.size());
    first += named->parts.size();
    auto adapter = weights::make_adapter(*named, parts, loras_[lora].strength);
    if (!adapter.is_nothing()) values[place].adapters.push_back(std::move(adapter));
  }
  return values;
}

BlockValues Contents::converted(BlockValues values) const {
  for (auto& slot : values) {
    std::optional<at::MemoryFormat> format;
    if (options_.channels_last && manifest_.weights()[slot.weight].shape.size() == 4)
      format = at::MemoryFormat::ChannelsLast;
    if (slot.packed && is_converted(*slot.packed)) {
      slot.value = quant::decode(*slot.packed, rest_dtype());
      if (format) slot.value = slot.value.contiguous(*format);
      slot.packed = nullptr;
    } else if (!slot.packed && slot.value.scalar_type() != rest_dtype()) {
      slot.value = format ? slot.value.to(rest_dtype(), false, false, format)
                          : quant::numbers_in(slot.value, rest_dtype());
    }
  }
  return values;
}

BlockValues Contents::converted_into(const at::Tensor& memory, int block,
                                     const BlockValues& values) const {
  auto result = values;
  std::int64_t offset = 0;
  // A tensor of these numbers in the next stretch of the memory.
  auto next = [&](const at::Tensor& numbers, at::ScalarType dtype) {
    const auto shape = numbers.sizes().vec();
    auto bytes = numbers.numel() * static_cast<std::int64_t>(c10::elementSize(dtype));
    auto room = memory.narrow(0, offset, bytes).view(dtype);
    auto value = options_.channels_last && shape.size() == 4
                     ? room.view({shape[0], shape[2], shape[3], shape[1]}).permute({0, 3, 1, 2})
                     : room.view(shape);
    value.copy_(numbers);
    offset += align_up(bytes, value_alignment);
    return value;
  };
  for (std::size_t i = 0; i < result.size(); ++i) {
    auto& slot = result[i];
    if (slot.packed && !is_converted(*slot.packed)) {
      auto packed = *slot.packed;
      packed.values = next(packed.values, packed.values.scalar_type());
      for (auto& part : packed.parts)
        if (part.defined()) part = next(part.reshape({-1}), part.scalar_type()).view(part.sizes());
      slot.packed = std::make_shared<quant::Packed>(std::move(packed));
    } else {
      slot.value =
          next(slot.packed ? quant::decode(*slot.packed, rest_dtype()) : slot.value, rest_dtype());
      slot.packed = nullptr;
    }
    for (const auto& part : weights::tensors_of(blocks_[block].stored[i].second))
      part.file->mapping()->dont_need(part.range());
  }
  return result;
}

weights::Arithmetic Contents::arithmetic() const {
  return {.dtype = options_.dtype,
          .kept_in = options_.kept_in,
          .fast_products = options_.fast_products};
}

void Contents::fill_slots(const BlockValues& values) const {
  for (const auto& [weight, value, packed, adapters] : values) {
    auto& slot = manifest_.slot(weight);
    slot.value = value;
    slot.packed = packed;
    slot.adapters = adapters;
  }
}

void Contents::clear_slots(int block) const {
  for (const auto& [weight, stored] : blocks_[block].stored) {
    auto& slot = manifest_.slot(weight);
    slot.value = at::Tensor();
    slot.packed = nullptr;
    slot.adapters.clear();
  }
}

}  // namespace distorch::streaming
