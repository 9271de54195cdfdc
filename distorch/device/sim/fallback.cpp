#include <ATen/core/dispatch/Dispatcher.h>
#include <fmt/format.h>

#include <set>

#include "distorch/base/error.h"
#include "distorch/device/operators.h"
#include "distorch/device/sim/backend.h"
#include "distorch/device/sim/dry_shapes.h"
#include "distorch/device/streams.h"

// The one kernel that serves nearly every operation: its tensors become views of the same memory as
// CPU tensors (or Meta tensors in a dry run), the CPU (or Meta) kernel of the operation works on
// them, its results become sim tensors.
namespace distorch::sim {
namespace {

using Stack = torch::jit::Stack;

bool makes_random_numbers(const c10::FunctionSchema& schema) {
  for (const auto& argument : schema.arguments())
    if (argument.name() == "generator") return true;
  return false;
}

// Only these take index tensors from the CPU, as on CUDA.
bool takes_cpu_indices(const std::string& name) {
  return name.rfind("aten::index", 0) == 0 || name == "aten::_index_put_impl_";
}

c10::IValue convert(const c10::IValue& value, bool writes, Operation& operation) {
  if (value.isTensor()) return operation.input(value.toTensor(), writes);
  if (value.isTensorList()) {
    auto list = value.toTensorVector();
    for (auto& tensor : list) tensor = operation.input(tensor, writes);
    return list;
  }
  if (value.isOptionalTensorList()) {
    const bool lenient = takes_cpu_indices(operation.name());
    c10::List<std::optional<at::Tensor>> list;
    for (const auto& tensor : value.toOptionalTensorVector()) {
      if (lenient && tensor && tensor->is_cpu())
        list.push_back(machine().is_dry() ? tensor->to(at::kMeta) : *tensor);
      else
        list.push_back(operation.input(tensor));
    }
    return list;
  }
  return value;
}

std::string shape_text(const std::vector<at::Tensor>& tensors) {
  std::string text;
  for (const auto& tensor : tensors) {
    if (!tensor.defined()) continue;
    text += fmt::format("{}{} [", text.empty() ? "" : ", ", c10::toString(tensor.scalar_type()));
    for (int64_t d = 0; d < tensor.dim(); ++d)
      text += fmt::format("{}{}", d ? ", " : "", tensor.size(d));
    text += "]";
  }
  return text;
}

[[noreturn]] void refuse_dry_value(const std::string& name, const Operation& operation) {
  std::vector<at::Tensor> tensors;
  for (const auto& held : operation.held()) tensors.push_back(held.sim);
  const auto place = device::NamedScope::path();
  throw Error(
      ErrorKind::Internal, place.empty() ? name : place,
      fmt::format("{} needs values, or a rule for its shape, that a dry run does not have (of {})",
                  name, shape_text(tensors)));
}

void run_kernel(const c10::OperatorHandle& op, Stack* stack, const Operation& operation) {
  if (!operation.is_dry()) {
    op.redispatchBoxed(c10::DispatchKeySet(c10::DispatchKey::CPU), stack);
    return;
  }
  if (op.hasKernelForDispatchKey(c10::DispatchKey::Meta)) {
    op.redispatchBoxed(c10::DispatchKeySet(c10::DispatchKey::Meta), stack);
    return;
  }
  const auto count = op.schema().arguments().size();
  auto results =
      dry_results(op.schema(), c10::ArrayRef<c10::IValue>(*stack).slice(stack->size() - count));
  if (!results) refuse_dry_value(operation.name(), operation);
  torch::jit::drop(*stack, count);
  for (auto& result : *results) stack->push_back(std::move(result));
}

void fallback(const c10::OperatorHandle& op, c10::DispatchKeySet, Stack* stack) {
  const auto& schema = op.schema();
  if (makes_random_numbers(schema))
    throw Error(ErrorKind::Internal, "sim",
                schema.name() +
                    ": random numbers are made on the CPU and copied, for the same "
                    "seed to give the same picture everywhere");
  Operation operation(schema.name());
  const auto first = stack->size() - schema.arguments().size();
  for (std::size_t i = 0; i < schema.arguments().size(); ++i) {
    auto& value = (*stack)[first + i];
    const auto* alias = schema.arguments()[i].alias_info();
    if (value.isDevice()) {
      operation.on(value.toDevice().index());
      value = c10::Device(machine().is_dry() ? at::kMeta : at::kCPU);
    } else {
      value = convert(value, alias && alias->isWrite(), operation);
    }
  }
  operation.begin();
  std::vector<at::Tensor> inputs;
  for (const auto& held : operation.held()) inputs.push_back(held.sim);
  const auto arguments = c10::ArrayRef<c10::IValue>(*stack).slice(first);
  auto work = work_of(schema.name(), arguments, inputs);
  // Held until the results have their memory, as by a kernel that makes both.
  at::Tensor scratch;
  if (const auto bytes_of = device::operator_scratch(schema.name()))
    scratch = at::empty({bytes_of(arguments)},
                        at::TensorOptions().dtype(at::kByte).device(
                            c10::Device(kSim, static_cast<c10::DeviceIndex>(operation.device()))));
  run_kernel(op, stack, operation);

  bool value_returned = false;
  const auto result = stack->size() - schema.returns().size();
  for (std::size_t i = result; i < stack->size(); ++i) {
    auto& value = (*stack)[i];
    if (value.isTensor()) {
      value = operation.output(value.toTensor());
    } else if (value.isTensorList()) {
      auto list = value.toTensorVector();
      for (auto& tensor : list) tensor = operation.output(tensor);
      value = std::move(list);
    } else {
      value_returned = true;
    }
  }
  operation.end(std::move(work));
  if (value_returned) machine().finish(machine().current_stream(operation.device()));
}

}  // namespace

void register_fallback(torch::Library& all) {
  all.fallback(torch::CppFunction::makeFromBoxedFunction<&fallback>());
}

}  // namespace distorch::sim
