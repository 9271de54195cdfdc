#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <c10/core/InferenceMode.h>
#include <doctest/doctest.h>

#include "distorch/base/error.h"
#include "distorch/device/memory.h"
#include "distorch/device/streams.h"
#include "tests/support/devices.h"

using namespace distorch;
using at::indexing::Slice;

namespace {

// One use of torch, given the device to work on; inputs are made on the CPU and moved.
struct Case {
  const char* name;
  std::function<std::vector<at::Tensor>(c10::Device)> run;
};

at::Tensor input(at::IntArrayRef sizes, c10::Device device, at::ScalarType dtype = at::kFloat) {
  std::int64_t n = 1;
  for (auto size : sizes) n *= size;
  auto values = at::sin(at::arange(n, at::kFloat) * 0.7f + static_cast<double>(sizes.size()));
  return values.reshape(sizes).to(dtype).to(device);
}

std::vector<at::Tensor> block(c10::Device d, at::ScalarType dtype) {
  const int64_t width = 32, heads = 4;
  auto x = input({2, 16, width}, d, dtype);
  auto qkv =
      at::linear(at::layer_norm(x, {width}, input({width}, d, dtype), input({width}, d, dtype)),
                 input({3 * width, width}, d, dtype), input({3 * width}, d, dtype));
  auto parts = qkv.view({2, 16, 3, heads, width / heads}).permute({2, 0, 3, 1, 4});
  auto a = at::scaled_dot_product_attention(parts[0], parts[1], parts[2]);
  x = x + a.transpose(1, 2).reshape({2, 16, width});
  auto h = at::gelu(at::linear(x, input({4 * width, width}, d, dtype)), "tanh");
  return {x + at::linear(h, input({width, 4 * width}, d, dtype), input({width}, d, dtype))};
}

std::vector<at::Tensor> unet_part(c10::Device d, at::ScalarType dtype) {
  auto x = input({2, 8, 12, 10}, d, dtype);
  auto h = at::silu(at::group_norm(x, 4, input({8}, d, dtype), input({8}, d, dtype)));
  h = at::conv2d(h, input({16, 8, 3, 3}, d, dtype), input({16}, d, dtype), 1, 1);
  h = h + at::linear(at::silu(input({2, 20}, d, dtype)), input({16, 20}, d, dtype))
              .unsqueeze(-1)
              .unsqueeze(-1);
  auto down = at::conv2d(h, input({16, 16, 3, 3}, d, dtype), {}, 2, 1);
  auto up = at::upsample_nearest2d(down, {12, 10});
  auto geglu = at::linear(up.permute({0, 2, 3, 1}).reshape({2, 120, 16}), input({32, 16}, d, dtype))
                   .chunk(2, -1);
  return {at::cat({h, up}, 1), down, geglu[0] * at::gelu(geglu[1])};
}

std::vector<Case> cases() {
  const auto f = [](std::function<at::Tensor(c10::Device)> one) {
    return [one](c10::Device d) { return std::vector<at::Tensor>{one(d)}; };
  };
  return {
      {"transformer block", [](c10::Device d) { return block(d, at::kFloat); }},
      {"transformer block bf16", [](c10::Device d) { return block(d, at::kBFloat16); }},
      {"unet part", [](c10::Device d) { return unet_part(d, at::kFloat); }},
      {"unet part bf16", [](c10::Device d) { return unet_part(d, at::kBFloat16); }},
      {"channels last convolution", f([](c10::Device d) {
         auto x = input({1, 8, 9, 9}, d).contiguous(at::MemoryFormat::ChannelsLast);
         return at::conv2d(x, input({8, 8, 3, 3}, d), {}, 1, 1);
       })},
      {"transposed convolution", f([](c10::Device d) {
         return at::conv_transpose2d(input({1, 4, 5, 5}, d), input({4, 6, 3, 3}, d), input({6}, d),
                                     2, 1, 1);
       })},
      {"grouped convolution", f([](c10::Device d) {
         return at::conv2d(input({1, 8, 5, 5}, d), input({8, 1, 3, 3}, d), {}, 1, 1, 1, 8);
       })},
      {"conv1d", f([](c10::Device d) {
         return at::conv1d(input({1, 8, 15}, d), input({4, 8, 3}, d), {}, 1, 1);
       })},
      {"conv3d", f([](c10::Device d) {
         return at::conv3d(input({1, 4, 3, 6, 6}, d), input({8, 4, 1, 2, 2}, d), {}, {1, 2, 2});
       })},
      {"attention with mask", f([](c10::Device d) {
         return at::scaled_dot_product_attention(input({1, 2, 5, 8}, d), input({1, 2, 7, 8}, d),
                                                 input({1, 2, 7, 8}, d), input({1, 1, 5, 7}, d));
       })},
      {"causal attention", f([](c10::Device d) {
         auto q = input({2, 2, 9, 8}, d);
         return at::scaled_dot_product_attention(q, q, q, {}, 0, true);
       })},
      {"attention of one head, 3-D", f([](c10::Device d) {
         auto q = input({2, 9, 8}, d);
         return at::scaled_dot_product_attention(q, q, q);
       })},
      {"baddbmm", f([](c10::Device d) {
         return at::baddbmm(input({2, 3, 4}, d), input({2, 3, 5}, d), input({2, 5, 4}, d), 0, 0.5);
       })},
      {"matmul broadcast",
       f([](c10::Device d) { return at::matmul(input({2, 3, 4, 5}, d), input({5, 6}, d)); })},
      {"einsum", f([](c10::Device d) {
         return at::einsum("bij,bkj->bik", {input({2, 3, 4}, d), input({2, 5, 4}, d)});
       })},
      {"softmax", f([](c10::Device d) {
         return at::softmax(input({3, 7}, d, at::kBFloat16), -1, at::kFloat);
       })},
      {"activations",
       [](c10::Device d) {
         auto x = input({4, 9}, d);
         return std::vector<at::Tensor>{at::silu(x),
                                        at::gelu(x),
                                        at::sigmoid(x),
                                        at::tanh(x),
                                        at::relu(x),
                                        at::leaky_relu(x, 0.2),
                                        at::exp(x),
                                        at::sin(x),
                                        at::cos(x),
                                        at::sqrt(x.abs()),
                                        at::rsqrt(x.abs() + 1),
                                        at::log(x.abs() + 1),
                                        at::softplus(x),
                                        at::elu(x),
                                        at::hardswish(x),
                                        at::erf(x),
                                        at::floor(x),
                                        at::round(x),
                                        at::sign(x)};
       }},
      {"arithmetic with scalars",
       [](c10::Device d) {
         auto x = input({4, 9}, d), y = input({9}, d);
         return std::vector<at::Tensor>{x * 2 + 1,
                                        x / y,
                                        1 - x,
                                        x.pow(2),
                                        x.clamp(-0.5, 0.5),
                                        at::lerp(x, x + 1, 0.25),
                                        x.addcmul(x, x, 0.5),
                                        x.addcdiv(x, x.abs() + 1, 2),
                                        at::where(x > 0, x, y),
                                        x * at::scalar_tensor(3.0f),
                                        at::minimum(x, y),
                                        at::fmod(x, 0.3),
                                        x.remainder(0.3),
                                        x.neg(),
                                        x.abs(),
                                        (x > 0).logical_not(),
                                        (x > 0).bitwise_and(y > 0)};
       }},
      {"in place",
       [](c10::Device d) {
         auto x = input({4, 9}, d);
         x.add_(1).mul_(input({4, 9}, d)).clamp_(-1, 1);
         x.index_put_({at::arange(2, at::TensorOptions(d).dtype(at::kLong))}, input({2, 9}, d));
         x.slice(1, 0, 3).zero_();
         x.masked_fill_(x > 0.5, 7.0);
         x[0].copy_(input({9}, d));
         return std::vector<at::Tensor>{x};
       }},
      {"reductions",
       [](c10::Device d) {
         auto x = input({3, 4, 5}, d);
         auto [values, indices] = x.max(-1);
         return std::vector<at::Tensor>{x.sum(),
                                        x.mean({1, 2}, true),
                                        x.amax({0, 2}),
                                        x.amin(1),
                                        x.norm(),
                                        at::linalg_vector_norm(x, 2, {1}),
                                        x.std(),
                                        x.var({1}, true, true),
                                        x.std({1, 2}, false),
                                        x.argmax(-1),
                                        x.cumsum(1),
                                        at::cumprod(x, 0),
                                        at::isfinite(x).all(),
                                        at::isnan(x).any(),
                                        values,
                                        indices,
                                        x.prod(),
                                        at::logsumexp(x, 1)};
       }},
      {"shapes",
       [](c10::Device d) {
         auto x = input({2, 6, 4}, d);
         auto parts = x.split(2, 1);
         return std::vector<at::Tensor>{at::cat({x, x}, 1),
                                        at::stack({x, x}),
                                        x.repeat({1, 2, 1}),
                                        x.expand({3, 2, 6, 4}).contiguous(),
                                        x.flip({1}),
                                        x.roll({1}, {2}),
                                        parts[1].contiguous(),
                                        x.movedim(0, 2).contiguous(),
                                        x.unfold(1, 2, 2),
                                        x.flatten(),
                                        x.repeat_interleave(2, 0),
                                        at::tril(x),
                                        at::triu(x),
                                        x.select(1, 2),
                                        x.diagonal(0, 1, 2).contiguous(),
                                        at::pixel_shuffle(input({1, 8, 3, 3}, d), 2),
                                        at::pixel_unshuffle(input({1, 2, 4, 4}, d), 2)};
       }},
      {"indexing",
       [](c10::Device d) {
         auto x = input({5, 4}, d);
         auto index = at::tensor({3, 1, 3}, at::kLong).to(d);
         return std::vector<at::Tensor>{x.index_select(0, index),
                                        x.index({index}),
                                        at::embedding(x, index),
                                        at::gather(x, 0, index.unsqueeze(1)),
                                        x.index({at::tensor({0, 2}, at::kLong)}),
                                        x.scatter(0, index.unsqueeze(1), 2.0),
                                        x.take_along_dim(index.unsqueeze(1), 0),
                                        at::one_hot(at::tensor({1, 2}, at::kLong), 4).to(d)};
       }},
      {"padding",
       [](c10::Device d) {
         auto x = input({1, 2, 5, 6}, d);
         return std::vector<at::Tensor>{
             at::pad(x, {1, 2, 0, 1}), at::pad(x, {1, 2, 2, 1}, "reflect"),
             at::pad(x, {1, 1, 1, 1}, "replicate"), at::pad(x, {1, 1, 1, 1}, "circular")};
       }},
      {"interpolation",
       [](c10::Device d) {
         auto x = input({1, 2, 5, 6}, d);
         return std::vector<at::Tensor>{
             at::upsample_nearest2d(x, {10, 12}),
             at::_upsample_nearest_exact2d(x, {7, 9}),
             at::upsample_bilinear2d(x, {10, 11}, false),
             at::upsample_bicubic2d(x, {8, 8}, false),
             at::_upsample_bilinear2d_aa(x, {3, 3}, false),
             at::_upsample_bicubic2d_aa(x, {3, 3}, false),
             at::adaptive_avg_pool2d(x, {2, 3}),
             at::avg_pool2d(x, {2, 2}),
             std::get<0>(at::max_pool2d_with_indices(x, {3, 3}, {1, 1}, {1, 1})),
             at::upsample_linear1d(input({1, 2, 5}, d), {9}, false)};
       }},
      {"factories",
       [](c10::Device d) {
         const auto o = at::TensorOptions(d).dtype(at::kFloat);
         return std::vector<at::Tensor>{at::zeros({2, 3}, o),
                                        at::ones({2}, o),
                                        at::full({3}, 2.5, o),
                                        at::arange(0, 7, 2, o),
                                        at::linspace(0, 1, 5, o),
                                        at::zeros_like(at::ones({2, 2}, o)),
                                        at::eye(3, o),
                                        at::tensor({1.0f, 2.0f}).to(d)};
       }},
      {"dtypes",
       [](c10::Device d) {
         auto x = input({4, 9}, d);
         return std::vector<at::Tensor>{x.to(at::kBFloat16), x.to(at::kHalf).to(at::kFloat),
                                        x.to(at::kLong), (x > 0).to(at::kFloat), x.to(at::kDouble)};
       }},
      {"sorting",
       [](c10::Device d) {
         auto x = input({4, 9}, d);
         auto [sorted, order] = x.sort(-1);
         auto [top, where] = x.topk(3);
         return std::vector<at::Tensor>{sorted,
                                        order,
                                        top,
                                        where,
                                        at::quantile(x, 0.5, -1),
                                        at::searchsorted(sorted[0], sorted[1])};
       }},
      {"norms",
       [](c10::Device d) {
         auto x = input({2, 8, 6}, d);
         return std::vector<at::Tensor>{at::rms_norm(x, {6}, input({6}, d), 1e-6),
                                        at::layer_norm(x, {8, 6}),
                                        at::group_norm(x, 2),
                                        at::batch_norm(x, input({8}, d), {}, input({8}, d),
                                                       input({8}, d).abs(), false, 0, 1e-5, false),
                                        at::nan_to_num(x),
                                        at::cosine_similarity(x, x + 1, 1)};
       }},
      {"complex",
       [](c10::Device d) {
         auto x = input({1, 2, 8, 8}, d);
         auto spectrum = at::fft_fftshift(at::fft_fftn(x, {}, {{-2, -1}}), {{-2, -1}});
         return std::vector<at::Tensor>{
             at::real(at::fft_ifftn(at::fft_ifftshift(spectrum, {{-2, -1}}), {}, {{-2, -1}}))
                 .contiguous(),
             at::view_as_real(spectrum)};
       }},
      {"median and grid",
       [](c10::Device d) {
         auto x = input({1, 2, 4, 4}, d);
         return std::vector<at::Tensor>{at::grid_sampler(x, input({1, 3, 3, 2}, d), 0, 0, false),
                                        std::get<0>(at::median(x, -1)),
                                        at::bucketize(x, at::tensor({0.f, 1.f}).to(d)),
                                        at::im2col(x, {2, 2}, {1, 1}, {0, 0}, {2, 2})};
       }},
  };
}

struct Outcome {
  std::vector<at::Tensor> results;
  double seconds;
  std::int64_t peak;
};

Outcome run(const Case& one) {
  const c10::Device device("sim:0");
  sim::reset_clock();
  sim::reset_peak(0);
  const auto before = sim::memory(0).in_use;
  Outcome outcome;
  outcome.results = one.run(device);
  outcome.seconds = sim::finish();
  outcome.peak = sim::memory(0).peak - before;
  return outcome;
}

}  // namespace

