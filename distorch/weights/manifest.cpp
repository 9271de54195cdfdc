#include "distorch/weights/manifest.h"

#include "distorch/base/error.h"

namespace distorch::weights {

int Manifest::add_block(std::string name) {
  blocks_.push_back(std::move(name));
  return static_cast<int>(blocks_.size()) - 1;
}

Weight Manifest::declare(Declared weight) {
  if (weight.block < 0)
    throw Error(ErrorKind::Internal, weight.name, "was declared outside of any block");
  slots_.emplace_back().shape = weight.shape;
  weights_.push_back(std::move(weight));
  return Weight(&slots_.back());
}

void Manifest::compute_in(at::ScalarType dtype) {
  for (auto& slot : slots_) slot.dtype = dtype;
}

at::ScalarType Weight::dtype() const {
  if (slot_->dtype) return *slot_->dtype;
  return slot_->packed ? at::kFloat : slot_->value.scalar_type();
}

at::Tensor Weight::dense(std::optional<at::MemoryFormat> format) const {
  if (!slot_) return {};
  if (slot_->packed) {
    auto value = quant::decode(*slot_->packed, dtype());
    return format ? value.contiguous(*format) : value;
  }
  if (!slot_->value.defined() || slot_->value.scalar_type() == dtype()) return slot_->value;
  return slot_->value.to(dtype(), false, false, format);
}

WeightSource& Manifest::source() const {
  if (!source_)
    throw Error(ErrorKind::Internal, blocks_.empty() ? "model" : blocks_.front(),
                "has no weights attached");
  return *source_;
}

std::string Scope::join(std::string_view name) const {
  return prefix_.empty() ? std::string(name) : prefix_ + "." + std::string(name);
}

Scope Scope::operator/(std::string_view name) const {
  Scope child = *this;
  child.prefix_ = join(name);
  return child;
}

Scope Scope::operator/(std::int64_t index) const { return *this / std::to_string(index); }

Scope Scope::block(std::string name) const {
  Scope child = *this;
  child.block_ = manifest_->add_block(name.empty() ? prefix_ : std::move(name));
  return child;
}

Weight Scope::weight(std::string_view name, std::vector<std::int64_t> shape) const {
  return manifest_->declare({join(name), std::move(shape), block_, false});
}

Weight Scope::optional_weight(std::string_view name, std::vector<std::int64_t> shape) const {
  return manifest_->declare({join(name), std::move(shape), block_, true});
}

at::Tensor Block::run1(const Tensors& inputs,
                       const std::function<at::Tensor(const Tensors&)>& body) const {
  return run(inputs, [&](const Tensors& in) { return Tensors{body(in)}; })[0];
}

}  // namespace distorch::weights
