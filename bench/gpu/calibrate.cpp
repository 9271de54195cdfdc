// Fits a rig to steps that bench_gpu_streaming and bench_gpu_network have measured; needs no
// accelerator.
//   bench_gpu_calibrate --targets FILE[,FILE...] --out rig.yaml [--label NAME]
#include <fmt/format.h>

#include "bench/gpu/calibration.h"
#include "distorch/base/atomic_file.h"
#include "distorch/base/error.h"

namespace {

using namespace distorch;

/// The machine of the first file; issue costs and links as the last one has measured them.
bench::Calibration read_all(const std::string& files) {
  bench::Calibration all;
  for (std::size_t begin = 0; begin < files.size();) {
    const auto end = std::min(files.find(',', begin), files.size());
    auto next = bench::read_calibration(files.substr(begin, end - begin));
    if (all.rig.devices.empty()) all.rig = next.rig;
    all.rig.devices[0].issue_s = next.rig.devices[0].issue_s;
    all.rig.links = next.rig.links;
    std::move(next.steps.begin(), next.steps.end(), std::back_inserter(all.steps));
    begin = end + 1;
  }
  return all;
}

int run(const bench::Args& args) {
  const auto files = args.get("--targets"), out = args.get("--out", "rig.yaml");
  if (files.empty())
    throw Error(ErrorKind::Usage, "--targets",
                "needs calibration_*.json files, comma between them");
  auto all = read_all(files);
  auto& device = all.rig.devices[0];
  if (const auto label = args.get("--label"); !label.empty()) {
    device.label = label;
    all.rig.name = label + ", measured";
  }
  bench::fit_and_tell(device, all.steps);
  write_file(out, rig_text(all.rig));
  fmt::print("{}\n", out);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return run(bench::Args(argc, argv));
  } catch (const std::exception& error) {
    fmt::print(stderr, "bench_gpu_calibrate: {}\n", error.what());
    return 1;
  }
}
