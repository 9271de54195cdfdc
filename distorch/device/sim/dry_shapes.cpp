#include "distorch/device/sim/dry_shapes.h"

#include <ATen/ExpandUtils.h>
#include <ATen/WrapDimUtils.h>

namespace distorch::sim {
namespace {

using Arguments = c10::ArrayRef<c10::IValue>;
using Rule = at::Tensor (*)(Arguments);

at::Tensor with_dtype(const at::Tensor& like, at::ScalarType dtype) {
  return at::empty_like(like, like.options().dtype(dtype));
}

at::Tensor with_sizes(const at::Tensor& like, at::IntArrayRef sizes) {
  return at::empty(sizes, like.options().memory_format(like.suggest_memory_format()));
}

// Sizes and strides of an elementwise operation on all tensors among the arguments but `out`.
at::Tensor elementwise(Arguments arguments) {
  at::Tensor result;
  for (const auto& argument : arguments) {
    if (!argument.isTensor() || !argument.toTensor().defined()) continue;
    const auto& tensor = argument.toTensor();
    result = !result.defined()
                 ? tensor
                 : at::add(result.to(at::kFloat), tensor.to(at::kFloat)).to(result.scalar_type());
  }
  return at::empty_like(result);
}

at::Tensor elementwise_bool(Arguments arguments) {
  return with_dtype(elementwise(arguments), at::kBool);
}

at::Tensor choose(Arguments arguments) {
  const auto &yes = arguments[1].toTensor(), &no = arguments[2].toTensor();
  auto shape = elementwise({arguments[0], yes, no});
  return with_dtype(shape, at::result_type(yes, no));
}

// Of all elements, without a dimension.
at::Tensor reduce_all(Arguments arguments) {
  const auto& x = arguments[0].toTensor();
  return at::empty({}, x.options());
}

at::Tensor magnitude(Arguments arguments) {
  const auto& x = arguments[0].toTensor();
  return with_dtype(x, c10::toRealValueType(x.scalar_type()));
}

at::Tensor index_select(Arguments arguments) {
  const auto& x = arguments[0].toTensor();
  auto sizes = x.sizes().vec();
  const auto dim = at::maybe_wrap_dim(arguments[1].toInt(), x.dim());
  if (x.dim() > 0) sizes[dim] = arguments[2].toTensor().numel();
  return at::empty(sizes, x.options());
}

// The last dimensions grow by pairs of amounts, last dimension first.
at::Tensor pad(Arguments arguments) {
  const auto& x = arguments[0].toTensor();
  const auto amounts = arguments[1].toIntVector();
  auto sizes = x.sizes().vec();
  for (std::size_t i = 0; i < amounts.size(); ++i) sizes[sizes.size() - 1 - i / 2] += amounts[i];
  return with_sizes(x, sizes);
}

at::Tensor adaptive_pool(Arguments arguments) {
  const auto& x = arguments[0].toTensor();
  const auto target = arguments[1].toIntVector();
  auto sizes = x.sizes().vec();
  std::copy(target.begin(), target.end(), sizes.end() - static_cast<std::ptrdiff_t>(target.size()));
  return with_sizes(x, sizes);
}

at::Tensor grid_sample(Arguments arguments) {
  const auto &x = arguments[0].toTensor(), &grid = arguments[1].toTensor();
  auto sizes = x.sizes().vec();
  for (int64_t d = 2; d < x.dim(); ++d) sizes[d] = grid.size(d - 1);
  return with_sizes(x, sizes);
}

at::Tensor bucket(Arguments arguments) {
  // searchsorted(sorted, values) and bucketize(values, boundaries): as many indices as values.
  return with_dtype(arguments[0].toTensor(), at::kLong);
}

at::Tensor search(Arguments arguments) {
  return at::empty(arguments[1].toTensor().sizes(),
                   arguments[1].toTensor().options().dtype(at::kLong));
}

int64_t windows(int64_t size, int64_t kernel, int64_t dilation, int64_t padding, int64_t stride) {
  return (size + 2 * padding - dilation * (kernel - 1) - 1) / stride + 1;
}

at::Tensor im2col(Arguments arguments) {
  const auto& x = arguments[0].toTensor();
  const auto kernel = arguments[1].toIntVector(), dilation = arguments[2].toIntVector(),
             padding = arguments[3].toIntVector(), stride = arguments[4].toIntVector();
  const auto h = windows(x.size(-2), kernel[0], dilation[0], padding[0], stride[0]);
  const auto w = windows(x.size(-1), kernel[1], dilation[1], padding[1], stride[1]);
  auto sizes = x.sizes().slice(0, x.dim() - 3).vec();
  sizes.push_back(x.size(-3) * kernel[0] * kernel[1]);
  sizes.push_back(h * w);
  return at::empty(sizes, x.options());
}

at::Tensor pixel_shuffle(Arguments arguments) {
  const auto& x = arguments[0].toTensor();
  const auto factor = arguments[1].toInt();
  auto sizes = x.sizes().vec();
  const auto n = sizes.size();
  sizes[n - 3] /= factor * factor;
  sizes[n - 2] *= factor;
  sizes[n - 1] *= factor;
  return with_sizes(x, sizes);
}

at::Tensor pixel_unshuffle(Arguments arguments) {
  const auto& x = arguments[0].toTensor();
  const auto factor = arguments[1].toInt();
  auto sizes = x.sizes().vec();
  const auto n = sizes.size();
  sizes[n - 3] *= factor * factor;
  sizes[n - 2] /= factor;
  sizes[n - 1] /= factor;
  return with_sizes(x, sizes);
}

at::Tensor fft_same(Arguments arguments) {
  return at::empty(arguments[0].toTensor().sizes(), arguments[0].toTensor().options());
}

at::Tensor fft_of_real(Arguments arguments) {
  const auto& x = arguments[0].toTensor();
  auto sizes = x.sizes().vec();
  const auto dims = arguments[1].toIntVector();
  if (arguments[3].toBool() && !dims.empty())
    sizes[at::maybe_wrap_dim(dims.back(), x.dim())] =
        sizes[at::maybe_wrap_dim(dims.back(), x.dim())] / 2 + 1;
  return at::empty(sizes, x.options().dtype(c10::toComplexType(x.scalar_type())));
}

at::Tensor fft_to_real(Arguments arguments) {
  const auto& x = arguments[0].toTensor();
  auto sizes = x.sizes().vec();
  const auto dims = arguments[1].toIntVector();
  sizes[at::maybe_wrap_dim(dims.back(), x.dim())] = arguments[3].toInt();
  return at::empty(sizes, x.options().dtype(c10::toRealValueType(x.scalar_type())));
}

// Operations with one result, by name; the overload decides only whether it goes into `out` or into
// the first argument.
const std::unordered_map<std::string, Rule>& rules() {
  static const std::unordered_map<std::string, Rule> all{
      {"aten::relu", elementwise},
      {"aten::nan_to_num", elementwise},
      {"aten::flip", elementwise},
      {"aten::roll", elementwise},
      {"aten::abs", magnitude},
      {"aten::angle", magnitude},
      {"aten::isnan", elementwise_bool},
      {"aten::logical_not", elementwise_bool},
      {"aten::logical_and", elementwise_bool},
      {"aten::logical_or", elementwise_bool},
      {"aten::logical_xor", elementwise_bool},
      {"aten::isclose", elementwise_bool},
      {"aten::index_select", index_select},
      {"aten::reflection_pad2d", pad},
      {"aten::reflection_pad3d", pad},
      {"aten::reflection_pad1d", pad},
      {"aten::replication_pad2d", pad},
      {"aten::_adaptive_avg_pool2d", adaptive_pool},
      {"aten::_adaptive_avg_pool3d", adaptive_pool},
      {"aten::grid_sampler_2d", grid_sample},
      {"aten::grid_sampler_3d", grid_sample},
      {"aten::bucketize", bucket},
      {"aten::searchsorted", search},
      {"aten::im2col", im2col},
      {"aten::pixel_shuffle", pixel_shuffle},
      {"aten::pixel_unshuffle", pixel_unshuffle},
      {"aten::where", choose},
      {"aten::dot", reduce_all},
      {"aten::vdot", reduce_all},
      {"aten::hardswish", elementwise},
      {"aten::hardtanh", elementwise},
      {"aten::_prelu_kernel", elementwise},
      {"aten::_fft_c2c", fft_same},
      {"aten::_fft_r2c", fft_of_real},
      {"aten::_fft_c2r", fft_to_real},
  };
  return all;
}

std::vector<int64_t> reduced(const at::Tensor& x, const std::vector<int64_t>& dims, bool keep) {
  std::vector<int64_t> sizes;
  for (int64_t d = 0; d < x.dim(); ++d) {
    const bool gone = dims.empty() || std::any_of(dims.begin(), dims.end(), [&](auto dim) {
                        return at::maybe_wrap_dim(dim, x.dim()) == d;
                      });
    if (!gone) sizes.push_back(x.size(d));
    if (gone && keep) sizes.push_back(1);
  }
  return sizes;
}

// std, var, std_mean, var_mean (self, dim?, correction, keepdim).
std::optional<std::vector<c10::IValue>> spread(const c10::FunctionSchema& schema,
                                               Arguments arguments) {
  const auto& name = schema.name();
  const bool one = name == "aten::std" || name == "aten::var",
             two = name == "aten::std_mean" || name == "aten::var_mean";
  if (!(one || two) || schema.overload_name().rfind("correction", 0) != 0) return std::nullopt;
  const auto& x = arguments[0].toTensor();
  const auto dims = arguments[1].isNone() ? std::vector<int64_t>{} : arguments[1].toIntVector();
  const auto result = at::empty(reduced(x, dims, arguments[3].toBool()), x.options());
  if (one) return std::vector<c10::IValue>{result};
  return std::vector<c10::IValue>{result, at::empty_like(result)};
}

// median, kthvalue along a dimension: values and indices.
std::optional<std::vector<c10::IValue>> ranked(const c10::FunctionSchema& schema,
                                               Arguments arguments) {
  const auto& name = schema.name();
  const auto& x = arguments[0].toTensor();
  if ((name == "aten::median" || name == "aten::nanmedian") && schema.overload_name().empty())
    return std::vector<c10::IValue>{at::empty({}, x.options())};
  const std::size_t dim_at = name == "aten::kthvalue" ? 2 : 1;
  if (name != "aten::median" && name != "aten::nanmedian" && name != "aten::kthvalue")
    return std::nullopt;
  const auto sizes = reduced(x, {arguments[dim_at].toInt()}, arguments[dim_at + 1].toBool());
  return std::vector<c10::IValue>{at::empty(sizes, x.options()),
                                  at::empty(sizes, x.options().dtype(at::kLong))};
}

std::optional<std::vector<c10::IValue>> batch_norm(const c10::FunctionSchema& schema,
                                                   Arguments arguments) {
  if (schema.name() != "aten::native_batch_norm" || !schema.overload_name().empty())
    return std::nullopt;
  const auto& x = arguments[0].toTensor();
  const auto kept = arguments[5].toBool() ? x.size(1) : 0;
  return std::vector<c10::IValue>{at::empty_like(x), at::empty({kept}, x.options()),
                                  at::empty({kept}, x.options())};
}

bool writes(const c10::Argument& argument) {
  return argument.alias_info() && argument.alias_info()->isWrite();
}

// Puts results into the `out` arguments, resized to fit.
std::vector<c10::IValue> into_out(const c10::FunctionSchema& schema, Arguments arguments,
                                  std::vector<c10::IValue> results) {
  std::size_t next = 0;
  for (std::size_t i = 0; i < schema.arguments().size() && next < results.size(); ++i) {
    if (!schema.arguments()[i].is_out() || !arguments[i].isTensor()) continue;
    auto out = arguments[i].toTensor();
    const auto wanted = results[next].toTensor();
    if (out.sizes() != wanted.sizes()) {
      out.resize_(wanted.sizes());
      out.as_strided_(wanted.sizes(), wanted.strides());
    }
    results[next++] = out;
  }
  return results;
}

}  // namespace

std::optional<std::vector<c10::IValue>> dry_results(const c10::FunctionSchema& schema,
                                                    Arguments arguments) {
  // In place: the first argument as it is.
  const auto& first = schema.arguments()[0];
  if (writes(first) && !first.is_out() && schema.returns().size() == 1 && arguments[0].isTensor())
    return std::vector<c10::IValue>{arguments[0]};
  auto inputs = arguments;
  while (!inputs.empty() && schema.arguments()[inputs.size() - 1].is_out())
    inputs = inputs.slice(0, inputs.size() - 1);
  std::optional<std::vector<c10::IValue>> results;
  const auto rule = rules().find(schema.name());
  const auto& name = schema.name();
  if ((name == "aten::max" || name == "aten::min") && schema.overload_name().empty())
    results = {{reduce_all(inputs)}};
  if (name == "aten::prod" && schema.overload_name().empty())
    results = {{at::empty({}, inputs[0].toTensor().options().dtype(
                                  c10::isIntegralType(inputs[0].toTensor().scalar_type(), true)
                                      ? at::kLong
                                      : inputs[0].toTensor().scalar_type()))}};
  if (rule != rules().end() && schema.returns().size() == 1)
    results = std::vector<c10::IValue>{rule->second(inputs)};
  if (!results) results = spread(schema, inputs);
  if (!results) results = ranked(schema, inputs);
  if (!results) results = batch_norm(schema, inputs);
  if (results) results = into_out(schema, arguments, std::move(*results));
  return results;
}

}  // namespace distorch::sim
