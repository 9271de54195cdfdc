#pragma once
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/ivalue.h>

#include <optional>
#include <vector>

namespace distorch::sim {

/// Results of an operation that has no Meta kernel of its own, as Meta tensors; `arguments` are in
/// the order of the schema, their tensors Meta too. Nothing where the shape is not known without
/// values, or no rule stands here.
std::optional<std::vector<c10::IValue>> dry_results(const c10::FunctionSchema& schema,
                                                    c10::ArrayRef<c10::IValue> arguments);

}  // namespace distorch::sim
