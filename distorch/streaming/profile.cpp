#include "distorch/streaming/profile.h"

#include "distorch/device/sim/sim.h"
#include "distorch/quant/fp8.h"

namespace distorch::streaming {

namespace {

at::Tensor hollow(const weights::Stored& stored, at::Device device) {
  return at::empty(stored.shape,
                   at::TensorOptions().dtype(weights::to_torch(stored)).device(device));
}

/// The tensors of a block's own weights. The pieces of a joined weight lie one behind the other where
/// the layout has them so.
std::vector<at::Tensor> hollow_tensors(const Contents& contents, int block, at::Device device) {
  const auto& items = contents.weights_of(block).items;
  std::vector<at::Tensor> tensors(items.size());
  std::vector<const LaidOutWeight*> by_index(items.size());
  for (const auto& item : items) by_index[item.index] = &item;
  std::size_t first = 0;
  for (const auto& [weight, stored] : contents.stored(block)) {
    const auto count = weights::tensors_of(stored).size();
    const bool one = is_one_tensor(stored);
    at::Tensor whole = one ? hollow(stored, device) : at::Tensor();
    std::int64_t row = 0;
    for (auto i = first; i < first + count; ++i) {
      const auto& piece = by_index[i]->stored;
      tensors[i] = one ? whole.narrow(0, row, piece.shape[0]) : hollow(piece, device);
      row += one ? piece.shape[0] : 0;
    }
    first += count;
  }
  return tensors;
}

/// What the slots of a block would hold: shapes, as its weights rest.
BlockValues hollow_values(const StreamedModel& model, int block, at::Device device) {
  const auto& contents = model.contents();
  auto own = hollow_tensors(contents, block, device);
  for (int item : contents.channels_last(block)) {
    auto& tensor = own[contents.weights_of(block).items[item].index];
    tensor = at::empty(tensor.sizes(), tensor.options(), at::MemoryFormat::ChannelsLast);
  }
  std::vector<at::Tensor> added(contents.loras_of(block).items.size());
  for (const auto& item : contents.loras_of(block).items)
    added[item.index] = hollow(item.stored, device);
  auto values = contents.values(block, own);
  if (model.rests_converted()) values = contents.converted(std::move(values));
  return contents.with_loras(block, std::move(values), added.data());
}

/// Stands in for the real source during a dry run: weights are shapes, blocks are measured.
class DrySource final : public weights::WeightSource {
 public:
  /// `record`: every operation is listed too.
  DrySource(const StreamedModel& model, weights::Manifest& manifest, at::Device device, bool record)
      : record_(record) {
    auto blocks = model.block_count();
    operations_.blocks.resize(blocks);
    profile_.seconds.assign(blocks, 0);
    profile_.flops.assign(blocks, 0);
    profile_.activation_bytes.assign(blocks, 0);
    profile_.used.assign(blocks, false);
    manifest.compute_with(model.contents().arithmetic());
    for (std::size_t block = 0; block < blocks; ++block)
      for (auto& slot : hollow_values(model, static_cast<int>(block), device)) {
        auto& to = manifest.slot(slot.weight);
        to.value = std::move(slot.value);
        to.packed = std::move(slot.packed);
        to.adapters = std::move(slot.adapters);
      }
    manifest.attach(this);
  }

  weights::Tensors run(int block, const weights::Tensors& inputs,
                       const weights::Body& body) override {
    // Work counts once it is done on the virtual clock.
    sim::finish();
    take_recorded(operations_.outside);
    auto before = sim::work(0);
    auto results = body(inputs);
    sim::finish();
    take_recorded(operations_.blocks[block]);
    auto after = sim::work(0);
    profile_.seconds[block] += after.busy_s - before.busy_s;
    profile_.flops[block] += after.flops - before.flops;
    profile_.used[block] = true;
    std::int64_t bytes = 0;
    for (const auto& input : inputs)
      if (input.defined()) bytes += static_cast<std::int64_t>(input.nbytes());
    profile_.activation_bytes[block] = std::max(profile_.activation_bytes[block], bytes);
    return results;
  }

  /// Appends what the device has done since the last call.
  void take_recorded(std::vector<KernelWork>& list) const {
    if (!record_) return;
    for (auto& interval : sim::intervals())
      if (interval.kernel) list.push_back(std::move(*interval.kernel));
    sim::trace(true);  // drops them
  }

  Profile profile_;
  RunOperations operations_;