TEST_CASE(
    "sim: every operation gives the bits of the CPU, and a dry run its shapes, strides, time and "
    "memory") {
  c10::InferenceMode inference;
  sim::install(test::small_rig());
  for (const auto& one : cases()) {
    const std::string operation = one.name;
    CAPTURE(operation);
    const auto expected = one.run(at::kCPU);
    Outcome real;
    REQUIRE_NOTHROW(real = run(one));
    REQUIRE(real.results.size() == expected.size());
    for (std::size_t i = 0; i < expected.size(); ++i) {
      CAPTURE(i);
      CHECK(real.results[i].device() == c10::Device("sim:0"));
      CHECK((real.results[i].scalar_type() == expected[i].scalar_type()));
      CHECK(at::equal(real.results[i].cpu(), expected[i]));
    }
    sim::DryScope scope;
    Outcome dry;
    try {
      dry = run(one);
    } catch (const std::exception& e) {
      FAIL_CHECK(std::string(e.what()));
      continue;
    }
    for (std::size_t i = 0; i < expected.size(); ++i) {
      CAPTURE(i);
      CHECK(dry.results[i].sizes() == real.results[i].sizes());
      CHECK(dry.results[i].strides() == real.results[i].strides());
      CHECK((dry.results[i].scalar_type() == real.results[i].scalar_type()));
    }
    CHECK(dry.seconds == real.seconds);
    CHECK(dry.peak == real.peak);
  }
}

