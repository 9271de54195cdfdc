#include <fmt/format.h>

#include <algorithm>

#include "distorch/base/error.h"
#include "distorch/base/log.h"
#include "distorch/base/units.h"
#include "distorch/device/channels_last.h"
#include "distorch/device/device.h"
#include "distorch/device/memory.h"
#include "distorch/device/registered.h"
#include "distorch/device/streams.h"
#include "distorch/streaming/streamed_model.h"

// How the weights of a StreamedModel come to rest where a placement says; streamed_model.cpp runs
// it.
namespace distorch::streaming {

using placement::How;

namespace {

std::vector<at::Tensor> mapped_items(const Layout& layout) {
  std::vector<at::Tensor> views;
  views.reserve(layout.items.size());
  for (const auto& item : layout.items) views.push_back(weights::mapped_tensor(item.stored));
  return views;
}

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

/// Memory for the block's bytes as the file has them.
at::Tensor StreamedModel::buffer_for(int block, at::Device device) const {
  return at::empty({layouts_[block].slot_bytes},
                   at::TensorOptions().dtype(at::kByte).device(device));
}

Upload& StreamedModel::upload_to(at::Device device) {
  auto& upload = uploads_[device::name_of(device)];
  if (!upload) upload = std::make_unique<Upload>(device);
  return *upload;
}

/// Brings the block's bytes into `coming`; on their way where an upload is used (see arrived()).
void StreamedModel::bring(int block, bool in_pieces) {
  const auto& layout = layouts_[block];
  const auto& buffer = states_[block].coming;
  if (in_pieces) {
    upload_to(buffer.device()).add(block, layout, buffer);
    return;
  }
  // Not from the mapping: a part of it may be registered, and a copy that begins in registered
  // memory and ends outside is refused.
  for (const auto& run : layout.runs) {
    auto source = at::empty({run.size_bytes}, at::TensorOptions().dtype(at::kByte));
    read_run(run, source.mutable_data_ptr(), true);
    buffer.narrow(0, run.slot_offset, run.size_bytes).copy_(source);
  }
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

/// The same from a buffer that bring() made. Convolutions are laid out where they lie, as a ring
/// does it: kernels choose by alignment too, and every placement has to give the same bits.
std::vector<at::Tensor> StreamedModel::values_of(const at::Tensor& buffer, int block) const {
  for (int item : channels_last_[block])
    device::to_channels_last_in_place(view_item(buffer, layouts_[block].items[item]),
                                      device::current_stream(buffer.device()));
  return decode(items_in(buffer, block), block);
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

/// Where the block's bytes are brought to: nowhere where they are used in the file's mapping or
/// brought as they are needed.
std::optional<at::Device> StreamedModel::target_of(int block) const {
  const auto& home = homes_[block];
  if (home.how == How::Resident) return compute_.is_cpu() ? std::nullopt : std::optional(compute_);
  if (home.device == "disk" || home.device == "cpu") return std::nullopt;
  return device::to_torch(home.device);
}

/// Loads these blocks. Those of the compute device may still be on their way afterwards; run()
/// waits for each.
void StreamedModel::load_blocks(const std::vector<int>& blocks, int& current) {
  std::int64_t bytes = 0;
  for (int block : blocks)
    if (target_of(block)) bytes += layouts_[block].link_bytes;
  bool in_pieces = bytes >= options_.upload_from_bytes;
  int before = -1;
  for (int block : blocks) {
    current = block;
    auto& state = states_[block];
    bool wait = true;
    if (auto target = target_of(block)) {
      if (in_pieces) upload_to(*target);  // its threads make their buffers meanwhile
      state.coming = buffer_for(block, *target);
      bring(block, in_pieces);
      wait = !in_pieces || needs_decode_[block] || *target != compute_;
    } else if (homes_[block].how != How::Streamed) {
      state.values = values_on_cpu(block);
      if (homes_[block].how == How::Resident) fill_slots(block, state.values);
    }
    // Where bytes are converted the file's and the converted ones exist side by side: for one block
    // while the next is on its way, not for all.
    if (before >= 0) arrived(before);
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
      by_donor[homes_[block].device].push_back(
          {block, &layouts_[block], states_[block].donor, channels_last_[block]});
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

}  // namespace distorch::streaming
