#pragma once
#include <string>
#include <vector>

#include "distorch/streaming/engine.h"

namespace distorch::streaming {

/// A model on one of several devices, and what one of its calls costs there.
struct SplitSide {
  const StreamedModel* model = nullptr;
  Profile profile;   // of a call on that device, with the speeds of it
  double calls = 1;  // that it makes in a step, one after the other
};

/// Whether the conditionings of a step are computed in one call on one device, or shared out over
/// replicas of the model on several that compute at the same time.
struct SplitChoice {
  double one_s = 0;    // a steady step on the first device; infinity where it does not fit
  double split_s = 0;  // on all of them at once: the slowest, with what they share of links
  double one_load_s = 0, split_load_s = 0;  // once, to bring what rests on the devices
  double steps = 1;
  std::vector<double> each_s;  // by device

  /// Whether it is worth it: a twentieth of the whole run at least, as a replica is memory that
  /// others may want.
  bool split() const;
  /// One sentence with both figures, for the log.
  std::string reason(const std::vector<std::string>& devices) const;
};

/// Predicts both by plans as prepare() makes them, on devices that nobody else uses. `together`
/// is the call of all conditionings on the first device, `sides` are the calls of a share of them,
/// one a device. What is loaded already costs no loading.
SplitChoice choose_split(const Engine& engine, const SplitSide& together,
                         const std::vector<SplitSide>& sides, double steps);

}  // namespace distorch::streaming
