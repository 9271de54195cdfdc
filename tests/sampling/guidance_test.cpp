#include "distorch/sampling/guidance.h"

#include <doctest/doctest.h>

#include "distorch/base/error.h"
#include "tests/sampling/closed_form.h"
#include "tests/support/dump.h"

using namespace distorch;
using namespace distorch::sampling;
using namespace distorch::test;

namespace {

Area area_of(const nlohmann::json& list) {
  Area area;
  std::vector<double> numbers;
  for (const auto& entry : list) {
    if (entry.is_string()) {
      area.fraction = true;
    } else {
      numbers.push_back(entry.get<double>());
    }
  }
  const auto middle = numbers.begin() + static_cast<std::ptrdiff_t>(numbers.size() / 2);
  area.size.assign(numbers.begin(), middle);
  area.origin.assign(middle, numbers.end());
  return area;
}

Conditioning conditioning_of(const nlohmann::json& items, const Dump& dump) {
  Conditioning out;
  for (const auto& entry : items) {
    ConditioningItem item = prompt(entry.at("c").get<std::vector<float>>())[0];
    item.cross_attn = item.cross_attn.repeat({1, entry.value("tokens", 1), 1});
    item.strength = entry.value("strength", 1.0);
    item.mask_strength = entry.value("mask_strength", 1.0);
    item.set_area_to_bounds = entry.value("set_area_to_bounds", false);
    if (entry.contains("area")) {
      item.area = area_of(entry.at("area"));
    }
    if (entry.contains("mask")) {
      item.mask = dump.at("mask/" + entry.at("mask").get<std::string>());
    }
    if (entry.contains("start_percent")) {
      item.start_percent = entry.at("start_percent").get<double>();
      item.end_percent = entry.at("end_percent").get<double>();
    }
    out.push_back(item);
  }
  return out;
}

PreparedItem prepared(std::vector<float> constants) {
  PreparedItem item;
  item.inputs["c_crossattn"] = {ModelInput::Kind::CrossAttn,
                                at::tensor(constants).view({1, 1, -1})};
  return item;
}

// Answers with the inputs it was given, so that a test sees what reached the network.
class Recorder : public ClosedForm {
 public:
  at::Tensor apply(const at::Tensor& x, const at::Tensor& sigma, const BatchedInputs& inputs,
                   const CallFacts& facts) override {
    calls.push_back(inputs);
    sigmas.push_back(sigma);
    seen.push_back(facts);
    return at::zeros_like(x);
  }
  std::vector<BatchedInputs> calls;
  std::vector<at::Tensor> sigmas;
  std::vector<CallFacts> seen;
};

// Two are equal where their numbers are.
class NumberedControl : public Control {
 public:
  explicit NumberedControl(int number) : number(number) {}
  bool equals(const Control& other) const override {
    return static_cast<const NumberedControl&>(other).number == number;
  }
  const int number;
};

std::shared_ptr<const Control> control(int number) {
  return std::make_shared<NumberedControl>(number);
}

int number_of(const Control* control) {
  return control == nullptr ? -1 : static_cast<const NumberedControl*>(control)->number;
}

constexpr float kSigma = 3.0f;

}  // namespace

TEST_CASE(
    "guidance: areas, masks, strengths and time ranges as in the reference, in as many calls") {
  const Dump dump = load_dump("guidance");
  const auto manifest = load_manifest("guidance");
  KSamplerSettings settings;
  settings.sampler = manifest.at("sampler");
  settings.scheduler = manifest.at("scheduler");
  settings.steps = manifest.at("steps");
  settings.cfg = manifest.at("cfg");
  settings.seed = manifest.at("seed");
  const Latent latent = {at::zeros(manifest.at("shape").get<std::vector<std::int64_t>>())};
  REQUIRE(manifest.at("cases").size() > 20);
  for (const auto& [name, entry] : manifest.at("cases").items()) {
    CAPTURE(name);
    ClosedForm model;
    const Conditioning positive_items = conditioning_of(entry.at("positive"), dump);
    const Conditioning negative_items = conditioning_of(entry.at("negative"), dump);
    const at::Tensor result = run_ksampler(model, settings, latent, positive_items, negative_items);
    CHECK(relative_error(result, dump.at(name)) <= 1e-5);
    CHECK(model.batches.size() == entry.at("model_calls").get<std::size_t>());

    ClosedForm narrow;  // room for one conditioning at a time: the same picture from more calls
    narrow.largest_batch = 2;
    const at::Tensor again = run_ksampler(narrow, settings, latent, positive_items, negative_items);
    CHECK(relative_error(again, result) <= 1e-6);
    CHECK(*std::max_element(narrow.batches.begin(), narrow.batches.end()) == 2);
    CHECK(narrow.batches.size() >= model.batches.size());
  }
}

