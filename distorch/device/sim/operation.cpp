#include <fmt/format.h>
#include <fmt/ranges.h>

#include "distorch/base/error.h"
#include "distorch/device/sim/backend.h"

namespace distorch::sim {

void Operation::on(int device) {
  if (device_ >= 0) return;
  device_ = device;
  dry_ = machine().is_dry();
  machine().require(device);
}

at::Tensor Operation::input(const at::Tensor& tensor, bool writes) {
  if (!tensor.defined()) return tensor;
  if (tensor.device().type() != kSim) {
    // As on CUDA: a CPU scalar is passed with the launch, any other tensor has to be moved first.
    TORCH_CHECK(tensor.dim() == 0 && !writes, "Expected all tensors to be on the same device, but ",
                name_, " got one on ", tensor.device(), " (", tensor.toString(), " ",
                tensor.sizes(), ") beside one on a simulated accelerator");
    return machine().is_dry() ? tensor.to(at::kMeta) : tensor;
  }
  const int device = tensor.device().index();
  on(device);
  TORCH_CHECK(device == device_, "Expected all tensors to be on the same device, but ", name_,
              " found at least two devices, sim:", device_, " and sim:", device, "!");
  if (dtype_ == c10::ScalarType::Undefined) dtype_ = tensor.scalar_type();
  auto view = host_view(tensor);
  auto use = use_of(tensor, writes);
  bytes_ += use.end - use.begin;
  uses_.push_back(use);
  held_.push_back({tensor, view});
  return view;
}

std::optional<at::Tensor> Operation::input(const std::optional<at::Tensor>& tensor) {
  return tensor ? std::optional<at::Tensor>(input(*tensor)) : std::nullopt;
}

void Operation::begin() {
  if (device_ < 0) on(thread_state().device);
  label_ = label_of(name_);
  stream_ = machine().current_stream(device_);
  machine().use(stream_, label_, uses_);
}

at::Tensor Operation::output(const at::Tensor& result) {
  if (!result.defined()) return result;
  for (const auto& held : held_) {
    if (held.view.unsafeGetTensorImpl() == result.unsafeGetTensorImpl()) return held.sim;
    if (result.storage().unsafeGetStorageImpl() != held.view.storage().unsafeGetStorageImpl())
      continue;
    auto alias = at::detail::make_tensor<c10::TensorImpl>(
        c10::Storage(held.sim.storage()), c10::DispatchKeySet(c10::DispatchKey::PrivateUse1),
        result.dtype());
    alias.unsafeGetTensorImpl()->set_sizes_and_strides(result.sizes(), result.strides(),
                                                       result.storage_offset());
    return alias;
  }
  auto adopted = adopt(result, device_);
  held_.push_back({adopted, result});  // two results may share their memory
  results_.push_back(use_of(adopted, true));
  bytes_ += results_.back().end - results_.back().begin;
  return adopted;
}

void Operation::end(double flops) {
  for (const auto& held : held_) follow(held.sim, held.view);
  if (!results_.empty()) {
    results_.clear();
    for (const auto& held : held_) results_.push_back(use_of(held.sim, true));
    results_.erase(results_.begin(), results_.begin() + static_cast<std::ptrdiff_t>(uses_.size()));
    machine().use(stream_, label_, results_);
  }
  machine().kernel(stream_, label_,
                   {bytes_, flops, dtype_ == c10::ScalarType::Undefined ? at::kFloat : dtype_});
}

double matmul_flops(const std::string& operation, const std::vector<at::Tensor>& inputs) {
  const auto rows_by_columns = [&](std::size_t a, std::size_t b) -> double {
    if (inputs.size() <= b || inputs[a].dim() < 1 || inputs[b].dim() < 1) return 0;
    const auto columns = inputs[b].dim() == 1 ? 1 : inputs[b].size(-1);
    return 2.0 * static_cast<double>(inputs[a].numel()) * static_cast<double>(columns);
  };
  if (operation == "aten::mm" || operation == "aten::bmm" || operation == "aten::mv" ||
      operation == "aten::dot" || operation == "aten::_scaled_mm" || operation == "aten::_int_mm")
    return rows_by_columns(0, 1);
  if (operation == "aten::addmm" || operation == "aten::baddbmm" || operation == "aten::addmv" ||
      operation == "aten::addbmm" || operation == "aten::_addmm_activation" ||
      operation == "aten::addmm_")
    return rows_by_columns(1, 2);
  return 0;
}

}  // namespace distorch::sim
