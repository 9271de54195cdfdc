#include "distorch/nn/attention.h"

#include <ATen/Parallel.h>
#include <ATen/SDPBackend.h>
#include <ATen/detail/CUDAHooksInterface.h>
#include <fmt/format.h>
#include <torch/headeronly/version.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <map>
#include <mutex>
#include <utility>

#include "distorch/base/cache_folder.h"
#include "distorch/base/error.h"
#include "distorch/base/log.h"
#include "distorch/device/device.h"
#include "distorch/device/memory.h"
#include "distorch/device/recording.h"
#include "distorch/device/streams.h"
#include "distorch/nn/attention_choice.h"

namespace distorch::nn {
namespace {

using at::Tensor;

// ATen's kernel for the CPU takes twice as long as matrix products and softmax on slices that stay
// in the cache (measured on Zen 5 with 4096 positions: 0.33 s against 0.67 s of processor time).
// The scores are rounded to bfloat16 once; the softmax itself computes in float32.
bool prefers_slices(const Tensor& q, const Tensor& k, const Tensor& mask, bool causal) {
  constexpr std::int64_t worthwhile = 512 * 512;  // scores of one head
  return device::computes_as_cpu(q.device()) && q.scalar_type() == at::kBFloat16 && !causal &&
         !mask.defined() && q.size(1) * k.size(1) >= worthwhile;
}

// q [Lq, D], k and v [Lk, D] of one head -> out [Lq, D].
void attend_slice(const Tensor& q, const Tensor& k, const Tensor& v, double scale, Tensor out) {
  auto scores = at::addmm(at::zeros({1}, q.options()), q, k.t(), /*beta=*/0, /*alpha=*/scale);
  out.copy_(at::mm(at::_softmax(scores, -1, /*half_to_float=*/false), v));
}

// q, k, v [B, L, H, D] -> [B, Lq, H·D].
Tensor attention_in_slices(const Tensor& q, const Tensor& k, const Tensor& v) {
  constexpr std::int64_t scores_per_thread = 1 << 20;  // 2 MiB: about a core's cache
  auto out = at::empty(q.sizes(), q.options());
  auto qs = q.transpose(1, 2), ks = k.transpose(1, 2), vs = v.transpose(1, 2);
  auto outs = out.transpose(1, 2);
  auto length = q.size(1), heads = q.size(2);
  auto rows = std::max<std::int64_t>(16, scores_per_thread * at::get_num_threads() / k.size(1));
  auto scale = 1.0 / std::sqrt(static_cast<double>(q.size(3)));
  for (std::int64_t b = 0; b < q.size(0); ++b)
    for (std::int64_t h = 0; h < heads; ++h)
      for (std::int64_t first = 0; first < length; first += rows) {
        auto count = std::min(rows, length - first);
        attend_slice(qs[b][h].narrow(0, first, count), ks[b][h], vs[b][h], scale,
                     outs[b][h].narrow(0, first, count));
      }
  return out.flatten(2);
}

// x [B, L, H, D] with each head `times` times, one after the other.
Tensor repeated_heads(const Tensor& x, std::int64_t times) {
  if (times == 1) return x;
  return x.unsqueeze(3)
      .expand({x.size(0), x.size(1), x.size(2), times, x.size(3)})
      .reshape({x.size(0), x.size(1), x.size(2) * times, x.size(3)});
}

at::SDPBackend torchs_choice(const Tensor& q, const Tensor& k, const Tensor& v, bool causal) {
  return static_cast<at::SDPBackend>(at::_fused_sdp_choice(q, k, v, std::nullopt, 0.0, causal));
}

// Whether flash attention takes it: where torch would choose it or cuDNN's.
bool flash_can(const Tensor& q, const Tensor& k, bool causal, at::SDPBackend own) {
  if (causal && q.size(2) != k.size(2)) return false;  // flash attention counts from the other end
  if (q.size(3) % 8 != 0 || q.size(3) > 256) return false;
  return own == at::SDPBackend::cudnn_attention || own == at::SDPBackend::flash_attention;
}

// The kernels that torch has for attention on a GPU, without a mask: q [B, H, Lq, D] -> as q.
Tensor attend_with(const std::string& kernel, const Tensor& q, const Tensor& k, const Tensor& v,
                   bool causal) {
  if (kernel == "flash")
    return std::get<0>(at::_scaled_dot_product_flash_attention(q, k, v, 0.0, causal));
  if (kernel == "cudnn")
    return std::get<0>(
        at::_scaled_dot_product_cudnn_attention(q, k, v, std::nullopt, false, 0.0, causal));
  if (kernel == "efficient")
    return std::get<0>(
        at::_scaled_dot_product_efficient_attention(q, k, v, std::nullopt, false, 0.0, causal));
  return at::scaled_dot_product_attention(q, k, v, std::nullopt, 0.0, causal);
}

double now_s() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// What is remembered of a kind of card belongs to these versions of its libraries.
std::string card_of(c10::Device device) {
  static std::mutex mutex;
  static std::map<std::string, std::string> cards;
  std::lock_guard lock(mutex);
  auto name = device::name_of(device);
  auto& card = cards[name];
  if (card.empty())
    card = fmt::format("{}, torch {}, cuDNN {}", device::find_device(name).description,
                       TORCH_VERSION, at::detail::getCUDAHooks().versionCuDNN());
  return card;
}

// Some rows of the first and the last head of a result [B, H, L, D], in a memory of their own.
Tensor some_of(const Tensor& out) {
  constexpr std::int64_t most_rows = 64;
  const auto rows = std::min(most_rows, out.size(2));
  std::vector<Tensor> parts;
  for (auto head : {std::int64_t{0}, out.size(1) - 1})
    for (auto first : {std::int64_t{0}, out.size(2) - rows})
      parts.push_back(out.select(1, head).narrow(1, first, rows));
  return at::cat(parts).to(at::kFloat);
}

// A kernel that was made for other cards may be there and give something else: it is not chosen by
// its speed alone.
void check_alike(const Tensor& got, const Tensor& wanted) {
  constexpr double most = 0.05;  // of the largest value; bfloat16 rounds to 0.004 of each
  const auto largest = wanted.abs().max().item<double>();
  const auto off = (got - wanted).abs().max().item<double>();
  if (!(off <= most * largest))
    throw Error(ErrorKind::Internal, "attention",
                fmt::format("differs by {} of {} from torch's choice", off, largest));
}

// The kernels that are worth a try beside torch's own choice. Of float32 cuDNN takes the bytes for
// numbers of 16 bits.
std::vector<std::string> others_than(at::SDPBackend own, const Tensor& q, const Tensor& k,
                                     bool causal) {
  std::vector<std::string> names;
  const bool short_type = q.scalar_type() == at::kHalf || q.scalar_type() == at::kBFloat16;
  if (own != at::SDPBackend::cudnn_attention && short_type) names.push_back("cudnn");
  if (own == at::SDPBackend::cudnn_attention && flash_can(q, k, causal, own))
    names.push_back("flash");
  if (own != at::SDPBackend::efficient_attention) names.push_back("efficient");
  return names;
}

// The fastest kernel for this shape on this card, measured once for both; torch's choice where that
// cannot be told. Remembered ones are of tensors like these: heads that lie together, of one width.
Tensor attend_fast(const Tensor& q, const Tensor& k, const Tensor& v, bool causal) {
  static MeasuredChoice choices(cache_folder() / "attention.json");
  const std::string torchs = "torch";
  const bool usual = q.stride(3) == 1 && k.stride(3) == 1 && v.stride(3) == 1 &&
                     q.size(3) == k.size(3) && k.size(3) == v.size(3);
  if (!usual) return attend_with(torchs, q, k, v, causal);
  const auto card = card_of(q.device());
  const auto shape =
      fmt::format("{} {}x{}x{}x{} over {}{}", c10::toString(q.scalar_type()), q.size(0), q.size(1),
                  q.size(2), q.size(3), k.size(2), causal ? ", causal" : "");
  auto kernel = choices.known(card, shape);
  if (kernel.empty() && !device::recording()) {
    const auto own = torchs_choice(q, k, v, causal);
    const auto wanted = some_of(attend_with(torchs, q, k, v, causal));
    // Of numbers that are none nothing can be told.
    const auto largest = wanted.abs().max().item<double>();
    if (!std::isfinite(largest) || largest == 0) {
      choices.settle_on(torchs, card, shape);
      return attend_with(torchs, q, k, v, causal);
    }
    std::vector<MeasuredChoice::Way> ways = {
        {torchs, [&] { attend_with(torchs, q, k, v, causal); }}};
    for (const auto& name : others_than(own, q, k, causal))
      ways.push_back({name, [&, name, checked = false]() mutable {
                        auto out = attend_with(name, q, k, v, causal);
                        if (!std::exchange(checked, true)) check_alike(some_of(out), wanted);
                      }});
    const auto wait = [&] { device::synchronize(device::current_stream(q.device())); };
    kernel = choices.measure(card, shape, ways, wait, now_s);
  }
  try {
    return attend_with(kernel, q, k, v, causal);
  } catch (const std::exception& error) {
    const bool remembered = kernel == "flash" || kernel == "cudnn" || kernel == "efficient";
    if (!remembered || device::recording() || device::is_out_of_memory(error)) throw;
    log::debug("{} on {}: {}, which is remembered, cannot: {}", shape, card, kernel, error.what());
    choices.settle_on(torchs, card, shape);
    return attend_with(torchs, q, k, v, causal);
  }
}

// q [B, H, Lq, D], k and v [B, H, Lk, D] -> [B, H, Lq, D] on a GPU, without a mask. cuDNN takes 38 to
// 65 ms to prepare for each new shape, in each thread again (H200, cuDNN 9.15), which small attentions
// never win back: below two billion operations flash attention takes at most 17 us more. From ten
// times that on the fastest is measured.
Tensor attend_on_gpu(const Tensor& q, const Tensor& k, const Tensor& v, bool causal) {
  constexpr double most_for_flash = 2e9, least_to_measure = 2e10;
  const auto operations = 4.0 * static_cast<double>(q.numel()) * static_cast<double>(k.size(2));
  if (operations >= least_to_measure) return attend_fast(q, k, v, causal);
  if (operations <= most_for_flash && flash_can(q, k, causal, torchs_choice(q, k, v, causal)))
    return attend_with("flash", q, k, v, causal);
  return attend_with("torch", q, k, v, causal);
}

// q [B, H, Lq, D], k and v [B, H, Lk, D] -> [B, H, Lq, D].
Tensor attend_heads(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& mask,
                    bool causal) {
  if (q.is_cuda() && !mask.defined()) return attend_on_gpu(q, k, v, causal);
  return at::scaled_dot_product_attention(
      q, k, v, mask.defined() ? std::optional<Tensor>(mask) : std::nullopt, 0.0, causal);
}

}  // namespace

Tensor attend(const Tensor& q, const Tensor& keys, const Tensor& values, const Tensor& mask,
              bool causal) {
  auto k = repeated_heads(keys, q.size(2) / keys.size(2));
  auto v = repeated_heads(values, q.size(2) / values.size(2));
  if (prefers_slices(q, k, mask, causal)) return attention_in_slices(q, k, v);
  auto out = attend_heads(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), mask, causal);
  // A view where the kernel writes positions before heads.
  return out.transpose(1, 2).reshape({q.size(0), q.size(1), q.size(2) * q.size(3)});
}

Tensor attention(const Tensor& q, const Tensor& k, const Tensor& v,
                 const AttentionOptions& options) {
  const auto heads = [&](const Tensor& x) {
    return x.view({x.size(0), x.size(1), options.heads, x.size(2) / options.heads});
  };
  return attend(heads(q), heads(k), heads(v), options.mask, options.causal);
}

}  // namespace distorch::nn
