#pragma once
#include <string>

#include "distorch/placement/placement.h"

namespace distorch::placement {

/// "cuda:0,0.2126;cpu,0.0851": the share of each device's memory that the model takes, the compute
/// device first, devices that hold nothing left out. Four decimals as in the original, more where
/// four cannot tell blocks apart (a small model, a large memory): parse_allocation and plan give
/// the same bytes again, within one block; to the byte where blocks rest in part.
std::string expert_string(const System& system, const Model& model, const Placement& placement);

/// "1.60 GiB in 26 blocks on cuda:0": what a run logs of a model whose blocks are all on its compute
/// device; of another one "1.60 GiB in 26 blocks, computed on cuda:0, at rest 0.40 GiB on cuda:0,
/// 1.20 GiB on cpu".
std::string summary(const System& system, const Model& model, const Placement& placement);

/// What a run logs of a split model: device | role | original | total | virtual, then device | VRAM | share |
/// model | dist %, then layer type | count | MB | %, then device | layers | MB | %, and the line
/// "v2 Expert String ...". MB and GB here are powers of 1024, as in the original.
std::string tables(const System& system, const Model& model, const Placement& placement);

}  // namespace distorch::placement
