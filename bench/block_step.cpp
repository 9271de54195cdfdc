// One block of each family of transformers at true widths and the tokens of a 1024x1024 picture, in
// bfloat16 on the CPU, with made-up weights: seconds a call.
//   bench_block_step [--out FOLDER] [--rounds 3]
//   bench_block_step --serve: runs the block whose name comes on standard input once for every line
//   and prints its seconds; bench/peers/block_step.py uses it to measure peers between our calls.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <c10/core/InferenceMode.h>

#include <iostream>

#include "bench/bench.h"
#include "distorch/base/log.h"
#include "distorch/device/host_pool.h"
#include "distorch/models/flux/block_parts.h"
#include "distorch/models/qwen/text_model.h"
#include "distorch/models/qwen_image/block.h"
#include "distorch/models/sd/transformer.h"
#include "distorch/models/sd3/block.h"
#include "distorch/models/t5/text_model.h"
#include "distorch/models/z_image/layer.h"
#include "tests/support/plain_source.h"

namespace {

using namespace distorch;
using at::Tensor;

constexpr auto type = at::kBFloat16;
constexpr std::int64_t side = 64, picture = side * side;  // tokens of 16x16 pixels

/// Random numbers in the scale of trained weights: matrices N(0, 0.02), norms 1, biases 0.
Tensor made_up(const weights::Declared& weight) {
  if (weight.shape.size() > 1) return at::empty(weight.shape, type).normal_(0, 0.02);
  return at::full(weight.shape, weight.name.ends_with(".bias") ? 0.0 : 1.0, type);
}

Tensor tokens(std::int64_t count, std::int64_t width, std::int64_t batch = 1) {
  return at::randn({batch, count, width}).to(type);
}

/// The positions of `text` tokens and of a picture's behind them.
nn::RopeTable positions(std::int64_t text, const std::vector<std::int64_t>& axes, double theta) {
  auto ids = at::zeros({1, text + picture, 3});
  auto cells = ids.narrow(1, text, picture);
  cells.select(2, 1).copy_(at::arange(side).repeat_interleave(side));
  cells.select(2, 2).copy_(at::arange(side).repeat({side}));
  return nn::rope_table(ids, axes, theta);
}

/// A block with its weights and its inputs.
class Case {
 public:
  virtual ~Case() = default;
  virtual Tensor run() = 0;

 protected:
  /// What lies in `manifest_` gets numbers.
  void fill() { source_.emplace(manifest_, made_up); }
  weights::Scope scope() { return weights::Scope(manifest_).block("block"); }
  weights::Manifest manifest_;

 private:
  std::optional<test::PlainSource> source_;
};

/// A transformer block of SDXL's UNet, cond and uncond in one batch.
class Sdxl final : public Case {
 public:
  Sdxl(std::int64_t width, std::int64_t cells)
      : block_(scope(), {width, 2048, width / 64, 1, true}),
        x_(tokens(cells, width, 2)),
        text_(tokens(77, 2048, 2)) {
    fill();
  }
  Tensor run() override { return block_(x_, text_, models::sd::Attend::Usual); }

 private:
  models::sd::TransformerBlock block_;
  Tensor x_, text_;
};

class Sd3 final : public Case {
 public:
  explicit Sd3(const models::sd3::MmditConfig& config, bool dual)
      : block_(scope(), config, dual, false),
        x_{tokens(154, config.width), tokens(picture, config.width)},
        c_(at::randn({1, config.width}).to(type)) {
    fill();
  }
  Tensor run() override { return block_.forward(x_, c_).image; }

 private:
  models::sd3::JointBlock block_;
  models::sd3::JointBlock::Tokens x_;
  Tensor c_;
};

constexpr std::int64_t flux_text = 512;

class FluxDouble final : public Case {
 public:
  FluxDouble()
      : part_(scope(), config_),
        x_{tokens(picture, config_.hidden), tokens(flux_text, config_.hidden)},
        vec_(tokens(1, config_.hidden)),
        rope_(positions(flux_text, config_.axes, config_.theta)) {
    fill();
  }
  Tensor run() override {
    const auto img = part_.image_modulations({vec_})[0], txt = part_.text_modulations({vec_})[0];
    return part_.layers.finish(part_.layers.attend(x_, {img, txt, rope_}), 0).img;
  }

 private:
  models::flux::Config config_;
  models::flux::DoublePart part_;
  models::flux::Tokens x_;
  Tensor vec_;
  nn::RopeTable rope_;
};

class FluxSingle final : public Case {
 public:
  FluxSingle()
      : part_(scope(), config_),
        x_(tokens(flux_text + picture, config_.hidden)),
        vec_(tokens(1, config_.hidden)),
        rope_(positions(flux_text, config_.axes, config_.theta)) {
    fill();
  }
  Tensor run() override {
    return part_.layers.forward(x_, {part_.modulations({vec_})[0], {}, rope_});
  }

 private:
  models::flux::Config config_;
  models::flux::SinglePart part_;
  Tensor x_, vec_;
  nn::RopeTable rope_;
};

class QwenImage final : public Case {
 public:
  QwenImage() : block_(scope(), config_) {
    constexpr std::int64_t text = 256;
    auto rope = positions(text, config_.axes(), 10000);
    auto part = [&](std::int64_t first, std::int64_t count) {
      return nn::RopeTable{rope.cos.narrow(1, first, count), rope.sin.narrow(1, first, count)};
    };
    x_ = {tokens(picture, config_.width), tokens(text, config_.width)};
    time_ = at::randn({1, config_.width}).to(type);
    context_ = {
        .modulations = {}, .image_positions = part(text, picture), .text_positions = part(0, text)};
    fill();
  }
  Tensor run() override {
    context_.modulations = block_.modulations(time_, 1);
    return block_.forward(x_, context_).image;
  }

