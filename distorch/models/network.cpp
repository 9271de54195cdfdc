#include "distorch/models/network.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "distorch/base/error.h"

namespace distorch::models {

using at::Tensor;

namespace {

std::string words(const InputSpec& spec) {
  std::vector<std::string> dims;
  for (const auto& extent : spec.shape) switch (extent.of) {
      case Extent::Of::Number: dims.push_back(std::to_string(extent.value)); break;
      case Extent::Of::Batch: dims.push_back("batch"); break;
      case Extent::Of::Tokens: dims.push_back("tokens"); break;
      case Extent::Of::Cells:
        dims.push_back(extent.value == 1 ? "cells" : fmt::format("cells/{}", extent.value));
        break;
      case Extent::Of::Any: dims.push_back("any"); break;
    }
  return fmt::format("[{}]", fmt::join(dims, ", "));
}

bool fits(const InputSpec& spec, at::IntArrayRef sizes) {
  std::size_t at = 0;
  auto behind = spec.shape.size();
  for (const auto& extent : spec.shape) {
    --behind;
    if (extent.of == Extent::Of::Cells) {
      // One or more dimensions: whatever the extents behind it leave.
      if (sizes.size() < at + 1 + behind) return false;
      at = sizes.size() - behind;
      continue;
    }
    if (at >= sizes.size()) return false;
    if (extent.of == Extent::Of::Number && sizes[at] != extent.value) return false;
    ++at;
  }
  return at == sizes.size();
}

}  // namespace

void Inputs::set(const std::string& name, Tensor tensor) {
  for (auto& [known, value] : tensors_)
    if (known == name) {
      value = std::move(tensor);
      return;
    }
  tensors_.emplace_back(name, std::move(tensor));
}

void Inputs::set_number(const std::string& name, double number) {
  for (auto& [known, value] : numbers_)
    if (known == name) {
      value = number;
      return;
    }
  numbers_.emplace_back(name, number);
}

const Tensor& Inputs::operator[](const std::string& name) const {
  static const Tensor none;
  for (const auto& [known, value] : tensors_)
    if (known == name) return value;
  return none;
}

double Inputs::number(const std::string& name, double otherwise) const {
  for (const auto& [known, value] : numbers_)
    if (known == name) return value;
  return otherwise;
}

bool Inputs::has(const std::string& name) const {
  if ((*this)[name].defined()) return true;
  return std::any_of(numbers_.begin(), numbers_.end(),
                     [&](const auto& pair) { return pair.first == name; });
}

std::vector<std::int64_t> shape_of(const InputSpec& spec, const CallSizes& sizes) {
  std::vector<std::int64_t> shape;
  for (const auto& extent : spec.shape) switch (extent.of) {
      case Extent::Of::Number: shape.push_back(extent.value); break;
      case Extent::Of::Batch: shape.push_back(sizes.batch); break;
      case Extent::Of::Tokens: shape.push_back(sizes.tokens); break;
      case Extent::Of::Cells:
        for (auto cells : sizes.cells) shape.push_back((cells + extent.value - 1) / extent.value);
        break;
      case Extent::Of::Any: shape.push_back(1); break;
    }
  return shape;
}

Inputs blank_inputs(const InputSpecs& specs, const CallSizes& sizes, at::Device device,
                    const std::set<std::string>& optional, const KnownInputs& known) {
  Inputs inputs;
  for (const auto& spec : specs) {
    auto shape = known.shapes.find(spec.name);
    auto number = known.numbers.find(spec.name);
    bool told = shape != known.shapes.end() || number != known.numbers.end();
    if (spec.optional && !told && !optional.count(spec.name)) continue;
    if (spec.shape.empty())
      inputs.set_number(spec.name, number == known.numbers.end() ? 1.0 : number->second);
    else
      inputs.set(spec.name,
                 at::empty(shape == known.shapes.end() ? shape_of(spec, sizes) : shape->second,
                           at::TensorOptions().device(device).dtype(spec.dtype)));
  }
  return inputs;
}

void check_inputs(const InputSpecs& specs, const Inputs& inputs, const std::string& network) {
  for (const auto& spec : specs) {
    auto wants = [&] {
      return spec.shape.empty()
                 ? fmt::format("takes a number as {} ('{}')", spec.meaning, spec.name)
                 : fmt::format("takes a {} ('{}') of {}", spec.meaning, spec.name, words(spec));
    };
    if (!inputs.has(spec.name)) {
      if (spec.optional) continue;
      throw Error(ErrorKind::Shape, network, wants() + ", got none");
    }
    const auto& tensor = inputs[spec.name];
    if (spec.shape.empty() != !tensor.defined())
      throw Error(ErrorKind::Shape, network,
                  wants() + (tensor.defined() ? ", got a tensor" : ", got a number"));
    if (!tensor.defined() || fits(spec, tensor.sizes())) continue;
    throw Error(ErrorKind::Shape, network,
                fmt::format("{}, got [{}]: it belongs to another model", wants(),
                            fmt::join(tensor.sizes(), ", ")));
  }
}

std::vector<Tensor> in_order(const InputSpecs& specs, const Inputs& inputs) {
  std::vector<Tensor> tensors;
  for (const auto& spec : specs)
    if (!spec.shape.empty()) tensors.push_back(inputs[spec.name]);
  return tensors;
}

Inputs from_order(const InputSpecs& specs, const std::vector<Tensor>& tensors,
                  const Inputs& inputs) {
  Inputs result;
  std::size_t next = 0;
  for (const auto& spec : specs)
    if (!spec.shape.empty()) {
      const auto& tensor = tensors.at(next++);
      if (tensor.defined()) result.set(spec.name, tensor);
    }
  for (const auto& [name, number] : inputs.numbers()) result.set_number(name, number);
  return result;
}

std::string inputs_key(const Inputs& inputs) {
  std::vector<std::string> parts;
  for (const auto& [name, tensor] : inputs.tensors())
    if (tensor.defined()) parts.push_back(name);
  for (const auto& [name, number] : inputs.numbers())
    parts.push_back(fmt::format("{}={}", name, number));
  return fmt::format("{}", fmt::join(parts, " "));
}

}  // namespace distorch::models
