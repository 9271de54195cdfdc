#include "distorch/device/cuda/token_kernels.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "distorch/base/align.h"
#include "distorch/device/cuda/numbers.h"
#include "distorch/device/cuda/nvrtc.h"
#include "distorch/device/streams.h"

namespace distorch::device::cuda {
namespace {

// One block of threads a row; each thread keeps its eights of the row in registers. What the norm is
// multiplied with is `base` more than the scale.
constexpr KernelSource modulated{"modulated_norm", R"(
extern "C" __global__ void modulated_norm(const Number* x, Number* y, const Number* shift,
                                          const Number* scale, int length, int width,
                                          long long x_batch, long long x_row,
                                          long long shift_batch, long long shift_row,
                                          long long scale_batch, long long scale_row, float eps,
                                          float base) {
  __shared__ float partial[32];
  constexpr int most = 4;
  const int token = blockIdx.x, b = token / length, l = token % length;
  const Eight* from = (const Eight*)(x + b * x_batch + l * x_row);
  const Eight* shifts = (const Eight*)(shift + b * shift_batch + l * shift_row);
  const Eight* scales = (const Eight*)(scale + b * scale_batch + l * scale_row);
  Eight* to = (Eight*)(y + (long long)token * width);
  const int eights = width / 8;
  float kept[most][8];
  float sum = 0;
#pragma unroll
  for (int k = 0; k < most; ++k) {
    const int i = threadIdx.x + k * blockDim.x;
    if (i < eights) {
      const Eight q = from[i];
      for (int j = 0; j < 8; ++j) sum += kept[k][j] = up(q.v[j]);
    }
  }
  const float mean = row_sum(sum, partial) / width;
  float squares = 0;
#pragma unroll
  for (int k = 0; k < most; ++k)
    if (threadIdx.x + k * blockDim.x < eights)
      for (int j = 0; j < 8; ++j) {
        kept[k][j] -= mean;
        squares += kept[k][j] * kept[k][j];
      }
  const float factor = rsqrtf(row_sum(squares, partial) / width + eps);
#pragma unroll
  for (int k = 0; k < most; ++k) {
    const int i = threadIdx.x + k * blockDim.x;
    if (i < eights) {
      const Eight a = shifts[i], m = scales[i];
      Eight out;
      for (int j = 0; j < 8; ++j)
        out.v[j] = down(kept[k][j] * factor * (base + up(m.v[j])) + up(a.v[j]));
      to[i] = out;
    }
  }
}
)",
                                 kNumbers};

// One block of threads a row, eight numbers at a time.
constexpr KernelSource gated{"gated_add", R"(
extern "C" __global__ void gated_add(const Number* x, const Number* gate, const Number* y,
                                     Number* out, int length, int width, long long x_batch,
                                     long long x_row, long long gate_batch, long long gate_row,
                                     long long y_batch, long long y_row) {
  const int token = blockIdx.x, b = token / length, l = token % length;
  const Eight* xs = (const Eight*)(x + b * x_batch + l * x_row);
  const Eight* gates = (const Eight*)(gate + b * gate_batch + l * gate_row);
  const Eight* ys = (const Eight*)(y + b * y_batch + l * y_row);
  Eight* to = (Eight*)(out + (long long)token * width);
  for (int i = threadIdx.x; i < width / 8; i += blockDim.x) {
    const Eight p = xs[i], g = gates[i], q = ys[i];
    Eight sum;
    for (int j = 0; j < 8; ++j) sum.v[j] = down(up(p.v[j]) + up(g.v[j]) * up(q.v[j]));
    to[i] = sum;
  }
}
)",
                             kNumbers};

