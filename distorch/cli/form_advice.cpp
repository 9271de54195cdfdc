#include "distorch/cli/form_advice.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <filesystem>

#include "distorch/base/error.h"
#include "distorch/placement/auto_plan.h"
#include "distorch/weights/checkpoint.h"

namespace distorch::cli {
namespace {

struct Kind {
  const char* name;
  double bits;
};

// With scales and tables; packed bf16 as measured on normal weights.
constexpr Kind kKinds[] = {{"packed", 12.1}, {"Q8_0", 8.5}, {"int8", 8.02}, {"fp8_scaled", 8.0},
                           {"Q6_K", 6.5625}, {"Q4_K", 4.5}, {"nvfp4", 4.5}};

/// The model with so many bits a number instead of `now`.
placement::Model in_form(const streaming::PlannedRun& run, double bits, double now, double speed) {
  auto model = run.blocks;
  for (auto& block : model.blocks) {
    const double numbers = static_cast<double>(block.bytes) * 8 / now;
    block.resize(static_cast<std::int64_t>(std::ceil(numbers * bits / 8)));
    // Packed bytes are read, numbers of 16 bits written; that they are read is counted already.
    const double decoding_s = (static_cast<double>(block.bytes) + 2 * numbers) / speed;
    for (auto& seconds : block.seconds)
      if (seconds > 0) seconds += decoding_s;
  }
  return model;
}

}  // namespace

std::vector<OtherForm> faster_forms(const Priced& priced, double bits_now,
                                    double memory_bytes_per_s) {
  constexpr double worth = 1.05;
  const auto& run = *priced.run;
  std::vector<OtherForm> forms;
  if (bits_now <= 0 || memory_bytes_per_s <= 0) return forms;
  for (const auto& kind : kKinds) {
    // Packing without loss is for 16 bits.
    const bool lossless = kind.bits > 12;
    if (kind.bits * worth > bits_now || (lossless && (bits_now < 15 || bits_now > 17))) continue;
    const auto model = in_form(run, kind.bits, bits_now, memory_bytes_per_s);
    try {
      placement::Timeline timeline(run.system, model);
      const double step_s = timeline.step_s(placement::auto_plan(run.system, model));
      const double times = priced.best_step_s / step_s;
      if (times >= worth) forms.push_back({kind.name, kind.bits, step_s, times});
    } catch (const Error&) {
      // Where not even one block fits there is nothing to compare.
    }
  }
  std::ranges::stable_sort(forms, [](const auto& a, const auto& b) { return a.step_s < b.step_s; });
  return forms;
}

double bits_of_model(const nodes::ModelFolders& folders, const std::string& model) {
  for (const char* type : {"diffusion_models", "checkpoints", "text_encoders"})
    for (const auto& name : folders.list(type)) {
      if (std::filesystem::path(name).stem().string() != model) continue;
      const auto path = folders.find(type, name);
      if (!path) continue;
      try {
        const weights::Checkpoint file(
            std::make_shared<formats::TensorFile>(formats::open_tensor_file(*path)));
        double bytes = 0, numbers = 0;
        for (const auto& [tensor, stored] : file.tensors()) {
          numbers += static_cast<double>(c10::multiply_integers(stored.shape));
          for (const auto& part : weights::tensors_of(stored))
            bytes += static_cast<double>(part.size_bytes);
        }
        return numbers > 0 ? 8 * bytes / numbers : 0;
      } catch (const Error&) {
        return 0;  // the run itself has said what is wrong with it
      }
    }
  return 0;
}

std::string forms_text(const std::vector<OtherForm>& forms) {
  std::string text;
  for (const auto& form : forms)
    text += text.empty() ? fmt::format("{} {:.2f} x as fast", form.name, form.times)
                         : fmt::format(", {} {:.2f} x", form.name, form.times);
  return text;
}

}  // namespace distorch::cli