TEST_CASE(
    "sim: tensors of different devices are refused as CUDA refuses them, CPU scalars are not") {
  c10::InferenceMode inference;
  sim::install(test::small_rig());
  for (bool dry : {false, true}) {
    CAPTURE(dry);
    std::optional<sim::DryScope> scope;
    if (dry) scope.emplace();
    const c10::Device first("sim:0"), second("sim:1");
    auto a = at::ones({4, 4}).to(first), b = at::ones({4, 4}).to(second);
    auto on_cpu = at::ones({4, 4});
    CHECK_THROWS_WITH_AS(a + b, doctest::Contains("Expected all tensors to be on the same device"),
                         c10::Error);
    CHECK_THROWS_WITH_AS(at::mm(a, b),
                         doctest::Contains("Expected all tensors to be on the same device"),
                         c10::Error);
    CHECK_THROWS_WITH_AS(at::mm(a, on_cpu),
                         doctest::Contains("Expected all tensors to be on the same device"),
                         c10::Error);
    CHECK_THROWS_AS(a + on_cpu, c10::Error);
    CHECK_THROWS_AS(at::cat({a, b}), c10::Error);
    CHECK_THROWS_AS(at::layer_norm(a, {4}, b[0]), c10::Error);
    CHECK_THROWS_AS(at::conv2d(a.view({1, 1, 4, 4}), on_cpu.view({1, 1, 4, 4})), c10::Error);
    CHECK_THROWS_AS(at::scaled_dot_product_attention(a, b, a), c10::Error);
    CHECK_NOTHROW(a * at::scalar_tensor(2.0f));
    CHECK_NOTHROW(a.copy_(b));
    CHECK_NOTHROW(a.copy_(on_cpu));
  }
}

