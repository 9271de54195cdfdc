#include "distorch/streaming/streamed_model.h"

#include <fmt/format.h>

#include <algorithm>
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

namespace {

constexpr std::int64_t page = 4096;  // registration works in whole pages
/// Stretches that lie this near are registered as one: a call costs more than the pages between.
constexpr std::int64_t near_bytes = std::int64_t{1} << 20;

/// The stretches of files that these blocks' bytes lie in.
std::map<std::shared_ptr<const formats::TensorFile>,
         std::vector<std::pair<std::int64_t, std::int64_t>>>
stretches(const std::vector<Layout>& layouts, const std::vector<BlockHome>& homes) {
  std::map<std::shared_ptr<const formats::TensorFile>,
           std::vector<std::pair<std::int64_t, std::int64_t>>>
      by_file;
  for (std::size_t block = 0; block < homes.size(); ++block)
    if (homes[block].how == How::Streamed && homes[block].device == "cpu")
      for (const auto& run : layouts[block].runs)
        by_file[run.file].emplace_back(run.file_offset / page * page,
                                       (run.file_offset + run.size_bytes + page - 1) / page * page);
  for (auto& [file, list] : by_file) {
    std::sort(list.begin(), list.end());
    std::vector<std::pair<std::int64_t, std::int64_t>> merged;
    for (const auto& [begin, end] : list) {
      if (merged.empty() || begin > merged.back().second + near_bytes)
        merged.emplace_back(begin, end);
      else
        merged.back().second = std::max(merged.back().second, end);
    }
    list = std::move(merged);
  }
  return by_file;
}

/// Lays convolution weights out as their kernels want them, each in memory of its own, as they are
/// when a streamed block is used: kernels choose by alignment too, and every placement has to give
/// the same bits. The other weights move together and keep their alignment.
void to_channels_last(std::vector<at::Tensor>& values) {
  constexpr std::int64_t alignment = 256;  // no kernel asks for more
  auto to_lay_out = [](const at::Tensor& value) {
    return value.dim() == 4 && !value.is_contiguous(at::MemoryFormat::ChannelsLast);
  };
  if (std::none_of(values.begin(), values.end(), to_lay_out)) return;
  std::int64_t bytes = 0;
  std::vector<std::int64_t> offsets;
  for (const auto& value : values) {
    auto within = static_cast<std::int64_t>(
        reinterpret_cast<std::uintptr_t>(value.const_data_ptr()) % alignment);
    auto offset = bytes / alignment * alignment + within;
    if (offset < bytes) offset += alignment;
    offsets.push_back(offset);
    if (!to_lay_out(value)) bytes = offset + static_cast<std::int64_t>(value.nbytes());
  }
  auto rest = at::empty({bytes}, values.front().options().dtype(at::kByte));
  for (std::size_t i = 0; i < values.size(); ++i) {
    auto& value = values[i];
    if (to_lay_out(value)) {
      value = value.contiguous(at::MemoryFormat::ChannelsLast);
      continue;
    }
    auto place = rest.narrow(0, offsets[i], static_cast<std::int64_t>(value.nbytes()))
                     .view(value.scalar_type())
                     .view(value.sizes());
    value = place.copy_(value);
  }
}

}  // namespace

/// Registers what the rings read from RAM, no more: registering costs time by the page.
void StreamedModel::register_streamed() {
  if (!device::has_streams(compute_)) return;
  auto before = std::exchange(registered_, {});  // kept until what is still needed is taken over
  all_registered_ = true;
  for (const auto& [file, list] : stretches(layouts_, homes_)) {
    auto bytes = file->mapping()->bytes();
    for (const auto& [begin, end] : list) {
      // The last page of the file counts as a whole one.
      auto pieces = device::register_shared(bytes.data() + begin, end - begin, {compute_});
      if (pieces.empty()) {
        all_registered_ = false;
        return;
      }
      registered_.insert(registered_.end(), pieces.begin(), pieces.end());
    }
  }
}

