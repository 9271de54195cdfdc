#include "tools/make_random_model/write.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>

#include <cmath>
#include <span>

#include "distorch/base/atomic_file.h"
#include "distorch/base/error.h"
#include "distorch/base/hash.h"
#include "distorch/base/run_token.h"
#include "distorch/formats/safetensors.h"
#include "tools/make_random_model/write_gguf.h"

namespace distorch::random_model {
namespace {

using formats::DType;

const std::vector<std::pair<DType, at::ScalarType>>& types() {
  static const std::vector<std::pair<DType, at::ScalarType>> list = {
      {DType::F32, at::kFloat},
      {DType::F16, at::kHalf},
      {DType::BF16, at::kBFloat16},
      {DType::F8_E4M3, at::kFloat8_e4m3fn},
      {DType::F8_E5M2, at::kFloat8_e5m2}};
  return list;
}

at::ScalarType torch_type(DType dtype) {
  for (const auto& [ours, theirs] : types())
    if (ours == dtype) return theirs;
  throw Error(ErrorKind::Usage, formats::name_of(dtype),
              "is no type that weights are written in: F32, F16, BF16, F8_E4M3, F8_E5M2");
}

DType named(const std::string& name) {
  auto dtype = formats::dtype_named(name);
  if (!dtype)
    throw Error(ErrorKind::Usage, name,
                "is no type that weights are written in: F32, F16, BF16, F8_E4M3, F8_E5M2");
  torch_type(*dtype);
  return *dtype;
}

bool has_8_bits(DType dtype) { return formats::bits_of(dtype) == 8; }

/// Normals in a pool whose length is a prime, so that rows of a matrix do not repeat.
const at::Tensor& pool() {
  constexpr std::int64_t length = 4194301;
  static const auto numbers = [] {
    auto generator = at::make_generator<at::CPUGeneratorImpl>(7);
    return at::randn({length}, generator);
  }();
  return numbers;
}

at::Tensor normals(std::int64_t count, std::uint64_t start) {
  const auto& all = pool();
  auto out = at::empty({count}, at::kFloat);
  auto from = static_cast<std::int64_t>(start % static_cast<std::uint64_t>(all.numel()));
  for (std::int64_t at = 0; at < count;) {
    auto piece = std::min(all.numel() - from, count - at);
    out.narrow(0, at, piece).copy_(all.narrow(0, from, piece));
    at += piece;
    from = 0;
  }
  return out;
}

/// The numbers of one tensor: products keep the spread of what goes in, norms change nothing.
at::Tensor values_of(const Shape& shape, DType dtype, double scale, std::uint64_t seed) {
  std::int64_t count = 1;
  for (auto dim : shape.dims) count *= dim;
  // Norms, scales and what is divided by.
  auto is = [&](const char* ending) { return shape.name.ends_with(ending); };
  if (shape.dims.size() <= 1 && (is("weight") || is("scale") || is("std-of-means")))
    return at::ones(shape.dims, torch_type(dtype));
  auto spread = 0.02;
  if (shape.dims.size() > 1) spread = 1.0 / std::sqrt(static_cast<double>(count / shape.dims[0]));
  auto numbers = normals(count, digest(shape.name, seed).low).mul_(spread / scale);
  return numbers.view(shape.dims).to(torch_type(dtype));
}

formats::TensorToWrite to_write(const Shape& shape, DType dtype, double scale,
                                const WriteOptions& options, at::Tensor& current) {
  formats::TensorToWrite tensor{.name = shape.name, .dtype = dtype, .shape = shape.dims};
  tensor.hole = options.empty;
  if (!options.empty)
    tensor.make = [&current, shape, dtype, scale, seed = options.seed] {
      throw_if_interrupted();
      current = values_of(shape, dtype, scale, seed);
      return std::span(static_cast<const std::byte*>(current.const_data_ptr()), current.nbytes());
    };
  return tensor;
}

}  // namespace

void write_model(const std::filesystem::path& path, const Kind& kind, const WriteOptions& options) {
  std::filesystem::create_directories(path.parent_path().empty() ? "." : path.parent_path());
  if (path.extension() == ".gguf")
    return write_gguf_model(path, kind, options, [&](const Shape& shape) {
      return values_of(shape, DType::F32, 1.0, options.seed);
    });
  const auto own = named(kind.dtype), wanted = options.dtype ? named(*options.dtype) : own;
  // What a scaled file divides its numbers by: they use more of the type's range then.
  constexpr double kScale = 1.0 / 16;
  const bool scaled = options.scaled && has_8_bits(wanted);
  std::vector<formats::TensorToWrite> list;
  at::Tensor current, scale = at::full({}, kScale, at::kFloat);
  const std::span scale_bytes(static_cast<const std::byte*>(scale.const_data_ptr()),
                              scale.nbytes());
  auto marker = at::zeros({2}, torch_type(wanted));
  for (const auto& shape : kind.shapes(options.size)) {
    const bool matrix = shape.dims.size() > 1;
    const auto dtype = has_8_bits(wanted) && !matrix ? own : wanted;
    const bool with_scale = scaled && matrix && shape.name.ends_with(".weight");
    list.push_back(to_write(shape, dtype, with_scale ? kScale : 1.0, options, current));
    if (with_scale)
      list.push_back({.name = shape.name.substr(0, shape.name.size() - 6) + "scale_weight",
                      .dtype = DType::F32,
                      .shape = {},
                      .bytes = scale_bytes});
  }
  const auto tokenizer = kind.tokenizer ? kind.tokenizer() : std::string();
  if (kind.tokenizer)
    list.push_back({.name = "spiece_model",
                    .dtype = DType::U8,
                    .shape = {static_cast<std::int64_t>(tokenizer.size())},
                    .bytes = std::as_bytes(std::span(tokenizer))});
  if (scaled)
    list.push_back(
        {.name = "scaled_fp8",
         .dtype = wanted,
         .shape = {2},
         .bytes = {static_cast<const std::byte*>(marker.const_data_ptr()), marker.nbytes()}});
  formats::write_safetensors(
      path, std::move(list),
      kind.metadata ? kind.metadata(options.size) : formats::TensorFile::Metadata{});
  if (!kind.beside) return;
  for (const auto& [name, text] : kind.beside(options.size))
    write_file(path.parent_path() / name, text);
}

}  // namespace distorch::random_model
