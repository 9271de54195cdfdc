#include "distorch/streaming/streamed_model.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <numeric>
#include <set>

#include "distorch/base/error.h"
#include "distorch/base/interrupt.h"
#include "distorch/device/channels_last.h"
#include "distorch/device/device.h"
#include "distorch/device/memory.h"
#include "distorch/device/recording.h"
#include "distorch/device/streams.h"
#include "distorch/streaming/trace.h"

namespace distorch::streaming {

using placement::How;
using weights::Body;
using weights::Tensors;

namespace {

/// The tensors of a block whose runs lie at these addresses; nothing where there are none.
std::vector<at::Tensor> placed_items(const std::vector<const std::byte*>& places,
                                     const Layout& layout) {
  std::vector<at::Tensor> views;
  if (places.empty()) return views;
  std::size_t run = 0;
  for (const auto& item : layout.items) {
    while (run + 1 < layout.runs.size() && item.slot_offset >= layout.runs[run + 1].slot_offset)
      ++run;
    auto options = at::TensorOptions().dtype(weights::to_torch(item.stored.dtype));
    auto* data =
        const_cast<std::byte*>(places[run]) + (item.slot_offset - layout.runs[run].slot_offset);
    if (reinterpret_cast<std::uintptr_t>(data) % options.dtype().itemsize() == 0) {
      views.push_back(at::from_blob(data, item.stored.shape, options));
    } else {
      views.push_back(at::empty(item.stored.shape, options));
      std::memcpy(views.back().mutable_data_ptr(), data,
                  static_cast<std::size_t>(item.stored.size_bytes));
    }
  }
  return views;
}

std::int64_t held_bytes(const std::vector<at::Tensor>& tensors, at::Device device) {
  std::set<const void*> seen;
  std::int64_t bytes = 0;
  for (const auto& tensor : tensors) {
    if (!tensor.defined() || tensor.device() != device) continue;
    const auto& storage = tensor.storage();
    if (seen.insert(storage.unsafeGetStorageImpl()).second)
      bytes += static_cast<std::int64_t>(storage.nbytes());
  }
  return bytes;
}

}  // namespace

StreamedModel::StreamedModel(weights::Manifest& manifest, weights::Checkpoint checkpoint,
                             StreamedOptions options)
    : manifest_(manifest),
      checkpoint_(std::move(checkpoint)),
      options_(std::move(options)),
      compute_(device::to_torch(options_.compute)),
      recorder_(compute_) {
  weights::check_complete(manifest_, checkpoint_, options_.name);
  std::vector<std::vector<Wanted>> wanted(manifest_.blocks().size());
  const auto& declared = manifest_.weights();
  for (std::size_t i = 0; i < declared.size(); ++i)
    if (const auto* stored = checkpoint_.find(declared[i].name))
      wanted[declared[i].block].push_back({static_cast<int>(i), *stored});
  for (auto& block : wanted) {
    layouts_.push_back(lay_out(std::move(block)));
    bool decode = false;
    std::int64_t bytes = 0;
    for (const auto& item : layouts_.back().items) {
      decode = decode || weights::to_torch(item.stored.dtype) != options_.dtype;
      bytes += converted_bytes(item, options_.dtype);
    }
    auto& image = channels_last_.emplace_back();
    const auto& items = layouts_.back().items;
    for (std::size_t i = 0; i < items.size(); ++i) {
      const auto& stored = items[i].stored;
      if (options_.channels_last && weights::to_torch(stored.dtype) == options_.dtype &&
          stored.shape.size() == 4 && stored.shape[2] * stored.shape[3] > 1)
        image.push_back(static_cast<int>(i));
    }
    needs_decode_.push_back(decode);
    resident_bytes_.push_back(decode ? bytes : layouts_.back().slot_bytes);
  }
  states_.resize(layouts_.size());
  manifest_.attach(this);
}

StreamedModel::~StreamedModel() { unload(); }

std::int64_t StreamedModel::total_file_bytes() const {
  std::int64_t total = 0;
  for (const auto& layout : layouts_) total += layout.link_bytes;
  return total;
}

/// The block's weights in a buffer that its bytes were brought to, in the file's dtype.
std::vector<at::Tensor> StreamedModel::items_in(const at::Tensor& buffer, int block) const {
  std::vector<at::Tensor> views;
  for (const auto& item : layouts_[block].items) views.push_back(view_item(buffer, item));
  if (!buffer.is_cpu())
    for (int item : channels_last_[block]) views[item] = device::as_channels_last(views[item]);
  return views;
}

// --- running

void StreamedModel::fill_slots(int block, const std::vector<at::Tensor>& values) {
  const auto& items = layouts_[block].items;
  for (std::size_t i = 0; i < items.size(); ++i) manifest_.slot(items[i].weight).value = values[i];
}

void StreamedModel::clear_slots(int block) {
  for (const auto& item : layouts_[block].items) manifest_.slot(item.weight).value = at::Tensor();
}

Tensors StreamedModel::run_resident(int block, const Tensors& inputs, const Body& body) {
  arrived(block);
  auto results = body(inputs);
  if (compute_.is_cpu() && !needs_decode_[block])
    for (const auto& run : layouts_[block].runs) run.file->mapping()->check();
  return results;
}

Tensors StreamedModel::run_streamed(int block, const Tensors& inputs, const Body& body) {
  auto& state = states_[block];
  device::aside([this, block, &state] {
    throw_if_interrupted();
    state.lease = rings_.at(homes_[block].device)->pin(block);
  });
  struct Leave {
    StreamedModel& model;
    int block;
    ~Leave() {
      model.clear_slots(block);
      // What is issued while recording may be thrown away: nobody may come to wait for it.
      if (!device::recording()) model.states_[block].lease = Lease();
    }
  } leave{*this, block};
  const auto& places = state.lease.places();
  std::vector<at::Tensor> placed = placed_items(places, layouts_[block]);
  auto& views = places.empty() ? state.views[state.lease.bytes().const_data_ptr()] : placed;
  if (views.empty()) views = items_in(state.lease.bytes(), block);
  fill_slots(block, decode(views, block));
  auto results = body(inputs);
  // Bytes used in place read as zeros where the file was cut short meanwhile.
  if (!places.empty())
    for (const auto& run : layouts_[block].runs) run.file->mapping()->check();
  device::aside([&state] { state.lease = Lease(); });
  return results;
}

Tensors StreamedModel::run_on_donor(int block, const Tensors& inputs, const Body& body) {
  auto donor = device::to_torch(homes_[block].device);
  auto moved = [](const Tensors& tensors, at::Device device) {
    Tensors result;
    for (const auto& tensor : tensors)
      result.push_back(tensor.defined() ? tensor.to(device, tensor.scalar_type(), true) : tensor);
    return result;
  };
  fill_slots(block, states_[block].values);
  // LoRA factors follow the block: they are small, and moved once.
  std::vector<std::pair<weights::Slot*, std::vector<weights::Patch>>> kept;
  for (const auto& item : layouts_[block].items) {
    auto& slot = manifest_.slot(item.weight);
    if (slot.patches.empty()) continue;
    kept.emplace_back(&slot, slot.patches);
    for (auto& patch : slot.patches)
      for (auto* factor : {&patch.up, &patch.down, &patch.mid, &patch.delta})
        if (factor->defined()) *factor = factor->to(donor);
  }
  struct Restore {
    StreamedModel& model;
    int block;
    decltype(kept)& patches;
    ~Restore() {
      for (auto& [slot, list] : patches) slot->patches = std::move(list);
      model.clear_slots(block);
    }
  } restore{*this, block, kept};
  return moved(body(moved(inputs, donor)), compute_);
}

Tensors StreamedModel::run(int block, const Tensors& inputs, const Body& body) {
  throw_if_interrupted();
  if (!loaded())
    throw Error(ErrorKind::Internal, options_.name, "was run before its weights were placed");
  const auto& name = manifest_.blocks()[block];
  if (block == 0 && !uploads_.empty() && started_) finish_uploads();
  started_ = started_ || block == 0;
  device::Place place(name);
  Traced traced(options_.compute + " compute", name, device::current_stream(compute_));
  Tensors results;
  for (int attempt = 0;; ++attempt) {
    try {
      // Read again at each attempt: making room may have moved this very block.
      switch (homes_[block].how) {
        case How::Resident: results = run_resident(block, inputs, body); break;
        case How::Streamed: results = run_streamed(block, inputs, body); break;
        case How::OnDonor: results = run_on_donor(block, inputs, body); break;
      }
      break;
    } catch (const std::exception& error) {
      // A recorder cannot give memory back: it starts again without recording.
      if (!device::is_out_of_memory(error) || device::recording()) throw;
      constexpr int attempts = 8;
      std::int64_t wanted = std::max<std::int64_t>(resident_bytes_[block], std::int64_t{64} << 20)
                            << attempt;
      if (attempt == attempts || !make_room || !make_room(options_.compute, wanted))
        throw Error(
            ErrorKind::OutOfMemory, options_.compute,
            fmt::format("block {} of {} does not fit even with every other weight moved out: {}",
                        name, options_.name, error.what()));
    }
  }
  return results;
}

void StreamedModel::record_steps(bool allowed) {
  record_steps_ = allowed;
  if (!allowed) drop_recordings();
}

bool StreamedModel::drop_recordings() {
  bool held = recorder_.held_bytes() > 0;
  recorder_.clear();
  return held;
}

bool StreamedModel::can_record() const {
  return std::none_of(homes_.begin(), homes_.end(),
                      [](const BlockHome& home) { return home.how == How::OnDonor; });
}

/// Where the rings stand: it decides which places the blocks of the next step get.
std::string StreamedModel::ring_positions() const {
  std::string text;
  for (const auto& [donor, ring] : rings_) {
    auto at = ring->position();
    text += fmt::format("ring {} {} {}:", at.last_pinned, at.last_filled, at.round);
    for (const auto& [index, offset] : at.fresh) text += fmt::format(" {}@{}", index, offset);
  }
  return text;
}

void StreamedModel::drop_leases() {
  for (auto& state : states_) state.lease = Lease();
}

at::Tensor StreamedModel::step(const std::vector<at::Tensor>& inputs,
                               const StepRecorder::Forward& forward, const std::string& variant) {
  // A profile wants to see the blocks.
  if (!record_steps_ || Trace::current() || !can_record()) return forward(inputs);
  if (started_) finish_uploads();
  try {
    return recorder_.run(
        inputs,
        [this, forward](const std::vector<at::Tensor>& in) {
          if (!device::recording()) drop_leases();  // of a recording that was broken off
          return forward(in);
        },
        ring_positions() + variant);
  } catch (...) {
    drop_leases();  // of a replay, too
    throw;
  }
}

// --- LoRA

void StreamedModel::set_loras(const std::vector<LoraUse>& loras) {
  if (loras == loras_) return;
  loras_ = loras;
  drop_recordings();  // strengths are part of what was recorded
  std::map<std::string, std::size_t> index;
  const auto& declared = manifest_.weights();
  for (std::size_t i = 0; i < declared.size(); ++i) {
    index[declared[i].name] = i;
    manifest_.slot(i).patches.clear();
  }
  std::set<std::string> used;
  for (const auto& lora : loras) {
    used.insert(lora.key);
    for (const auto& named : *lora.patches) {
      auto at = index.find(named.weight);
      if (at == index.end()) continue;
      auto key = std::pair(lora.key, named.weight);
      auto factor = factors_.find(key);
      if (factor == factors_.end())
        factor = factors_
                     .emplace(key, weights::fit_patch(named, declared[at->second].shape, 1.0,
                                                      options_.dtype, compute_))
                     .first;
      auto patch = factor->second;
      patch.scale *= lora.strength;
      if (patch.scale != 0) manifest_.slot(at->second).patches.push_back(std::move(patch));
    }
  }
  std::erase_if(factors_, [&](const auto& entry) { return !used.count(entry.first.first); });
}

// --- accounts

std::int64_t StreamedModel::device_bytes(const std::string& name) const {
  if (name == "disk") return 0;
  auto device = device::to_torch(name);
  std::int64_t bytes = 0;
  for (std::size_t block = 0; block < states_.size(); ++block) {
    const auto& state = states_[block];
    for (const auto& buffer : {state.donor, state.coming})
      if (buffer.defined() && buffer.device() == device) bytes += buffer.numel();
    if (!(device.is_cpu() && !needs_decode_[block])) bytes += held_bytes(state.values, device);
  }
  if (device == compute_)
    for (const auto& [donor, ring] : rings_) bytes += ring->capacity_bytes();
  std::vector<at::Tensor> factors;
  for (const auto& [key, patch] : factors_)
    for (const auto& factor : {patch.up, patch.down, patch.mid, patch.delta})
      factors.push_back(factor);
  if (device == compute_) bytes += recorder_.held_bytes();
  return bytes + held_bytes(factors, device);
}

std::int64_t StreamedModel::streamed_bytes() const {
  std::int64_t bytes = 0;
  for (const auto& [donor, ring] : rings_) bytes += ring->copied_bytes();
  return bytes;
}

}  // namespace distorch::streaming