constexpr KernelSource activate{"activated", R"(
enum { GELU_TANH, SWI_GLU, GE_GLU };  // as Activation
__device__ float gelu_tanh(float x) {
  return 0.5f * x * (1.0f + tanhf(0.7978845608028654f * (x + 0.044715f * x * x * x)));
}
__device__ float gelu(float x) { return 0.5f * x * (1.0f + erff(0.7071067811865476f * x)); }
__device__ float silu(float x) { return x / (1.0f + __expf(-x)); }

extern "C" __global__ void activated(const Number* left, const Number* x, Number* y, int length,
                                     int left_width, int width, long long left_batch,
                                     long long left_row, long long x_batch, long long x_row,
                                     int activation) {
  const int token = blockIdx.x, b = token / length, l = token % length;
  const Eight* before = (const Eight*)(left + b * left_batch + l * left_row);
  const Eight* from = (const Eight*)(x + b * x_batch + l * x_row);
  Eight* to = (Eight*)(y + (long long)token * (left_width + width));
  const int first = left_width / 8, count = width / 8;
  for (int i = threadIdx.x; i < first; i += blockDim.x) to[i] = before[i];
  for (int i = threadIdx.x; i < count; i += blockDim.x) {
    const Eight p = from[i];
    Eight out;
    if (activation == GELU_TANH) {
      for (int j = 0; j < 8; ++j) out.v[j] = down(gelu_tanh(up(p.v[j])));
    } else {
      const Eight q = from[i + count];
      if (activation == SWI_GLU)
        for (int j = 0; j < 8; ++j) out.v[j] = down(silu(up(p.v[j])) * up(q.v[j]));
      else
        for (int j = 0; j < 8; ++j) out.v[j] = down(up(p.v[j]) * gelu(up(q.v[j])));
    }
    to[first + i] = out;
  }
}
)",
                                kNumbers};

// One block of threads a token. Every lane has the same eight numbers of all heads that its group
// works on, so that positions and weights are read once; a head is as many lanes wide as it has
// eights, a power of two. Pairs are as below.
constexpr KernelSource prepare_narrow{"narrow_heads", R"(
__device__ void turn(float& u, float& v, float c, float s) {
  const float turned = u * c - v * s;
  v = u * s + v * c;
  u = turned;
}

extern "C" __global__ void narrow_heads(const Number* x, Number* y, const Number* weight,
                                        const float* cosines, const float* sines, int length,
                                        int count, int width, long long x_batch, long long x_row,
                                        long long x_head, long long y_batch, long long y_row,
                                        long long table_batch, float eps, int norm, int halves) {
  const int token = blockIdx.x, l = token % length, b = token / length;
  const int lanes = width / 8, lane = threadIdx.x % lanes, half = width / 2;
  const int groups = blockDim.x / lanes, group = threadIdx.x / lanes;
  // Where a lane's pairs lie: their first numbers and, with halves, their second ones.
  const int first = halves ? 4 * lane : 8 * lane, second = halves ? half + 4 * lane : first + 4;
  float c[4], s[4], w[8];
  for (int j = 0; j < 4; ++j) {
    const long long at = b * table_batch + (long long)l * half + 4 * lane + j;
    c[j] = cosines ? cosines[at] : 1.0f;
    s[j] = cosines ? sines[at] : 0.0f;
    w[j] = weight ? up(weight[first + j]) : 1.0f;
    w[4 + j] = weight ? up(weight[second + j]) : 1.0f;
  }
  const Number* from = x + b * x_batch + l * x_row;
  Number* to = y + b * y_batch + l * y_row;
  for (int start = 0; start < count; start += groups) {
    const int h = start + group;
    float v[8] = {};
    if (h < count) {
      const Number* row = from + h * x_head;
      if (halves) {
        const Quad p = *(const Quad*)(row + first), q = *(const Quad*)(row + second);
        for (int j = 0; j < 4; ++j) {
          v[j] = up(p.v[j]);
          v[4 + j] = up(q.v[j]);
        }
      } else {
        const Eight p = *(const Eight*)(row + first);
        for (int j = 0; j < 8; ++j) v[j] = up(p.v[j]);
      }
    }
    if (norm) {
      float squares = 0;
      for (int j = 0; j < 8; ++j) squares += v[j] * v[j];
      for (int step = lanes / 2; step > 0; step /= 2)
        squares += __shfl_xor_sync(0xffffffffu, squares, step);
      const float factor = rsqrtf(squares / width + eps);
      for (int j = 0; j < 8; ++j) v[j] *= factor;
    }
    for (int j = 0; j < 8; ++j) v[j] *= w[j];
    if (halves) {
      for (int j = 0; j < 4; ++j) turn(v[j], v[4 + j], c[j], s[j]);
    } else {
      for (int j = 0; j < 4; ++j) turn(v[2 * j], v[2 * j + 1], c[j], s[j]);
    }
    if (h >= count) continue;
    Number* row = to + (long long)h * width;
    Eight out;
    for (int j = 0; j < 8; ++j) out.v[j] = down(v[j]);
    if (halves) {
      *(Quad*)(row + first) = Quad{out.v[0], out.v[1], out.v[2], out.v[3]};
      *(Quad*)(row + second) = Quad{out.v[4], out.v[5], out.v[6], out.v[7]};
    } else {
      *(Eight*)(row + first) = out;
    }
  }
}
)",
                                      kNumbers};

