#pragma once
#include "distorch/placement/placement.h"
#include "distorch/streaming/machine.h"
#include "distorch/streaming/profile.h"
#include "distorch/streaming/streamed_model.h"

namespace distorch::streaming {

/// Fills the block's bytes and, where it computes on an accelerator, what of it can be placed apart.
void describe_bytes(const StreamedModel& model, int number, placement::Block& block);

/// A model as planners see it, with the block times of `profile` (of one run on the system's
/// compute device); on other accelerators in proportion to their speed.
placement::Model describe(const StreamedModel& model, const placement::System& system,
                          const Profile& profile, const Machine& machine);

/// `model`, its idle blocks aside where not all of it has room on the compute device.
placement::Model fitting(placement::Model model, const placement::System& system);

}  // namespace distorch::streaming
