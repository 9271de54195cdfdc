#pragma once
#include <filesystem>
#include <functional>
#include <span>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "distorch/formats/gguf_types.h"

namespace distorch::formats {

/// A value of a GGUF header, in the type in which files have it.
using GgufSetting = std::variant<std::string, std::uint32_t, std::int32_t, float, bool,
                                 std::vector<std::int32_t>, std::vector<std::string>>;
using GgufSettings = std::vector<std::pair<std::string, GgufSetting>>;

/// One tensor to be written: `bytes`, which must live until the call returns, or what `make` gives
/// when its turn comes, which must live until the next one's.
struct GgufTensor {
  std::string name;
  const BlockType* type = nullptr;
  std::vector<std::int64_t> shape;  // in torch's order
  std::span<const std::byte> bytes;
  std::function<std::span<const std::byte>()> make;
  /// All zeros, as a hole of the file: neither `bytes` nor `make`.
  bool hole = false;
};

/// The shape under which a tensor of this shape can be written as blocks of `type`: itself, or, where
/// its rows are no whole blocks, rows of 256 (then write_gguf() notes the real one as
/// "comfy.gguf.orig_shape.NAME"); empty where it is no whole number of those.
std::vector<std::int64_t> gguf_shape(const std::vector<std::int64_t>& shape, const BlockType& type);

/// Everything before the tensors' bytes of a file of version 3, padded to 32 bytes.
std::string gguf_head(const std::vector<GgufTensor>& tensors, const GgufSettings& settings);

/// Writes a file that appears whole or not at all, tensors in the order given, each at a multiple of
/// 32 bytes. `settings` begin with "general.architecture". Error(Internal) where shape and bytes
/// disagree.
void write_gguf(const std::filesystem::path& path, const std::vector<GgufTensor>& tensors,
                const GgufSettings& settings);

}  // namespace distorch::formats
