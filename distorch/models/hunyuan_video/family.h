#pragma once
#include <memory>

#include "distorch/models/family.h"

namespace distorch::models::hunyuan_video {

/// HunyuanVideo, HunyuanVideo 1.5 and SkyReels, from texts or pictures. Null where the tensors are no such model's.
std::unique_ptr<const Family> detect(const weights::Checkpoint& below,
                                     const weights::Checkpoint& file);

}  // namespace distorch::models::hunyuan_video