// A row is one head of one token. The pair i is (2i, 2i + 1) or, with halves, (i, i + width / 2).
constexpr KernelSource prepare{"heads", R"(
extern "C" __global__ void heads(const Number* x, Number* y, const Number* weight,
                                 const float* cosines, const float* sines, long long rows,
                                 int length, int count, int width, long long x_batch,
                                 long long x_row, long long x_head, long long y_batch,
                                 long long y_row, long long table_batch,
                                 float eps, int norm, int halves) {
  __shared__ float partial[32];
  const long long row = (long long)blockIdx.x * blockDim.y + threadIdx.y;
  if (row >= rows) return;
  const int h = row % count;
  const long long token = row / count;
  const int l = token % length;
  const long long b = token / length;
  const Number* from = x + b * x_batch + l * x_row + h * x_head;
  Number* to = y + b * y_batch + l * y_row + h * width;
  const int half = width / 2;
  float factor = 1.0f;
  if (norm) {
    float squares = 0;
    for (int i = threadIdx.x; i < half; i += blockDim.x) {
      const Pair p = ((const Pair*)from)[i];
      const float u = up(p.x), v = up(p.y);
      squares += u * u + v * v;
    }
    factor = rsqrtf(row_sum(squares, partial) / width + eps);
  }
  const float* c = cosines ? cosines + b * table_batch + (long long)l * half : nullptr;
  const float* s = sines ? sines + b * table_batch + (long long)l * half : nullptr;
  for (int i = threadIdx.x; i < half; i += blockDim.x) {
    const int at = halves ? i : 2 * i, partner = halves ? i + half : 2 * i + 1;
    float u, v;
    if (halves) {
      u = up(from[at]);
      v = up(from[partner]);
    } else {
      const Pair p = ((const Pair*)from)[i];
      u = up(p.x);
      v = up(p.y);
    }
    u *= factor;
    v *= factor;
    if (weight) {
      u *= up(weight[at]);
      v *= up(weight[partner]);
    }
    if (c) {
      const float turned = u * c[i] - v * s[i];
      v = u * s[i] + v * c[i];
      u = turned;
    }
    if (halves) {
      to[at] = down(u);
      to[partner] = down(v);
    } else {
      ((Pair*)to)[i] = Pair{down(u), down(v)};
    }
  }
}
)",
                               kNumbers};

/// Whether rows can be read so many numbers at a time.
bool aligned(const at::Tensor& x, std::int64_t numbers) {
  if (x.stride(-1) != 1) return false;
  for (std::int64_t d = 0; d + 1 < x.dim(); ++d)
    if (x.size(d) > 1 && x.stride(d) % numbers != 0) return false;
  return reinterpret_cast<std::uintptr_t>(x.const_data_ptr()) %
             (static_cast<std::size_t>(numbers) * x.element_size()) ==
         0;
}

/// What a row's index is multiplied with; 0 where one row is for all.
long long step_of(const at::Tensor& x, std::int64_t dim) {
  return x.size(dim) == 1 ? 0 : x.stride(dim);
}

/// Threads of a row that is worked on by eights.
unsigned threads_for(std::int64_t width) {
  unsigned threads = 32;
  while (threads < 256 && width > 8 * static_cast<std::int64_t>(threads)) threads *= 2;
  return threads;
}

