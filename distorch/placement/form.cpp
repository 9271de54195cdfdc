#include "distorch/placement/form.h"

#include <cmath>
#include <optional>
#include <utility>

#include <fmt/format.h>

#include "distorch/base/error.h"
#include "distorch/placement/auto_plan.h"
#include "distorch/placement/spread.h"
#include "distorch/placement/timeline.h"

namespace distorch::placement {
namespace {

constexpr double kWorthMemory = 0.1;  // of a stored step must be decoding
constexpr double kSame = 1e-9;        // relative: times this near are equal
constexpr double kRounding = 1.01;    // converted weights begin at whole lines of the cache

struct Candidate {
  Placement placement;
  double step_s = 0;
};

// Nothing where the model does not fit; then `error` says why.
std::optional<Candidate> candidate(const System& asked_system, const Model& asked_model,
                                   const MakePlan& make_plan, std::optional<Error>& error) {
  try {
    auto placement =
        make_plan ? make_plan(asked_system, asked_model) : auto_plan(asked_system, asked_model);
    const System system = reachable(asked_system);
    const Model model = with_seconds(asked_model, system.compute);
    const double step_s = Timeline(system, model).step_s(placement);
    return Candidate{std::move(placement), step_s};
  } catch (const Error& e) {
    if (e.kind() != ErrorKind::OutOfMemory) throw;
    error = e;
    return std::nullopt;
  }
}

bool larger(std::int64_t converted_bytes, std::int64_t stored_bytes) {
  return static_cast<double>(converted_bytes) > kRounding * static_cast<double>(stored_bytes);
}

FormChoice choice(Form form, Candidate candidate, std::string reason) {
  return {form, std::move(candidate.placement), candidate.step_s, std::move(reason)};
}

}  // namespace

ModelForms both_forms(const Model& bare, const std::vector<BlockForms>& blocks) {
  if (blocks.size() != bare.blocks.size())
    throw Error(ErrorKind::Internal, bare.name,
                fmt::format("{} blocks have {} forms", bare.blocks.size(), blocks.size()));
  ModelForms forms{bare, bare, 0, 0};
  for (std::size_t i = 0; i < blocks.size(); ++i) {
    for (double& seconds : forms.stored.blocks[i].seconds) {
      if (seconds >= 0) seconds += blocks[i].decode_s;
    }
    forms.converted.blocks[i].resize(blocks[i].converted_bytes);
    forms.decode_s += blocks[i].decode_s;
    forms.convert_s += blocks[i].convert_s;
  }
  return forms;
}

FormChoice choose_form(const System& system, const ModelForms& forms, double steps,
                       const MakePlan& make_plan) {
  const auto stored_bytes = forms.stored.bytes(), converted_bytes = forms.converted.bytes();
  std::optional<Error> no_stored, no_converted;
  auto stored = candidate(system, forms.stored, make_plan, no_stored);
  if (stored && steps <= 1) return choice(Form::Stored, std::move(*stored), "it runs once");
  auto converted = candidate(system, forms.converted, make_plan, no_converted);
  if (!stored && !converted) throw converted_bytes < stored_bytes ? *no_converted : *no_stored;
  if (!converted) return choice(Form::Stored, std::move(*stored), "converted it does not fit");
  if (!stored) return choice(Form::Converted, std::move(*converted), "as stored it does not fit");

  if (larger(converted_bytes, stored_bytes)) {
    if (!converted->placement.all_resident())
      return choice(Form::Stored, std::move(*stored), "converted not all of it stays resident");
    const double share = stored->step_s > 0 ? forms.decode_s / stored->step_s : 0;
    if (share <= kWorthMemory)
      return choice(Form::Stored, std::move(*stored),
                    fmt::format("decoding is {:.1f} % of a step", 100 * share));
  }
  const double as_stored = steps * stored->step_s;
  const double once_converted = forms.convert_s + steps * converted->step_s;
  const bool same = std::abs(as_stored - once_converted) <= kSame * as_stored;
  const bool convert = same ? !larger(converted_bytes, stored_bytes) : once_converted < as_stored;
  auto reason = fmt::format("{:.0f} steps take {:.3g} s as stored, {:.3g} s converted", steps,
                            as_stored, once_converted);
  return convert ? choice(Form::Converted, std::move(*converted), std::move(reason))
                 : choice(Form::Stored, std::move(*stored), std::move(reason));
}

}  // namespace distorch::placement
