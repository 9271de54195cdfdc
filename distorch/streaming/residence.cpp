#include "distorch/streaming/residence.h"

#include <algorithm>
#include <set>

#include "distorch/base/align.h"
#include "distorch/device/channels_last.h"
#include "distorch/device/device.h"
#include "distorch/device/memory.h"
#include "distorch/device/streams.h"
#include "distorch/streaming/link_traffic.h"

namespace distorch::streaming {

using placement::How;

Residence::Residence(const Contents& contents, Options options)
    : contents_(contents),
      options_(std::move(options)),
      compute_(device::to_torch(options_.compute)),
      states_(contents.block_count()) {}

void Residence::drop(int block) {
  states_[block] = {};
  contents_.clear_slots(block);
}

void Residence::drop_loras(int block) {
  auto& state = states_[block];
  state.loras = {};
  state.lora_tensors.clear();
  state.has_loras = false;
  // Adapters hold them, too, here and in the model's slots.
  for (auto& slot : state.values) slot.adapters.clear();
  if (!state.values.empty()) contents_.clear_slots(block);
}

void Residence::clear() {
  uploads_.clear();
  for (int block = 0; block < static_cast<int>(states_.size()); ++block) drop(block);
  homes_.clear();
  stale_ = false;
}

std::int64_t Residence::resident_bytes(int block, bool converted) const {
  // An accelerator's allocator gives multiples of this, for the weights and for what LoRAs add.
  constexpr std::int64_t granule = 512;
  auto own = converted && contents_.needs_conversion(block)
                 ? contents_.converted_bytes(block)
                 : align_up(contents_.weights_of(block).slot_bytes, granule);
  return own + align_up(contents_.loras_of(block).slot_bytes, granule);
}

std::int64_t Residence::resident_bytes(int block, const BlockHome& home) const {
  if (home.how == How::Resident) return resident_bytes(block, converted_);
  std::int64_t bytes = 0;
  const auto& parts = contents_.parts(block);
  for (std::size_t part = 0; home.rests && part < parts.size(); ++part)
    bytes += home.rests >> part & 1 ? parts[part] : 0;
  return bytes;
}

const Layout& Residence::streamed(int block) const {
  const auto& split = states_[block].split;
  return split ? split->with_loras : contents_.all_of(block);
}

const std::vector<int>& Residence::streamed_images(int block) const {
  const auto& split = states_[block].split;
  return split ? split->streamed_images : contents_.channels_last(block);
}

std::vector<at::Tensor> Residence::with_resting(int block, std::vector<at::Tensor> streamed) const {
  const auto& state = states_[block];
  if (!state.split) return streamed;
  const auto &resting = state.split->rests.indices, &own = state.split->streams.indices;
  std::vector<at::Tensor> tensors(resting.size() + own.size());
  for (std::size_t i = 0; i < resting.size(); ++i) tensors[resting[i]] = state.resting_tensors[i];
  for (std::size_t i = 0; i < own.size(); ++i) tensors[own[i]] = std::move(streamed[i]);
  for (auto i = own.size(); i < streamed.size(); ++i) tensors.push_back(std::move(streamed[i]));
  return tensors;
}

// --- bringing weights

/// Where the block's bytes are brought to: nowhere where they are used in the file's mapping or
/// brought as they are needed.
std::optional<at::Device> Residence::target_of(int block) const {
  const auto& home = homes_[block];
  if (home.how == How::Resident) return compute_.is_cpu() ? std::nullopt : std::optional(compute_);
  if (home.device == "disk" || home.device == "cpu") return std::nullopt;
  return device::to_torch(home.device);
}

Upload& Residence::upload_to(at::Device device) {
  auto& upload = uploads_[device::name_of(device)];
  if (!upload) upload = std::make_unique<Upload>(device);
  return *upload;
}

/// A buffer on the device for the bytes of a layout, which are brought there; on their way where an
/// upload is used (see wait_for()). `number` stands for them in the upload.
at::Tensor Residence::bring(int number, const Layout& layout, at::Device target, bool in_pieces) {
  asked_ = device::name_of(target);
  count_link_bytes("cpu", asked_, layout.link_bytes);
  if (in_pieces) upload_to(target);  // its threads make their buffers meanwhile
  auto buffer = at::empty({layout.slot_bytes}, at::TensorOptions().dtype(at::kByte).device(target));
  if (in_pieces) {
    upload_to(target).add(number, layout, buffer);
    return buffer;
  }
  // Not from the mapping: a part of it may be registered, and a copy that begins in registered
  // memory and ends outside is refused.
  for (const auto& stretch : layout.stretches) {
    auto source = at::empty({stretch.size_bytes}, at::TensorOptions().dtype(at::kByte));
    read_stretch(stretch, source.mutable_data_ptr(), true);
    buffer.narrow(0, stretch.slot_offset, stretch.size_bytes).copy_(source);
  }
  return buffer;
}

void Residence::wait_for(int number, at::Device device) {
  if (auto upload = uploads_.find(device::name_of(device)); upload != uploads_.end())
    upload->second->wait(number);
}

/// Weights for good on the host: in place in the mapping, or converted into pages of their own
/// (within malloc's heap they would lie between activations and keep it from closing its holes;
/// the file's pages are given back).
void Residence::load_on_host(int block) {
  auto& state = states_[block];
  const auto& layout = contents_.weights_of(block);
  state.values = contents_.values(block, mapped_items(layout));
  if (is_converted(block)) {
    auto pages = std::make_shared<device::HostBuffer>(contents_.converted_bytes(block),
                                                      std::vector<c10::Device>{});
    auto memory = at::from_blob(
        pages->data(), {pages->bytes()}, [pages](void*) {}, at::TensorOptions().dtype(at::kByte));
    state.values = contents_.converted_into(memory, block, state.values);
    // Reading a weight brings pages of its neighbours back.
    for (const auto& stretch : layout.stretches) {
      stretch.file->mapping()->dont_need(stretch.range());
      stretch.file->mapping()->check();
    }
  }
}

/// Convolutions are laid out where they lie, as a ring does it: kernels choose by alignment too, and
/// every placement has to give the same bits. Each is laid out once, also where memory runs out in
/// between and this is called again.
void Residence::lay_out_images(Coming& coming, const Layout& layout,
                               const std::vector<int>& images) {
  auto& [buffer, laid_out] = coming;
  for (; laid_out < images.size(); ++laid_out)
    device::to_channels_last_in_place(view_item(buffer, layout.items[images[laid_out]]),
                                      device::current_stream(buffer.device()));
}

/// The weights' bytes have come.
void Residence::take_weights(int block) {
  auto& state = states_[block];
  const auto& layout = contents_.weights_of(block);
  const auto& images = contents_.channels_last(block);
  lay_out_images(state.weights, layout, images);
  auto values = contents_.values(block, laid_out_items(state.weights.buffer, layout, images));
  state.values = is_converted(block) ? contents_.converted(std::move(values)) : std::move(values);
  state.weights = {};
}

/// The bytes of what rests of a streamed block have come.
void Residence::take_resting(int block) {
  auto& state = states_[block];
  const auto& layout = state.split->rests.layout;
  lay_out_images(state.resting, layout, state.split->resting_images);
  state.resting_tensors = laid_out_items(state.resting.buffer, layout, state.split->resting_images);
  state.resting = {};
}

/// Everything of a block that rests is there: its slots get it.
void Residence::settle(int block) {
  auto& state = states_[block];
  state.values = contents_.with_loras(block, std::move(state.values), state.lora_tensors.data());
  state.has_loras = true;
  if (homes_[block].how == How::Resident) contents_.fill_slots(state.values);
}

void Residence::arrived(int block) {
  auto& state = states_[block];
  if (state.resting.buffer.defined()) {
    wait_for(number_of(block, Kind::Resting), compute_);
    take_resting(block);
  }
  if (!state.weights.buffer.defined() && !state.loras.buffer.defined()) return;
  if (auto& coming = state.weights.buffer; coming.defined()) {
    wait_for(number_of(block, Kind::Weights), coming.device());
    if (homes_[block].how == How::Streamed) {
      state.donor = std::exchange(coming, at::Tensor());
      return;
    }
    take_weights(block);
  }
  if (auto& coming = state.loras.buffer; coming.defined()) {
    wait_for(number_of(block, Kind::Loras), coming.device());
    state.lora_tensors = view_items(coming, contents_.loras_of(block));
    state.loras = {};
  }
  settle(block);
}

void Residence::finish() {
  if (uploads_.empty()) return;
  for (int block = 0; block < static_cast<int>(states_.size()); ++block) arrived(block);
  uploads_.clear();
}

bool Residence::upload_failed() const {
  return std::any_of(uploads_.begin(), uploads_.end(),
                     [](const auto& entry) { return entry.second->failed(); });
}

/// Loads these blocks, and of others what LoRAs add.
void Residence::load(const std::vector<int>& blocks, const std::vector<int>& loras, int& current) {
  std::int64_t bytes = 0;
  for (int block : blocks) {
    if (target_of(block)) bytes += streamed(block).link_bytes;
    if (const auto& split = states_[block].split) bytes += split->rests.layout.link_bytes;
  }
  for (int block : loras)
    if (target_of(block)) bytes += contents_.loras_of(block).link_bytes;
  bool in_pieces = bytes >= options_.upload_from_bytes;
  int before = -1;
  auto bring_block = [&](int block, bool with_weights) {
    current = block;
    auto& state = states_[block];
    auto target = target_of(block);
    bool wait = true;
    if (const auto& split = state.split; split && with_weights) {
      state.resting.buffer =
          bring(number_of(block, Kind::Resting), split->rests.layout, compute_, in_pieces);
      wait = !in_pieces || target;
    }
    if (target && !rests(block)) {
      state.weights.buffer = bring(block, streamed(block), *target, in_pieces);
    } else if (target) {
      if (with_weights)
        state.weights.buffer = bring(block, contents_.weights_of(block), *target, in_pieces);
      if (const auto& added = contents_.loras_of(block); added.slot_bytes > 0)
        state.loras.buffer = bring(number_of(block, Kind::Loras), added, *target, in_pieces);
      wait = !in_pieces || is_converted(block) || *target != compute_;
      if (!state.weights.buffer.defined() && !state.loras.buffer.defined()) settle(block);
    } else if (rests(block)) {
      if (with_weights) load_on_host(block);
      state.lora_tensors = mapped_items(contents_.loras_of(block));
      settle(block);
    }
    // Where bytes are converted the file's and the converted ones exist side by side: for one block
    // while the next is on its way, not for all.
    if (before >= 0) arrived(before);
    before = wait ? block : -1;
  };
  for (int block : blocks) bring_block(block, true);
  for (int block : loras) bring_block(block, false);
  if (before >= 0) arrived(before);
  for (auto& [device, upload] : uploads_) upload->close();
  // Rings read a donor's memory on other streams; loading is rare, so the host waits once instead
  // of every copy.
  for (const auto& home : homes_)
    if (home.how == How::Streamed && home.device != "cpu" && home.device != "disk")
      device::synchronize(device::to_torch(home.device));
}

void Residence::move(const std::vector<BlockHome>& homes, bool converted, int& current) {
  finish();
  auto before = std::exchange(homes_, homes);
  bool other_form = std::exchange(converted_, converted) != converted;
  stale_ = false;
  std::vector<int> changed, loras;
  for (int block = 0; block < static_cast<int>(homes.size()); ++block) {
    bool same = !before.empty() && before[block] == homes[block];
    if (same && other_form && rests(block) && contents_.needs_conversion(block)) same = false;
    if (same && !rests(block) && target_of(block) && !states_[block].donor.defined()) same = false;
    if (!same) {
      drop(block);
      changed.push_back(block);
      if (homes[block].rests) states_[block].split = contents_.split(block, homes[block].rests);
    } else if (rests(block) && !states_[block].has_loras) {
      loras.push_back(block);
    }
  }
  // Under a tight budget pieces of large free stretches must not be given to small weights.
  if (std::any_of(homes.begin(), homes.end(),
                  [](const BlockHome& home) { return home.how == How::Streamed; }))
    device::empty_cache(compute_);
  load(changed, loras, current);
}

void Residence::loras_changed(const std::vector<int>& blocks) {
  if (homes_.empty()) return;
  finish();
  stale_ = true;
  for (int block : blocks) {
    drop_loras(block);
    if (rests(block)) continue;
    auto& state = states_[block];
    state.donor = at::Tensor();
    if (auto& split = state.split)
      split->with_loras = joined(split->streams.layout, contents_.loras_of(block));
  }
}

void Residence::strengths_changed() {
  if (homes_.empty()) return;
  finish();
  for (int block = 0; block < static_cast<int>(states_.size()); ++block)
    if (rests(block) && states_[block].has_loras) settle(block);
}

// --- accounts

std::int64_t Residence::held_bytes(const std::string& name) const {
  if (name == "disk") return 0;
  auto device = device::to_torch(name);
  std::int64_t bytes = 0;
  std::set<const void*> seen;
  auto add = [&](const at::Tensor& tensor) {
    if (!tensor.defined() || tensor.device() != device) return;
    const auto& storage = tensor.storage();
    if (seen.insert(storage.unsafeGetStorageImpl()).second)
      bytes += static_cast<std::int64_t>(storage.nbytes());
  };
  for (std::size_t block = 0; block < states_.size(); ++block) {
    const auto& state = states_[block];
    add(state.donor);
    add(state.weights.buffer);
    add(state.loras.buffer);
    add(state.resting.buffer);
    for (const auto& tensor : state.resting_tensors) add(tensor);
    // What is used in place in a file's mapping is nobody's memory.
    if (!device.is_cpu())
      for (const auto& tensor : state.lora_tensors) add(tensor);
    if (device.is_cpu() && !is_converted(static_cast<int>(block))) continue;
    for (const auto& slot : state.values) {
      add(slot.value);
      if (!slot.packed) continue;
      add(slot.packed->values);
      for (const auto& part : slot.packed->parts) add(part);
    }
  }
  return bytes;
}

}  // namespace distorch::streaming
