#pragma once
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "distorch/weights/adapter.h"
#include "distorch/weights/checkpoint.h"
#include "distorch/weights/manifest.h"

namespace distorch::weights {

/// Which rows of a matrix a weight is that a file keeps as one of several pieces: `count` of `of`,
/// from `first` on. None: the weight is the matrix.
struct Piece {
  std::int64_t first = 0, count = 0, of = 0;
  bool operator==(const Piece&) const = default;
};

/// What a name in a LoRA file changes: a declared weight, or some rows of it (one of several
/// projections that a model has as one matrix), or several weights (a matrix that the model has in
/// pieces).
struct LoraTarget {
  LoraTarget() = default;
  LoraTarget(std::string weight) : weight(std::move(weight)) {}
  LoraTarget(const char* weight) : weight(weight) {}
  LoraTarget(std::string weight, std::int64_t first_row, std::int64_t rows)
      : weight(std::move(weight)), first_row(first_row), rows(rows) {}
  std::string weight;
  std::int64_t first_row = 0, rows = 0;  // no rows: all
  Piece piece;
  std::vector<LoraTarget> others;  // the other pieces of the matrix
  /// The file has the halves of the rows the other way round (scale and shift).
  bool swapped = false;
  bool operator==(const LoraTarget&) const = default;
};
/// Base names as LoRA files write them.
using LoraTargets = std::map<std::string, LoraTarget>;

/// An adapter for the declared weight of that name, its tensors still in their file. Whoever
/// brings them to a device makes it an Adapter there.
struct NamedAdapter {
  std::string weight;
  AdapterKind kind = AdapterKind::LowRank;
  std::map<Part, Stored> parts;
  std::optional<double> alpha;
  std::vector<std::int64_t> reshape;
  std::int64_t first_row = 0, rows = 0;  // see Adapter
  Piece piece;                           // its tensors are those of the whole matrix
  bool swapped = false;                  // see LoraTarget

  /// Bytes of its tensors in the file.
  std::int64_t size_bytes() const;
};

struct LoraFile {
  std::vector<NamedAdapter> adapters;  // at most one for each weight, or for each part of its rows
  std::vector<std::string> unknown;    // tensors that no known weight wants
  /// Sentences on what belongs to a weight of this model and is left out nevertheless: shapes that
  /// do not fit, endings that no kind of adapter has.
  std::vector<std::string> left_out;
};

/// Matches a LoRA file with a model; reads nothing but alphas and shapes. `names` maps a base name
/// as LoRA files write it ("lora_unet_..._to_q", "unet.down_blocks.0...to_q") to a weight that
/// `model` declares. Understood per base name:
///   .lora_up/.lora_down[/.lora_mid].weight (kohya), _lora.up/_lora.down.weight,
///   .lora.up/.lora.down.weight, .lora_A/.lora_B[.default][.weight],
///   .lora_linear_layer.up/.down.weight (diffusers, peft), with .reshape_weight;
///   .hada_*, .lokr_*, .oft_blocks (with .rescale), .a1/.a2/.b1/.b2.weight (LyCORIS);
///   each of them with .alpha and .dora_scale;
///   .diff, .diff_b, .w_norm, .b_norm, .set_weight.
/// Where several change one weight the later in this order wins, as in ComfyUI.
/// Rows of a weight can be changed by every kind but ".set_weight" and what makes a weight larger;
/// pieces of a matrix and weights with swapped halves by LoRA, LoHa, LoKr and ".diff", with a
/// magnitude for each row.
/// Source of the spellings: ComfyUI comfy/weight_adapter and comfy/lora.py.
/// Errors: Error(Format) where one of several tensors that belong together is missing, or the file
/// was overwritten meanwhile.
LoraFile match_lora(const Checkpoint& file, const LoraTargets& names, const Manifest& model);

/// The adapter with tensors that somebody brought to a device, in the order of `named.parts`. Of a
/// piece it takes the rows that count; swapped halves it turns.
Adapter make_adapter(const NamedAdapter& named, const std::vector<at::Tensor>& parts,
                     double strength);

/// The adapter with its tensors on `device` in the file's dtypes, strength 1. Error(Format) where
/// the file was overwritten meanwhile.
Adapter read_adapter(const NamedAdapter& named, at::Device device);

}  // namespace distorch::weights