TEST_CASE(
    "guidance: texts of unequal length are repeated to a common one, in the order of the batch") {
  Recorder model;
  std::vector<PreparedItem> one = {prepared({1, 2, 3, 4})};
  std::vector<PreparedItem> two = {prepared({5, 6, 7, 8})};
  one[0].inputs["c_crossattn"].value = at::arange(8, at::kFloat).view({1, 2, 4});
  two[0].inputs["c_crossattn"].value = at::arange(12, at::kFloat).view({1, 3, 4}) + 100;
  predict_each(model, {&one, &two}, at::zeros({2, 4, 8, 8}), kSigma);
  REQUIRE(model.calls.size() == 1);
  const at::Tensor text = model.calls[0].at("c_crossattn").value;
  REQUIRE(text.sizes() == at::IntArrayRef({4, 6, 4}));
  CHECK(at::equal(text.narrow(0, 2, 1), one[0].inputs["c_crossattn"].value.repeat({1, 3, 1})));
  CHECK(at::equal(text.narrow(0, 0, 1), two[0].inputs["c_crossattn"].value.repeat({1, 2, 1})));
  CHECK(model.sigmas[0].sizes() == at::IntArrayRef({4}));
}

TEST_CASE(
    "guidance: inputs of the latent's shape are cropped, constants must agree to share a call") {
  Recorder model;
  PreparedItem a = prepared({1, 2, 3, 4});
  a.box = PreparedItem::Box{{4, 3}, {2, 5}};
  const at::Tensor image = at::randn({1, 2, 8, 8});
  a.inputs["c_concat"] = {ModelInput::Kind::NoiseShape, image};
  a.inputs["y"] = {ModelInput::Kind::Regular, at::ones({1, 7})};
  a.inputs["frames"] = {ModelInput::Kind::Constant, {}, 3.0};
  PreparedItem b = a;
  b.inputs["frames"].number = 4.0;
  std::vector<PreparedItem> first = {a, a};
  std::vector<PreparedItem> second = {b};
  predict_each(model, {&first, &second}, at::zeros({2, 4, 8, 8}), kSigma);
  REQUIRE(model.calls.size() == 2);
  CHECK(model.calls[0].at("y").value.sizes() == at::IntArrayRef({4, 7}));
  CHECK(model.calls[0].at("frames").number == 3.0);
  CHECK(model.calls[1].at("frames").number == 4.0);
  const at::Tensor cropped = image.narrow(2, 2, 4).narrow(3, 5, 3).expand({2, 2, 4, 3});
  CHECK(at::equal(model.calls[1].at("c_concat").value, cropped));
}

TEST_CASE("guidance: a constant on a device is never read to be compared") {
  // Tensors of shapes only: comparing their values would be an error.
  const auto shapes = at::TensorOptions().device(at::kMeta).dtype(at::kFloat);
  PreparedItem a = prepared({1, 2, 3, 4});
  a.inputs["scale"] = {ModelInput::Kind::Constant, at::empty({2}, shapes), {}};
  std::vector<PreparedItem> first = {a};
  std::vector<PreparedItem> second = {a};
  Recorder together;
  predict_each(together, {&first, &second}, at::zeros({1, 4, 8, 8}), kSigma);
  CHECK(together.calls.size() == 1);
  second[0].inputs["scale"].value = at::empty({2}, shapes);
  Recorder apart;
  predict_each(apart, {&first, &second}, at::zeros({1, 4, 8, 8}), kSigma);
  CHECK(apart.calls.size() == 2);
}

