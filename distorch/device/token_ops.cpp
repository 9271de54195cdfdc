#include "distorch/device/token_ops.h"

#include <ATen/ATen.h>
#include <ATen/Dispatch.h>

#include <cmath>
#include <vector>

#include "distorch/device/cuda/token_kernels.h"
#include "distorch/device/device.h"
#include "distorch/device/operators.h"
#include "distorch/device/parallel.h"

namespace distorch::device {
namespace {

using at::Tensor;
using Maybe = const std::optional<Tensor>&;

std::optional<Tensor> maybe(const Tensor& tensor) {
  return tensor.defined() ? std::optional<Tensor>(tensor) : std::nullopt;
}

KernelWork cost(c10::ArrayRef<c10::IValue>) { return {.kind = KernelKind::Normalization}; }

Tensor modulated_by_torch(const Tensor& x, const Tensor& shift, const Tensor& scale, double eps) {
  auto y = at::layer_norm(x, {x.size(-1)}, {}, {}, eps);
  return y.mul_(scale + 1).add_(shift);
}

Tensor modulated_on_cpu(const Tensor& x, const Tensor& shift, const Tensor& scale, double eps) {
  return modulated_by_torch(x.contiguous(), shift, scale, eps);
}

Tensor modulated_on_cuda(const Tensor& x, const Tensor& shift, const Tensor& scale, double eps) {
  auto y = cuda::modulated_norm(x, shift, scale, eps);
  return y.defined() ? y : modulated_by_torch(x, shift, scale, eps);
}

Tensor normed_shape(const Tensor& x, const Tensor&, const Tensor&, double) {
  return at::empty(x.sizes(), x.options());
}

const auto& modulated_operator() {
  static const auto op =
      define({.schema = "modulated_norm(Tensor x, Tensor shift, Tensor scale, float eps) -> Tensor",
              .cpu = torch::CppFunction(&modulated_on_cpu),
              .cuda = torch::CppFunction(&modulated_on_cuda),
              .meta = torch::CppFunction(&normed_shape),
              .cost = cost})
          .typed<Tensor(const Tensor&, const Tensor&, const Tensor&, double)>();
  return op;
}

Tensor weighted_by_torch(const Tensor& x, const Tensor& weight, const Tensor& bias, double eps) {
  return at::layer_norm(x, weight.sizes(), weight, bias, eps);
}

Tensor weighted_on_cuda(const Tensor& x, const Tensor& weight, const Tensor& bias, double eps) {
  auto y = cuda::weighted_norm(x, weight, bias, eps);
  return y.defined() ? y : weighted_by_torch(x, weight, bias, eps);
}

const auto& weighted_operator() {
  static const auto op =
      define({.schema = "weighted_norm(Tensor x, Tensor weight, Tensor bias, float eps) -> Tensor",
              .cpu = torch::CppFunction(&weighted_by_torch),
              .cuda = torch::CppFunction(&weighted_on_cuda),
              .meta = torch::CppFunction(&normed_shape),
              .cost = cost})
          .typed<Tensor(const Tensor&, const Tensor&, const Tensor&, double)>();
  return op;
}

Tensor gated_by_torch(const Tensor& x, const Tensor& gate, const Tensor& y) {
  return at::addcmul(x, gate, y);
}

Tensor gated_on_cuda(const Tensor& x, const Tensor& gate, const Tensor& y) {
  auto sum = cuda::gated_add(x, gate, y);
  return sum.defined() ? sum : gated_by_torch(x, gate, y);
}

const auto& gated_operator() {
  static const auto op = define({.schema = "gated_add(Tensor x, Tensor gate, Tensor y) -> Tensor",
                                 .cpu = torch::CppFunction(&gated_by_torch),
                                 .cuda = torch::CppFunction(&gated_on_cuda),
                                 .meta = torch::CppFunction(&gated_by_torch)})
                             .typed<Tensor(const Tensor&, const Tensor&, const Tensor&)>();
  return op;
}

/// Where the result of an activation goes, `left` in front of it: {all, the part behind left}.
std::pair<Tensor, Tensor> room_behind(Maybe left, const Tensor& x, Activation activation) {
  const bool halves = activation != Activation::GeluTanh;
  const auto width = halves ? x.size(-1) / 2 : x.size(-1), before = left ? left->size(-1) : 0;
  auto sizes = x.sizes().vec();
  sizes.back() = before + width;
  auto all = at::empty(sizes, x.options());
  if (left) all.narrow(-1, 0, before).copy_(*left);
  return {all, all.narrow(-1, before, width)};
}

// Of the operator's number, which is the activation's.
Tensor activated_by_torch(Maybe left, const Tensor& x, std::int64_t number) {
  const auto activation = static_cast<Activation>(number);
  auto [all, y] = room_behind(left, x, activation);
  if (activation == Activation::GeluTanh) {
    at::gelu_out(y, x, "tanh");
    return all;
  }
  auto halves = x.chunk(2, -1);
  if (activation == Activation::SwiGlu) {
    at::silu_out(y, halves[0]);
    y.mul_(halves[1]);
  } else {
    at::gelu_out(y, halves[1]);
    y.mul_(halves[0]);
  }
  return all;
}

Tensor activated_on_cuda(Maybe left, const Tensor& x, std::int64_t number) {
  auto y = cuda::activated(left.value_or(Tensor()), x, static_cast<Activation>(number));
  return y.defined() ? y : activated_by_torch(left, x, number);
}

Tensor activated_shape(Maybe left, const Tensor& x, std::int64_t number) {
  return room_behind(left, x, static_cast<Activation>(number)).first;
}

const auto& activated_operator() {
  static const auto op =
      define({.schema = "activated(Tensor? left, Tensor x, int activation) -> Tensor",
              .cpu = torch::CppFunction(&activated_by_torch),
              .cuda = torch::CppFunction(&activated_on_cuda),
              .meta = torch::CppFunction(&activated_shape)})
          .typed<Tensor(Maybe, const Tensor&, std::int64_t)>();
  return op;
}

/// Of what a layer with this weight makes of x.
std::vector<std::int64_t> sizes_behind(const Tensor& x, const Tensor& weight) {
  auto sizes = x.sizes().vec();
  sizes.back() = weight.size(0);
  return sizes;
}

Tensor linear_gelu_by_torch(const Tensor& x, const Tensor& weight, Maybe bias) {
  auto y = at::linear(x, weight, bias);
  return at::gelu_(y, "tanh");
}

/// cuBLASLt has the activation as the end of a product with a bias; torch knows when it can be had.
Tensor linear_gelu_on_cuda(const Tensor& x, const Tensor& weight, Maybe bias) {
  if (!bias || x.scalar_type() == at::kFloat) return linear_gelu_by_torch(x, weight, bias);
  const auto rows = x.reshape({-1, x.size(-1)});
  return at::_addmm_activation(*bias, rows, weight.t(), 1, 1, /*use_gelu=*/true)
      .view(sizes_behind(x, weight));
}

Tensor linear_gelu_shape(const Tensor& x, const Tensor& weight, Maybe) {
  return at::empty(sizes_behind(x, weight), x.options());
}

KernelWork linear_cost(c10::ArrayRef<c10::IValue> arguments) {
  const auto &x = arguments[0].toTensor(), &weight = arguments[1].toTensor();
  return {
      .kind = KernelKind::Matmul,
      .flops = 2.0 * static_cast<double>(x.numel()) * static_cast<double>(weight.size(0)),
      .depth = static_cast<double>(x.size(-1)),
  };
}

const auto& linear_gelu_operator() {
  static const auto op =
      define({.schema = "linear_gelu(Tensor x, Tensor weight, Tensor? bias) -> Tensor",
              .cpu = torch::CppFunction(&linear_gelu_by_torch),
              .cuda = torch::CppFunction(&linear_gelu_on_cuda),
              .meta = torch::CppFunction(&linear_gelu_shape),
              .cost = linear_cost})
          .typed<Tensor(const Tensor&, const Tensor&, Maybe)>();
  return op;
}

/// One head: `from` [D] -> `to` [D]. `row` has room for D numbers.
template <typename Number>
void prepare_head(const Number* from, Number* to, float* row, std::int64_t width,
                  const float* weight, const float* cos, const float* sin, const HeadOptions& how,
                  bool halves) {
  float squares = 0;
  for (std::int64_t i = 0; i < width; ++i) {
    row[i] = static_cast<float>(from[i]);
    squares += row[i] * row[i];
  }
  if (how.norm) {
    auto factor =
        1.0f / std::sqrt(squares / static_cast<float>(width) + static_cast<float>(how.eps));
    for (std::int64_t i = 0; i < width; ++i) row[i] *= factor;
  }
  if (weight)
    for (std::int64_t i = 0; i < width; ++i) row[i] *= weight[i];
  if (cos) {
    const std::int64_t step = halves ? 1 : 2, partner = halves ? width / 2 : 1;
    for (std::int64_t i = 0; i < width / 2; ++i) {
      auto& a = row[i * step];
      auto& b = row[i * step + partner];
      const auto turned = a * cos[i] - b * sin[i];
      b = a * sin[i] + b * cos[i];
      a = turned;
    }
  }
  for (std::int64_t i = 0; i < width; ++i) to[i] = static_cast<Number>(row[i]);
}

void heads_on_cpu(Tensor y, const Tensor& given, Maybe weight, Maybe cos, Maybe sin, double eps,
                  bool norm, bool halves) {
  auto x = given.stride(-1) == 1 ? given : given.contiguous();
  const HeadOptions how{.norm = norm, .eps = eps};
  const auto length = x.size(1), heads = x.size(2), width = x.size(3);
  auto w = weight ? weight->to(at::kFloat).contiguous() : Tensor();
  const auto* w_data = w.defined() ? w.const_data_ptr<float>() : nullptr;
  const auto* cos_data = cos ? cos->const_data_ptr<float>() : nullptr;
  const auto* sin_data = sin ? sin->const_data_ptr<float>() : nullptr;
  const auto table_batch = cos && cos->size(0) > 1 ? length * width / 2 : 0;
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, x.scalar_type(), "heads", [&] {
    const auto* from = x.const_data_ptr<scalar_t>();
    auto* to = y.mutable_data_ptr<scalar_t>();
    parallel_for(0, x.size(0) * length, 16, [&](std::int64_t begin, std::int64_t end) {
      std::vector<float> row(static_cast<std::size_t>(width));
      for (auto token = begin; token < end; ++token) {
        const auto b = token / length, l = token % length;
        const auto at = b * table_batch + l * (width / 2);
        for (std::int64_t h = 0; h < heads; ++h)
          prepare_head(from + b * x.stride(0) + l * x.stride(1) + h * x.stride(2),
                       to + b * y.stride(0) + l * y.stride(1) + h * width, row.data(), width,
                       w_data, cos_data ? cos_data + at : nullptr,
                       sin_data ? sin_data + at : nullptr, how, halves);
      }
    });
  });
}

Tensor heads_by_torch(const Tensor& x, Maybe weight, Maybe cos, Maybe sin, double eps, bool norm,
                      bool halves) {
  auto y = x.to(at::kFloat);
  if (norm) y = y * at::rsqrt(y.square().mean(-1, /*keepdim=*/true) + eps);
  if (weight) y = y * weight->to(at::kFloat);
  if (cos) {
    auto c = cos->unsqueeze(2), s = sin->unsqueeze(2);
    auto half = x.size(-1) / 2;
    auto pairs = halves ? y.unflatten(-1, {2, half}).transpose(-1, -2) : y.unflatten(-1, {half, 2});
    auto a = pairs.select(-1, 0), b = pairs.select(-1, 1);
    y = at::stack({a * c - b * s, a * s + b * c}, halves ? -2 : -1).flatten(-2);
  }
  return y.to(x.scalar_type()).contiguous();
}

void heads_on_cuda(Tensor y, const Tensor& x, Maybe weight, Maybe cos, Maybe sin, double eps,
                   bool norm, bool halves) {
  if (!cuda::heads(y, x, weight.value_or(Tensor()), cos.value_or(Tensor()), sin.value_or(Tensor()),
                   eps, norm, halves))
    y.copy_(heads_by_torch(x, weight, cos, sin, eps, norm, halves));
}

void heads_shape(Tensor, const Tensor&, Maybe, Maybe, Maybe, double, bool, bool) {}

const auto& heads_operator() {
  static const auto op =
      define({.schema = "heads_(Tensor(a!) y, Tensor x, Tensor? weight, Tensor? cos, Tensor? sin, "
                        "float eps, bool norm, bool halves) -> ()",
              .cpu = torch::CppFunction(&heads_on_cpu),
              .cuda = torch::CppFunction(&heads_on_cuda),
              .meta = torch::CppFunction(&heads_shape),
              .cost = cost})
          .typed<void(Tensor, const Tensor&, Maybe, Maybe, Maybe, double, bool, bool)>();
  return op;
}

}  // namespace

