#pragma once
#include <ATen/core/Tensor.h>
#include <c10/core/MemoryFormat.h>

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "distorch/quant/packed.h"
#include "distorch/weights/adapter.h"

namespace distorch::weights {

/// How a model computes with its weights, whatever they are stored as.
struct Arithmetic {
  std::optional<at::ScalarType> dtype;  // nothing: that of the stored numbers
  /// Numbers are rounded to this type on their way to `dtype`: what a user asked them to be kept
  /// in, so that a picture does not depend on whether they were.
  std::optional<at::ScalarType> kept_in;
  /// Products of 8-bit numbers where the device has them (quant/fp8.h).
  bool fast_products = false;
};

/// Where a layer finds its weight while its block runs: `value` or `packed`, as the file has the
/// numbers or converted once; neither between runs.
struct Slot {
  at::Tensor value;  // [shape], any dtype, on the device where the block runs
  std::shared_ptr<const quant::Packed> packed;
  Arithmetic arithmetic;
  std::vector<std::int64_t> shape;
  std::vector<Adapter> adapters;  // applied by the layer at run time, in order
};

/// What a layer's constructor declares: name in the checkpoint, shape, and the block it is used
/// with.
struct Declared {
  std::string name;
  std::vector<std::int64_t> shape;
  int block = -1;
  bool optional = false;  // an absent optional weight leaves its slot undefined
};

/// A layer's handle to one declared weight. Cheap to copy; valid as long as the manifest lives.
class Weight {
 public:
  Weight() = default;
  explicit Weight(Slot* slot) : slot_(slot) {}
  const std::vector<std::int64_t>& shape() const { return slot_->shape; }
  /// The type that the model computes in, known while the block is running.
  at::ScalarType dtype() const;
  /// The numbers in dtype(), while the block is running: where they lie if they are stored so, else
  /// converted or decoded for this call (as `format`, where that is asked for); undefined for an
  /// absent optional weight.
  at::Tensor dense(std::optional<at::MemoryFormat> format = {}) const;
  /// The numbers as 8-bit ones with their scales, where a layer may multiply with them as they are
  /// (Arithmetic::fast_products); nothing elsewhere.
  std::optional<quant::Packed> for_fast_product() const;
  /// Whether there are such. Makes nothing.
  bool is_fast() const;
  /// Rows `first` .. `first + count - 1` of dimension 0 of dense(), without making the others.
  at::Tensor rows(std::int64_t first, std::int64_t count) const;
  /// What lies in the slot, for layers that use it as it is; null where it is a plain tensor, or
  /// pieces of one that are rounded before they are used.
  const quant::Packed* packed() const;
  const std::vector<Adapter>& adapters() const { return slot_->adapters; }
  bool declared() const { return slot_ != nullptr; }
  bool defined() const { return slot_ != nullptr && (slot_->value.defined() || slot_->packed); }

 private:
  /// Pieces of plain numbers that are rounded to a type on their way, as those of one tensor are.
  bool is_rounded() const;
  at::Tensor decoded(const quant::Packed& packed) const;

  Slot* slot_ = nullptr;
};

using Tensors = std::vector<at::Tensor>;
/// A block's arithmetic as a pure function of its inputs, so that it can be repeated after an
/// out-of-memory error or run on another device: it must not change its inputs or keep state.
using Body = std::function<Tensors(const Tensors&)>;

/// Fills the slots of a block and runs it. Implemented by distorch/streaming/ and by plain fakes in
/// tests; models cannot tell resident weights from streamed ones.
class WeightSource {
 public:
  virtual ~WeightSource() = default;
  /// Undefined tensors among the inputs stay undefined. Results lie on the compute device.
  virtual Tensors run(int block, const Tensors& inputs, const Body& body) = 0;
};

/// Everything one model declares: its weights and its blocks in execution order. Not copyable:
/// layers point into it. Built by the model's constructors through Scope; used by whoever holds the
/// weights.
class Manifest {
 public:
  Manifest() = default;
  Manifest(const Manifest&) = delete;
  Manifest& operator=(const Manifest&) = delete;

  int add_block(std::string name);
  Weight declare(Declared weight);

  const std::vector<Declared>& weights() const { return weights_; }
  const std::vector<std::string>& blocks() const { return blocks_; }
  Slot& slot(std::size_t weight) { return slots_[weight]; }
  /// How the model computes from now on.
  void compute_with(const Arithmetic& arithmetic);

  void attach(WeightSource* source) { source_ = source; }
  WeightSource& source() const;

 private:
  std::vector<Declared> weights_;
  std::vector<std::string> blocks_;
  std::deque<Slot> slots_;  // stable addresses
  WeightSource* source_ = nullptr;
};

/// A place in the tree of names: "model.diffusion_model.input_blocks.3". Passed to constructors,
/// which declare their weights through it.
class Scope {
 public:
  explicit Scope(Manifest& manifest, std::string prefix = "")
      : manifest_(&manifest), prefix_(std::move(prefix)) {}

  Scope operator/(std::string_view name) const;
  Scope operator/(std::int64_t index) const;
  /// The same place, but weights declared below it belong to a new block called `name` (default:
  /// the prefix).
  Scope block(std::string name = "") const;

  Weight weight(std::string_view name, std::vector<std::int64_t> shape) const;
  Weight optional_weight(std::string_view name, std::vector<std::int64_t> shape) const;

  int block_id() const { return block_; }
  const std::string& prefix() const { return prefix_; }
  Manifest& manifest() const { return *manifest_; }

 private:
  std::string join(std::string_view name) const;

  Manifest* manifest_;
  std::string prefix_;
  int block_ = -1;
};

/// A part of a model that is fetched and used together. Its owner wraps each use of its layers in
/// run().
class Block {
 public:
  Block() = default;
  explicit Block(const Scope& scope) : manifest_(&scope.manifest()), id_(scope.block_id()) {}
  Tensors run(const Tensors& inputs, const Body& body) const {
    return manifest_->source().run(id_, inputs, body);
  }
  /// For bodies with one result.
  at::Tensor run1(const Tensors& inputs,
                  const std::function<at::Tensor(const Tensors&)>& body) const;
  int id() const { return id_; }

 private:
  Manifest* manifest_ = nullptr;
  int id_ = -1;
};

}  // namespace distorch::weights
