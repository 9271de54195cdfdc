#include "distorch/streaming/profile.h"

#include "distorch/device/sim/sim.h"

namespace distorch::streaming {

namespace {

/// Stands in for the real source during a dry run: weights are shapes, blocks are measured.
class DrySource final : public weights::WeightSource {
 public:
  /// `record`: every operation is listed too.
  DrySource(StreamedModel& model, at::Device device, bool record) : model_(model), record_(record) {
    auto blocks = model.block_count();
    operations_.blocks.resize(blocks);
    profile_.seconds.assign(blocks, 0);
    profile_.flops.assign(blocks, 0);
    profile_.activation_bytes.assign(blocks, 0);
    profile_.used.assign(blocks, false);
    auto options = at::TensorOptions().dtype(model.options().dtype).device(device);
    for (std::size_t block = 0; block < blocks; ++block)
      for (const auto& item : model.layout(static_cast<int>(block)).items) {
        auto& value = model.manifest().slot(item.weight).value;
        before_.emplace_back(item.weight, value);
        const bool image = model.options().channels_last && item.stored.shape.size() == 4;
        value = at::empty(item.stored.shape, options,
                          image ? at::MemoryFormat::ChannelsLast : at::MemoryFormat::Contiguous);
      }
    for (std::size_t i = 0; i < model.manifest().weights().size(); ++i)
      patches_.push_back(std::exchange(model.manifest().slot(i).patches, {}));
    model.manifest().attach(this);
  }

  ~DrySource() override {
    model_.manifest().attach(&model_);
    for (auto& [weight, value] : before_) model_.manifest().slot(weight).value = std::move(value);
    for (std::size_t i = 0; i < patches_.size(); ++i)
      model_.manifest().slot(i).patches = std::move(patches_[i]);
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
  StreamedModel& model_;
  bool record_;
  std::vector<std::pair<int, at::Tensor>> before_;
  std::vector<std::vector<weights::Patch>> patches_;
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

/// What a block costs the device beside its own work each time its weights come as the file has
/// them: work stops at the wait for them and starts anew; the memory's time for the bytes that
/// arrive is taken from other work; one pass converts them, or lays convolutions out
/// (device/channels_last.h).
double unpack_seconds(const StreamedModel& model, int block, const RigDevice& compute) {
  // A pass over filters one by one does not reach the whole bandwidth.
  constexpr double reached = 0.6;
  constexpr double launches_to_restart = 5;  // 10 us on an H200
  double seconds = 0;
  auto bandwidth = compute.memory_bytes_per_s;
  if (bandwidth <= 0) return 0;
  if (model.options().compute != "cpu")
    seconds += launches_to_restart * compute.launch_s +
               static_cast<double>(model.file_bytes(block)) / bandwidth;
  const auto& items = model.layout(block).items;
  for (const auto& item : items) {
    if (weights::to_torch(item.stored.dtype) == model.options().dtype) continue;
    auto values = static_cast<double>(c10::multiply_integers(item.stored.shape));
    seconds += (static_cast<double>(item.stored.size_bytes) +
                values * static_cast<double>(c10::elementSize(model.options().dtype))) /
               bandwidth;
  }
  if (model.options().compute != "cpu")
    for (int item : model.channels_last(block))
      seconds += 2 * static_cast<double>(items[item].stored.size_bytes) / (bandwidth * reached);
  return seconds;
}

}  // namespace

Profile profile_model(StreamedModel& model, const RigDevice& compute,
                      const std::function<void(at::Device)>& forward) {
  sim::DryScope scope(dry_rig(compute));
  auto device = at::Device(c10::DeviceType::PrivateUse1, 0);
  DrySource source(model, device, false);
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
  source.profile_.issue_s = static_cast<double>(source.profile_.operations) * compute.issue_s;
  return std::move(source.profile_);
}

Profile host_bound(Profile profile) {
  if (profile.total_s <= 0 || profile.issue_s <= profile.total_s) return profile;
  const double late = profile.issue_s / profile.total_s;
  for (auto& seconds : profile.seconds) seconds *= late;
  profile.total_s = profile.issue_s;
  return profile;
}

bool recording_pays(double issue_s, double step_s) {
  constexpr double near = 0.2;
  return issue_s > near * step_s;
}

RunOperations operations_of(StreamedModel& model, const std::function<void(at::Device)>& forward) {
  sim::DryScope scope(dry_rig({}));
  auto device = at::Device(c10::DeviceType::PrivateUse1, 0);
  DrySource source(model, device, true);
  sim::trace(true);
  forward(device);
  sim::finish();
  source.take_recorded(source.operations_.outside);
  return std::move(source.operations_);
}

}  // namespace distorch::streaming
