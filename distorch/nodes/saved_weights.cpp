#include "distorch/nodes/saved_weights.h"

#include <fmt/format.h>

#include <utility>

#include "distorch/base/error.h"
#include "distorch/base/run_token.h"
#include "distorch/nn/patch.h"
#include "distorch/quant/four_bit.h"
#include "distorch/quant/joined.h"
#include "distorch/quant/rounding.h"

namespace distorch::nodes {

using at::Tensor;
using formats::DType;
using formats::TensorToWrite;
using weights::Stored;

namespace {

constexpr const char* kPatchPrefix = "model_patch.";

bool is_8_bits(at::ScalarType type) {
  return type == at::kFloat8_e4m3fn || type == at::kFloat8_e5m2;
}

bool is_packed(const Stored& stored) {
  return stored.encoding && stored.encoding != &quant::joined();
}

/// Whether a packed weight is written as its file has it: safetensors have names for its parts. What
/// GGUF or bitsandbytes packed, and what is joined of packed pieces, becomes numbers of bf16.
bool is_written_packed(const Stored& stored) {
  return is_packed(stored) && !stored.parts.empty() && !quant::state_of(*stored.encoding) &&
         !quant::is_joined(stored.encoding);
}

/// Whether what LoRAs make of the weight is rounded to its own type again: of 8-bit floats.
bool is_rounded_anew(const Stored& stored) {
  return stored.encoding->name().starts_with("float8_");
}

DType to_stored(at::ScalarType type) {
  static const std::map<at::ScalarType, DType> types = {{at::kFloat, DType::F32},
                                                        {at::kHalf, DType::F16},
                                                        {at::kBFloat16, DType::BF16},
                                                        {at::kDouble, DType::F64},
                                                        {at::kFloat8_e4m3fn, DType::F8_E4M3},
                                                        {at::kFloat8_e5m2, DType::F8_E5M2}};
  return types.at(type);
}

std::span<const std::byte> bytes_of(const Tensor& tensor) {
  return {static_cast<const std::byte*>(tensor.const_data_ptr()), tensor.nbytes()};
}

std::span<const std::byte> bytes_of(const Stored& stored) {
  return stored.file->mapping()->bytes(stored.range());
}

/// A tensor of a file as it lies there.
TensorToWrite verbatim(const std::string& name, const Stored& stored) {
  const auto& shape = stored.value_shape.empty() ? stored.shape : stored.value_shape;
  return {.name = name, .dtype = stored.dtype, .shape = shape, .make = [stored] {
            throw_if_interrupted();
            return bytes_of(stored);
          }};
}

/// The name under which a file has the tensor that these bytes belong to.
std::string name_in_file(const Stored& stored) {
  auto begin = static_cast<std::size_t>(stored.offset_bytes);
  for (const auto& info : stored.file->tensors())
    if (info.offset_bytes <= begin && begin < info.offset_bytes + info.size_bytes) return info.name;
  return "";
}

std::string without_ending(const std::string& name) { return name.substr(0, name.rfind('.') + 1); }
std::string ending(const std::string& name) { return name.substr(name.rfind('.') + 1); }

/// The weight with its adapters, float32.
Tensor adapted(const Tensor& weight, std::vector<weights::Adapter> adapters) {
  weights::Slot slot;
  slot.value = weight;
  slot.arithmetic.dtype = at::kFloat;
  slot.shape = weight.sizes().vec();
  slot.adapters = std::move(adapters);
  return nn::patched(weights::Weight(&slot));
}

}  // namespace

SavedModel::SavedModel(const streaming::StreamedModel& model,
                       const std::vector<streaming::LoraUse>& loras, std::string seed_prefix)
    : model_(model), seed_prefix_(std::move(seed_prefix)), held_(std::make_shared<Tensor>()) {
  for (const auto& lora : loras)
    for (const auto& adapter : *lora.adapters)
      changes_[adapter.weight].push_back({&adapter, lora.strength});
}

std::vector<std::string> SavedModel::names() const {
  std::vector<std::string> names;
  for (const auto& [name, stored] : model_.checkpoint().tensors())
    if (!name.starts_with(kPatchPrefix)) names.push_back(name);
  return names;
}

SavedModel::Form SavedModel::form_of(const std::string& name) const {
  Form form;
  form.stored = model_.checkpoint().find(name);
  if (!form.stored)
    throw Error(ErrorKind::MissingWeight, model_.checkpoint().path(),
                fmt::format("has no tensor '{}'", name));
  const auto& stored = *form.stored;
  form.shape = stored.shape;
  if (auto found = changes_.find(name); found != changes_.end()) {
    form.changes = &found->second;
    for (const auto& [adapter, strength] : found->second)
      if (!adapter->reshape.empty()) form.shape = adapter->reshape;
  }
  const auto kept_in = model_.options().kept_in;
  const bool joined = stored.encoding == &quant::joined();
  bool plain = !stored.encoding;
  if (plain && !form.changes) {
    auto floats =
        stored.dtype == DType::F16 || stored.dtype == DType::BF16 || stored.dtype == DType::F32;
    form.as_it_is = !(kept_in && floats);
    if (form.as_it_is) return form;
  }
  form.dtype = weights::to_torch(joined ? stored.parts.front() : stored);
  const bool stays = is_written_packed(stored) && (!form.changes || is_rounded_anew(stored));
  if (is_packed(stored) && !stays) form.dtype = at::kBFloat16;
  if (kept_in && (plain || joined) && !is_8_bits(form.dtype)) form.dtype = *kept_in;
  return form;
}

Tensor SavedModel::value_of(const Form& form, const std::string& name) const {
  const auto& stored = *form.stored;
  if (form.as_it_is) return weights::mapped_tensor(stored);
  if (!form.changes) {
    auto type = stored.encoding ? at::kFloat : weights::to_torch(stored);
    return weights::read_dense(stored, type).to(form.dtype).contiguous();
  }
  auto weight = weights::read_dense(stored, at::kFloat);
  if (is_8_bits(form.dtype) && !stored.encoding) weight = weight.to(form.dtype).to(at::kFloat);
  std::vector<weights::Adapter> adapters;
  for (const auto& [named, strength] : *form.changes) {
    adapters.push_back(weights::read_adapter(*named, at::kCPU));
    adapters.back().strength = strength;
  }
  auto result = adapted(weight, std::move(adapters));
  if (!is_8_bits(form.dtype)) return result.to(form.dtype).contiguous();
  if (is_packed(stored) && stored.parts.front().file)
    result = result / weights::read_dense(stored.parts.front(), at::kFloat);
  return quant::round_by_chance(result, form.dtype, quant::crc32_of(seed_prefix_ + name));
}

void SavedModel::add_packed(std::vector<TensorToWrite>& list, const SavedWeight& weight,
                            const Form& form) const {
  const auto& stored = *form.stored;
  auto base = without_ending(weight.name);
  for (const auto& part : stored.parts)
    if (part.file) list.push_back(verbatim(base + ending(name_in_file(part)), part));
  // What says how it is packed, where the file says so.
  auto marker = without_ending(name_in_file(stored)) + "comfy_quant";
  if (const auto* info = stored.file->find(marker)) {
    list.push_back({.name = base + "comfy_quant",
                    .dtype = info->dtype,
                    .shape = info->shape,
                    .bytes = stored.file->bytes(*info)});
  } else if (stored.file->metadata().contains("_quantization_metadata")) {
    // The file's header said it.
    auto text = std::make_shared<const std::string>(stored.encoding->marker());
    list.push_back({.name = base + "comfy_quant",
                    .dtype = DType::U8,
                    .shape = {static_cast<std::int64_t>(text->size())},
                    .make = [text] { return std::as_bytes(std::span(*text)); }});
  }
}

void SavedModel::add_to(std::vector<TensorToWrite>& list, const SavedWeight& weight) const {
  std::vector<Form> forms;
  for (const auto& source : weight.sources) forms.push_back(form_of(source));
  const auto& first = forms.front();
  const bool alone = forms.size() == 1 && !weight.transposed;
  for (const auto& form : forms) {
    const bool packed = is_written_packed(*form.stored);
    if (packed && !alone)
      throw Error(ErrorKind::Usage, form.stored->file->path().string(),
                  fmt::format("holds packed weights, which '{}' cannot be made of", weight.name));
    if (!packed || (form.changes && !is_rounded_anew(*form.stored))) continue;
    add_packed(list, weight, form);
    if (!form.changes) return list.push_back(verbatim(weight.name, *form.stored));
  }
  if (alone && first.as_it_is) return list.push_back(verbatim(weight.name, *first.stored));

  auto shape = first.shape;
  for (std::size_t i = 1; i < forms.size(); ++i) shape.at(0) += forms[i].shape.at(0);
  if (weight.transposed) std::swap(shape.at(0), shape.at(1));
  auto dtype = first.as_it_is ? first.stored->dtype : to_stored(first.dtype);
  list.push_back({.name = weight.name, .dtype = dtype, .shape = shape, .make = [=, this] {
                    throw_if_interrupted();
                    *held_ = Tensor();
                    std::vector<Tensor> values;
                    for (std::size_t i = 0; i < forms.size(); ++i)
                      values.push_back(value_of(forms[i], weight.sources[i]));
                    auto value = values.size() == 1 ? values[0] : at::cat(values);
                    *held_ = (weight.transposed ? value.t() : value).contiguous();
                    return bytes_of(*held_);
                  }});
}

void SavedModel::add_mark_to(std::vector<TensorToWrite>& list, const std::string& prefix) const {
  const std::string mark = "scaled_fp8";
  for (const auto& [name, stored] : model_.checkpoint().tensors()) {
    if (!is_packed(stored)) continue;
    auto own = name_in_file(stored);
    for (const auto& info : stored.file->tensors()) {
      if (!info.name.ends_with(mark)) continue;
      if (!own.starts_with(info.name.substr(0, info.name.size() - mark.size()))) continue;
      list.push_back({.name = prefix + mark,
                      .dtype = info.dtype,
                      .shape = info.shape,
                      .bytes = stored.file->bytes(info)});
      return;
    }
  }
}

void SavedModel::check_files() const {
  const formats::TensorFile* last = nullptr;
  for (const auto& [name, stored] : model_.checkpoint().tensors()) {
    if (stored.file.get() != last) stored.file->mapping()->check();
    last = stored.file.get();
  }
}

}  // namespace distorch::nodes
