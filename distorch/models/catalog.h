#pragma once
#include <memory>
#include <string>
#include <vector>

#include "distorch/models/family.h"
#include "distorch/models/text_recipes.h"
#include "distorch/weights/checkpoint.h"

namespace distorch::models {

/// A kind of diffusion model.
struct FamilyKind {
  const char* name;
  /// The family of a file, null where it is not of this kind. `below`: the tensors below the prefix
  /// that is tried; `file`: all of it, for facts that lie beside the diffusion model.
  std::unique_ptr<const Family> (*detect)(const weights::Checkpoint& below,
                                          const weights::Checkpoint& file);
};

/// The list, in the order of asking.
const std::vector<FamilyKind>& families();

/// The family of a file: of a whole checkpoint ("model.diffusion_model."), of a diffusion model on
/// its own with or without that prefix, or with diffusers names. Null where the file has none.
std::shared_ptr<const Family> find_family(const weights::Checkpoint& file);
/// The same; Error(Format) naming the file and the known families where there is none.
std::shared_ptr<const Family> detect_family(const weights::Checkpoint& file);

/// The autoencoder of a file, whole checkpoint or on its own; empty where it has none.
VaePart find_vae(const weights::Checkpoint& file);

}  // namespace distorch::models
