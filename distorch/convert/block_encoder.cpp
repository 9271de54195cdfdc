#include <ATen/ATen.h>

#include <array>
#include <atomic>

#include "distorch/convert/blocks.h"
#include "distorch/convert/encoders.h"
#include "distorch/device/parallel.h"

namespace distorch::convert {
namespace {

using at::Tensor;

class Blocks final : public Encoder {
 public:
  Blocks(const Source& source, const BlockType& type) : source_(source), type_(type) {}

  at::ScalarType reads() const override { return reads_floats(source_); }
  std::vector<NewTensor> outputs() const override {
    return {{source_.name, formats::DType::U8, source_.stored.shape, type_.name}};
  }

  std::vector<Tensor> encode(const Tensor& piece, std::int64_t first) override {
    const auto numbers = piece.contiguous();
    const auto blocks = numbers.numel() / type_.numbers;
    auto bytes = at::empty({blocks * type_.bytes}, at::kByte);
    auto* to = bytes.mutable_data_ptr<std::uint8_t>();
    constexpr std::int64_t blocks_at_least = 64;
    std::atomic<bool> good{true};
    device::parallel_for(0, blocks, blocks_at_least, [&](std::int64_t begin, std::int64_t end) {
      if (!pack(numbers, begin, end - begin, to + begin * type_.bytes)) good = false;
    });
    check_finite(source_, good, type_.name);
    return {bytes};
  }

 private:
  bool pack(const Tensor& numbers, std::int64_t first, std::int64_t count, std::uint8_t* to) const {
    const auto begin = first * type_.numbers;
    if (numbers.scalar_type() == at::kFloat)
      return type_.pack(numbers.const_data_ptr<float>() + begin, to, count);
    constexpr std::int64_t together = 4096;  // numbers, whole blocks of every type
    std::array<float, together> some;
    const auto* from = numbers.const_data_ptr<at::BFloat16>() + begin;
    const auto all = count * type_.numbers;
    bool good = true;
    for (std::int64_t done = 0; done < all; done += together) {
      const auto part = std::min(together, all - done);
      std::copy_n(from + done, part, some.data());
      good =
          type_.pack(some.data(), to + done / type_.numbers * type_.bytes, part / type_.numbers) &&
          good;
    }
    return good;
  }

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
