#include "distorch/quant/joined.h"

#include <algorithm>

namespace distorch::quant {
namespace {

class Joined final : public Encoding {
 public:
  std::string_view name() const override { return "joined"; }
  const std::vector<Companion>& companions() const override {
    static const std::vector<Companion> none;
    return none;
  }
  bool matches(formats::DType, const std::vector<bool>&) const override { return false; }

  at::Tensor decode(const Packed& weight, at::ScalarType dtype) const override {
    std::vector<at::Tensor> pieces{weight.values.to(dtype)};
    for (const auto& part : weight.parts) pieces.push_back(part.to(dtype));
    return (pieces.size() == 1 ? pieces[0] : at::cat(pieces)).reshape(weight.shape);
  }

  Packed rows(const Packed& weight, std::int64_t first, std::int64_t count) const override {
    Packed result{weight.encoding, {}, {}, weight.shape};
    result.shape[0] = count;
    std::int64_t begin = 0;
    auto take = [&](const at::Tensor& piece) {
      auto from = std::max(first, begin), to = std::min(first + count, begin + piece.size(0));
      auto some = from < to ? piece.narrow(0, from - begin, to - from) : at::Tensor();
      begin += piece.size(0);
      if (!some.defined()) return;
      if (result.values.defined())
        result.parts.push_back(some);
      else
        result.values = some;
    };
    take(weight.values);
    for (const auto& part : weight.parts) take(part);
    if (!result.values.defined()) result.values = weight.values.narrow(0, 0, 0);
    return result;
  }

  std::int64_t rows_in_one(const Packed& weight, std::int64_t first) const override {
    std::int64_t end = weight.values.size(0);
    for (const auto& part : weight.parts)
      if (end <= first) end += part.size(0);
    return end - first;
  }
};

}  // namespace

const Encoding& joined() {
  static const Joined one;
  return one;
}

}  // namespace distorch::quant
