#include "distorch/streaming/described_model.h"

#include <algorithm>
#include <numeric>

#include "distorch/base/align.h"
#include "distorch/device/device.h"
#include "distorch/device/workspace.h"

namespace distorch::streaming {

using placement::DeviceKind;

namespace {

/// How often longer a block takes on each device than on the compute device, from their speeds; -1:
/// cannot run there.
std::vector<double> slowness(const placement::System& system, at::ScalarType dtype,
                             const Machine& machine) {
  auto name = std::string(dtype == at::kFloat ? "float32" : "bfloat16");
  std::vector<double> ratio(system.devices.size(), -1);
  auto own = machine.speeds(system.devices[system.compute].name).flops(name);
  for (std::size_t i = 0; i < system.devices.size(); ++i) {
    if (static_cast<int>(i) == system.compute)
      ratio[i] = 1;
    else if (placement::kind_of(system.devices[i].name) == DeviceKind::Accelerator)
      if (auto other = machine.speeds(system.devices[i].name).flops(name); other > 0 && own > 0)
        ratio[i] = own / other;
  }
  return ratio;
}

}  // namespace

void describe_bytes(const StreamedModel& model, int number, placement::Block& block) {
  // In place in the mapping a block costs the CPU no memory of its own, but its pages must stay.
  block.bytes = std::max(model.file_bytes(number), model.resident_bytes(number));
  const auto& contents = model.contents();
  if (model.options().compute == "cpu" || contents.parts(number).size() < 2) return;
  // Parts rest as the file has them: nothing for blocks that are larger once they are resident.
  constexpr double same = 1.01;
  if (model.rests_converted() && static_cast<double>(contents.converted_bytes(number)) >
                                     same * static_cast<double>(model.file_bytes(number)))
    return;
  constexpr std::int64_t granule = 512;
  block.parts = contents.parts(number);
  block.bytes = std::max(block.bytes,
                         std::accumulate(block.parts.begin(), block.parts.end(),
                                         align_up(contents.loras_of(number).slot_bytes, granule)));
}

placement::Model describe(const StreamedModel& model, const placement::System& system,
                          const Profile& profile, const Machine& machine) {
  placement::Model described;
  described.name = model.options().name;
  described.activation_bytes = profile.peak_activation_bytes;
  described.late_host = profile.late_host;
  const auto& compute = system.devices[system.compute].name;
  if (!machine.options().rig)
    described.activation_bytes += device::workspace_bytes(device::to_torch(compute));
  auto ratio = slowness(system, model.options().dtype, machine);
  for (std::size_t i = 0; i < model.block_count(); ++i) {
    placement::Block block;
    block.name = const_cast<StreamedModel&>(model).manifest().blocks()[i];
    block.type = block.name.substr(0, block.name.find('.'));
    auto index = static_cast<int>(i);
    describe_bytes(model, index, block);
    double seconds = i < profile.seconds.size() ? profile.seconds[i] : 0;
    for (double r : ratio) block.seconds.push_back(r < 0 ? -1 : seconds * r);
    if (i < profile.unpack_s.size()) block.unpack_s = profile.unpack_s[i];
    block.restart_s = std::min(block.unpack_s, profile.restart_s);
    if (i < profile.activation_bytes.size()) block.activation_bytes = profile.activation_bytes[i];
    block.pinned = block.bytes == 0;
    block.idle = i < profile.idle.size() && profile.idle[i];
    described.blocks.push_back(std::move(block));
  }
  return described;
}

placement::Model fitting(placement::Model model, const placement::System& system) {
  const auto budget = system.devices[system.compute].budget_bytes;
  return model.bytes() + model.activation_bytes <= budget
             ? model
             : placement::without_idle(std::move(model));
}

}  // namespace distorch::streaming
