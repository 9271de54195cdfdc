#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include "distorch/convert/blocks.h"
#include "distorch/convert/encoders.h"

namespace distorch::convert {
namespace {

using at::Tensor;

class Blocks final : public Encoder {
 public:
  Blocks(const Source& source, const BlockType& type) : source_(source), type_(type) {}

  at::ScalarType reads() const override { return at::kFloat; }
  std::vector<NewTensor> outputs() const override {
    return {{source_.name, formats::DType::U8, source_.stored.shape, type_.name}};
  }

  std::vector<Tensor> encode(const Tensor& piece, std::int64_t first) override {
    const auto numbers = piece.contiguous();
    const auto blocks = numbers.numel() / type_.numbers;
    auto bytes = at::empty({blocks * type_.bytes}, at::kByte);
    const auto* from = numbers.const_data_ptr<float>();
    auto* to = bytes.mutable_data_ptr<std::uint8_t>();
    constexpr std::int64_t blocks_at_least = 64;
    at::parallel_for(0, blocks, blocks_at_least, [&](std::int64_t begin, std::int64_t end) {
      for (auto block = begin; block < end; ++block)
        type_.pack(from + block * type_.numbers, to + block * type_.bytes);
    });
    return {bytes};
  }

 private:
  Source source_;
  const BlockType& type_;
};

}  // namespace

std::unique_ptr<Encoder> block_encoder(const Source& source, const std::string& type) {
  const auto& blocks = *block_type_named(type);
  const auto& shape = source.stored.shape;
  // Kernels and rows that are no whole blocks stay numbers, as other writers have it.
  if (shape.size() != 2 || shape.back() % blocks.numbers != 0) return nullptr;
  return std::make_unique<Blocks>(source, blocks);
}

}  // namespace distorch::convert
