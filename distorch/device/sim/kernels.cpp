#include "distorch/device/sim/backend.h"

// Operations that the fallback cannot serve: no Meta kernel gives their shapes, or their cost is
// more than their bytes.
namespace distorch::sim {
namespace {

using Ints = c10::SymIntArrayRef;
using Maybe = std::optional<at::Tensor>;

std::vector<int64_t> plain(Ints ints) {
  std::vector<int64_t> out;
  for (const auto& value : ints) out.push_back(value.guard_int(__FILE__, __LINE__));
  return out;
}

int64_t plain(const c10::SymInt& value) { return value.guard_int(__FILE__, __LINE__); }

bool defined(const Maybe& tensor) { return tensor && tensor->defined(); }

at::TensorOptions meta(at::ScalarType dtype) {
  return at::TensorOptions().device(at::kMeta).dtype(dtype);
}

struct Convolution {
  std::vector<int64_t> stride, padding, dilation, output_padding;
  bool transposed;
  int64_t groups;

  static int64_t at(const std::vector<int64_t>& values, std::size_t d) {
    return values[std::min(d, values.size() - 1)];
  }

  std::vector<int64_t> output_sizes(const at::Tensor& x, const at::Tensor& weight) const {
    std::vector<int64_t> sizes{x.size(0), transposed ? weight.size(1) * groups : weight.size(0)};
    for (int64_t i = 2; i < x.dim(); ++i) {
      const auto d = static_cast<std::size_t>(i - 2);
      const auto reach = at(dilation, d) * (weight.size(i) - 1) + 1;
      sizes.push_back(transposed ? (x.size(i) - 1) * at(stride, d) - 2 * at(padding, d) + reach +
                                       at(output_padding, d)
                                 : (x.size(i) + 2 * at(padding, d) - reach) / at(stride, d) + 1);
    }
    return sizes;
  }
};

// As the CPU chooses it: channels-last when the input or the weight is.
at::MemoryFormat convolution_format(const at::Tensor& x, const at::Tensor& weight) {
  for (const auto* tensor : {&x, &weight}) {
    const auto format = tensor->suggest_memory_format();
    if (format == at::MemoryFormat::ChannelsLast || format == at::MemoryFormat::ChannelsLast3d)
      return format;
  }
  return at::MemoryFormat::Contiguous;
}

at::Tensor convolution(const at::Tensor& input, const at::Tensor& weight, const Maybe& bias,
                       Ints stride, Ints padding, Ints dilation, bool transposed,
                       Ints output_padding, c10::SymInt groups) {
  static const std::string name = "aten::convolution";
  const Convolution c{plain(stride),         plain(padding), plain(dilation),
                      plain(output_padding), transposed,     plain(groups)};
  Operation operation(name);
  auto x = operation.input(input), w = operation.input(weight);
  Maybe b = defined(bias) ? Maybe(operation.input(*bias)) : std::nullopt;
  operation.begin();
  TORCH_CHECK(input.dim() == weight.dim(), "convolution: input ", input.sizes(), " and weight ",
              weight.sizes(), " differ in dimensions");
  TORCH_CHECK(input.size(1) == (transposed ? weight.size(0) : weight.size(1) * c.groups),
              "convolution: weight of size ", weight.sizes(), " does not fit an input of size ",
              input.sizes());
  auto y = operation.is_dry()
               ? at::empty(c.output_sizes(x, w),
                           meta(x.scalar_type()).memory_format(convolution_format(x, w)))
               : at::convolution(x, w, b, c.stride, c.padding, c.dilation, transposed,
                                 c.output_padding, c.groups);
  auto result = operation.output(y);
  const auto per_output = static_cast<double>(weight.numel()) / static_cast<double>(weight.size(0));
  operation.end(
      {.kind = KernelKind::Convolution,
       .flops = 2.0 * per_output * static_cast<double>(transposed ? input.numel() : result.numel()),
       .depth = per_output});
  return result;
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> layer_norm(const at::Tensor& input, Ints normalized,
                                                          const Maybe& weight, const Maybe& bias,
                                                          double eps) {
  static const std::string name = "aten::native_layer_norm";
  Operation operation(name);
  auto x = operation.input(input);
  auto w = operation.input(weight), b = operation.input(bias);
  operation.begin();
  at::Tensor y, mean, rstd;
  if (operation.is_dry()) {
    const auto outer = x.dim() - static_cast<int64_t>(normalized.size());
    TORCH_CHECK(outer >= 0 && x.sizes().slice(outer) == at::IntArrayRef(plain(normalized)),
                "layer_norm: input of size ", x.sizes(), " does not end in the normalized shape");
    auto statistics = x.sizes().slice(0, outer).vec();
    statistics.resize(x.dim(), 1);
    const bool mixed = defined(w) && w->scalar_type() != x.scalar_type();
    y = at::empty(x.sizes(), meta(x.scalar_type()));
    mean = at::empty(statistics, meta(mixed ? w->scalar_type() : x.scalar_type()));
    rstd = at::empty_like(mean);
  } else {
    std::tie(y, mean, rstd) = at::native_layer_norm(x, plain(normalized), w, b, eps);
  }
  auto results =
      std::make_tuple(operation.output(y), operation.output(mean), operation.output(rstd));
  operation.end({.kind = KernelKind::Normalization});
  return results;
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> group_norm(const at::Tensor& input,
                                                          const Maybe& weight, const Maybe& bias,
                                                          c10::SymInt n, c10::SymInt c,
                                                          c10::SymInt inner, int64_t groups,
                                                          double eps) {
  static const std::string name = "aten::native_group_norm";
  Operation operation(name);
  auto x = operation.input(input);
  auto w = operation.input(weight), b = operation.input(bias);
  operation.begin();
  at::Tensor y, mean, rstd;
  if (operation.is_dry()) {
    TORCH_CHECK(plain(c) % groups == 0, "group_norm: ", plain(c), " channels do not divide into ",
                groups, " groups");
    const bool mixed = defined(w) && w->scalar_type() != x.scalar_type();
    y = at::empty(x.sizes(), meta(x.scalar_type()).memory_format(x.suggest_memory_format()));
    mean = at::empty({plain(n), groups}, meta(mixed ? w->scalar_type() : x.scalar_type()));
    rstd = at::empty_like(mean);
  } else {
    std::tie(y, mean, rstd) =
        at::native_group_norm(x, w, b, plain(n), plain(c), plain(inner), groups, eps);
  }
  auto results =
      std::make_tuple(operation.output(y), operation.output(mean), operation.output(rstd));
  operation.end({.kind = KernelKind::Normalization});
  return results;
}

// A CPU tensor of that shape without memory: enough to ask which attention kernel the CPU would
// choose.
at::Tensor hollow(const at::Tensor& like) {
  const auto bytes =
      at::detail::computeStorageNbytes(like.sizes(), like.strides(), like.element_size());
  c10::Storage storage(c10::Storage::use_byte_size_t(), bytes,
                       c10::DataPtr(nullptr, c10::Device(at::kCPU)), nullptr, false);
  auto tensor = at::detail::make_tensor<c10::TensorImpl>(
      std::move(storage), c10::DispatchKeySet(c10::DispatchKey::CPU), like.dtype());
  tensor.unsafeGetTensorImpl()->set_sizes_and_strides(like.sizes(), like.strides());
  return tensor;
}

struct AttentionOptions {
  double dropout;
  bool causal;
  std::optional<double> scale;
  bool grouped;
};

struct Attention {
  at::Tensor q, k, v;  // [..., L, E]
  Maybe mask;
  AttentionOptions options;

  std::vector<int64_t> output_sizes() const {
    auto sizes = q.sizes().vec();
    sizes.back() = v.size(-1);
    return sizes;
  }
  double scores() const {
    return static_cast<double>(q.numel()) / static_cast<double>(q.size(-1)) *
           static_cast<double>(k.size(-2));
  }
};

/// What becomes of it: whether one kernel does it, and how its result lies in memory.
struct AttentionPath {
  bool fused = true;
  at::Tensor result;  // on Meta
};

// The CPU's fused kernel leaves its result in memory as the query is, the plain one as [B, H, L,
// E].
AttentionPath path_on_cpu(const Attention& a) {
  const auto& o = a.options;
  const Maybe mask = a.mask ? Maybe(hollow(*a.mask)) : std::nullopt;
  const bool fused =
      a.q.dim() == 4 && at::_fused_sdp_choice(hollow(a.q), hollow(a.k), hollow(a.v), mask,
                                              o.dropout, o.causal, o.scale, o.grouped) != 0;
  const auto options = meta(a.q.scalar_type());
  return {true, fused ? at::empty_like(a.q, options) : at::empty(a.output_sizes(), options)};
}

// As CUDA chooses, all its fused kernels being allowed (source: torch, ATen/native/transformers/
// cuda/sdp_utils.cpp). Numbers of 2 bytes without a mask go to one that takes heads up to 256 wide
// and lays its result out as the query; others to one that wants heads of whole 16 bytes and
// leaves positions before heads. Where neither will, there are matrix products and a softmax.
AttentionPath path_on_cuda(const Attention& a) {
  const auto options = meta(a.q.scalar_type());
  const auto width = a.q.size(-1), value_width = a.v.size(-1);
  const auto whole = 16 / static_cast<int64_t>(a.q.element_size());
  const bool small = a.q.scalar_type() == at::kHalf || a.q.scalar_type() == at::kBFloat16;
  const bool dense = a.q.dim() == 4 && a.q.stride(-1) == 1 && a.k.stride(-1) == 1 &&
                     a.v.stride(-1) == 1 && a.q.numel() > 0 && a.k.numel() > 0;
  const bool square = !a.options.causal || a.q.size(-2) == a.k.size(-2);
  if (dense && small && !a.mask && square && width <= 256 && width == value_width)
    return {true, at::empty_like(a.q, options)};
  if (dense && (small || a.q.scalar_type() == at::kFloat) && width % whole == 0 &&
      value_width % whole == 0) {
    auto sizes = a.output_sizes();
    std::swap(sizes[1], sizes[2]);
    return {true, at::empty(sizes, options).transpose(1, 2)};
  }
  return {false, at::empty(a.output_sizes(), options)};
}

/// Without a fused kernel, in float32: what lies beside the arguments and the result, and what is
/// read and written there.
struct PlainCost {
  double held_bytes, moved_bytes;
};
PlainCost plain_cost(const Attention& a) {
  constexpr double item = 4;
  const auto bytes = [](const at::Tensor& t) { return item * static_cast<double>(t.numel()); };
  const auto scores = item * a.scores();
  // Scaled copies of query and key; the value is copied where it is of another dtype.
  auto copies = bytes(a.q) + bytes(a.k);
  if (a.v.scalar_type() != at::kFloat) copies += bytes(a.v);
  const bool masked = a.mask || a.options.causal;
  // The scores are written, masked in place, and read by the softmax, whose result is another such
  // matrix.
  return {copies + 2 * scores, 2 * copies + (masked ? 6 : 4) * scores};
}

at::Tensor attention(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value,
                     const Maybe& mask, double dropout, bool causal, std::optional<double> scale,
                     bool grouped) {
  static const std::string name = "aten::scaled_dot_product_attention";
  Operation operation(name);
  auto q = operation.input(query), k = operation.input(key), v = operation.input(value);
  Maybe m = defined(mask) ? Maybe(operation.input(*mask)) : std::nullopt;
  operation.begin();
  TORCH_CHECK(q.dim() >= 2 && q.size(-1) == k.size(-1) && k.size(-2) == v.size(-2),
              "attention: query ", q.sizes(), ", key ", k.sizes(), " and value ", v.sizes(),
              " do not fit together");
  const Attention whole{q, k, v, m, {dropout, causal, scale, grouped}};
  const auto path = machine().options().plans_cpu ? path_on_cpu(whole) : path_on_cuda(whole);
  PlainCost plain{};
  if (!path.fused) {
    plain = plain_cost(whole);
    operation.hold(static_cast<std::int64_t>(plain.held_bytes));
  }
  auto y = path.result;
  if (!operation.is_dry()) {
    auto values = at::scaled_dot_product_attention(q, k, v, m, dropout, causal, scale, grouped);
    if (values.strides() != y.strides())
      values = at::empty_strided(y.sizes(), y.strides(), values.options()).copy_(values);
    y = values;
  }
  auto result = operation.output(y);
  operation.end(
      {.kind = KernelKind::Attention,
       .bytes = plain.moved_bytes,
       .flops = 2.0 * whole.scores() * static_cast<double>(query.size(-1) + value.size(-1)) *
                (causal && path.fused ? 0.5 : 1.0),
       .depth = static_cast<double>(query.size(-1))});
  return result;
}

}  // namespace

void register_kernels(torch::Library& aten) {
  aten.impl("convolution", convolution);
  aten.impl("native_layer_norm", layer_norm);
  aten.impl("native_group_norm", group_norm);
  aten.impl("scaled_dot_product_attention", attention);
}

}  // namespace distorch::sim
