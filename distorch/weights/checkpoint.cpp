#include "distorch/weights/checkpoint.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>

#include "distorch/base/error.h"
#include "distorch/quant/gguf.h"
#include "distorch/quant/joined.h"
#include "distorch/weights/packed_layers.h"

namespace distorch::weights {

using formats::DType;

namespace {

/// A tensor whose file says how its numbers are packed: rows of bytes.
void set_packing(const formats::TensorInfo& info, Stored& stored) {
  stored.encoding = quant::encoding_named(info.packing);
  if (!stored.encoding)
    throw Error(
        ErrorKind::Format, stored.file->path().string(),
        fmt::format("'{}' is packed as '{}', which is not supported", info.name, info.packing));
  stored.value_shape = quant::value_shape_of(*stored.encoding, info.shape, stored.size_bytes);
}

}  // namespace

Checkpoint::Checkpoint(std::shared_ptr<const formats::TensorFile> file)
    : path_(file->path().string()) {
  for (const auto& info : file->tensors()) {
    auto& stored = tensors_[info.name];
    stored = {.file = file,
              .dtype = info.dtype,
              .shape = info.shape,
              .offset_bytes = static_cast<std::int64_t>(info.offset_bytes),
              .size_bytes = static_cast<std::int64_t>(info.size_bytes)};
    if (!info.packing.empty()) set_packing(info, stored);
  }
  gather_packed(tensors_, *file);
}

const Stored* Checkpoint::find(const std::string& name) const {
  auto at = tensors_.find(name);
  return at == tensors_.end() ? nullptr : &at->second;
}

const std::vector<std::int64_t>& Checkpoint::shape(const std::string& name) const {
  const auto* stored = find(name);
  if (!stored) throw Error(ErrorKind::MissingWeight, path_, "has no tensor '" + name + "'");
  return stored->shape;
}

bool Checkpoint::has_prefix(const std::string& prefix) const {
  auto at = tensors_.lower_bound(prefix);
  return at != tensors_.end() && at->first.compare(0, prefix.size(), prefix) == 0;
}

Checkpoint Checkpoint::part(const std::string& prefix, const std::string& replacement) const {
  Checkpoint result;
  result.path_ = path_;
  for (auto at = tensors_.lower_bound(prefix);
       at != tensors_.end() && at->first.compare(0, prefix.size(), prefix) == 0; ++at)
    result.tensors_[replacement + at->first.substr(prefix.size())] = at->second;
  return result;
}

int Checkpoint::count(const std::string& prefix) const {
  int index = 0;
  while (has_prefix(fmt::format("{}{}.", prefix, index))) ++index;
  return index;
}

void Checkpoint::add(const std::string& name, const Stored& stored) {
  if (path_.empty() && stored.file) path_ = stored.file->path().string();
  tensors_[name] = stored;
}

namespace {

/// Rows of a tensor and of those of its parts that go by rows too.
Stored rows_of(const Stored& stored, std::int64_t first_row, std::int64_t rows) {
  auto part = stored;
  auto all = stored.shape[0];
  auto row_bytes = all ? stored.size_bytes / all : 0;
  part.shape[0] = rows;
  if (!part.value_shape.empty()) part.value_shape[0] = rows;
  part.offset_bytes += first_row * row_bytes;
  part.size_bytes = rows * row_bytes;
  if (!stored.encoding) return part;
  part.encoding = stored.encoding->from_row(first_row, stored.shape);
  for (std::size_t i = 0; i < part.parts.size(); ++i) {
    auto& companion = part.parts[i];
    if (!companion.file) continue;
    if (auto some = stored.encoding->part_rows(i, companion.shape, all, first_row, rows))
      companion = rows_of(companion, some->first, some->second);
  }
  return part;
}

/// Error(Format) where rows of a weight cannot be cut out of its bytes.
void check_goes_by_rows(const std::string& path, const std::string& name, const Stored& stored) {
  const auto& own = stored.value_shape;
  if (stored.encoding && !own.empty() &&
      (own[0] != stored.shape[0] || (own.size() == 1 && stored.shape.size() > 1)))
    throw Error(ErrorKind::Format, path,
                fmt::format("'{}' is made of rows of a weight whose blocks go across rows", name));
}

/// The pieces of a joined weight in which some rows of it lie, at least one.
std::vector<Stored> joined_rows(const std::string& path, const std::string& name,
                                const Stored& stored, std::int64_t first_row, std::int64_t rows) {
  std::vector<Stored> pieces;
  std::int64_t begin = 0;
  for (const auto& piece : stored.parts) {
    const auto end = begin + piece.shape[0];
    const auto from = std::max(first_row, begin), to = std::min(first_row + rows, end);
    if (from < to && to - from < piece.shape[0]) check_goes_by_rows(path, name, piece);
    if (from < to && to - from == piece.shape[0])
      pieces.push_back(piece);
    else if (from < to)
      pieces.push_back(rows_of(piece, from - begin, to - from));
    begin = end;
  }
  if (pieces.empty()) pieces.push_back(rows_of(stored.parts[0], 0, 0));
  return pieces;
}

}  // namespace

void Checkpoint::add_rows(const std::string& name, const Stored& stored, std::int64_t first_row,
                          std::int64_t rows) {
  if (stored.shape.empty() || first_row < 0 || rows < 0 || first_row + rows > stored.shape[0])
    throw Error(ErrorKind::Shape, path_,
                fmt::format("'{}' wants rows {} to {} of a tensor of shape [{}]", name, first_row,
                            first_row + rows, fmt::join(stored.shape, ", ")));
  if (quant::is_joined(stored.encoding))
    return add_joined(name, joined_rows(path_, name, stored, first_row, rows));
  check_goes_by_rows(path_, name, stored);
  add(name, rows_of(stored, first_row, rows));
}

void Checkpoint::add_joined(const std::string& name, const std::vector<Stored>& pieces) {
  auto whole = pieces.at(0);
  const auto& first = pieces[0].shape;
  std::int64_t rows = 0;
  std::vector<quant::PieceForm> forms;
  whole.value_shape.clear();
  whole.parts = pieces;
  whole.size_bytes = 0;
  for (const auto& piece : pieces) {
    forms.push_back({piece.encoding, piece.shape, piece.parts.size()});
    const auto& like = piece.shape;
    if (like.empty() || like.size() != first.size() ||
        !std::equal(like.begin() + 1, like.end(), first.begin() + 1))
      throw Error(ErrorKind::Shape, path_,
                  fmt::format("'{}' is made of tensors with unequal rows: [{}] and [{}]", name,
                              fmt::join(first, ", "), fmt::join(like, ", ")));
    rows += like[0];
    whole.size_bytes += piece.size_bytes;
  }
  whole.shape[0] = rows;
  whole.encoding = &quant::joined(forms);
  add(name, whole);
}

void Checkpoint::rename(const std::string& from, const std::string& to) {
  auto node = tensors_.extract(from);
  if (node.empty()) return;
  node.key() = to;
  tensors_.erase(to);
  tensors_.insert(std::move(node));
}

void Checkpoint::refresh_files() const {
  const formats::TensorFile* last = nullptr;
  auto refresh = [&](const Stored& stored) {
    if (stored.file && stored.file.get() != last) stored.file->mapping()->refresh();
    if (stored.file) last = stored.file.get();
  };
  for (const auto& [name, stored] : tensors_)
    for (const auto& tensor : tensors_of(stored)) refresh(tensor);
}

std::int64_t Checkpoint::size_bytes() const {
  std::int64_t total = 0;
  for (const auto& [name, stored] : tensors_) total += stored.size_bytes;
  return total;
}

DType Checkpoint::main_dtype() const {
  std::map<DType, std::int64_t> bytes;
  // Packed bytes do not say what they stand for; what is packed so was mostly made of bf16.
  for (const auto& [name, stored] : tensors_)
    bytes[stored.encoding && stored.dtype == DType::U8 ? DType::BF16 : stored.dtype] +=
        stored.size_bytes;
  auto most = std::max_element(bytes.begin(), bytes.end(),
                               [](const auto& a, const auto& b) { return a.second < b.second; });
  return most == bytes.end() ? DType::F32 : most->first;
}

at::ScalarType to_torch(const Stored& stored) {
  switch (stored.dtype) {
    case DType::BOOL: return at::kBool;
    case DType::U8: return at::kByte;
    case DType::I8: return at::kChar;
    case DType::I16: return at::kShort;
    case DType::I32: return at::kInt;
    case DType::I64: return at::kLong;
    case DType::F16: return at::kHalf;
    case DType::BF16: return at::kBFloat16;
    case DType::F32: return at::kFloat;
    case DType::F64: return at::kDouble;
    case DType::F8_E4M3: return at::kFloat8_e4m3fn;
    case DType::F8_E5M2: return at::kFloat8_e5m2;
    case DType::F8_E8M0: return at::kFloat8_e8m0fnu;
    default:
      throw Error(ErrorKind::Format, stored.file ? stored.file->path().string() : "",
                  fmt::format("tensors of type {} cannot be used", name_of(stored.dtype)));
  }
}

std::vector<Stored> tensors_of(const Stored& stored) {
  std::vector<Stored> tensors;
  if (quant::is_joined(stored.encoding)) {
    for (const auto& piece : stored.parts)
      for (auto& tensor : tensors_of(piece)) tensors.push_back(std::move(tensor));
    return tensors;
  }
  auto own = stored;
  own.encoding = nullptr;
  own.parts.clear();
  if (!own.value_shape.empty()) own.shape = std::move(own.value_shape);
  own.value_shape.clear();
  tensors.push_back(std::move(own));
  for (const auto& part : stored.parts)
    if (part.file) tensors.push_back(part);
  return tensors;
}

quant::Packed packed_from(const Stored& stored, const at::Tensor* tensors) {
  if (quant::is_joined(stored.encoding)) {
    std::vector<quant::Packed> pieces;
    for (const auto& piece : stored.parts) {
      pieces.push_back(packed_from(piece, tensors));
      tensors += tensors_of(piece).size();
    }
    return quant::join(pieces);
  }
  quant::Packed packed{stored.encoding, *tensors++, {}, stored.shape};
  for (const auto& part : stored.parts)
    packed.parts.push_back(part.file ? *tensors++ : at::Tensor());
  return packed;
}

at::Tensor read_dense(const Stored& stored, at::ScalarType dtype) {
  if (!stored.encoding) return mapped_tensor(stored).to(dtype);
  std::vector<at::Tensor> tensors;
  for (const auto& part : tensors_of(stored)) tensors.push_back(mapped_tensor(part));
  return quant::decode(packed_from(stored, tensors.data()), dtype);
}

namespace {

const std::vector<std::int64_t>& own_shape(const Stored& stored) {
  return stored.value_shape.empty() ? stored.shape : stored.value_shape;
}

}  // namespace

at::Tensor mapped_tensor(const Stored& stored) {
  auto bytes = stored.file->mapping()->bytes(stored.range());
  auto options = at::TensorOptions().dtype(to_torch(stored));
  auto* data = const_cast<std::byte*>(bytes.data());
  auto element = options.dtype().itemsize();
  if (reinterpret_cast<std::uintptr_t>(data) % element != 0) {
    auto copy = at::empty(own_shape(stored), options);
    stored.file->mapping()->read(stored.offset_bytes,
                                 {static_cast<std::byte*>(copy.data_ptr()), bytes.size()});
    return copy;
  }
  return at::from_blob(data, own_shape(stored), [file = stored.file](void*) {}, options);
}

at::Tensor read_tensor(const Stored& stored) {
  auto copy = at::empty(own_shape(stored), at::TensorOptions().dtype(to_torch(stored)));
  stored.file->mapping()->read(stored.offset_bytes,
                               {static_cast<std::byte*>(copy.mutable_data_ptr()), copy.nbytes()});
  stored.file->mapping()->check();
  return copy;
}

namespace {

std::string fault_of(const Declared& weight, const Stored* stored) {
  if (!stored) return weight.optional ? "" : fmt::format("'{}' is missing", weight.name);
  if (stored->shape == weight.shape) return "";
  return fmt::format("'{}' has shape [{}] where [{}] is needed", weight.name,
                     fmt::join(stored->shape, ", "), fmt::join(weight.shape, ", "));
}

}  // namespace

void check_complete(const Manifest& manifest, const Checkpoint& checkpoint,
                    const std::string& what) {
  constexpr std::size_t shown = 20;
  std::vector<std::string> faults;
  bool missing = false;
  for (const auto& weight : manifest.weights()) {
    const auto* stored = checkpoint.find(weight.name);
    auto fault = fault_of(weight, stored);
    if (fault.empty()) continue;
    missing = missing || !stored;
    faults.push_back(std::move(fault));
  }
  if (faults.empty()) return;
  auto count = faults.size();
  faults.resize(std::min(count, shown));
  auto rest = count > shown ? fmt::format("; and {} more", count - shown) : "";
  throw Error(missing ? ErrorKind::MissingWeight : ErrorKind::Shape, checkpoint.path(),
              fmt::format("is no complete {}: {}{}", what, fmt::join(faults, "; "), rest));
}

}  // namespace distorch::weights