/// The layer norm of x · (base + scale) + shift, all [B, L, C], of the last two one row for many.
at::Tensor norm_with(const at::Tensor& x, const at::Tensor& shift, const at::Tensor& scale,
                     double eps, float base) {
  constexpr int eights_a_thread = 4, most_threads = 1024;
  const auto width = x.size(-1);
  const char* kind = define_of(x.scalar_type());
  if (!kind || x.dim() != 3 || x.numel() == 0 || width % 8 != 0 ||
      width > 8 * eights_a_thread * most_threads || !aligned(x, 8))
    return {};
  for (const auto* part : {&shift, &scale})
    if (part->scalar_type() != x.scalar_type() || part->dim() != 3 || part->size(-1) != width ||
        !aligned(*part, 8))
      return {};
  auto* function = kernel(x.device().index(), modulated, kind);
  if (!function) return {};
  auto y = at::empty(x.sizes(), x.options());
  // Three eights a thread, four where a row is very wide, in whole warps.
  const auto wanted = (width / 8 + 2) / 3;
  const auto threads = static_cast<unsigned>(
      std::min<std::int64_t>(most_threads, align_up(wanted, std::int64_t{32})));
  const void *from = x.const_data_ptr(), *a = shift.const_data_ptr(), *m = scale.const_data_ptr();
  void* to = y.mutable_data_ptr();
  int length = static_cast<int>(x.size(1)), w = static_cast<int>(width);
  long long steps[] = {step_of(x, 0),     step_of(x, 1),     step_of(shift, 0),
                       step_of(shift, 1), step_of(scale, 0), step_of(scale, 1)};
  float e = static_cast<float>(eps);
  void* arguments[] = {&from,     &to,       &a,        &m,        &length,   &w, &steps[0],
                       &steps[1], &steps[2], &steps[3], &steps[4], &steps[5], &e, &base};
  launch(modulated, function, {static_cast<unsigned>(x.size(0) * x.size(1))}, {threads}, 0,
         current_stream(x.device()), arguments);
  return y;
}

/// x [..., C] as [1 or B, L, C].
at::Tensor as_rows(const at::Tensor& x) {
  return x.dim() == 3 ? x : x.reshape({1, -1, x.size(-1)});
}

}  // namespace

at::Tensor modulated_norm(const at::Tensor& x, const at::Tensor& shift, const at::Tensor& scale,
                          double eps) {
  return norm_with(x, shift, scale, eps, 1);
}

at::Tensor weighted_norm(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                         double eps) {
  if (x.dim() == 0 || weight.dim() != 1) return {};
  auto y = norm_with(as_rows(x), bias.view({1, 1, -1}), weight.view({1, 1, -1}), eps, 0);
  return y.defined() ? y.view(x.sizes()) : y;
}

at::Tensor gated_add(const at::Tensor& x, const at::Tensor& gate, const at::Tensor& y) {
  const char* kind = define_of(x.scalar_type());
  if (!kind || x.dim() != 3 || x.numel() == 0 || y.sizes() != x.sizes() || x.size(2) % 8 != 0)
    return {};
  for (const auto* part : {&x, &gate, &y})
    if (part->scalar_type() != x.scalar_type() || part->dim() != 3 || part->size(2) != x.size(2) ||
        !aligned(*part, 8))
      return {};
  auto* function = kernel(x.device().index(), gated, kind);
  if (!function) return {};
  auto out = at::empty(x.sizes(), x.options());
  const void *a = x.const_data_ptr(), *g = gate.const_data_ptr(), *b = y.const_data_ptr();
  void* to = out.mutable_data_ptr();
  int length = static_cast<int>(x.size(1)), width = static_cast<int>(x.size(2));
  long long steps[] = {step_of(x, 0),    step_of(x, 1), step_of(gate, 0),
                       step_of(gate, 1), step_of(y, 0), step_of(y, 1)};
  void* arguments[] = {&a,        &g,        &b,        &to,       &length,   &width,
                       &steps[0], &steps[1], &steps[2], &steps[3], &steps[4], &steps[5]};
  launch(gated, function, {static_cast<unsigned>(x.size(0) * x.size(1))}, {threads_for(width)}, 0,
         current_stream(x.device()), arguments);
  return out;
}

