#pragma once
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "distorch/streaming/layout.h"
#include "distorch/weights/checkpoint.h"
#include "distorch/weights/lora.h"
#include "distorch/weights/manifest.h"

namespace distorch::streaming {

/// A LoRA on a model: the adapters of its file (which `key` stands for) that fit the model, and the
/// strength to apply.
struct LoraUse {
  std::string key;
  std::shared_ptr<const std::vector<weights::NamedAdapter>> adapters;
  double strength = 1.0;
  bool operator==(const LoraUse&) const = default;
};

/// Whether a weight is joined of pieces (quant/joined.h) that are laid one behind the other, so that
/// it is a plain tensor once they are copied to a slot.
bool is_one_tensor(const weights::Stored& stored);

/// What the slot of one weight holds while its block runs: a plain tensor or packed numbers, and
/// what LoRAs add.
struct SlotValue {
  int weight = 0;  // index into Manifest::weights()
  at::Tensor value;
  std::shared_ptr<const quant::Packed> packed;
  std::vector<weights::Adapter> adapters;
};
using BlockValues = std::vector<SlotValue>;

/// A block of which some weights rest on the compute device while the others stream. Items and
/// tensors of either layout are in the order of the block's.
struct SplitBlock {
  PartLayout rests, streams;
  Layout with_loras;  // streams, and behind it what LoRAs add: what a ring holds
  // items of `rests` and of `with_loras` to be laid out as channels-last in their place
  std::vector<int> resting_images, streamed_images;
};

/// What the blocks of a model consist of: which stretches of which files, how they lie together in
/// memory, and what the model's slots hold once they are there. A block's own weights and what
/// LoRAs add to it are laid out apart, as a LoRA comes and goes while the weights stay. Touches no
/// device.
class Contents {
 public:
  struct Options {
    std::string name;                   // for messages
    at::ScalarType dtype = at::kFloat;  // that the model computes in
    // What its plain numbers are rounded to, and rest as once they are converted; nothing: `dtype`.
    std::optional<at::ScalarType> kept_in;
    bool fast_products = false;     // see weights::Arithmetic
    bool channels_last = false;     // 4-D weights are wanted laid out so
    at::Device compute = at::kCPU;  // where the layers compute: some weights stay packed by that
  };
  /// Error(MissingWeight) or Error(Shape) naming every fault when the file lacks something the
  /// manifest declares.
  Contents(weights::Manifest& manifest, const weights::Checkpoint& checkpoint, Options options);

  const Options& options() const { return options_; }
  /// How the model's layers compute.
  weights::Arithmetic arithmetic() const;
  weights::Manifest& manifest() const { return manifest_; }
  std::size_t block_count() const { return blocks_.size(); }
  /// The block's own weights; what LoRAs add to them; both in one slot, weights first.
  const Layout& weights_of(int block) const { return blocks_[block].weights; }
  const Layout& loras_of(int block) const { return blocks_[block].loras; }
  const Layout& all_of(int block) const { return blocks_[block].all; }

  /// The LoRAs from now on. Returns the blocks whose layouts changed: none where only strengths
  /// did. Strong guarantee: an exception leaves everything as it was.
  std::vector<int> set_loras(const std::vector<LoraUse>& loras);
  const std::vector<LoraUse>& loras() const { return loras_; }
  /// Whether these are the LoRAs that are set, but for their strengths.
  bool other_strengths_only(const std::vector<LoraUse>& loras) const;
  /// The block's weights (as indices into Manifest::weights()) and how each is stored.
  const std::vector<std::pair<int, weights::Stored>>& stored(int block) const {
    return blocks_[block].stored;
  }
  /// Items of weights_of(), which all_of() has at the same places, that are laid out as
  /// channels-last where they lie: convolutions that are stored in the dtype that the model
  /// computes in.
  const std::vector<int>& channels_last(int block) const { return blocks_[block].channels_last; }
  /// The smallest things of a block that are placed: its larger weights one by one, others some
  /// together so that each is 1/48 of the block or more, and as the first what is tiny. Bytes as a
  /// device holds them; at most 64.
  const std::vector<std::int64_t>& parts(int block) const { return blocks_[block].part_bytes; }
  /// The block with the parts of these bits resting.
  SplitBlock split(int block, std::uint64_t rests) const;
  /// Whether some of the block's weights are other than what converted() makes of them.
  bool needs_conversion(int block) const { return blocks_[block].needs_conversion; }
  /// Bytes of the block's weights once they are converted.
  std::int64_t converted_bytes(int block) const { return blocks_[block].converted_bytes; }

  /// What the slots hold, from the tensors of weights_of() in the order of view_items(), without
  /// LoRAs.
  BlockValues values(int block, const std::vector<at::Tensor>& tensors) const;
  /// The same with them, from the tensors of loras_of(), `first` being the first of them.
  BlockValues with_loras(int block, BlockValues values, const at::Tensor* first) const;
  /// The same as plain numbers of the dtype that the model computes in, or that they are to be kept
  /// in, newly made where they are not that already. Packed ones stay packed where it is the latter.
  BlockValues converted(BlockValues values) const;
  /// The same in one piece of host memory of converted_bytes() (uint8).
  BlockValues converted_into(const at::Tensor& memory, int block, const BlockValues& values) const;

  void fill_slots(const BlockValues& values) const;
  void clear_slots(int block) const;

 private:
  /// One adapter of one LoRA, for the `place`-th weight of its block.
  struct LoraPart {
    int place = 0;
    std::size_t lora = 0;  // index into loras_
    const weights::NamedAdapter* named = nullptr;
  };
  struct Block {
    std::vector<std::pair<int, weights::Stored>> stored;
    Layout weights, loras, all;
    std::vector<LoraPart> adapters;  // in the order of loras_of()
    std::vector<int> channels_last;
    std::vector<std::int64_t> part_bytes;
    std::vector<int> part_of;  // by index of a tensor of `weights`
    bool needs_conversion = false;
    std::int64_t converted_bytes = 0;
  };
  bool rests_packed(const quant::Encoding& encoding) const;
  static void find_parts(Block& block);
  bool is_as_computed(const weights::Stored& stored) const;
  bool is_converted(const quant::Packed& packed) const;
  at::ScalarType rest_dtype() const { return options_.kept_in.value_or(options_.dtype); }
  std::int64_t converted_bytes_of(const weights::Stored& stored) const;

  weights::Manifest& manifest_;
  Options options_;
  std::vector<Block> blocks_;
  std::vector<LoraUse> loras_;
};

/// Bytes of a weight as plain numbers of `dtype`; whole multiples of what ATen aligns CPU tensors
/// to, by which kernels choose their path.
std::int64_t dense_bytes(const weights::Stored& stored, at::ScalarType dtype);

}  // namespace distorch::streaming