 private:
  bool record_;
};

/// A machine with memory for anything and `compute` as its one accelerator.
Rig dry_rig(const RigDevice& compute) {
  Rig rig;
  rig.name = "profile";
  rig.devices.push_back(compute);
  rig.devices.back().name = "sim:0";
  rig.devices.back().memory_bytes = std::int64_t{1} << 50;
  // The host's time is not looked at, and a clock that stands still is worked off faster.
  rig.devices.back().issue_s = 0;
  RigDevice host;
  host.name = "cpu";
  host.memory_bytes = std::int64_t{1} << 50;
  rig.devices.push_back(host);
  LinkSpec link;
  link.from = "cpu";
  link.to = "sim:0";
  link.bytes_per_s = 1e10;
  rig.links.push_back(link);
  return rig;
}

/// What stopping at the wait for a copy and starting anew costs.
double restart_seconds(const StreamedModel& model, const RigDevice& compute) {
  constexpr double launches = 5;  // 10 us on an H200
  return model.options().compute == "cpu" || compute.memory_bytes_per_s <= 0
             ? 0
             : launches * compute.launch_s;
}

/// What a block costs the device beside its own work each time its weights come as the file has
/// them: work stops at the wait for them and starts anew; the memory's time for the bytes that
/// arrive is taken from other work; convolutions are laid out (device/channels_last.h); and where
/// the profile is of weights that were converted once, they are converted.
double unpack_seconds(const StreamedModel& model, int block, const RigDevice& compute) {
  // A pass over filters one by one does not reach the whole bandwidth.
  constexpr double reached = 0.6;
  double seconds = 0;
  auto bandwidth = compute.memory_bytes_per_s;
  if (bandwidth <= 0) return 0;
  const bool accelerator = model.options().compute != "cpu";
  if (accelerator)
    seconds +=
        restart_seconds(model, compute) + static_cast<double>(model.file_bytes(block)) / bandwidth;
  const auto& contents = model.contents();
  const auto& layout = contents.weights_of(block);
  if (model.rests_converted() && contents.needs_conversion(block))
    seconds += static_cast<double>(layout.link_bytes + contents.converted_bytes(block)) / bandwidth;
  if (accelerator)
    for (int item : contents.channels_last(block))
      seconds +=
          2 * static_cast<double>(layout.items[item].stored.size_bytes) / (bandwidth * reached);
  return seconds;
}

}  // namespace

Profile profile_model(const StreamedModel& model, weights::Manifest& fresh,
                      const RigDevice& compute, const std::function<void(at::Device)>& forward) {
  const quant::ProductsOf products(model.contents().options().compute);
  sim::DryScope scope(dry_rig(compute), {.plans_cpu = model.options().compute == "cpu"});
  auto device = at::Device(c10::DeviceType::PrivateUse1, 0);
  DrySource source(model, fresh, device, false);
  // What converting the weights once takes is no part of the run.
  sim::finish();
  auto weights = sim::memory(0).in_use;
  sim::reset_peak(0);
  auto before = sim::work(0);
  forward(device);
  sim::finish();
  source.profile_.peak_activation_bytes = sim::memory(0).peak - weights;
  auto after = sim::work(0);
  source.profile_.total_s = after.busy_s - before.busy_s;
  source.profile_.operations = after.operations - before.operations;
  for (std::size_t block = 0; block < model.block_count(); ++block)
    source.profile_.unpack_s.push_back(unpack_seconds(model, static_cast<int>(block), compute));
  source.profile_.restart_s = restart_seconds(model, compute);
  source.profile_.issue_s = static_cast<double>(source.profile_.operations) * compute.issue_s;
  return std::move(source.profile_);
}

void leave_idle(Profile& profile) {
  profile.idle = profile.used;
  profile.idle.flip();
}

Profile host_bound(Profile profile) {
  if (profile.total_s <= 0 || profile.issue_s <= profile.total_s) return profile;
  const double late = profile.issue_s / profile.total_s;
  for (auto& seconds : profile.seconds) seconds *= late;
  profile.total_s = profile.issue_s;
  profile.late_host = true;
  return profile;
}

bool recording_pays(double issue_s, double step_s) {
  constexpr double near = 0.2;
  return issue_s > near * step_s;
}

bool recording_may_pay(double issue_s, double step_s) {
  constexpr double near = 0.03;
  return issue_s > near * step_s;
}

RunOperations operations_of(const StreamedModel& model, weights::Manifest& fresh,
                            const std::function<void(at::Device)>& forward) {
  const quant::ProductsOf products(model.contents().options().compute);
  sim::DryScope scope(dry_rig({}), {.plans_cpu = model.options().compute == "cpu"});
  auto device = at::Device(c10::DeviceType::PrivateUse1, 0);
  DrySource source(model, fresh, device, true);
  sim::trace(true);
  forward(device);
  sim::finish();
  source.take_recorded(source.operations_.outside);
  return std::move(source.operations_);
}

}  // namespace distorch::streaming
