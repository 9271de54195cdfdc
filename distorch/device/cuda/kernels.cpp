#include "distorch/device/cuda/kernels.h"

#include <ATen/ATen.h>
#include <c10/core/DeviceGuard.h>

#include <algorithm>

#include "distorch/device/cuda/libraries.h"
#include "distorch/device/cuda/numbers.h"
#include "distorch/device/cuda/nvrtc.h"
#include "distorch/device/streams.h"

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

// Both passes of a group norm: a thread has a pair of neighbouring channels of every `lanes`-th
// position of its block's stretch; a block of threads has whole groups.
// Sums of x - s and of its square over a stretch of positions, by group, where s is the group's
// first value: variances of small spread around a large mean keep their digits. Sums are added in a
// fixed order, so that the bits are the same every time.
constexpr KernelSource group_sums{"group_sums", R"(
extern "C" __global__ void group_sums(const Pair* x, float2* sums, int positions, int channels,
                                      int per_group, int groups, int stretch) {
  extern __shared__ float2 partial[];
  const int pairs = channels / 2, half = per_group / 2, tile = blockDim.x;
  const int pair = blockIdx.y * tile + threadIdx.x;
  const Pair* image = x + (long long)blockIdx.z * positions * pairs;
  const float shift = get(image[pair / half * half]).x;
  const int begin = blockIdx.x * stretch, end = min(positions, begin + stretch);
  float sum = 0, squares = 0;
  for (int i = begin + threadIdx.y; i < end; i += blockDim.y) {
    const float2 v = get(image[(long long)i * pairs + pair]);
    const float a = v.x - shift, b = v.y - shift;
    sum += a + b;
    squares += a * a + b * b;
  }
  partial[threadIdx.y * tile + threadIdx.x] = make_float2(sum, squares);
  __syncthreads();
  const int first = threadIdx.x * half;
  if (threadIdx.y != 0 || first >= tile) return;
  float2 all = make_float2(0, 0);
  for (int lane = 0; lane < blockDim.y; ++lane)
    for (int i = first; i < first + half; ++i) {
      const float2 one = partial[lane * tile + i];
      all.x += one.x;
      all.y += one.y;
    }
  const int group = (blockIdx.y * tile) / half + threadIdx.x;
  sums[((long long)blockIdx.z * groups + group) * gridDim.x + blockIdx.x] = all;
}
)",
                                  kNumbers};

constexpr KernelSource group_apply{"group_apply", R"(
extern "C" __global__ void group_apply(const Pair* x, Pair* y, const float2* sums,
                                       const Pair* weight, const Pair* bias, int positions,
                                       int channels, int per_group, int groups, int stretch,
                                       float eps, int silu) {
  extern __shared__ float2 moments[];
  const int pairs = channels / 2, half = per_group / 2, tile = blockDim.x;
  const int pair = blockIdx.y * tile + threadIdx.x;
  const long long start = (long long)blockIdx.z * positions * pairs;
  if (threadIdx.y == 0 && threadIdx.x * half < tile) {
    const int group = (blockIdx.y * tile) / half + threadIdx.x;
    const float2* parts = sums + ((long long)blockIdx.z * groups + group) * gridDim.x;
    float sum = 0, squares = 0;
    for (int i = 0; i < gridDim.x; ++i) {
      sum += parts[i].x;
      squares += parts[i].y;
    }
    const float count = (float)positions * per_group;
    const float shift = get(x[start + group * half]).x;
    const float mean = sum / count;
    const float variance = fmaxf(squares / count - mean * mean, 0.0f);
    moments[threadIdx.x] = make_float2(shift + mean, 1.0f / sqrtf(variance + eps));
  }
  __syncthreads();
  const float2 moment = moments[threadIdx.x / half];
  const float2 w = get(weight[pair]), b = get(bias[pair]);
  const int begin = blockIdx.x * stretch, end = min(positions, begin + stretch);
  for (int i = begin + threadIdx.y; i < end; i += blockDim.y) {
    const long long at = start + (long long)i * pairs + pair;
    const float2 v = get(x[at]);
    float p = (v.x - moment.x) * (moment.y * w.x) + b.x;
    float q = (v.y - moment.x) * (moment.y * w.y) + b.y;
    if (silu) {
      p = p / (1.0f + expf(-p));
      q = q / (1.0f + expf(-q));
    }
    y[at] = put(p, q);
  }
}
)",
                                   kNumbers};

