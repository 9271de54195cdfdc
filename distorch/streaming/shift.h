#pragma once
#include <cstdint>
#include <vector>

#include "distorch/streaming/contents.h"
#include "distorch/streaming/model_rings.h"
#include "distorch/streaming/residence.h"

namespace distorch::streaming {

/// Decides which weights of a loaded model stream, and which rest on the compute device, when its
/// share of that device's memory changes while it runs. Changes nothing itself: see homes().
class Shift {
 public:
  Shift(const Contents& contents, const Residence& residence, const ModelRings& rings);

  /// Weights stream until so many bytes come free. False where nothing rests any more.
  bool free(std::int64_t bytes);
  /// Weights rest as long as there is room for one in so many bytes. False where there is none.
  bool take(std::int64_t bytes);
  const std::vector<BlockHome>& homes() const { return homes_; }

 private:
  std::int64_t held() const;
  bool stream_one();
  bool rest_one(std::int64_t most);

  const Contents& contents_;
  const Residence& residence_;
  const ModelRings& rings_;
  std::vector<BlockHome> homes_;
  std::vector<std::int64_t> streamed_;  // bytes by block
};

}  // namespace distorch::streaming
