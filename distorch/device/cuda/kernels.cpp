#include "distorch/device/cuda/kernels.h"

#include <c10/core/DeviceGuard.h>
#include <fmt/format.h>

#include "distorch/base/error.h"
#include "distorch/device/cuda/libraries.h"
#include "distorch/device/cuda/nvrtc.h"
#include "distorch/device/device.h"

namespace distorch::device::cuda {
namespace {

// One block of threads per filter: its values [channels, positions] go to the multiprocessor's own
// memory and come back as [positions, channels]. Reads and writes of the device's memory are whole
// lines; neighbouring threads read neighbouring channels of one position, which for 3x3 filters lie
// in different banks.
constexpr KernelSource channels_last{"to_channels_last", R"(
extern "C" __global__ void to_channels_last(ELEMENT* filters, int channels, int positions) {
  extern __shared__ uint4 room[];
  ELEMENT* filter = (ELEMENT*)room;
  const long long count = (long long)channels * positions;
  ELEMENT* here = filters + blockIdx.x * count;
  const long long bytes = count * sizeof(ELEMENT);
  if ((unsigned long long)here % 16 == 0 && bytes % 16 == 0) {
    for (int i = threadIdx.x; i < bytes / 16; i += blockDim.x) room[i] = ((uint4*)here)[i];
  } else {
    for (int i = threadIdx.x; i < count; i += blockDim.x) filter[i] = here[i];
  }
  __syncthreads();
  constexpr int pack = sizeof(ELEMENT) < 4 ? 4 / sizeof(ELEMENT) : 1;
  if ((unsigned long long)here % 4 == 0 && channels % pack == 0) {
    struct alignas(pack * sizeof(ELEMENT)) Pack { ELEMENT values[pack]; };
    const int columns = channels / pack;
    for (int i = threadIdx.x; i < columns * positions; i += blockDim.x) {
      const int position = i / columns, channel = (i - position * columns) * pack;
      Pack packed;
      for (int j = 0; j < pack; ++j)
        packed.values[j] = filter[(channel + j) * positions + position];
      ((Pack*)here)[i] = packed;
    }
  } else {
    for (int i = threadIdx.x; i < count; i += blockDim.x) {
      const int position = i / channels, channel = i - position * channels;
      here[i] = filter[channel * positions + position];
    }
  }
}
)"};

/// An unsigned type of so many bytes; null where there is none.
const char* element_of(std::size_t bytes) {
  switch (bytes) {
    case 1: return "-DELEMENT=unsigned char";
    case 2: return "-DELEMENT=unsigned short";
    case 4: return "-DELEMENT=unsigned int";
    default: return nullptr;
  }
}

/// What a block of threads may have of the multiprocessor's own memory if it asks for it, bytes.
int largest_shared(int device) {
  constexpr int kSharedOptIn = 97;
  int handle = 0, bytes = 0;
  if (driver().get(&handle, device) != 0 || driver().attribute(&bytes, kSharedOptIn, handle) != 0)
    return 0;
  return bytes;
}

}  // namespace

bool to_channels_last_in_place(const at::Tensor& weight, const c10::Stream& stream) {
  constexpr int kMostSharedBytes = 8;  // the attribute of a function
  constexpr int usual_shared = 48 << 10;
  const auto* element = element_of(weight.element_size());
  const int device = stream.device_index();
  const auto on = native(stream);
  const auto bytes = static_cast<std::int64_t>(weight.nbytes()) / weight.size(0);
  if (!element || !on.known || bytes > largest_shared(device)) return false;
  auto* function = kernel(device, channels_last, element);
  if (!function) return false;
  c10::DeviceGuard guard(stream.device());
  if (bytes > usual_shared &&
      (!driver().set_function ||
       driver().set_function(function, kMostSharedBytes, static_cast<int>(bytes)) != 0))
    return false;
  constexpr unsigned threads = 256;
  void* data = weight.data_ptr();
  int channels = static_cast<int>(weight.size(1));
  int positions = static_cast<int>(weight.size(2) * weight.size(3));
  void* arguments[] = {&data, &channels, &positions};
  const auto launch = [&] {
    return driver().launch(function, static_cast<unsigned>(weight.size(0)), 1, 1, threads, 1, 1,
                           static_cast<unsigned>(bytes), on.stream, arguments, nullptr);
  };
  constexpr int kNoContext = 201;  // this thread has not called the runtime yet
  int error = launch();
  std::size_t free = 0, total = 0;
  if (error == kNoContext && runtime().mem_info && runtime().mem_info(&free, &total) == 0)
    error = launch();
  if (error != 0)
    throw Error(ErrorKind::Internal, name_of(stream.device()),
                fmt::format("{} could not be started: CUDA error {}", channels_last.name, error));
  return true;
}

}  // namespace distorch::device::cuda
