#include "distorch/streaming/streamed_model.h"

#include <fmt/format.h>

#include <cstring>
#include <numeric>
#include <set>

#include "distorch/base/error.h"
#include "distorch/base/interrupt.h"
#include "distorch/base/log.h"
#include "distorch/base/units.h"
#include "distorch/device/device.h"
#include "distorch/device/memory.h"
#include "distorch/device/registered.h"
#include "distorch/streaming/trace.h"

namespace distorch::streaming {

using placement::How;
using weights::Body;
using weights::Tensors;

namespace {

/// The tensor of an item inside a buffer laid out as its layout says, in the file's dtype.
at::Tensor view_item(const at::Tensor& buffer, const Item& item) {
  auto dtype = weights::to_torch(item.stored.dtype);
  return buffer.narrow(0, item.slot_offset, item.stored.size_bytes)
      .view(dtype)
      .view(item.stored.shape);
}

std::vector<at::Tensor> view_items(const at::Tensor& buffer, const Layout& layout) {
  std::vector<at::Tensor> views;
  views.reserve(layout.items.size());
  for (const auto& item : layout.items) views.push_back(view_item(buffer, item));
  return views;
}

std::vector<at::Tensor> mapped_items(const Layout& layout) {
  std::vector<at::Tensor> views;
  views.reserve(layout.items.size());
  for (const auto& item : layout.items) views.push_back(weights::mapped_tensor(item.stored));
  return views;
}

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

/// Bytes of a weight in the compute dtype; whole multiples of what ATen aligns CPU tensors to, by
/// which kernels choose their path.
std::int64_t converted_bytes(const Item& item, at::ScalarType dtype) {
  constexpr std::int64_t alignment = 64;
  auto bytes = c10::multiply_integers(item.stored.shape) *
               static_cast<std::int64_t>(c10::elementSize(dtype));
  return (bytes + alignment - 1) / alignment * alignment;
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
      compute_(device::to_torch(options_.compute)) {
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

// --- loading
// ------------------------------------------------------------------------------------------------

void StreamedModel::register_files() {
  if (!registered_.empty() || !device::has_streams(compute_)) return;
  std::map<const formats::TensorFile*, std::shared_ptr<const formats::TensorFile>> files;
  for (const auto& layout : layouts_)
    for (const auto& run : layout.runs) files[run.file.get()] = run.file;
  all_registered_ = true;
  for (const auto& [key, file] : files) {
    auto bytes = file->mapping()->bytes();
    registered_.emplace_back(bytes.data(), static_cast<std::int64_t>(bytes.size()),
                             std::vector<c10::Device>{compute_});
    all_registered_ = all_registered_ && static_cast<bool>(registered_.back());
  }
}

/// The block's bytes as one buffer on an accelerator.
at::Tensor StreamedModel::raw_copy(int block, at::Device device) {
  const auto& layout = layouts_[block];
  auto buffer = at::empty({layout.slot_bytes}, at::TensorOptions().dtype(at::kByte).device(device));
  auto stream = device::current_stream(device);
  for (const auto& run : layout.runs) {
    run.file->mapping()->check();
    auto bytes = run.file->mapping()->bytes(run.range());
    auto source = at::from_blob(const_cast<std::byte*>(bytes.data()), {run.size_bytes},
                                at::TensorOptions().dtype(at::kByte));
    device::copy_async(buffer.narrow(0, run.slot_offset, run.size_bytes), source, stream);
  }
  return buffer;
}

std::vector<at::Tensor> StreamedModel::decode(const std::vector<at::Tensor>& raw, int block) const {
  if (!needs_decode_[block]) return raw;
  std::vector<at::Tensor> values;
  values.reserve(raw.size());
  for (const auto& tensor : raw)
    values.push_back(options_.channels_last && tensor.dim() == 4
                         ? tensor.to(options_.dtype, false, false, at::MemoryFormat::ChannelsLast)
                         : tensor.to(options_.dtype));
  return values;
}

/// A block's weights in the compute dtype, in pages of their own: within malloc's heap they would
/// lie between activations and keep it from closing its holes. The file's pages are given back.
std::vector<at::Tensor> StreamedModel::converted_values(int block) const {
  auto pages =
      std::make_shared<device::HostBuffer>(resident_bytes_[block], std::vector<c10::Device>{});
  auto buffer = at::from_blob(
      pages->data(), {pages->bytes()}, [pages](void*) {}, at::TensorOptions().dtype(at::kByte));
  std::vector<at::Tensor> values;
  std::int64_t offset = 0;
  for (const auto& item : layouts_[block].items) {
    const auto& shape = item.stored.shape;
    auto room = buffer.narrow(0, offset, converted_bytes(item, options_.dtype))
                    .view(options_.dtype)
                    .narrow(0, 0, c10::multiply_integers(shape));
    auto value = options_.channels_last && shape.size() == 4
                     ? room.view({shape[0], shape[2], shape[3], shape[1]}).permute({0, 3, 1, 2})
                     : room.view(shape);
    value.copy_(weights::mapped_tensor(item.stored));
    item.stored.file->mapping()->dont_need(item.stored.range());
    offset += converted_bytes(item, options_.dtype);
    values.push_back(std::move(value));
  }
  // Reading an item brings pages of its neighbours back.
  for (const auto& run : layouts_[block].runs) {
    run.file->mapping()->dont_need(run.range());
    run.file->mapping()->check();
  }
  return values;
}

/// A block's weights for good: in place in the mapping on the CPU where the dtype is right, else a
/// copy in the compute dtype.
std::vector<at::Tensor> StreamedModel::resident_values(int block, at::Device device) {
  const auto& layout = layouts_[block];
  if (device.is_cpu()) return needs_decode_[block] ? converted_values(block) : mapped_items(layout);
  return decode(view_items(raw_copy(block, device), layout), block);
}

void StreamedModel::load_block(int block, const BlockHome& home) {
  auto& state = states_[block];
  auto device = home.device == "disk" ? at::Device(at::kCPU) : device::to_torch(home.device);
  switch (home.how) {
    case How::Resident:
      state.values = resident_values(block, compute_);
      fill_slots(block, state.values);
      break;
    case How::OnDonor: state.values = resident_values(block, device); break;
    case How::Streamed:
      if (device.is_cpu()) break;
      state.donor = raw_copy(block, device);
      // Rings read it on other streams; loading is rare, so the host waits once instead of every
      // copy.
      device::synchronize(device);
      break;
  }
}

void StreamedModel::unload_block(int block) {
  states_[block] = {};
  clear_slots(block);
}

void StreamedModel::load(const std::vector<BlockHome>& homes,
                         const std::map<std::string, int>& slots) {
  if (homes.size() != layouts_.size())
    throw Error(ErrorKind::Internal, options_.name,
                fmt::format("has {} blocks, the placement {}", layouts_.size(), homes.size()));
  if (homes == homes_ && slots == slots_) return;
  rings_.clear();
  slots_ = slots;
  bool streams = std::any_of(homes.begin(), homes.end(), [&](const BlockHome& home) {
    return home.device != options_.compute;
  });
  if (streams || total_file_bytes() > (std::int64_t{1} << 28)) register_files();
  bool was_loaded = loaded();
  int block = 0;
  try {
    for (block = 0; was_loaded && block < static_cast<int>(homes.size()); ++block)
      if (homes_[block] != homes[block]) unload_block(block);
    for (block = 0; block < static_cast<int>(homes.size()); ++block)
      if (!was_loaded || homes_[block] != homes[block]) load_block(block, homes[block]);
    homes_ = homes;
    make_rings();
  } catch (const std::exception& error) {
    bool memory = device::is_out_of_memory(error);
    auto name = block < static_cast<int>(homes.size()) ? manifest_.blocks()[block]
                                                       : std::string("the streaming ring");
    auto where = block < static_cast<int>(homes.size()) ? homes[block].device : options_.compute;
    unload();
    if (!memory) throw;
    throw Error(ErrorKind::OutOfMemory, where,
                fmt::format("there is no room for {} of {}", name, options_.name));
  }
}

void StreamedModel::make_rings() {
  rings_.clear();
  std::map<std::string, std::vector<RingBlock>> by_donor;
  for (int block = 0; block < static_cast<int>(homes_.size()); ++block)
    if (homes_[block].how == How::Streamed)
      by_donor[homes_[block].device].push_back({block, &layouts_[block], states_[block].donor});
  for (auto& [donor, blocks] : by_donor) {
    RingOptions ring;
    ring.compute = compute_;
    ring.lane = donor + " -> " + options_.compute;
    auto slots = slots_.find(donor);
    ring.slots = std::min<int>(slots == slots_.end() ? options_.slots : slots->second,
                               static_cast<int>(blocks.size()));
    ring.registered = all_registered_ && donor != "disk";
    ring.keep_cached = donor != "disk";
    ring.waits = options_.waits;
    rings_[donor] = make_ring_that_fits(std::move(blocks), ring);
  }
  for (auto& state : states_) state.views.clear();
}

/// Where the planned slots find no room (an allocator's memory has holes that no plan knows of),
/// cached memory is given back first, then one slot has to do: slower, not an error.
std::unique_ptr<Ring> StreamedModel::make_ring_that_fits(std::vector<RingBlock> blocks,
                                                         RingOptions ring) {
  for (;;) {
    try {
      return make_ring(blocks, ring);
    } catch (const std::exception& error) {
      if (!device::is_out_of_memory(error) || ring.slots == 1) throw;
    }
    device::empty_cache(compute_);
    try {
      return make_ring(blocks, ring);
    } catch (const std::exception& error) {
      if (!device::is_out_of_memory(error)) throw;
    }
    log::info("{}: only one slot fits for {}", options_.name, ring.lane);
    ring.slots = 1;
  }
}

void StreamedModel::unload() {
  for (int block = 0; block < static_cast<int>(states_.size()); ++block) unload_block(block);
  rings_.clear();
  homes_.clear();
  factors_.clear();
  registered_.clear();
  all_registered_ = false;
  for (std::size_t i = 0; i < manifest_.weights().size(); ++i) manifest_.slot(i).patches.clear();
}

std::int64_t StreamedModel::shrink(std::int64_t bytes) {
  std::vector<int> resident;
  for (int block = 0; block < static_cast<int>(homes_.size()); ++block)
    if (homes_[block].how == How::Resident && layouts_[block].link_bytes > 0)
      resident.push_back(block);
  std::stable_sort(resident.begin(), resident.end(),
                   [&](int a, int b) { return resident_bytes_[a] > resident_bytes_[b]; });
  auto before = device_bytes(options_.compute);
  rings_.clear();
  for (int block : resident) {
    if (before - device_bytes(options_.compute) >=
        bytes + options_.slots * layouts_[resident.front()].slot_bytes)
      break;
    unload_block(block);
    homes_[block] = {How::Streamed, "cpu"};
  }
  register_files();
  make_rings();
  auto freed = before - device_bytes(options_.compute);
  log::info("{}: {} of weights moved out of {}", options_.name,
            human_bytes(static_cast<double>(freed)), options_.compute);
  return freed;
}

// --- running
// ------------------------------------------------------------------------------------------------

void StreamedModel::fill_slots(int block, const std::vector<at::Tensor>& values) {
  const auto& items = layouts_[block].items;
  for (std::size_t i = 0; i < items.size(); ++i) manifest_.slot(items[i].weight).value = values[i];
}

void StreamedModel::clear_slots(int block) {
  for (const auto& item : layouts_[block].items) manifest_.slot(item.weight).value = at::Tensor();
}

Tensors StreamedModel::run_resident(int block, const Tensors& inputs, const Body& body) {
  auto results = body(inputs);
  if (compute_.is_cpu() && !needs_decode_[block])
    for (const auto& run : layouts_[block].runs) run.file->mapping()->check();
  return results;
}

Tensors StreamedModel::run_streamed(int block, const Tensors& inputs, const Body& body) {
  auto lease = rings_.at(homes_[block].device)->pin(block);
  const auto& places = lease.places();
  std::vector<at::Tensor> placed = placed_items(places, layouts_[block]);
  auto& views = places.empty() ? states_[block].views[lease.bytes().const_data_ptr()] : placed;
  if (views.empty()) views = view_items(lease.bytes(), layouts_[block]);
  fill_slots(block, decode(views, block));
  struct Clear {
    StreamedModel& model;
    int block;
    ~Clear() { model.clear_slots(block); }
  } clear{*this, block};
  auto results = body(inputs);
  // Bytes used in place read as zeros where the file was cut short meanwhile.
  if (!places.empty())
    for (const auto& run : layouts_[block].runs) run.file->mapping()->check();
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
      if (!device::is_out_of_memory(error)) throw;
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

// --- LoRA
// ---------------------------------------------------------------------------------------------------

void StreamedModel::set_loras(const std::vector<LoraUse>& loras) {
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
// -----------------------------------------------------------------------------------------------

std::int64_t StreamedModel::device_bytes(const std::string& name) const {
  if (name == "disk") return 0;
  auto device = device::to_torch(name);
  std::int64_t bytes = 0;
  for (std::size_t block = 0; block < states_.size(); ++block) {
    const auto& state = states_[block];
    if (state.donor.defined() && state.donor.device() == device) bytes += state.donor.numel();
    if (!(device.is_cpu() && !needs_decode_[block])) bytes += held_bytes(state.values, device);
  }
  if (device == compute_)
    for (const auto& [donor, ring] : rings_) bytes += ring->slots() * ring->slot_bytes();
  std::vector<at::Tensor> factors;
  for (const auto& [key, patch] : factors_)
    for (const auto& factor : {patch.up, patch.down, patch.mid, patch.delta})
      factors.push_back(factor);
  return bytes + held_bytes(factors, device);
}

std::int64_t StreamedModel::streamed_bytes() const {
  std::int64_t bytes = 0;
  for (const auto& [donor, ring] : rings_) bytes += ring->copied_bytes();
  return bytes;
}

}  // namespace distorch::streaming
