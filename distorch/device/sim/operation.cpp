#include <fmt/format.h>
#include <fmt/ranges.h>

#include <set>

#include "distorch/base/error.h"
#include "distorch/device/operators.h"
#include "distorch/device/sim/backend.h"

namespace distorch::sim {
namespace {

// A view with gaps reaches more bytes than it has, an expanded one fewer.
std::int64_t bytes_touched(const at::Tensor& tensor, const Touch& use) {
  return std::min(use.end - use.begin, static_cast<std::int64_t>(tensor.nbytes()));
}

}  // namespace

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
  auto use = touch_of(tensor, writes);
  bytes_ += bytes_touched(tensor, use);
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
  results_.push_back(touch_of(adopted, true));
  bytes_ += bytes_touched(adopted, results_.back());
  return adopted;
}

void Operation::end(KernelWork work) {
  for (const auto& held : held_) follow(held.sim, held.view);
  if (!results_.empty()) {
    results_.clear();
    for (const auto& held : held_) results_.push_back(touch_of(held.sim, true));
    results_.erase(results_.begin(), results_.begin() + static_cast<std::ptrdiff_t>(uses_.size()));
    machine().use(stream_, label_, results_);
  }
  work.bytes += static_cast<double>(bytes_);
  work.dtype = dtype_name(dtype_ == c10::ScalarType::Undefined ? at::kFloat : dtype_);
  machine().kernel(stream_, label_, work);
}

KernelWork work_of(const std::string& operation, c10::ArrayRef<c10::IValue> arguments,
                   const std::vector<at::Tensor>& inputs) {
  const auto product = [&](std::size_t a, std::size_t b) -> KernelWork {
    KernelWork work{.kind = KernelKind::Matmul};
    if (inputs.size() <= b || inputs[a].dim() < 1 || inputs[b].dim() < 1) return work;
    const auto columns = inputs[b].dim() == 1 ? 1 : inputs[b].size(-1);
    work.flops = 2.0 * static_cast<double>(inputs[a].numel()) * static_cast<double>(columns);
    work.depth = static_cast<double>(inputs[a].size(-1));
    return work;
  };
  static const std::set<std::string> products{"aten::mm",  "aten::bmm",        "aten::mv",
                                              "aten::dot", "aten::_scaled_mm", "aten::_int_mm"};
  static const std::set<std::string> added_products{
      "aten::addmm",  "aten::baddbmm",           "aten::addmv",
      "aten::addbmm", "aten::_addmm_activation", "aten::addmm_"};
  static const std::set<std::string> normalizations{
      "aten::_softmax",          "aten::_log_softmax",      "aten::_safe_softmax",
      "aten::_fused_rms_norm",   "aten::native_batch_norm", "aten::linalg_vector_norm",
      "aten::native_layer_norm", "aten::native_group_norm"};
  if (products.count(operation)) return product(0, 1);
  if (added_products.count(operation)) return product(1, 2);
  if (normalizations.count(operation)) return {.kind = KernelKind::Normalization};
  const auto cost = device::operator_cost(operation);
  return cost ? cost(arguments) : KernelWork();
}

}  // namespace distorch::sim
