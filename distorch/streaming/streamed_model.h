#pragma once
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "distorch/streaming/carried.h"
#include "distorch/streaming/contents.h"
#include "distorch/streaming/model_rings.h"
#include "distorch/streaming/residence.h"
#include "distorch/streaming/shift.h"
#include "distorch/streaming/step_recorder.h"
#include "distorch/weights/checkpoint.h"
#include "distorch/weights/manifest.h"

namespace distorch::streaming {

struct StreamedOptions {
  std::string name;                   // for messages and tables: the file's stem
  std::string compute = "cpu";        // the device that computes
  at::ScalarType dtype = at::kFloat;  // of the arithmetic; layers convert weights stored otherwise
  std::optional<at::ScalarType> kept_in;  // see Contents::Options
  bool fast_products = false;             // see weights::Arithmetic
  double slots = 2;
  bool channels_last = false;  // lay out resident and converted 4-D weights for such convolutions
  std::int64_t upload_from_bytes = std::int64_t{64} << 20;  // less is copied at once by one thread
};

/// One model whose blocks rest where a placement says. Opening costs nothing; load() brings exactly
/// what has to be resident; run() brings what streams. The manifest must outlive it. One thread at
/// a time.
///
/// What it consists of: contents.h; where it rests: residence.h; how it streams: model_rings.h; how
/// its steps are recorded: step_recorder.h.
class StreamedModel final : public weights::WeightSource {
 public:
  /// Error(MissingWeight) or Error(Shape) naming every fault when the file lacks something the
  /// manifest declares.
  StreamedModel(weights::Manifest& manifest, weights::Checkpoint checkpoint,
                StreamedOptions options);
  ~StreamedModel() override;

  const StreamedOptions& options() const { return options_; }
  const weights::Checkpoint& checkpoint() const { return checkpoint_; }
  weights::Manifest& manifest() { return contents_.manifest(); }
  const Contents& contents() const { return contents_; }
  std::size_t block_count() const { return contents_.block_count(); }
  /// Bytes of a block as the files have them, with what its LoRAs add: what a link carries.
  std::int64_t file_bytes(int block) const { return contents_.all_of(block).link_bytes; }
  const Layout& layout(int block) const { return contents_.all_of(block); }
  std::int64_t total_file_bytes() const;
  /// Bytes of a block on the compute device when it is resident.
  std::int64_t resident_bytes(int block) const {
    return residence_.resident_bytes(block, rests_converted_);
  }

  /// Bytes of a block that rest on the compute device while it is loaded as it is.
  std::int64_t resting_bytes(int block) const {
    return residence_.resident_bytes(block, homes()[block]);
  }

  /// Whether resident blocks are converted once to what the model computes in, from the next load()
  /// on; else they rest as the file has them and layers convert them at each use. Memory against
  /// time: the planner's choice.
  void rest_converted(bool converted) { rests_converted_ = converted; }
  bool rests_converted() const { return rests_converted_; }
  /// Whether any block has something to convert.
  bool needs_conversion() const;

  /// The LoRAs from the next load() on. Brings nothing; only a changed strength counts at once and
  /// asks for no load(). What other LoRAs had brought is freed.
  void set_loras(const std::vector<LoraUse>& loras);

  /// Brings the weights where `homes` (one per block) says; what already rests there stays. Returns
  /// while blocks are still on their way to the compute device; run() waits for each block.
  /// `slots`: of the ring of each donor, where a plan asks for other than the option says.
  /// An exception leaves the model unloaded; Error(OutOfMemory) names device and block.
  void load(const std::vector<BlockHome>& homes, const std::map<std::string, double>& slots = {});
  bool loaded() const { return !residence_.empty(); }
  /// Whether run() may be called: it is loaded with the LoRAs and in the form that were asked for.
  bool ready() const {
    return loaded() && !residence_.stale() &&
           (rests_converted_ == residence_.converted() || !needs_conversion());
  }
  const std::vector<BlockHome>& homes() const { return residence_.homes(); }
  /// Slots of the rings, the most that one has: of the plan, or what shrink() has left of them.
  double slots() const { return rings_.most_slots(); }
  /// Frees everything it holds on any device. The next run() needs a load() before.
  void unload();
  /// Makes room on the compute device until `bytes` are freed or nothing is left: first ring slots
  /// beyond two, then weights that rest stream from now on, a little of every block, at last one
  /// slot must do. With a price weights go first, those that cost the least time. Returns the bytes
  /// freed; those of recorded steps too, which are not counted as room, because steps are recorded
  /// again. An exception leaves the model unloaded.
  std::int64_t shrink(std::int64_t bytes, const StepPrice& price = {});

  /// The opposite: weights that stream rest from now on, as many as `bytes` have room for with the
  /// smaller ring, of the blocks that stream most, with a price those that gain the most time.
  /// Returns the bytes taken; nothing where the device gives less than that, and all is as before.
  /// An exception leaves the model unloaded.
  std::optional<std::int64_t> grow(std::int64_t bytes, const StepPrice& price = {});

  /// Other homes and slots between two steps. False where there is no room for them: all is as before
  /// then, or where that finds no room either, less rests. An exception leaves the model unloaded.
  bool rearrange(const std::vector<BlockHome>& homes, const std::map<std::string, double>& slots);

  /// Called before each step().
  std::function<void()> before_step;

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
  /// What runs blocks that are aside, between two steps: what it takes to bring them is given back at
  /// its end.
  at::Tensor aside(const std::function<at::Tensor()>& forward);
  /// How often memory was used in between as no step does: one was recorded, or aside() brought blocks.
  int unlike_steps() const { return recorder_.recorded() + asides_; }
  /// Whether steps may be recorded: it keeps the activations' memory reserved.
  void record_steps(bool allowed);
  /// What recordings hold of device_bytes() of the compute device.
  std::int64_t recorded_bytes() const { return recorder_.held_bytes(); }
  /// Gives back what recordings hold; false where they hold nothing.
  bool drop_recordings();

  /// Bytes this model holds on a device: resident weights, rings, donors' parts, what LoRAs add and
  /// recordings.
  std::int64_t device_bytes(const std::string& device) const;
  /// Sums over all rings.
  std::int64_t streamed_bytes() const { return rings_.copied_bytes(); }

 private:
  bool can_record() const;
  void drop_leases();
  void make_rings_fit();
  bool offload(std::int64_t bytes, const StepPrice& price = {});
  void move(std::vector<BlockHome> homes);
  bool settle(const std::vector<BlockHome>& homes);
  void wait_for_weights(const std::function<void()>& wait);
  void with_room(int block, const std::function<void()>& action);
  weights::Tensors run_resident(int block, const weights::Tensors& inputs,
                                const weights::Body& body);
  weights::Tensors run_streamed(int block, const weights::Tensors& inputs,
                                const weights::Body& body);
  weights::Tensors run_on_donor(int block, const weights::Tensors& inputs,
                                const weights::Body& body);

  weights::Checkpoint checkpoint_;
  StreamedOptions options_;
  at::Device compute_;
  Contents contents_;
  Residence residence_;
  ModelRings rings_;
  StepRecorder recorder_;
  std::vector<Lease> leases_;  // by block, while one runs streamed
  Carried carried_;            // what blocks on donors gave
  bool rests_converted_ = false;
  int asides_ = 0;       // times that aside() brought blocks
  int began_with_ = -1;  // the block that ran first since the last load; -1: none has
  bool record_steps_ = false;
};

}  // namespace distorch::streaming