 private:
  models::qwen_image::Config config_;
  models::qwen_image::JointBlock block_;
  Tensor time_;
  models::qwen_image::Streams x_;
  models::qwen_image::BlockContext context_;
};

class ZImage final : public Case {
 public:
  ZImage()
      : layer_(scope(), config_, true),
        x_(tokens(text + picture, config_.width)),
        c_(at::randn({1, config_.embedded_width}).to(type)),
        rope_(positions(text, config_.axes(), config_.rope_theta())) {
    fill();
  }
  Tensor run() override { return layer_.forward(x_, rope_, c_); }

 private:
  static constexpr std::int64_t text = 128;
  models::z_image::NextDitConfig config_;
  models::z_image::Layer layer_;
  Tensor x_, c_;
  nn::RopeTable rope_;
};

constexpr std::int64_t text_tokens = 512, few_words = 256;

class T5 final : public Case {
 public:
  T5() : model_({.layers = 1, .vocabulary = few_words}) {
    source_.emplace(model_.manifest(), made_up);
    ids_ = at::randint(few_words, {1, text_tokens}, at::kLong);
  }
  Tensor run() override { return model_.forward(ids_); }

 private:
  models::t5::TextModel model_;
  std::optional<test::PlainSource> source_;
  Tensor ids_;
};

class Qwen final : public Case {
 public:
  explicit Qwen(const models::qwen::TextConfig& config) : model_(manifest_, config) {
    fill();
    input_.ids = at::randint(few_words, {1, text_tokens}, at::kLong);
    input_.positions = at::arange(text_tokens).to(at::kFloat).expand({3, text_tokens});
  }
  Tensor run() override { return model_.forward(input_, {{1, true}}); }

 private:
  models::qwen::TextModel model_;
  models::qwen::TextInput input_;
};

using Maker = std::function<std::unique_ptr<Case>()>;

models::sd3::MmditConfig sd35(std::int64_t width, std::int64_t blocks) {
  models::sd3::MmditConfig config;
  config.width = width;
  config.mlp_width = 4 * width;
  config.blocks = blocks;
  config.qk_norm = true;
  return config;
}

/// The names are also those of bench/peers/block_step.py.
const std::vector<std::pair<std::string, Maker>>& cases() {
  static const std::vector<std::pair<std::string, Maker>> list = {
      {"sdxl_640", [] { return std::make_unique<Sdxl>(640, picture); }},
      {"sdxl_1280", [] { return std::make_unique<Sdxl>(1280, picture / 4); }},
      {"sd35_medium", [] { return std::make_unique<Sd3>(sd35(1536, 24), true); }},
      {"sd35_large", [] { return std::make_unique<Sd3>(sd35(2432, 38), false); }},
      {"flux_double", [] { return std::make_unique<FluxDouble>(); }},
      {"flux_single", [] { return std::make_unique<FluxSingle>(); }},
      {"qwen_image", [] { return std::make_unique<QwenImage>(); }},
      {"z_image", [] { return std::make_unique<ZImage>(); }},
      {"t5_xxl", [] { return std::make_unique<T5>(); }},
      {"qwen25_7b",
       [] {
         return std::make_unique<Qwen>(models::qwen::TextConfig{.width = 3584,
                                                                .heads = 28,
                                                                .key_heads = 4,
                                                                .layers = 1,
                                                                .mlp_width = 18944,
                                                                .vocabulary = few_words,
                                                                .head_norms = false,
                                                                .qkv_biases = true});
       }},
      {"qwen3_4b",
       [] {
         return std::make_unique<Qwen>(
             models::qwen::TextConfig{.layers = 1, .vocabulary = few_words});
       }},
  };
  return list;
}

std::unique_ptr<Case> make(const std::string& name) {
  for (const auto& [its, maker] : cases())
    if (its == name) return maker();
  throw std::runtime_error("there is no block called '" + name + "'");
}

double timed(Case& block) {
  auto start = bench::now_s();
  auto result = block.run();
  auto seconds = bench::now_s() - start;
  if (!at::isfinite(result).all().item<bool>()) throw std::runtime_error("a block gave NaNs");
  return seconds;
}

int serve() {
  std::unique_ptr<Case> block;
  std::string has;
  std::cout << "ready" << std::endl;
  for (std::string name; std::getline(std::cin, name);) {
    if (name != has) {
      block.reset();
      block = make(name);
      has = name;
    }
    std::cout << timed(*block) << std::endl;
  }
  return 0;
}

int measure(const std::filesystem::path& out, int rounds) {
  bench::Results results("block_step", out);
  bench::Results::head();
  for (const auto& [name, maker] : cases()) {
    auto block = maker();
    timed(*block);
    std::vector<double> seconds;
    for (int i = 0; i < rounds; ++i) seconds.push_back(timed(*block));
    results.add(fmt::format("one block, 1024x1024, CPU, bf16: {}", name), bench::median(seconds),
                NAN, "s", {{"threads", at::get_num_threads()}});
  }
  results.write();
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  device::set_up_host_memory();
  log::set_up("warning");
  c10::InferenceMode inference;
  try {
    if (argc > 1 && std::string(argv[1]) == "--serve") return serve();
    return measure(bench::out_folder(argc, argv),
                   std::stoi(bench::option(argc, argv, "--rounds", "3")));
  } catch (const std::exception& error) {
    fmt::print(stderr, "bench_block_step: {}\n", error.what());
    return 1;
  }
}