TEST_CASE("sim: values") {
  c10::InferenceMode inference;
  sim::install(test::small_rig());
  auto x = at::arange(6).to(c10::Device("sim:1"));
  CHECK(x.sum().item<std::int64_t>() == 15);
  CHECK(at::equal(x, x.clone()));
  CHECK(x.nonzero().sizes() == at::IntArrayRef({5, 1}));
  CHECK(x.index({x > 3}).sizes() == at::IntArrayRef({2}));
  CHECK_THROWS_WITH_AS(at::randn({4}, at::TensorOptions(c10::Device("sim:0"))),
                       doctest::Contains("made on the CPU"), Error);
  SUBCASE("in a dry run they are refused, naming the place") {
    sim::DryScope scope;
    device::NamedScope outer("KSampler"), inner("step 3");
    auto y = at::ones({2, 3}).to(c10::Device("sim:0"));
    CHECK_THROWS_WITH_AS(y.sum().item(), doctest::Contains("KSampler / step 3"), Error);
    CHECK_THROWS_WITH_AS(y.nonzero(), doctest::Contains("[2, 3]"), Error);
    CHECK_THROWS_AS(at::equal(y, y), Error);
    CHECK_THROWS_AS((y > 0).all().item<bool>(), Error);
  }
}

TEST_CASE("sim: works with and without inference mode") {
  sim::install(test::small_rig());
  c10::AutoGradMode no_gradients(false);
  const c10::Device device("sim:0");
  const auto expected = unet_part(at::kCPU, at::kFloat), got = unet_part(device, at::kFloat);
  for (std::size_t i = 0; i < got.size(); ++i) CHECK(at::equal(got[i].cpu(), expected[i]));
  auto x = at::zeros({4, 4}).to(device);
  x.index_put_({at::tensor({1})}, at::ones({4}).to(device));
  auto view = x.view({2, 8}).slice(1, 0, 4);
  view.add_(1);
  CHECK(x.sum().item<float>() == 4 + 8);
}

