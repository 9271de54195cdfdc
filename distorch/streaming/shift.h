#pragma once
#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

#include "distorch/streaming/contents.h"
#include "distorch/streaming/model_rings.h"
#include "distorch/streaming/residence.h"

namespace distorch::streaming {

/// Seconds of a step with the weights in these homes, one per block; empty: nobody knows.
using StepPrice = std::function<double(const std::vector<BlockHome>&)>;

/// Decides which weights of a loaded model stream, and which rest on the compute device, when its
/// share of that device's memory changes while it runs: those that cost or gain the most time for
/// their bytes, by `price`. Changes nothing itself: see homes().
class Shift {
 public:
  Shift(const Contents& contents, const Residence& residence, const ModelRings& rings,
        StepPrice price = {});

  /// Weights stream until so many bytes come free. False where nothing rests any more.
  bool free(std::int64_t bytes);
  /// Weights rest as long as there is room for one in so many bytes. False where there is none.
  bool take(std::int64_t bytes);
  const std::vector<BlockHome>& homes() const { return homes_; }

 private:
  /// A part of a block that changes its place.
  struct Choice {
    std::size_t block = 0, part = 0;
    bool tiny = false;
    std::int64_t streamed = 0;  // of its block afterwards
  };
  std::int64_t held() const;
  std::optional<Choice> that_streams(std::size_t block, std::int64_t missing, bool by_price) const;
  std::optional<Choice> that_rests(std::size_t block, std::int64_t room) const;
  void stream(const Choice& choice);
  void rest(const Choice& choice);
  /// What a choice changes.
  struct Effect {
    double step_s = 0;
    std::int64_t held = 0;
  };
  Effect effect_of(const Choice& choice, void (Shift::*change)(const Choice&));
  bool prices();
  bool stream_one(std::int64_t missing);
  bool rest_one(std::int64_t most);

  const Contents& contents_;
  const Residence& residence_;
  const ModelRings& rings_;
  StepPrice price_;
  int priced_left_;
  double now_s_ = 0;
  std::vector<BlockHome> homes_;
  std::vector<std::int64_t> streamed_;  // bytes by block
};

}  // namespace distorch::streaming
