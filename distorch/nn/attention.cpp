#include "distorch/nn/attention.h"

#include <ATen/Parallel.h>
#include <ATen/SDPBackend.h>

#include <cmath>

#include "distorch/device/device.h"

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

// cuDNN takes 38 to 65 ms to prepare for each new shape, in each thread (H200, cuDNN 9.15), which small
// attentions never win back: below two billion operations flash attention takes at most 17 us more.
// What torch would choose is asked for first, because only then flash attention is known to be there.
bool prefers_flash(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& mask,
                   bool causal) {
  constexpr double most_operations = 2e9;
  if (!q.is_cuda() || mask.defined()) return false;
  if (causal && q.size(2) != k.size(2)) return false;  // flash attention counts from the other end
  const auto operations = 4.0 * static_cast<double>(q.numel()) * static_cast<double>(k.size(2));
  if (operations > most_operations || q.size(3) % 8 != 0 || q.size(3) > 256) return false;
  return at::_fused_sdp_choice(q, k, v, std::nullopt, 0.0, causal) ==
         static_cast<std::int64_t>(at::SDPBackend::cudnn_attention);
}

// q [B, H, Lq, D], k and v [B, H, Lk, D] -> [B, H, Lq, D].
Tensor attend_heads(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& mask,
                    bool causal) {
  if (prefers_flash(q, k, v, mask, causal))
    return std::get<0>(at::_scaled_dot_product_flash_attention(q, k, v, 0.0, causal));
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