TEST_CASE("guidance: cells that no conditioning covers are 0") {
  ClosedForm model;
  PreparedItem item = prepared({1, 1, 1, 1});
  item.box = PreparedItem::Box{{8, 8}, {0, 8}};
  std::vector<PreparedItem> list = {item};
  std::vector<PreparedItem> none;
  const auto out = predict_each(model, {&list, &none}, at::randn({2, 4, 8, 16}), kSigma);
  CHECK(out[0].narrow(3, 0, 8).abs().max().item().toFloat() == 0);
  CHECK(out[0].narrow(3, 8, 8).abs().min().item().toFloat() > 0);
  CHECK(out[1].abs().max().item().toFloat() == 0);
}

TEST_CASE("guidance: time ranges hold at their ends") {
  ClosedForm model;
  PreparedItem item = prepared({1, 1, 1, 1});
  item.sigma_start = 3.0f;
  item.sigma_end = 1.0f;
  std::vector<PreparedItem> list = {item};
  for (const auto& [sigma, calls] :
       std::map<float, std::size_t>{{3.01f, 0}, {3.0f, 1}, {1.0f, 1}, {0.99f, 0}}) {
    CAPTURE(sigma);
    model.batches.clear();
    predict_each(model, {&list}, at::zeros({2, 4, 8, 8}), sigma);
    CHECK(model.batches.size() == calls);
  }
}

TEST_CASE("guidance: an area outside the latent, or of unequal numbers, is refused") {
  ClosedForm model;
  Conditioning outside = positive();
  outside[0].area = Area{{8, 8}, {16, 0}};
  const Latent latent = {at::zeros({1, 4, 16, 16})};
  CHECK_THROWS_WITH_AS(run_ksampler(model, {}, latent, outside, negative()),
                       doctest::Contains("outside the latent"), Error);
  outside[0].area = Area{{8, 8}, {4}};
  CHECK_THROWS_AS(run_ksampler(model, {}, latent, outside, negative()), Error);
  outside[0].area = Area{{0.5}, {0.5}, true};
  CHECK_THROWS_AS(run_ksampler(model, {}, latent, outside, negative()), Error);
}

TEST_CASE("guidance: a video latent takes areas and masks of two dimensions for all frames") {
  class Video : public ClosedForm {
   public:
    at::Tensor apply(const at::Tensor& x, const at::Tensor&, const BatchedInputs&,
                     const CallFacts&) override {
      shapes.push_back(x.sizes().vec());
      return at::ones_like(x);
    }
    int latent_dimensions() const override { return 3; }
    std::vector<std::vector<std::int64_t>> shapes;
  };
  Video model;
  Conditioning items = positive();
  items[0].area = Area{{4, 8}, {2, 0}};
  const EncodeContext context = {at::zeros({1, 4, 5, 8, 8})};
  const auto prepared_items = prepare_conditioning(model, items, {}, context).positive;
  const auto out = predict_each(model, {&prepared_items}, context.noise, 1.0f);
  REQUIRE(model.shapes.size() == 1);
  CHECK(model.shapes[0] == std::vector<std::int64_t>{1, 4, 5, 4, 8});
  CHECK(out[0].sum().item().toFloat() == doctest::Approx(4 * 5 * 4 * 8));
  items[0].area.reset();
  items[0].mask = at::ones({8, 8});
  const auto masked = prepare_conditioning(model, items, {}, context).positive;
  CHECK(predict_each(model, {&masked}, context.noise, 1.0f)[0].min().item().toFloat() == 1);
}

