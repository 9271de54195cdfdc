#include "distorch/streaming/profile.h"

#include "distorch/device/sim/sim.h"

namespace distorch::streaming {

namespace {

/// Stands in for the real source during a dry run: weights are shapes, blocks are measured.
class DrySource final : public weights::WeightSource {
 public:
  DrySource(StreamedModel& model, at::Device device) : model_(model) {
    auto blocks = model.block_count();
    profile_.seconds.assign(blocks, 0);
    profile_.flops.assign(blocks, 0);
    profile_.activation_bytes.assign(blocks, 0);
    profile_.used.assign(blocks, false);
    auto options = at::TensorOptions().dtype(model.options().dtype).device(device);
    for (std::size_t block = 0; block < blocks; ++block)
      for (const auto& item : model.layout(static_cast<int>(block)).items) {
        auto& value = model.manifest().slot(item.weight).value;
        before_.emplace_back(item.weight, value);
        value = at::empty(item.stored.shape, options);
        if (model.options().channels_last && value.dim() == 4)
          value = value.contiguous(at::MemoryFormat::ChannelsLast);
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
    auto before = sim::work(0);
    auto results = body(inputs);
    sim::finish();
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

  Profile profile_;

 private:
  StreamedModel& model_;
  std::vector<std::pair<int, at::Tensor>> before_;
  std::vector<std::vector<weights::Patch>> patches_;
};

}  // namespace

Profile profile_model(StreamedModel& model, const RigDevice& compute,
                      const std::function<void(at::Device)>& forward) {
  Rig rig;
  rig.name = "profile";
  rig.devices.push_back(compute);
  rig.devices.back().name = "sim:0";
  rig.devices.back().memory_bytes = std::int64_t{1} << 50;
  RigDevice host;
  host.name = "cpu";
  host.memory_bytes = std::int64_t{1} << 50;
  rig.devices.push_back(host);
  LinkSpec link;
  link.from = "cpu";
  link.to = "sim:0";
  link.bytes_per_s = 1e10;
  rig.links.push_back(link);

  sim::DryScope scope(rig);
  auto device = at::Device(c10::DeviceType::PrivateUse1, 0);
  DrySource source(model, device);
  auto weights = sim::memory(0).in_use;
  sim::reset_peak(0);
  auto before = sim::work(0);
  forward(device);
  sim::finish();
  source.profile_.peak_activation_bytes = sim::memory(0).peak - weights;
  source.profile_.total_s = sim::work(0).busy_s - before.busy_s;
  return std::move(source.profile_);
}

}  // namespace distorch::streaming
