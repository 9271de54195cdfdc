#pragma once
#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/library.h>

#include <optional>
#include <string>

#include "distorch/base/rig.h"

// Operations of distorch's own as torch operators ("distorch::..."): for those who define one. Who
// calls one includes the header that declares its function, as group_norm.h.
namespace distorch::device {

/// What an operator takes on a device, from its arguments (of which only shapes and dtypes count):
/// kind, flops and depth; `bytes` are those beside the tensors that go in and come out, which are
/// counted anyway.
using OperatorCost = KernelWork (*)(c10::ArrayRef<c10::IValue> arguments);
/// Bytes of device memory that an operator holds beside those tensors while it runs.
using OperatorScratch = std::int64_t (*)(c10::ArrayRef<c10::IValue> arguments);

struct Operator {
  /// "group_norm_silu(Tensor x, ...) -> Tensor", as torch spells it. What is written to in place is
  /// marked: "Tensor(a!) weight".
  std::string schema;
  std::optional<torch::CppFunction> cpu;
  std::optional<torch::CppFunction> cuda;
  /// Shapes only: results on the Meta device, for dry runs among others.
  std::optional<torch::CppFunction> meta;
  /// Null: as an elementwise operation.
  OperatorCost cost = nullptr;
  /// Null: none.
  OperatorScratch scratch = nullptr;
};

/// Makes the operator known to torch for as long as the process lives. To be called once for each:
/// as the value of a static variable in the function that calls the operator. The simulated
/// accelerator computes it with the CPU's kernel, or in a dry run with that of Meta, in memory and
/// time of its own.
c10::OperatorHandle define(Operator op);

/// Null for an operator that was not defined here. `name` with its "distorch::".
OperatorCost operator_cost(const std::string& name);
OperatorScratch operator_scratch(const std::string& name);

}  // namespace distorch::device
