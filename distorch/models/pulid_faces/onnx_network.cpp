#include "distorch/models/pulid_faces/onnx_network.h"

#include <c10/util/Exception.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "distorch/base/error.h"

namespace distorch::models::pulid_faces {

using at::Tensor;
using formats::DType;
using formats::OnnxNode;
using formats::OnnxTensor;
using weights::Tensors;

namespace {

using Numbers = std::vector<std::int64_t>;

Numbers numbers_of(const Tensor& host) {
  const auto flat = host.to(at::kLong).reshape({-1}).contiguous();
  return {flat.const_data_ptr<std::int64_t>(), flat.const_data_ptr<std::int64_t>() + flat.numel()};
}

/// One operation: its node, and its inputs (undefined: not there), on the host where all of them are
/// known before the picture is.
struct Operation {
  const OnnxNode& node;
  const Tensors& in;
  std::int64_t opset;

  const Tensor& input(std::size_t index) const {
    if (index < in.size() && in[index].defined()) return in[index];
    refuse(fmt::format("lacks its input {}", index));
  }
  bool has(std::size_t index) const { return index < in.size() && in[index].defined(); }
  const formats::OnnxAttribute* find(const char* name) const {
    auto at = node.attributes.find(name);
    return at == node.attributes.end() ? nullptr : &at->second;
  }
  std::int64_t number(const char* name, std::int64_t otherwise) const {
    const auto* found = find(name);
    return found ? found->number : otherwise;
  }
  double real(const char* name, double otherwise) const {
    const auto* found = find(name);
    return found ? static_cast<double>(found->real) : otherwise;
  }
  std::string text(const char* name, const char* otherwise) const {
    const auto* found = find(name);
    return found ? found->text : otherwise;
  }
  Numbers numbers(const char* name, Numbers otherwise) const {
    const auto* found = find(name);
    return found ? found->numbers : otherwise;
  }
  /// Numbers that are an attribute in older operators and an input in newer ones.
  Numbers numbers_at(const char* name, std::size_t index, const Numbers& otherwise) const {
    if (const auto* found = find(name)) return found->numbers;
    return has(index) ? numbers_of(host(index)) : otherwise;
  }
  /// An input that must be known on the host.
  const Tensor& host(std::size_t index) const {
    const auto& value = input(index);
    if (!value.is_cpu()) refuse(fmt::format("has an input {} that only a picture tells", index));
    return value;
  }
  [[noreturn]] void refuse(const std::string& why) const {
    throw Error(ErrorKind::Format, fmt::format("node '{}' ({})", node.name, node.type), why);
  }
  void only(const char* name, const std::string& value, const char* usual) const {
    if (const auto has = text(name, usual); has != value)
      refuse(fmt::format("has {} '{}'; '{}' is supported", name, has, value));
  }
};

/// Windows of convolutions and pools: 2-D, with zeros before and behind.
struct Window {
  explicit Window(const Operation& op, Numbers kernel_size)
      : kernel(std::move(kernel_size)),
        strides(op.numbers("strides", {1, 1})),
        dilations(op.numbers("dilations", {1, 1})),
        pads(op.numbers("pads", {0, 0, 0, 0})),
        symmetric(pads.size() == 4 && pads[0] == pads[2] && pads[1] == pads[3]) {
    const auto padding = op.text("auto_pad", "NOTSET");
    if (padding != "NOTSET" && padding != "VALID")
      op.refuse(fmt::format("has auto_pad '{}'; NOTSET is supported", padding));
    if (kernel.size() != 2 || strides.size() != 2 || dilations.size() != 2 || pads.size() != 4)
      op.refuse("is for other than two dimensions");
    for (const auto* sizes : {&kernel, &strides, &dilations})
      for (auto size : *sizes)
        if (size < 1) op.refuse("has a window, a stride or a dilation below 1");
  }
  /// What ATen is given as padding; the rest comes from padded().
  Numbers padding() const { return symmetric ? Numbers{pads[0], pads[1]} : Numbers{0, 0}; }
  Tensor padded(const Tensor& x, double value) const {
    return symmetric ? x : at::constant_pad_nd(x, {pads[1], pads[3], pads[0], pads[2]}, value);
  }
  Numbers kernel, strides, dilations, pads;
  bool symmetric;
};

Tensor conv(const Operation& op) {
  const auto& weight = op.input(1);
  if (weight.dim() != 4) op.refuse("is for other than two dimensions");
  const Window window(op, {weight.size(2), weight.size(3)});
  std::optional<Tensor> bias;
  if (op.has(2)) bias = op.input(2);
  return at::convolution(window.padded(op.input(0), 0), weight, bias, window.strides,
                         window.padding(), window.dilations, false, {0, 0}, op.number("group", 1));
}

Tensor max_pool(const Operation& op) {
  const Window window(op, op.numbers("kernel_shape", {}));
  return std::get<0>(at::max_pool2d_with_indices(
      window.padded(op.input(0), -std::numeric_limits<float>::infinity()), window.kernel,
      window.strides, window.padding(), window.dilations, op.number("ceil_mode", 0) != 0));
}

Tensor average_pool(const Operation& op) {
  const Window window(op, op.numbers("kernel_shape", {}));
  if (!window.symmetric) op.refuse("has unequal zeros on both sides, which is not supported");
  return at::avg_pool2d(op.input(0), window.kernel, window.strides, window.padding(),
                        op.number("ceil_mode", 0) != 0, op.number("count_include_pad", 0) != 0);
}

Tensor batch_norm(const Operation& op) {
  return at::batch_norm(op.input(0), op.input(1), op.input(2), op.input(3), op.input(4), false, 0.1,
                        op.real("epsilon", 1e-5), false);
}

Tensor gemm(const Operation& op) {
  auto turned = [&](std::size_t index, const char* name) {
    return op.number(name, 0) ? op.input(index).t() : op.input(index);
  };
  auto product = at::mm(turned(0, "transA"), turned(1, "transB")) * op.real("alpha", 1);
  return op.has(2) ? product + op.input(2) * op.real("beta", 1) : product;
}

Tensor flatten(const Operation& op) {
  const auto& x = op.input(0);
  auto axis = op.number("axis", 1);
  if (axis < 0) axis += x.dim();
  std::int64_t rows = 1;
  for (std::int64_t d = 0; d < std::min(axis, x.dim()); ++d) rows *= x.size(d);
  return x.reshape({rows, rows == 0 ? 0 : x.numel() / rows});
}

Tensor reshape(const Operation& op) {
  auto shape = op.numbers_at("shape", 1, {});
  const auto& x = op.input(0);
  for (std::size_t d = 0; d < shape.size(); ++d)
    if (shape[d] == 0 && static_cast<std::int64_t>(d) < x.dim())
      shape[d] = x.size(static_cast<int>(d));
  return x.reshape(shape);
}

Tensor transpose(const Operation& op) {
  Numbers order(static_cast<std::size_t>(op.input(0).dim()));
  for (std::size_t d = 0; d < order.size(); ++d)
    order[d] = static_cast<std::int64_t>(order.size() - 1 - d);
  return op.input(0).permute(op.numbers("perm", order));
}

/// Nearest neighbours as PyTorch has them, the only way in which these networks enlarge. Upsample is
/// its older name, whose scales are input 1.
Tensor resize(const Operation& op) {
  const auto& x = op.input(0);
  op.only("mode", "nearest", "nearest");
  const bool older = op.node.type == "Upsample" || op.opset < 11;
  if (!older) {
    op.only("coordinate_transformation_mode", "asymmetric", "half_pixel");
    op.only("nearest_mode", "floor", "round_prefer_floor");
  }
  if (x.dim() != 4) op.refuse("is for other than pictures");
  Numbers sizes;
  const std::size_t scales = older ? 1 : 2;
  if (!older && op.has(3)) {
    sizes = numbers_of(op.host(3));
  } else {
    const auto factors = op.host(scales).to(at::kDouble).reshape({-1});
    if (factors.numel() != 4) op.refuse("has not four scales");
    for (std::int64_t d = 0; d < 4; ++d)
      sizes.push_back(static_cast<std::int64_t>(
          std::floor(static_cast<double>(x.size(d)) * factors[d].item<double>())));
  }
  if (sizes.size() != 4 || sizes[0] != x.size(0) || sizes[1] != x.size(1))
    op.refuse("changes more than height and width");
  return at::upsample_nearest2d(x, {sizes[2], sizes[3]});
}

Tensor gather(const Operation& op) {
  const auto& x = op.input(0);
  auto index = op.host(1);
  auto axis = op.number("axis", 0);
  if (axis < 0) axis += x.dim();
  index = at::where(index < 0, index + x.size(axis), index);
  auto taken = x.index_select(axis, index.reshape({-1}).to(x.device()));
  auto shape = x.sizes().vec();
  shape.erase(shape.begin() + axis);
  shape.insert(shape.begin() + axis, index.sizes().begin(), index.sizes().end());
  return taken.reshape(shape);
}

Tensor slice(const Operation& op) {
  auto x = op.input(0);
  const auto starts = op.numbers_at("starts", 1, {}), ends = op.numbers_at("ends", 2, {});
  Numbers usual(starts.size());
  for (std::size_t i = 0; i < usual.size(); ++i) usual[i] = static_cast<std::int64_t>(i);
  const auto axes = op.numbers_at("axes", 3, usual);
  const auto steps = op.numbers_at("steps", 4, Numbers(starts.size(), 1));
  if (ends.size() != starts.size() || axes.size() != starts.size() || steps.size() != starts.size())
    op.refuse("has unequal numbers of starts, ends, axes and steps");
  for (std::size_t i = 0; i < starts.size(); ++i) {
    if (steps[i] < 1) op.refuse("goes backwards, which is not supported");
    x = at::slice(x, axes[i], starts[i], ends[i], steps[i]);
  }
  return x;
}

Tensor unsqueeze(const Operation& op) {
  auto x = op.input(0);
  auto axes = op.numbers_at("axes", 1, {});
  for (auto& axis : axes)
    if (axis < 0) axis += x.dim() + static_cast<std::int64_t>(axes.size());
  std::ranges::sort(axes);
  for (auto axis : axes) x = x.unsqueeze(axis);
  return x;
}

Tensor squeeze(const Operation& op) {
  auto axes = op.numbers_at("axes", 1, {});
  return axes.empty() ? at::squeeze(op.input(0)) : at::squeeze(op.input(0), axes);
}

Tensor concat(const Operation& op) {
  Tensors parts;
  for (std::size_t i = 0; i < op.in.size(); ++i) parts.push_back(op.input(i));
  return at::cat(parts, op.number("axis", 0));
}

/// Numbers on the host become what they are asked to be; what is computed on stays as it is, which
/// is all that a float may be asked for.
Tensor cast(const Operation& op) {
  constexpr std::int64_t to_float = 1, to_int32 = 6, to_int64 = 7;
  const auto to = op.number("to", 0);
  const auto& x = op.input(0);
  if (to == to_float) return x.is_cpu() ? x.to(at::kFloat) : x;
  if ((to == to_int32 || to == to_int64) && x.is_cpu()) return x.to(at::kLong);
  op.refuse(fmt::format("casts to ONNX's type {}, which is not supported", to));
}

Tensor constant_of_shape(const Operation& op) {
  constexpr std::int64_t most = 1 << 24;
  const auto shape = numbers_of(op.host(0));
  std::int64_t count = 1;
  for (auto size : shape)
    if (size < 0 || (count *= std::max<std::int64_t>(size, 1)) > most)
      op.refuse("has a shape that is too large");
  const auto* value = op.find("value");
  if (!value || value->tensors.empty()) return at::zeros(shape);
  const auto& tensor = value->tensors.front();
  if (tensor.integers.size() == 1)
    return at::full(shape, tensor.integers.front(), at::TensorOptions(at::kLong));
  if (tensor.reals.size() == 1) return at::full(shape, tensor.reals.front());
  op.refuse("has a value that is not one number");
}

Tensor division(const Operation& op) {
  const auto &a = op.input(0), &b = op.input(1);
  const bool whole = at::isIntegralType(a.scalar_type(), false);
  return whole ? at::div(a, b, "trunc") : at::div(a, b);
}

using Compute = Tensor (*)(const Operation&);

/// Every operator that is known.
const std::map<std::string, Compute>& operators() {
  static const std::map<std::string, Compute> list = {
      {"Add", [](const Operation& op) { return op.input(0) + op.input(1); }},
      {"AveragePool", average_pool},
      {"BatchNormalization", batch_norm},
      {"Cast", cast},
      {"Concat", concat},
      {"ConstantOfShape", constant_of_shape},
      {"Conv", conv},
      {"Div", division},
      {"Dropout", [](const Operation& op) { return op.input(0); }},
      {"Flatten", flatten},
      {"Gather", gather},
      {"Gemm", gemm},
      {"GlobalAveragePool",
       [](const Operation& op) { return op.input(0).mean({2, 3}, /*keepdim=*/true); }},
      {"Identity", [](const Operation& op) { return op.input(0); }},
      {"MaxPool", max_pool},
      {"Mul", [](const Operation& op) { return op.input(0) * op.input(1); }},
      {"PRelu",
       [](const Operation& op) {
         const auto& x = op.input(0);
         return x.clamp_min(0) + x.clamp_max(0) * op.input(1);
       }},
      {"Relu", [](const Operation& op) { return at::relu(op.input(0)); }},
      {"Reshape", reshape},
      {"Resize", resize},
      {"Shape", [](const Operation& op) { return at::tensor(op.input(0).sizes(), at::kLong); }},
      {"Sigmoid", [](const Operation& op) { return at::sigmoid(op.input(0)); }},
      {"Slice", slice},
      {"Squeeze", squeeze},
      {"Sub", [](const Operation& op) { return op.input(0) - op.input(1); }},
      {"Transpose", transpose},
      {"Unsqueeze", unsqueeze},
      {"Upsample", resize},
  };
  return list;
}

/// Operators whose further inputs are numbers about the first one.
bool takes_settings(const std::string& type) {
  static const std::set<std::string> list = {"Gather",  "Reshape",   "Resize",  "Slice",
                                             "Squeeze", "Unsqueeze", "Upsample"};
  return list.count(type) != 0;
}

Tensor constant_of(const OnnxTensor& tensor) {
  if (tensor.dtype == DType::I64)
    return at::tensor(tensor.integers, at::kLong).reshape(tensor.shape);
  return at::tensor(tensor.reals, at::kFloat).reshape(tensor.shape);
}

}  // namespace

/// Values of one run that are on the host.
struct OnnxNetwork::Run {
  std::map<std::string, Tensor> host;
};

OnnxNetwork::OnnxNetwork(formats::OnnxGraph graph, std::string where, std::int64_t part_bytes)
    : graph_(std::move(graph)), where_(std::move(where)) {
  auto refuse = [&](const std::string& why) { throw Error(ErrorKind::Format, where_, why); };
  if (graph_.inputs.size() != 1)
    refuse(fmt::format("has {} inputs; one picture is supported", graph_.inputs.size()));
  for (const auto& tensor : graph_.tensors)
    if (tensor.is_small()) constants_[tensor.name] = constant_of(tensor);
  std::vector<OnnxNode> nodes;
  for (auto& node : graph_.nodes) {
    if (node.outputs.empty()) refuse(fmt::format("node '{}' gives nothing", node.name));
    if (node.type == "Constant") {
      auto value = node.attributes.find("value");
      if (value == node.attributes.end() || value->second.tensors.empty() ||
          !value->second.tensors.front().is_small())
        refuse(fmt::format("node '{}' (Constant) holds no tensor of few numbers", node.name));
      constants_[node.outputs[0]] = constant_of(value->second.tensors.front());
      continue;
    }
    if (!operators().count(node.type))
      refuse(fmt::format("node '{}' is '{}', which is not supported", node.name, node.type));
    nodes.push_back(std::move(node));
  }
  graph_.nodes = std::move(nodes);
  split(part_bytes);
}

void OnnxNetwork::split(std::int64_t part_bytes) {
  const weights::Scope root(manifest_);
  std::map<std::string, const OnnxTensor*> stored;
  for (const auto& tensor : graph_.tensors)
    if (!tensor.is_small()) stored[tensor.name] = &tensor;
  std::int64_t bytes = 0;
  std::optional<weights::Scope> here;
  for (std::size_t i = 0; i < graph_.nodes.size(); ++i) {
    if (!here || bytes > part_bytes) {
      here = root.block(fmt::format("part {}", parts_.size()));
      parts_.push_back({.block = weights::Block(*here), .first = i});
      bytes = 0;
    }
    parts_.back().last = i + 1;
    for (const auto& name : graph_.nodes[i].inputs) {
      auto tensor = stored.find(name);
      if (tensor == stored.end() || weights_.count(name)) continue;
      weights_[name] = {here->weight(name, tensor->second->shape), parts_.size() - 1};
      bytes += tensor->second->elements() * 4;
    }
  }
  for (const auto& node : graph_.nodes) {
    const bool known = std::ranges::all_of(node.inputs, [&](const std::string& name) {
      return name.empty() || constants_.count(name) || host_.count(name);
    });
    if (known || node.type == "Shape") host_.insert(node.outputs[0]);
  }
  std::map<std::string, std::size_t> made;  // by which part
  std::map<std::string, std::set<std::size_t>> used;
  made[graph_.inputs[0].name] = parts_.size();
  // A weight is there with the part that names it first, which hands it on to others.
  for (const auto& [name, owned] : weights_) made[name] = owned.part;
  for (std::size_t p = 0; p < parts_.size(); ++p)
    for (auto i = parts_[p].first; i < parts_[p].last; ++i) {
      for (const auto& name : graph_.nodes[i].inputs) {
        if (name.empty() || constants_.count(name)) continue;
        if (!made.count(name))
          throw Error(ErrorKind::Format, where_,
                      fmt::format("node '{}' takes '{}', which nothing before it gives",
                                  graph_.nodes[i].name, name));
        used[name].insert(p);
      }
      for (const auto& name : graph_.nodes[i].outputs)
        if (!name.empty()) made[name] = p;
    }
  for (const auto& output : graph_.outputs) {
    if (!made.count(output.name) || host_.count(output.name))
      throw Error(
          ErrorKind::Format, where_,
          fmt::format("output '{}' is given by no node that sees the picture", output.name));
    used[output.name].insert(parts_.size());
  }
  for (const auto& [name, by] : used) {
    if (host_.count(name)) continue;
    for (auto p : by) {
      const auto from = made[name];
      if (from == p) continue;
      if (p < parts_.size()) parts_[p].takes.push_back(name);
      auto* giver = from < parts_.size() ? &parts_[from].gives : nullptr;
      if (giver && std::ranges::find(*giver, name) == giver->end()) giver->push_back(name);
    }
  }
}

Tensors OnnxNetwork::run_part(const Part& part, const Tensors& in, Run& run) const {
  std::map<std::string, Tensor> values;
  for (std::size_t i = 0; i < part.takes.size(); ++i) values[part.takes[i]] = in[i];
  const auto device = in.back().device();  // where the block runs
  // Weights in float32: these networks are small, and their boxes are numbers of pixels.
  auto value_of = [&](const std::string& name) -> Tensor {
    if (name.empty()) return {};
    if (auto at = values.find(name); at != values.end()) return at->second;
    if (auto at = weights_.find(name); at != weights_.end()) return at->second.weight.dense();
    if (auto at = run.host.find(name); at != run.host.end()) return at->second;
    return constants_.at(name);
  };
  for (auto i = part.first; i < part.last; ++i) {
    const auto& node = graph_.nodes[i];
    Tensors inputs;
    for (const auto& name : node.inputs) inputs.push_back(value_of(name));
    const bool on_host = host_.count(node.outputs[0]) != 0;
    // Constants go to where the others are, settings of an operator stay.
    if (!on_host)
      for (std::size_t k = 0; k < inputs.size(); ++k)
        if (inputs[k].defined() && (k == 0 || !takes_settings(node.type)))
          inputs[k] = inputs[k].to(device);
    try {
      auto result = operators().at(node.type)({node, inputs, graph_.opset});
      (on_host ? run.host : values)[node.outputs[0]] = std::move(result);
    } catch (const c10::OutOfMemoryError&) {
      throw;
    } catch (const c10::Error& error) {
      throw Error(ErrorKind::Format, where_,
                  fmt::format("node '{}' ({}) cannot be computed: {}", node.name, node.type,
                              error.what_without_backtrace()));
    } catch (const Error& error) {
      if (error.kind() != ErrorKind::Format) throw;
      throw Error(ErrorKind::Format, where_, error.what());
    }
  }
  Tensors out;
  for (const auto& name : part.gives) out.push_back(value_of(name));
  return out;
}

Tensors OnnxNetwork::forward(const Tensor& x) const {
  Run run;
  std::map<std::string, Tensor> values = {{graph_.inputs[0].name, x.to(at::kFloat)}};
  for (const auto& part : parts_) {
    Tensors in;
    for (const auto& name : part.takes) in.push_back(values.at(name));
    in.push_back(x);  // says where the block runs
    auto out = part.block.run(in, [&](const Tensors& there) { return run_part(part, there, run); });
    for (std::size_t i = 0; i < out.size(); ++i) values[part.gives[i]] = out[i];
  }
  Tensors results;
  for (const auto& output : graph_.outputs) results.push_back(values.at(output.name));
  return results;
}

}  // namespace distorch::models::pulid_faces
