#pragma once
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "distorch/formats/safetensors.h"
#include "distorch/streaming/streamed_model.h"

namespace distorch::nodes {

/// One tensor of a file that is written, from weights of a model.
struct SavedWeight {
  std::string name;
  /// Names in the model; the rows of several stand behind each other.
  std::vector<std::string> sources;
  bool transposed = false;  // of a matrix
};

/// A model as files have it: its weights with what its LoRAs make of them. Reads nothing before a
/// tensor's turn comes, and keeps one tensor in memory at a time.
class SavedModel {
 public:
  /// Both must outlive the writing. `seed_prefix` stands before a weight's name where that becomes a
  /// seed.
  SavedModel(const streaming::StreamedModel& model, const std::vector<streaming::LoraUse>& loras,
             std::string seed_prefix);

  /// Names of the weights; without those of model patches, which are files of their own.
  std::vector<std::string> names() const;
  bool has(const std::string& name) const { return model_.checkpoint().has(name); }

  /// Adds what has to be written for one tensor. What no LoRA touches keeps the bytes that the
  /// model's file has, packed numbers with their scales and markers; what one does is computed in
  /// float32 and stored in the file's type, to 8 bits by chance (quant/rounding.h) from a seed
  /// of the name, so that small changes survive; where that type is of another packing (int8, nvfp4,
  /// ...) it is stored as bfloat16, plain. Where the model's weights are kept in 8 bits
  /// (UNETLoader's weight_dtype), they are written so. Source: ComfyUI comfy/model_patcher.py,
  /// patch_weight_to_device.
  void add_to(std::vector<formats::TensorToWrite>& list, const SavedWeight& weight) const;
  /// Adds the mark "scaled_fp8" below `prefix` where the model's file has one for its packed weights.
  void add_mark_to(std::vector<formats::TensorToWrite>& list, const std::string& prefix) const;
  /// Error(Format) where a file that weights came from was changed since it was opened.
  void check_files() const;

 private:
  using Use = std::pair<const weights::NamedAdapter*, double>;
  /// How one source is to be written, known without reading it.
  struct Form {
    const weights::Stored* stored = nullptr;
    const std::vector<Use>* changes = nullptr;  // null: none
    at::ScalarType dtype = at::kFloat;          // of its numbers in the new file
    std::vector<std::int64_t> shape;
    bool as_it_is = false;  // the bytes of the file, plain ones
  };
  Form form_of(const std::string& name) const;
  at::Tensor value_of(const Form& form, const std::string& name) const;
  void add_packed(std::vector<formats::TensorToWrite>& list, const SavedWeight& weight,
                  const Form& form) const;

  const streaming::StreamedModel& model_;
  std::string seed_prefix_;
  std::map<std::string, std::vector<Use>> changes_;
  std::shared_ptr<at::Tensor> held_;  // what is written at the moment
};

}  // namespace distorch::nodes
