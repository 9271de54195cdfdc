#include "distorch/nodes/planned_call.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <numeric>

#include "distorch/sampling/batch.h"

namespace distorch::nodes {

using at::Tensor;
using models::Extent;
using models::InputSpec;
using sampling::ModelInputs;

namespace {

constexpr std::int64_t kUsualTokens = 77;  // where no conditioning has a text

/// Every conditioning of the run as inputs of the whole latent batch, without data.
std::vector<ModelInputs> encoded(const RunShape& shape, const Encode& encode) {
  sampling::EncodeContext context;
  context.noise = at::empty(shape.latent, at::TensorOptions().device(at::kMeta).dtype(at::kFloat));
  context.latent_image = context.noise;
  std::vector<ModelInputs> all;
  auto add = [&](const sampling::Conditioning& conditioning) {
    for (const auto& item : conditioning) {
      auto inputs = encode(item, context);
      for (auto& [name, input] : inputs)
        if (input.value.defined() && input.kind != InputSpec::Kind::Constant)
          input.value = sampling::repeat_to(
              at::empty(input.value.sizes(),
                        input.value.options().device(at::kMeta).pinned_memory(false)),
              shape.latent.at(0));
      all.push_back(std::move(inputs));
    }
  };
  add(shape.positive);
  context.positive = false;
  if (shape.cfg != 1.0) add(shape.negative);
  if (shape.third) add(*shape.third);
  return all;
}

bool any_fit_together(const std::vector<ModelInputs>& items) {
  for (std::size_t i = 0; i < items.size(); ++i)
    for (std::size_t j = 0; j < i; ++j)
      if (sampling::fit_together(items[i], items[j])) return true;
  return false;
}

/// Number of tokens of the largest call: prompts of unequal lengths that share it are repeated to a
/// common one, up to four times.
std::int64_t common_tokens(const std::vector<std::int64_t>& lengths) {
  std::int64_t shortest = lengths.front(), longest = lengths.front(), common = 1;
  for (auto tokens : lengths) {
    shortest = std::min(shortest, tokens);
    longest = std::max(longest, tokens);
    if (common < (std::int64_t{1} << 40)) common = std::lcm(common, tokens);
  }
  return common <= 4 * shortest ? common : longest;
}

/// The largest of every dimension; of different numbers of dimensions the one with more elements.
std::vector<std::int64_t> larger(std::vector<std::int64_t> a, const std::vector<std::int64_t>& b) {
  if (a.size() != b.size()) return c10::multiply_integers(a) < c10::multiply_integers(b) ? b : a;
  for (std::size_t d = 0; d < a.size(); ++d) a[d] = std::max(a[d], b[d]);
  return a;
}

/// The shape of an input in the call; empty where no item has it as a tensor.
std::vector<std::int64_t> shape_in_call(const InputSpec& spec,
                                        const std::vector<ModelInputs>& items,
                                        const models::CallSizes& sizes, bool shared) {
  std::vector<std::int64_t> shape, lengths;
  for (const auto& item : items) {
    auto input = item.find(spec.name);
    if (input == item.end() || !input->second.value.defined()) continue;
    auto own = input->second.value.sizes().vec();
    shape = shape.empty() ? own : larger(shape, own);
    if (own.size() > 1) lengths.push_back(own[1]);
  }
  if (shape.empty() || spec.kind == InputSpec::Kind::Constant) return shape;
  if (spec.kind == InputSpec::Kind::CrossAttn && shared && lengths.size() > 1)
    shape[1] = common_tokens(lengths);
  shape[0] = sizes.batch;
  return shape;
}

}  // namespace

std::string PlannedCall::key() const {
  auto text =
      fmt::format("{}x{} tokens {}", sizes.batch, fmt::join(sizes.cells, "x"), sizes.tokens);
  for (const auto& [name, shape] : known.shapes)
    text += fmt::format(" {} {}", name, fmt::join(shape, "x"));
  for (const auto& [name, number] : known.numbers) text += fmt::format(" {}={}", name, number);
  return text;
}

PlannedCall plan_call(const models::InputSpecs& specs, const RunShape& shape,
                      const Encode& encode) {
  auto items = encoded(shape, encode);
  PlannedCall call;
  bool shared = any_fit_together(items);
  const int together = shared ? (shape.third ? 3 : 2) : 1;
  const auto shares = [](std::int64_t count, std::int64_t among) {
    return (count + among - 1) / among;
  };
  const auto in_call = shares(together, shape.at_once);
  const auto of_device = shares(static_cast<std::int64_t>(items.size()), shape.at_once);
  call.sizes.batch = shape.latent.at(0) * in_call;
  call.calls = std::max<std::int64_t>(1, shares(of_device, in_call));
  call.sizes.cells.assign(shape.latent.begin() + 2, shape.latent.end());
  call.sizes.tokens = kUsualTokens;
  for (const auto& spec : specs) {
    auto known = shape_in_call(spec, items, call.sizes, shared);
    for (const auto& item : items)
      if (auto input = item.find(spec.name); input != item.end() && input->second.number)
        call.known.numbers[spec.name] = *input->second.number;
    if (known.empty()) continue;
    for (std::size_t d = 0; d < std::min(known.size(), spec.shape.size()); ++d)
      if (spec.shape[d].of == Extent::Of::Tokens) call.sizes.tokens = known[d];
    call.known.shapes[spec.name] = std::move(known);
  }
  return call;
}

}  // namespace distorch::nodes