Tensor modulated_norm(const Tensor& x, const Tensor& shift, const Tensor& scale, double eps) {
  return modulated_operator().call(x, shift, scale, eps);
}

Tensor weighted_norm(const Tensor& x, const Tensor& weight, const Tensor& bias, double eps) {
  return weighted_operator().call(x, weight, bias, eps);
}

Tensor gated_add(const Tensor& x, const Tensor& gate, const Tensor& y) {
  return gated_operator().call(x, gate, y);
}

Tensor linear_gelu(const Tensor& x, const Tensor& weight, const Tensor& bias) {
  return linear_gelu_operator().call(x, weight, maybe(bias));
}

Tensor activated(const Tensor& left, const Tensor& x, Activation activation) {
  return activated_operator().call(maybe(left), x, static_cast<std::int64_t>(activation));
}

void prepare_heads_into(const Tensor& to, const Tensor& x, const HeadOptions& options) {
  std::optional<Tensor> cos, sin;
  if (options.rope) {
    cos = options.rope->cos.contiguous();
    sin = options.rope->sin.contiguous();
  }
  heads_operator().call(to, x, maybe(options.weight), cos, sin, options.eps, options.norm,
                        options.rope && options.rope->halves);
}

Tensor prepared_heads(const Tensor& x, const HeadOptions& options) {
  auto y = at::empty(x.sizes(), x.options());
  prepare_heads_into(y, x, options);
  return y;
}

Tensor rms_norm(const Tensor& x, const Tensor& weight, double eps) {
  const auto width = x.size(-1);
  auto rows = x.reshape({1, -1, 1, width});
  return prepared_heads(rows, {.weight = weight, .eps = eps}).view(x.sizes());
}

}  // namespace distorch::device