/// An unsigned type of so many bytes; null where there is none.
const char* element_of(std::size_t bytes) {
  switch (bytes) {
    case 1: return "-DELEMENT=unsigned char";
    case 2: return "-DELEMENT=unsigned short";
    case 4: return "-DELEMENT=unsigned int";
    default: return nullptr;
  }
}

}  // namespace

bool to_channels_last_in_place(const at::Tensor& weight, const c10::Stream& stream) {
  const auto* element = element_of(weight.element_size());
  const int device = stream.device_index();
  const auto bytes = static_cast<std::int64_t>(weight.nbytes()) / weight.size(0);
  if (!element) return false;
  auto* function = kernel(device, channels_last, element);
  if (!function) return false;
  c10::DeviceGuard guard(stream.device());
  if (!allow_shared(function, device, bytes)) return false;
  void* data = weight.data_ptr();
  int channels = static_cast<int>(weight.size(1));
  int positions = static_cast<int>(weight.size(2) * weight.size(3));
  void* arguments[] = {&data, &channels, &positions};
  launch(channels_last, function, {static_cast<unsigned>(weight.size(0))}, {256}, bytes, stream,
         arguments);
  return true;
}

at::Tensor group_norm(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                      const GroupNormOptions& options) {
  constexpr int most_threads = 256, most_stretches = 64, enough_blocks = 1024;
  const auto channels = x.size(1), positions = x.size(2) * x.size(3);
  const auto per_group = channels / options.groups;
  const auto half = per_group / 2;
  const char* kind = define_of(x.scalar_type());
  const auto stream = current_stream(x.device());
  auto* sums_of = kernel(x.device().index(), group_sums, kind);
  auto* apply = kernel(x.device().index(), group_apply, kind);
  if (!sums_of || !apply) return {};
  // Whole groups a block of threads, as many as divide their number and fit into half its threads.
  std::int64_t together = options.groups;
  while (together > 1 && (together * half > most_threads / 2 || options.groups % together != 0))
    --together;
  const auto tile = together * half, lanes = most_threads / tile;
  const auto tiles = options.groups / together;
  const auto wanted =
      std::clamp<std::int64_t>(enough_blocks / (tiles * x.size(0)), 1, most_stretches);
  int stretch = static_cast<int>(std::max((positions + wanted - 1) / wanted, 4 * lanes));
  const auto stretches = (positions + stretch - 1) / stretch;
  auto y = at::empty_like(x);
  auto sums = at::empty({x.size(0), options.groups, stretches, 2}, x.options().dtype(at::kFloat));
  const Extent blocks{static_cast<unsigned>(stretches), static_cast<unsigned>(tiles),
                      static_cast<unsigned>(x.size(0))};
  const Extent threads{static_cast<unsigned>(tile), static_cast<unsigned>(lanes)};
  const void *from = x.const_data_ptr(), *w = weight.const_data_ptr(), *b = bias.const_data_ptr();
  void *to = y.mutable_data_ptr(), *partial = sums.mutable_data_ptr();
  int n = static_cast<int>(positions), c = static_cast<int>(channels);
  int each = static_cast<int>(per_group), groups = static_cast<int>(options.groups);
  float eps = static_cast<float>(options.eps);
  int silu = options.silu;
  void* first[] = {&from, &partial, &n, &c, &each, &groups, &stretch};
  launch(group_sums, sums_of, blocks, threads, tile * lanes * 8, stream, first);
  void* second[] = {&from, &to, &partial, &w, &b, &n, &c, &each, &groups, &stretch, &eps, &silu};
  launch(group_apply, apply, blocks, threads, together * 8, stream, second);
  return y;
}

}  // namespace distorch::device::cuda