TEST_CASE("sim: out variants resize, memory follows") {
  c10::InferenceMode inference;
  sim::install(test::small_rig(1));
  const c10::Device device("sim:0");
  auto out = at::empty({0}, at::TensorOptions(device));
  auto x = at::ones({1000}).to(device);
  at::cat_out(out, {x, x});
  CHECK(out.sizes() == at::IntArrayRef({2000}));
  CHECK(at::equal(out.cpu(), at::ones({2000})));
  out.resize_({4000});
  CHECK(at::equal(out.slice(0, 0, 2000).cpu(), at::ones({2000})));
  // 4000 B -> 4096, 16000 B -> 16384 - 384 rounded to 512s
  CHECK(sim::memory(0).in_use == 4096 + 16384);
}

TEST_CASE("sim: a 14B-size video transformer runs dry in no time and no memory") {
  c10::InferenceMode inference;
  auto rig = test::small_rig(1, std::int64_t{200} << 30);
  rig.devices[0].tflops["bfloat16"] = 990;
  sim::DryScope scope(rig);
  const auto o = at::TensorOptions(c10::Device("sim:0")).dtype(at::kBFloat16);
  const int64_t width = 5120, heads = 40, tokens = 75600;
  const auto rss_before = device::memory_use(at::kCPU).in_use;
  auto x = at::empty({1, tokens, width}, o);
  for (int i = 0; i < 40; ++i) {
    auto qkv = at::linear(at::layer_norm(x, {width}), at::empty({3 * width, width}, o))
                   .view({1, tokens, 3, heads, width / heads})
                   .permute({2, 0, 3, 1, 4});
    auto a = at::scaled_dot_product_attention(qkv[0], qkv[1], qkv[2])
                 .transpose(1, 2)
                 .reshape({1, tokens, width});
    x = x + at::linear(a, at::empty({width, width}, o));
    x = x + at::linear(at::gelu(at::linear(x, at::empty({4 * width, width}, o)), "tanh"),
                       at::empty({width, 4 * width}, o));
  }
  const double seconds = sim::finish();
  // 2 * tokens * (12 width^2) for the products and 4 * tokens^2 * width for attention, 40 times, at
  // 990 TFLOP/s.
  const double flops = 40 * (24.0 * tokens * width * width + 4.0 * tokens * tokens * width);
  CHECK(sim::work(0).flops == doctest::Approx(flops).epsilon(1e-9));
  CHECK(seconds > flops / 990e12);
  CHECK(device::memory_use(at::kCPU).in_use - rss_before < (std::int64_t{16} << 20));
}

