#include "distorch/device/operators.h"

#include <map>
#include <mutex>

namespace distorch::device {
namespace {

/// What a dry run asks of an operator.
struct Needs {
  OperatorCost cost = nullptr;
  OperatorScratch scratch = nullptr;
};

struct Known {
  std::mutex mutex;
  std::map<std::string, Needs> needs;
};

Known& known() {
  static auto* one = new Known;
  return *one;
}

Needs needs_of(const std::string& name) {
  std::lock_guard lock(known().mutex);
  const auto found = known().needs.find(name);
  return found == known().needs.end() ? Needs{} : found->second;
}

}  // namespace

c10::OperatorHandle define(Operator op) {
  const auto name = "distorch::" + op.schema.substr(0, op.schema.find('('));
  // A library takes its operators back when it is destroyed: these live as long as the process.
  auto* library =
      new torch::Library(torch::Library::FRAGMENT, "distorch", std::nullopt, __FILE__, __LINE__);
  library->def(op.schema.c_str());
  const auto add = [&](c10::DispatchKey key, std::optional<torch::CppFunction>& function) {
    if (function) library->impl(name.c_str(), torch::dispatch(key, std::move(*function)));
  };
  add(c10::DispatchKey::CPU, op.cpu);
  add(c10::DispatchKey::CUDA, op.cuda);
  add(c10::DispatchKey::Meta, op.meta);
  std::lock_guard lock(known().mutex);
  known().needs[name] = {op.cost, op.scratch};
  return c10::Dispatcher::singleton().findSchemaOrThrow(name.c_str(), "");
}

OperatorCost operator_cost(const std::string& name) { return needs_of(name).cost; }

OperatorScratch operator_scratch(const std::string& name) { return needs_of(name).scratch; }

}  // namespace distorch::device
