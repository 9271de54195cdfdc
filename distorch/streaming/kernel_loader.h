#pragma once
#include <c10/core/Device.h>
#include <c10/core/ScalarType.h>

#include <array>
#include <compare>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "distorch/streaming/streamed_model.h"
#include "distorch/streaming/worker.h"

namespace distorch::streaming {

/// What a device loads code for when it does it for the first time: 105 to 150 ms each on an H200.
enum class KernelFamily {
  Product,
  Attention,
  LayerNorm,
  GroupNorm,
  Convolution2d,
  Convolution3d,
  Elementwise
};
const char* name_of(KernelFamily kind);

/// One of them in a type of numbers.
struct KernelUse {
  KernelFamily kind = KernelFamily::Elementwise;
  at::ScalarType dtype = at::kFloat;
  /// Of a two-dimensional convolution: channels out and in, and the kernel's side. Libraries have other
  /// code for other shapes.
  std::array<std::int64_t, 3> shape = {64, 64, 3};
  auto operator<=>(const KernelUse&) const = default;
};

/// What a model will do on its compute device, told by the shapes of its weights; what is met first
/// comes first.
std::vector<KernelUse> kernels_of(StreamedModel& model);

/// Does such an operation once, as small as it may be, and waits for the device.
void run_once(c10::Device device, const KernelUse& use);

/// What nearly every model does first, whatever its file says: what libraries set up for it is the
/// same for all types of numbers.
std::vector<KernelUse> first_kernels();

/// Has devices load the code of operations while the host opens files and encodes texts: each kind
/// once a device, each library's on a thread of its own (four at once take a third of the time that
/// they take one after the other: 0.17 s against 0.53 s on an H200). It never fails and nobody waits
/// for it: what goes wrong is a line of the log, and the operation loads its code where it is needed.
/// For any thread.
class KernelLoader {
 public:
  using Run = std::function<void(c10::Device device, const KernelUse& use)>;
  /// `every_device`: also on those that have nothing to load, for tests.
  explicit KernelLoader(Run run = run_once, bool every_device = false)
      : run_(std::move(run)), every_device_(every_device) {}

  /// Returns at once. Does nothing for what the device was asked to load before, nor on a device
  /// that loads nothing (a CPU, a simulated one).
  void start(c10::Device device, const std::vector<KernelUse>& uses);
  /// Waits until everything that was started is done.
  void wait();
  /// Another way to do it from now on, and nothing is known as loaded; for tests.
  void run_with(Run run, bool every_device);

 private:
  void load(c10::Device device, const KernelUse& use, const Run& run) const;

  std::mutex mutex_;
  Run run_;
  bool every_device_;
  std::set<std::pair<std::string, KernelUse>> asked_;
  /// Of one library; its worker is there from the first start() on that has something for it.
  struct Lane {
    std::shared_future<void> last;
    std::unique_ptr<Worker> worker;
  };
  std::map<int, Lane> lanes_;
};

/// The one of this process: code is loaded once for all engines.
KernelLoader& kernel_loader();

}  // namespace distorch::streaming