TEST_CASE("sim: attention holds its scores where CUDA has no fused kernel for it") {
  c10::InferenceMode inference;
  sim::install(test::small_rig());
  struct Case {
    at::ScalarType dtype;
    std::int64_t width;
    bool mask, causal, fused;
  };
  constexpr std::int64_t heads = 4, queries = 64, keys = 128;
  for (const auto& c :
       {Case{at::kFloat, 16, false, false, true},
        Case{at::kFloat, 18, false, false, false},  // not whole 16 bytes
        Case{at::kFloat, 16, true, false, true}, Case{at::kHalf, 18, false, false, true},
        Case{at::kHalf, 18, true, false, false},
        Case{at::kHalf, 18, false, true, false},  // causal, and not square
        Case{at::kBFloat16, 320, false, false, true}, Case{at::kDouble, 16, false, false, false}})
    for (bool dry : {false, true}) {
      CAPTURE(c10::toString(c.dtype));
      CAPTURE(c.width);
      CAPTURE(dry);
      std::optional<sim::DryScope> scope;
      if (dry) scope.emplace();
      const auto options = at::TensorOptions().device(c10::Device("sim:0")).dtype(c.dtype);
      auto q = at::zeros({1, heads, queries, c.width}, options);
      auto k = at::zeros({1, heads, keys, c.width}, options), v = k.clone();
      std::optional<at::Tensor> mask;
      if (c.mask) mask = at::zeros({1, 1, queries, keys}, options);
      sim::reset_peak(0);
      const auto before = sim::memory(0).in_use;
      auto y = at::scaled_dot_product_attention(q, k, v, mask, 0, c.causal);
      const auto beside = sim::memory(0).peak - before - static_cast<std::int64_t>(y.nbytes());
      // In float32: the scores twice, and copies of query and key, of the value too unless float32.
      const auto copies = (q.numel() + k.numel() * (c.dtype == at::kFloat ? 1 : 2)) * 4;
      CHECK(beside == (c.fused ? 0 : 2 * heads * queries * keys * 4 + copies));
      CHECK(y.sizes() == q.sizes());
    }
}