TEST_CASE("guidance: x0 from a network that wants scaled input and timesteps") {
  auto sampling = discrete_sampling();
  const at::Tensor x = at::full({1, 4, 2, 2}, 5.0);
  const at::Tensor out =
      predict_x0(*sampling, x, at::full({1}, sampling->sigmas()[500], at::kFloat),
                 [&](const at::Tensor& scaled, const at::Tensor& timestep) {
                   CHECK(timestep.item().toFloat() == 500);
                   CHECK(scaled.max().item().toFloat() < 5.0);
                   return at::ones_like(scaled).to(at::kBFloat16);
                 });
  CHECK((out.scalar_type() == at::kFloat));
  CHECK(out.max().item().toFloat() == doctest::Approx(5.0 - sampling->sigmas()[500]));
}

TEST_CASE("masks: any size and batch becomes the latent's") {
  const at::Tensor mask = fit_mask(at::ones({64, 48}), {3, 4, 8, 6});
  CHECK(mask.sizes() == at::IntArrayRef({3, 4, 8, 6}));
  CHECK(mask.min().item().toFloat() == 1);
  CHECK(fit_mask(at::zeros({5, 64, 48}), {3, 4, 8, 6}).sizes() == at::IntArrayRef({3, 4, 8, 6}));
  CHECK(fit_mask(at::zeros({2, 1, 8, 8}), {2, 16, 3, 8, 8}).sizes() ==
        at::IntArrayRef({2, 16, 3, 8, 8}));
  CHECK_THROWS_AS(fit_mask(at::zeros({5}), {3, 4, 8, 6}), Error);
}

TEST_CASE("guidance: conditionings share a call only where their controls are equal") {
  Recorder model;
  const at::Tensor x = at::zeros({2, 4, 8, 8});
  auto steered = [](std::vector<float> constants, int number) {
    PreparedItem item = prepared(std::move(constants));
    item.control = control(number);
    return item;
  };
  const std::vector<PreparedItem> cond = {steered({1, 2, 3, 4}, 7), steered({1, 1, 1, 1}, 8)};
  const std::vector<PreparedItem> uncond = {steered({0, 0, 0, 0}, 7), prepared({2, 2, 2, 2})};
  predict_each(model, {&cond, &uncond}, x, kSigma);
  REQUIRE(model.seen.size() == 3);
  CHECK(number_of(model.seen[0].control) == 7);
  CHECK(model.seen[0].conditionings == 2);
  CHECK(model.seen[0].sigma == kSigma);
  CHECK(number_of(model.seen[1].control) == 8);
  CHECK(model.seen[1].conditionings == 1);
  CHECK(number_of(model.seen[2].control) == -1);
}

TEST_CASE("guidance: a control for the negative as well goes to items that have none") {
  ClosedForm model;
  const EncodeContext context = {at::zeros({1, 4, 8, 8})};
  auto numbers = [](const std::vector<PreparedItem>& items) {
    std::vector<int> out;
    for (const PreparedItem& item : items) {
      out.push_back(number_of(item.control.get()));
    }
    return out;
  };
  auto both = [&](const Conditioning& cond, const Conditioning& uncond) {
    return numbers(prepare_conditioning(model, cond, uncond, context).negative);
  };
  using Numbers = std::vector<int>;
  Conditioning cond = positive();
  Conditioning uncond = negative();
  cond[0].control = control(1);
  CHECK(both(cond, uncond) == Numbers{-1});
  cond[0].control_for_negative = true;
  CHECK(both(cond, uncond) == Numbers{1});
  CHECK(both(cond, {}).empty());

  // The k-th to the k-th, again from the start: of two for one the last counts.
  cond.push_back(cond[0]);
  cond[1].control = control(2);
  CHECK(both(cond, uncond) == Numbers{2});
  uncond.insert(uncond.end(), 2, uncond[0]);
  CHECK(both(cond, uncond) == Numbers{1, 2, -1});

  // Items with an area neither give nor take; the partner of such an item has its control.
  cond[0].area = Area{{4, 4}, {0, 0}};
  CHECK(both(cond, uncond) == Numbers{2, -1, -1, 1});

  // One that has its own keeps all as they are.
  uncond[2].control = control(5);
  CHECK(both(cond, uncond) == Numbers{-1, -1, 5, 1});
}
