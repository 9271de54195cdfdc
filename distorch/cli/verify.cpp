#include "distorch/cli/verify.h"

#include <ATen/ATen.h>

#include "distorch/base/hash.h"
#include "distorch/base/run_token.h"
#include "distorch/convert/form.h"

namespace distorch::cli {
namespace {

using Json = nlohmann::ordered_json;

/// Of a stretch of a file, piece by piece; each piece's hash is the next one's seed.
std::string hash_of(const std::vector<weights::Stored>& tensors) {
  constexpr std::size_t piece = std::size_t{16} << 20;
  Digest hash;
  for (const auto& tensor : tensors) {
    const auto& file = *tensor.file->mapping();
    for (std::size_t at = 0; at < tensor.range().size; at += piece) {
      throw_if_interrupted();
      const formats::ByteRange range{tensor.range().offset + at,
                                     std::min(piece, tensor.range().size - at)};
      const auto bytes = file.bytes(range);
      const auto next =
          digest({reinterpret_cast<const char*>(bytes.data()), bytes.size()}, hash.low);
      hash = {hash.high * 31 + next.high, next.low};
      file.check();
    }
  }
  return hex(hash);
}

struct Odd {
  std::int64_t nan = 0, inf = 0;
};

Odd odd_numbers(const convert::Source& source) {
  constexpr std::int64_t numbers = std::int64_t{4} << 20;
  Odd odd;
  if (!source.is_float()) return odd;
  const auto& stored = source.stored;
  const auto rows = source.rows();
  const auto row = std::max<std::int64_t>(1, source.numbers_of_a_row());
  const auto step = std::max<std::int64_t>(1, numbers / row);
  for (std::int64_t first = 0; first < rows; first += step) {
    throw_if_interrupted();
    auto piece =
        convert::read_rows(source, first, std::min(step, rows - first), at::ScalarType::Float);
    if (!piece.isfinite().all().item<bool>()) {
      odd.nan += piece.isnan().sum().item<std::int64_t>();
      odd.inf += piece.isinf().sum().item<std::int64_t>();
    }
    stored.file->mapping()->check();
  }
  return odd;
}

}  // namespace

Json verified(const weights::Checkpoint& file) {
  Json list = Json::array(), faulty = Json::array();
  std::string all;
  for (const auto& [name, stored] : file.tensors()) {
    const auto parts = weights::tensors_of(stored);
    std::int64_t bytes = 0;
    for (const auto& part : parts) bytes += part.size_bytes;
    const auto odd = odd_numbers({name, stored});
    const auto hash = hash_of(parts);
    for (const auto& part : parts) part.file->mapping()->dont_need(part.range());
    all += name + hash;
    if (odd.nan + odd.inf > 0) faulty.push_back(name);
    list.push_back({{"name", name},
                    {"form", stored.encoding ? std::string(stored.encoding->name())
                                             : formats::name_of(stored.dtype)},
                    {"shape", stored.shape},
                    {"bytes", bytes},
                    {"hash", hash},
                    {"nan", odd.nan},
                    {"inf", odd.inf}});
  }
  return {{"hash", hex(digest(all))}, {"faulty", faulty}, {"weights", list}};
}

}  // namespace distorch::cli
