#pragma once
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "distorch/placement/placement.h"
#include "distorch/streaming/ring.h"
#include "distorch/streaming/step_recorder.h"
#include "distorch/streaming/upload.h"
#include "distorch/weights/checkpoint.h"
#include "distorch/weights/lora.h"
#include "distorch/weights/manifest.h"

namespace distorch::streaming {

/// Where the weights of one block rest and how they reach their compute. `device`: the compute
/// device (Resident), "cpu" (the file's mapping: RAM), "disk" (the file, not kept in RAM) or
/// another accelerator.
struct BlockHome {
  placement::How how = placement::How::Resident;
  std::string device;
  bool operator==(const BlockHome&) const = default;
};

/// A LoRA on a model: patches as read from its file (which `key` stands for) and the strength to
/// apply.
struct LoraUse {
  std::string key;
  std::shared_ptr<const std::vector<weights::NamedPatch>> patches;
  double strength = 1.0;
  bool operator==(const LoraUse&) const = default;
};

struct StreamedOptions {
  std::string name;             // for messages and tables: the file's stem
  std::string compute = "cpu";  // the device that computes
  // of the arithmetic; bytes in the file are converted where they differ
  at::ScalarType dtype = at::kFloat;
  int slots = 2;
  bool channels_last = false;  // lay out resident and converted 4-D weights for such convolutions
  std::int64_t upload_from_bytes = std::int64_t{64} << 20;  // less is copied at once by one thread
  int copy_streams = 1;                                     // of each ring
  RingWaits waits;
};

/// One model whose blocks rest where a placement says. Opening costs nothing; load() brings exactly
/// what has to be resident; run() brings what streams. The manifest must outlive it. One thread at
/// a time.
class StreamedModel final : public weights::WeightSource {
 public:
  /// Error(MissingWeight) or Error(Shape) naming every fault when the file lacks something the
  /// manifest declares.
  StreamedModel(weights::Manifest& manifest, weights::Checkpoint checkpoint,
                StreamedOptions options);
  ~StreamedModel() override;

  const StreamedOptions& options() const { return options_; }
  const weights::Checkpoint& checkpoint() const { return checkpoint_; }
  weights::Manifest& manifest() { return manifest_; }
  std::size_t block_count() const { return layouts_.size(); }
  /// Bytes of a block as the file has them.
  std::int64_t file_bytes(int block) const { return layouts_[block].link_bytes; }
  /// Bytes of a block on the compute device when it is resident: converted where the dtype differs.
  std::int64_t resident_bytes(int block) const { return resident_bytes_[block]; }
  /// A block needs this much beside its slot while it runs streamed: its weights converted, 0
  /// without conversion.
  std::int64_t decode_bytes(int block) const {
    return needs_decode_[block] ? resident_bytes_[block] : 0;
  }
  /// Items of a block's layout that are laid out as channels-last on accelerators.
  const std::vector<int>& channels_last(int block) const { return channels_last_[block]; }
  std::int64_t total_file_bytes() const;
  const Layout& layout(int block) const { return layouts_[block]; }

  /// Brings the weights where `homes` (one per block) says; what already rests there stays. Returns
  /// while blocks are still on their way to the compute device; run() waits for each block.
  /// `slots`: of the ring of each donor, where a plan asks for other than the option says.
  /// Error(OutOfMemory) naming device and block leaves the model unloaded.
  void load(const std::vector<BlockHome>& homes, const std::map<std::string, int>& slots = {});
  bool loaded() const { return !homes_.empty(); }
  const std::vector<BlockHome>& homes() const { return homes_; }
  /// Frees everything it holds on any device. The next run() needs a load() before.
  void unload();
  /// Turns resident blocks into streamed ones, largest first, until `bytes` are freed on the
  /// compute device or none is left; returns the bytes freed. New rings are made as needed.
  std::int64_t shrink(std::int64_t bytes);

  /// Low-rank factors go to the compute device once per key; a changed strength changes a number.
  void set_loras(const std::vector<LoraUse>& loras);

