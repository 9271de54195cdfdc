#include "distorch/weights/manifest.h"

#include "distorch/base/error.h"
#include "distorch/quant/fp8.h"
#include "distorch/quant/fp8_operators.h"
#include "distorch/quant/joined.h"

namespace distorch::weights {
namespace {

at::Tensor in_dtype(const at::Tensor& value, at::ScalarType dtype,
                    std::optional<at::MemoryFormat> format) {
  if (format) return value.to(dtype, false, false, format);
  return quant::numbers_in(value, dtype);
}

}  // namespace

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

void Manifest::compute_with(const Arithmetic& arithmetic) {
  for (auto& slot : slots_) slot.arithmetic = arithmetic;
}

at::ScalarType Weight::dtype() const {
  if (slot_->arithmetic.dtype) return *slot_->arithmetic.dtype;
  return slot_->packed ? at::kFloat : slot_->value.scalar_type();
}

bool Weight::is_rounded() const {
  return slot_->arithmetic.kept_in && slot_->packed->encoding == &quant::joined();
}

at::Tensor Weight::decoded(const quant::Packed& packed) const {
  if (is_rounded()) return quant::decode(packed, *slot_->arithmetic.kept_in).to(dtype());
  return quant::decode(packed, dtype());
}

const quant::Packed* Weight::packed() const {
  return slot_ && slot_->packed && !is_rounded() ? slot_->packed.get() : nullptr;
}

at::Tensor Weight::dense(std::optional<at::MemoryFormat> format) const {
  if (!slot_) return {};
  if (slot_->packed) {
    auto value = decoded(*slot_->packed);
    return format ? value.contiguous(*format) : value;
  }
  const auto& value = slot_->value;
  const auto& kept_in = slot_->arithmetic.kept_in;
  if (!value.defined()) return value;
  if (kept_in && value.scalar_type() != *kept_in)
    return in_dtype(value.to(*kept_in), dtype(), format);
  if (value.scalar_type() == dtype()) return value;
  return in_dtype(value, dtype(), format);
}

bool Weight::is_fast() const {
  if (!slot_ || !slot_->arithmetic.fast_products) return false;
  if (packed()) return true;
  if (!defined()) return false;
  const auto& value = slot_->value;
  const auto& joined = slot_->packed;
  if ((joined ? joined->shape.size() : static_cast<std::size_t>(value.dim())) != 2) return false;
  const auto kept = joined ? dtype() : value.scalar_type();
  return slot_->arithmetic.kept_in.value_or(kept) == at::kFloat8_e4m3fn;
}

std::optional<quant::Packed> Weight::for_fast_product() const {
  if (!is_fast()) return {};
  if (packed()) return *slot_->packed;
  const auto kept = slot_->packed ? dense() : slot_->value;
  return quant::Packed{
      &quant::float8_e4m3fn(), kept.to(at::kFloat8_e4m3fn), {{}, {}}, kept.sizes().vec()};
}

at::Tensor Weight::rows(std::int64_t first, std::int64_t count) const {
  if (slot_->packed) return decoded(slot_->packed->rows(first, count));
  auto part = slot_->value.narrow(0, first, count);
  if (const auto& kept_in = slot_->arithmetic.kept_in) part = part.to(*kept_in);
  return quant::numbers_in(part, dtype());
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