at::Tensor activated(const at::Tensor& left, const at::Tensor& given, Activation activation) {
  const char* kind = define_of(given.scalar_type());
  const bool halves = activation != Activation::GeluTanh;
  if (!kind || given.numel() == 0 || (left.defined() && given.dim() != 3)) return {};
  const auto x = as_rows(given);
  if (x.size(2) % (halves ? 16 : 8) != 0 || !aligned(x, 8)) return {};
  if (left.defined() && (left.scalar_type() != x.scalar_type() || left.dim() != 3 ||
                         left.size(2) % 8 != 0 || !aligned(left, 8)))
    return {};
  auto* function = kernel(x.device().index(), activate, kind);
  if (!function) return {};
  int width = static_cast<int>(halves ? x.size(2) / 2 : x.size(2));
  int left_width = left.defined() ? static_cast<int>(left.size(2)) : 0;
  auto y = at::empty({x.size(0), x.size(1), left_width + width}, x.options());
  const void *before = left.defined() ? left.const_data_ptr() : nullptr, *from = x.const_data_ptr();
  void* to = y.mutable_data_ptr();
  int length = static_cast<int>(x.size(1));
  long long steps[] = {left.defined() ? step_of(left, 0) : 0, left.defined() ? step_of(left, 1) : 0,
                       step_of(x, 0), step_of(x, 1)};
  int number = static_cast<int>(activation);
  void* arguments[] = {&before,   &from,     &to,       &length,   &left_width, &width,
                       &steps[0], &steps[1], &steps[2], &steps[3], &number};
  launch(activate, function, {static_cast<unsigned>(x.size(0) * x.size(1))}, {threads_for(width)},
         0, current_stream(x.device()), arguments);
  auto sizes = given.sizes().vec();
  sizes.back() = left_width + width;
  return y.view(sizes);
}

namespace {

/// Whether a head is as wide as some lanes of a warp, a power of two, have eights.
bool is_narrow(const at::Tensor& y, const at::Tensor& x) {
  const auto width = x.size(-1), lanes = width / 8;
  return width % 8 == 0 && lanes <= 32 && (lanes & (lanes - 1)) == 0 && aligned(x, 8) &&
         aligned(y, 8);
}

bool can_prepare(const at::Tensor& y, const at::Tensor& x, const at::Tensor& weight) {
  const auto width = x.size(-1);
  return define_of(x.scalar_type()) && x.dim() == 4 && x.numel() > 0 && width % 2 == 0 &&
         aligned(x, 2) && y.scalar_type() == x.scalar_type() && y.sizes() == x.sizes() &&
         y.stride(2) == width && aligned(y, 2) &&
         (!weight.defined() || (weight.scalar_type() == x.scalar_type() && weight.is_contiguous()));
}

}  // namespace

bool heads(const at::Tensor& y, const at::Tensor& x, const at::Tensor& weight,
           const at::Tensor& cos, const at::Tensor& sin, double eps, bool norm, bool halves) {
  constexpr std::int64_t wide = 512;
  if (!can_prepare(y, x, weight)) return false;
  const bool narrow = is_narrow(y, x);
  const auto& source = narrow ? prepare_narrow : prepare;
  auto* function = kernel(x.device().index(), source, define_of(x.scalar_type()));
  if (!function) return false;
  const void *from = x.const_data_ptr(), *w = weight.defined() ? weight.const_data_ptr() : nullptr,
             *c = cos.defined() ? cos.const_data_ptr() : nullptr,
             *s = sin.defined() ? sin.const_data_ptr() : nullptr;
  void* to = y.mutable_data_ptr();
  long long rows = x.size(0) * x.size(1) * x.size(2);
  int length = static_cast<int>(x.size(1)), count = static_cast<int>(x.size(2));
  int each = static_cast<int>(x.size(3)), n = norm, in_halves = halves;
  long long steps[] = {step_of(x, 0), step_of(x, 1), step_of(x, 2),
                       step_of(y, 0), step_of(y, 1), cos.defined() ? step_of(cos, 0) : 0};
  float e = static_cast<float>(eps);
  const auto stream = current_stream(x.device());
  if (narrow) {
    void* arguments[] = {&from,     &to,       &w,        &c,        &s,        &length,
                         &count,    &each,     &steps[0], &steps[1], &steps[2], &steps[3],
                         &steps[4], &steps[5], &e,        &n,        &in_halves};
    constexpr unsigned threads = 128;
    launch(source, function, {static_cast<unsigned>(x.size(0) * x.size(1))}, {threads}, 0, stream,
           arguments);
    return true;
  }
  void* arguments[] = {&from,     &to,       &w,        &c,        &s,        &rows,
                       &length,   &count,    &each,     &steps[0], &steps[1], &steps[2],
                       &steps[3], &steps[4], &steps[5], &e,        &n,        &in_halves};
  // A narrow row is one warp's, with eight of them in a block; a wide row is a block's.
  const Extent threads = each <= wide ? Extent{32, 8} : Extent{256, 1};
  launch(source, function, {static_cast<unsigned>((rows + threads.y - 1) / threads.y)}, threads, 0,
         stream, arguments);
  return true;
}

}  // namespace distorch::device::cuda