  /// Called when a block runs out of memory: frees something elsewhere and returns true, or false
  /// to give up.
  std::function<bool(const std::string& device, std::int64_t bytes)> make_room;

  weights::Tensors run(int block, const weights::Tensors& inputs,
                       const weights::Body& body) override;

  /// One whole step of the model: `forward(inputs)`, which calls run() block by block. Recorded and
  /// replayed where that was allowed and all blocks compute on the compute device
  /// (step_recorder.h). `variant`: what else the step's operations depend on.
  at::Tensor step(const std::vector<at::Tensor>& inputs, const StepRecorder::Forward& forward,
                  const std::string& variant = "");
  /// Whether steps may be recorded: it keeps the activations' memory reserved.
  void record_steps(bool allowed);
  /// Gives back what recordings hold; false where they hold nothing.
  bool drop_recordings();

  /// Bytes this model holds on a device: resident weights, rings, donors' parts, LoRA factors and
  /// recordings.
  std::int64_t device_bytes(const std::string& device) const;
  /// Sums over all rings.
  std::int64_t streamed_bytes() const;

 private:
  struct BlockState {
    at::Tensor donor;                // uint8 on a donor device
    at::Tensor coming;               // uint8, on its way to its device
    std::vector<at::Tensor> values;  // resident or on-donor values, one per item of the layout
    std::map<const void*, std::vector<at::Tensor>> views;  // raw views per slot address
    Lease lease;                                           // while the block runs streamed
  };

  bool can_record() const;
  std::string ring_positions() const;
  void drop_leases();
  void load_blocks(const std::vector<int>& blocks, int& current);
  void unload_block(int block);
  std::optional<at::Device> target_of(int block) const;
  at::Tensor buffer_for(int block, at::Device device) const;
  Upload& upload_to(at::Device device);
  void bring(int block, bool in_pieces);
  void arrived(int block);
  void finish_uploads();
  std::vector<at::Tensor> values_on_cpu(int block) const;
  std::vector<at::Tensor> converted_values(int block) const;
  std::vector<at::Tensor> values_of(const at::Tensor& buffer, int block) const;
  std::vector<at::Tensor> items_in(const at::Tensor& buffer, int block) const;
  void drop_rings();
  void make_rings();
  void make_rings_fit();
  int largest_resident() const;
  bool offload_largest_resident();
  std::unique_ptr<Ring> make_ring_that_fits(std::vector<RingBlock> blocks, RingOptions ring);
  void register_streamed();
  weights::Tensors run_resident(int block, const weights::Tensors& inputs,
                                const weights::Body& body);
  weights::Tensors run_streamed(int block, const weights::Tensors& inputs,
                                const weights::Body& body);
  weights::Tensors run_on_donor(int block, const weights::Tensors& inputs,
                                const weights::Body& body);
  std::vector<at::Tensor> decode(const std::vector<at::Tensor>& raw, int block) const;
  void fill_slots(int block, const std::vector<at::Tensor>& values);
  void clear_slots(int block);

  weights::Manifest& manifest_;
  weights::Checkpoint checkpoint_;
  StreamedOptions options_;
  at::Device compute_;
  std::vector<Layout> layouts_;  // per block
  std::vector<std::int64_t> resident_bytes_;
  std::vector<bool> needs_decode_;
  std::vector<std::vector<int>> channels_last_;  // per block: items that are laid out so
  std::vector<BlockHome> homes_;
  std::map<std::string, int> slots_;  // of rings, by donor
  std::vector<BlockState> states_;
  std::map<std::string, std::unique_ptr<Ring>> rings_;      // by donor
  std::map<std::string, std::unique_ptr<Upload>> uploads_;  // by device, while something comes
  bool started_ = false;                                    // a run has begun since the last load
  std::vector<std::shared_ptr<const device::RegisteredRange>> registered_;
  bool all_registered_ = false;
  StepRecorder recorder_;
  bool record_steps_ = false;
  // (LoRA key, weight) -> on the compute device
  std::map<std::pair<std::string, std::string>, weights::Patch> factors_;
  std::vector<LoraUse> loras_;
};

}  // namespace distorch::streaming
