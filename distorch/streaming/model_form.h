#pragma once
#include <functional>

#include "distorch/placement/form.h"
#include "distorch/streaming/machine.h"
#include "distorch/streaming/profile.h"
#include "distorch/streaming/streamed_model.h"

namespace distorch::streaming {

/// What a model's weights are to rest as is asked for.
struct FormRequest {
  placement::System system;  // with what the model may use of it
  double steps = 1;          // that its weights are used in a row
  placement::MakePlan plan;  // empty: placement::auto_plan
  /// A dry run of the model in the form that is set.
  std::function<Profile()> profile;
  /// The same with what the host adds.
  std::function<Profile(const Profile&)> timed;
};

/// Decides whether the weights of a model rest as its file has them or converted once, by the clock
/// (placement/form.h), and sets that (StreamedModel::rest_converted). Returns the profile of the
/// chosen form. A conversion that has been made costs nothing. Where neither form fits it is the
/// smaller one: whether others make way, or the plan is refused, is for the planner to say.
Profile choose_form(StreamedModel& model, const Machine& machine, const FormRequest& request);

}  // namespace distorch::streaming