/// The block's bytes as one buffer on an accelerator; on their way where an upload is used (see
/// arrived()).
at::Tensor StreamedModel::bring(int block, at::Device device, bool in_pieces) {
  const auto& layout = layouts_[block];
  auto buffer = at::empty({layout.slot_bytes}, at::TensorOptions().dtype(at::kByte).device(device));
  if (in_pieces) {
    auto& upload = uploads_[device::name_of(device)];
    if (!upload) upload = std::make_unique<Upload>(device);
    upload->add(block, layout, buffer);
    return buffer;
  }
  // Not from the mapping: a part of it may be registered, and a copy that begins in registered
  // memory and ends outside is refused.
  for (const auto& run : layout.runs) {
    auto source = at::empty({run.size_bytes}, at::TensorOptions().dtype(at::kByte));
    read_run(run, source.mutable_data_ptr(), true);
    buffer.narrow(0, run.slot_offset, run.size_bytes).copy_(source);
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

/// A block's weights for good: in place in the mapping where the dtype is right, else a copy in the
/// compute dtype.
std::vector<at::Tensor> StreamedModel::values_on_cpu(int block) const {
  return needs_decode_[block] ? converted_values(block) : mapped_items(layouts_[block]);
}

/// The same from a buffer that bring() made.
std::vector<at::Tensor> StreamedModel::values_of(const at::Tensor& buffer, int block) const {
  auto values = decode(view_items(buffer, layouts_[block]), block);
  if (options_.channels_last && !needs_decode_[block]) to_channels_last(values);
  return values;
}

/// Waits for a block that is on its way, if it is.
void StreamedModel::arrived(int block) {
  auto& state = states_[block];
  if (!state.coming.defined()) return;
  auto device = state.coming.device();
  if (auto upload = uploads_.find(device::name_of(device)); upload != uploads_.end())
    upload->second->wait(block);
  auto buffer = std::exchange(state.coming, at::Tensor());
  if (homes_[block].how == How::Streamed) {
    state.donor = buffer;
    return;
  }
  state.values = values_of(buffer, block);
  if (homes_[block].how == How::Resident) fill_slots(block, state.values);
}

void StreamedModel::load_block(int block, bool in_pieces) {
  auto& state = states_[block];
  const auto& home = homes_[block];
  auto device = home.how == How::Resident ? compute_
                : home.device == "disk"   ? at::Device(at::kCPU)
                                          : device::to_torch(home.device);
  if (device.is_cpu()) {
    if (home.how == How::Streamed) return;
    state.values = values_on_cpu(block);
    if (home.how == How::Resident) fill_slots(block, state.values);
    return;
  }
  state.coming = bring(block, device, in_pieces);
}

/// Loads these blocks. With `in_pieces` those of the compute device may still be on their way
/// afterwards; run() waits for each.
void StreamedModel::load_blocks(const std::vector<int>& blocks, int& current) {
  std::int64_t bytes = 0;
  for (int block : blocks)
    if (homes_[block].device != "cpu" && homes_[block].device != "disk")
      bytes += layouts_[block].link_bytes;
  bool in_pieces = bytes >= options_.upload_from_bytes;
  int before = -1;
  for (int block : blocks) {
    current = block;
    load_block(block, in_pieces);
    // Where bytes are converted the file's and the converted ones exist side by side: for one block
    // while the next is on its way, not for all.
    if (before >= 0) arrived(before);
    bool wait = !in_pieces || needs_decode_[block] || homes_[block].device != options_.compute;
    before = wait ? block : -1;
  }
  if (before >= 0) arrived(before);
  // Rings read a donor's memory on other streams; loading is rare, so the host waits once instead
  // of every copy.
  for (const auto& home : homes_)
    if (home.how == How::Streamed && home.device != "cpu" && home.device != "disk")
      device::synchronize(device::to_torch(home.device));
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
  drop_recordings();
  drop_rings();
  slots_ = slots;
  started_ = false;
  int block = 0;
  try {
    finish_uploads();
    auto before = std::exchange(homes_, homes);
    std::vector<int> changed;
    for (block = 0; block < static_cast<int>(homes.size()); ++block)
      if (before.empty() || before[block] != homes[block]) {
        unload_block(block);
        changed.push_back(block);
      }
    // Under a tight budget pieces of large free stretches must not be given to small weights.
    if (std::any_of(homes.begin(), homes.end(),
                    [](const BlockHome& home) { return home.how == How::Streamed; }))
      device::empty_cache(compute_);
    load_blocks(changed, block);
    block = static_cast<int>(homes.size());
    make_rings_fit();
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

/// Every block is where it should be, and no thread is at work any more.
void StreamedModel::finish_uploads() {
  if (uploads_.empty()) return;
  for (int block = 0; block < static_cast<int>(states_.size()); ++block) arrived(block);
  uploads_.clear();
}

/// The views hold a ring's memory too.
void StreamedModel::drop_rings() {
  rings_.clear();
  for (auto& state : states_) state.views.clear();
}

void StreamedModel::make_rings() {
  drop_rings();
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
    for (const auto& piece : registered_)
      ring.seams.push_back(static_cast<const std::byte*>(piece->start()));
    ring.keep_cached = donor != "disk";
    ring.waits = options_.waits;
    rings_[donor] = make_ring_that_fits(std::move(blocks), ring);
  }
}

/// -1 where none is resident that has weights.
int StreamedModel::largest_resident() const {
  int largest = -1;
  for (int block = 0; block < static_cast<int>(homes_.size()); ++block)
    if (homes_[block].how == How::Resident && layouts_[block].link_bytes > 0 &&
        (largest < 0 || resident_bytes_[block] > resident_bytes_[largest]))
      largest = block;
  return largest;
}

/// From now on it streams from RAM, through rings that are still to be made.
bool StreamedModel::offload_largest_resident() {
  int block = largest_resident();
  if (block < 0) return false;
  unload_block(block);
  homes_[block] = {How::Streamed, "cpu"};
  return true;
}

/// Where not even the smallest ring finds room beside the resident weights (an allocator's memory
/// has holes that no plan knows of), these make way, largest first.
void StreamedModel::make_rings_fit() {
  for (;;) {
    register_streamed();
    try {
      make_rings();
      return;
    } catch (const std::exception& error) {
      if (!device::is_out_of_memory(error)) throw;
      drop_rings();
      finish_uploads();
      int largest = largest_resident();
      if (!offload_largest_resident()) throw;
      log::info("{}: {} makes way for the streaming ring", options_.name,
                manifest_.blocks()[largest]);
      device::empty_cache(compute_);
    }
  }
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
  drop_recordings();
  uploads_.clear();
  for (int block = 0; block < static_cast<int>(states_.size()); ++block) unload_block(block);
  drop_rings();
  homes_.clear();
  factors_.clear();
  loras_.clear();
  registered_.clear();
  all_registered_ = false;
  for (std::size_t i = 0; i < manifest_.weights().size(); ++i) manifest_.slot(i).patches.clear();
}

std::int64_t StreamedModel::shrink(std::int64_t bytes) {
  drop_recordings();
  finish_uploads();
  auto before = device_bytes(options_.compute);
  drop_rings();
  // The largest goes first; the ring that it then needs has slots of its size.
  int largest = largest_resident();
  auto wanted = largest < 0 ? 0 : bytes + options_.slots * layouts_[largest].slot_bytes;
  while (before - device_bytes(options_.compute) < wanted && offload_largest_resident()) {
  }
  register_streamed();
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
  arrived(block);
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

void StreamedModel::record_steps(bool allowed) {
  record_steps_ = allowed;
  if (!allowed) drop_recordings();
}

bool StreamedModel::drop_recordings() {
  bool held = recorder_.held_bytes() > 0;
  recorder_.clear();
  return held;
}

bool StreamedModel::rings_can_record() const {
  return std::none_of(homes_.begin(), homes_.end(),
                      [](const BlockHome& home) { return home.how == How::OnDonor; }) &&
         std::all_of(rings_.begin(), rings_.end(),
                     [](const auto& ring) { return ring.second->can_record(); });
}

/// A replay does not look at them.
void StreamedModel::check_streamed_files() const {
  const formats::MappedFile* last = nullptr;
  for (std::size_t block = 0; block < homes_.size(); ++block)
    if (homes_[block].how == How::Streamed)
      for (const auto& run : layouts_[block].runs)
        if (run.file->mapping().get() != last) (last = run.file->mapping().get())->check();
}

std::string StreamedModel::RingState::key() const {
  std::string key;
  for (const auto& [donor, ring] : model.rings_) {
    auto at = ring->position();
    key += fmt::format("ring {} {} {}:", at.last_pinned, at.last_filled, at.round);
    for (const auto& [index, offset] : at.fresh) key += fmt::format(" {}@{}", index, offset);
  }
  return key;
}

void StreamedModel::RingState::begin(bool recording) {
  for (const auto& [donor, ring] : model.rings_)
    ring->begin_step(model.homes_.back() == BlockHome{How::Streamed, donor}, recording);
}

void StreamedModel::RingState::end(bool recording) {
  for (const auto& [donor, ring] : model.rings_) ring->end_step(recording);
}

void StreamedModel::RingState::settle() {
  for (const auto& [donor, ring] : model.rings_) ring->settle();
}

std::function<void()> StreamedModel::RingState::keep() const {
  std::vector<std::pair<Ring*, Ring::Position>> kept;
  for (const auto& [donor, ring] : model.rings_) kept.emplace_back(ring.get(), ring->position());
  return [kept] {
    for (const auto& [ring, position] : kept) ring->replayed(position);
  };
}

at::Tensor StreamedModel::step(const std::vector<at::Tensor>& inputs,
                               const StepRecorder::Forward& forward) {
  // A profile wants to see the blocks.
  if (!record_steps_ || Trace::current() || !rings_can_record()) return forward(inputs);
  if (started_) finish_uploads();
  check_streamed_files();
  return recorder_.run(inputs, forward, ring_state_);
}

// --- LoRA
// ---------------------------------------------------------------------------------------------------

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
// -----------------------------------------------------------------------------------------------

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
