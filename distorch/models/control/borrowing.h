#pragma once
#include "distorch/models/control/control.h"

/// ControlNets that share weights with the model they steer, and what else they want of a run.
namespace distorch::models::control {

/// Whether a file holds a network that needs some of the model's weights beside its own.
bool is_borrowing(const weights::Checkpoint& file);
/// Its tensors with those of the model; no changes. Error(Usage) naming both files where it belongs
/// to another model.
Merged borrowed_from(const weights::Checkpoint& file, const weights::Checkpoint& model);

/// What a network wants of its picture and its strength beside what HintFormat says.
struct Preparation {
  /// The picture before it becomes a latent: value · scale + offset.
  double scale = 1.0, offset = 0.0;
  /// The square root of a strength counts in its place.
  bool soft_strength = false;
};

/// A network that says so.
class Prepared {
 public:
  virtual ~Prepared() = default;
  virtual Preparation preparation() const = 0;
};

/// The usual one for networks that do not.
Preparation preparation_of(const ControlNetwork& network);

}  // namespace distorch::models::control
