#pragma once
#include <set>
#include <string>
#include <vector>

namespace distorch::models {

/// FreeU: on the way up, the wide features of two levels are strengthened and the low frequencies
/// of their skip connections weakened. Source: Si et al. 2023; ComfyUI comfy_extras/nodes_freelunch.py.
struct FreeU {
  int version = 1;  // 1: half the channels as they are; 2: by how strongly each place responds
  double b1 = 1.1, b2 = 1.2;  // features at 4 and at 2 times the model's channels
  double s1 = 0.9, s2 = 0.2;  // skip connections beside them
  bool operator==(const FreeU&) const = default;
};

/// What a network does otherwise than it was trained to: comparable data that travels with a MODEL.
/// Read by the network between its blocks, and by the keys of plans and recordings. What another
/// network computes inside a step (ControlNet residuals) comes as inputs (InputSpec::Source).
struct Patches {
  std::vector<FreeU> free_u;  // applied in order
  /// Parts that are left out: of a UNet the transformers of these stages ("middle_block",
  /// "output_blocks.3"); of a transformer over tokens these blocks, whatever their names in files:
  /// "double_blocks.7" where image and text have weights of their own, "single_blocks.7" where they
  /// share them.
  std::set<std::string> skipped;
  /// Parts whose self-attention gives its values as they are: of a UNet the transformers of stages.
  std::set<std::string> identity_attention;
  /// The part up to which the network runs, only to say how much attention each place gets there:
  /// of a UNet "middle_block"; [B, 1, h, w] comes back in place of the prediction. "": none.
  std::string attention_map;

  bool operator==(const Patches&) const = default;
  bool empty() const { return *this == Patches{}; }
  /// The same text for equal patches and for no others; "" for none.
  std::string key() const;
};

}  // namespace distorch::models
