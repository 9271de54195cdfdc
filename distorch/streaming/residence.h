#pragma once
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "distorch/device/registered.h"
#include "distorch/placement/placement.h"
#include "distorch/streaming/contents.h"
#include "distorch/streaming/ring.h"
#include "distorch/streaming/upload.h"

namespace distorch::streaming {

/// Where the weights of one block rest and how they reach their compute. `device`: the compute
/// device (Resident), "cpu" (the file's mapping: RAM), "disk" (the file, not kept in RAM) or
/// another accelerator; "cpu" of one that is Aside. Of a streamed block the parts of `rests` (bits,
/// Contents::parts()) stay on the compute device, which is an accelerator then.
struct BlockHome {
  placement::How how = placement::How::Resident;
  std::string device;
  std::uint64_t rests = 0;
  bool operator==(const BlockHome&) const = default;
};

/// The memory in which a model's blocks rest between their uses: resident ones on the compute
/// device, those that run or rest on another accelerator there. What streams from a file rests
/// nowhere but in the file. A change that fails leaves nothing behind: see clear().
class Residence {
 public:
  struct Options {
    std::string compute;
    std::int64_t upload_from_bytes = 0;  // less is copied at once by one thread
  };
  Residence(const Contents& contents, Options options);

  /// Frees everything and waits for nobody.
  void clear();
  /// Brings every block to its home; those whose home and form stay are left alone. Blocks of the
  /// compute device may still be on their way afterwards: arrived() waits for one. `current` is the
  /// block at work, for messages. After an exception clear() is to be called.
  void move(const std::vector<BlockHome>& homes, bool converted, int& current);
  /// The device that move() asked for memory last.
  const std::string& asked() const { return asked_; }
  bool empty() const { return homes_.empty(); }
  const std::string& compute() const { return options_.compute; }
  /// The layouts of these blocks' LoRAs have changed: what was brought for them is let go, and
  /// move() is wanted before the next use, which brings what they are now.
  void loras_changed(const std::vector<int>& blocks);
  /// Strengths have changed: slots get new adapters, nothing is brought.
  void strengths_changed();
  /// Whether move() has something to bring for the homes that are.
  bool stale() const { return stale_; }
  const std::vector<BlockHome>& homes() const { return homes_; }
  /// Whether resident blocks are plain numbers of the dtype that the model computes in, else what
  /// the file has.
  bool converted() const { return converted_; }

  /// Waits for a block that is on its way, if it is.
  void arrived(int block);
  /// The same for all, and no thread is at work any more.
  void finish();
  /// Whether blocks that are on their way will never arrive: clear() is to be called.
  bool upload_failed() const;
  /// What of a block that streams does so, with what LoRAs add, and which items of that are
  /// convolutions to be laid out as channels-last.
  const Layout& streamed(int block) const;
  const std::vector<int>& streamed_images(int block) const;
  /// The tensors of all its weights from those of streamed(): with what rests, once it has arrived.
  std::vector<at::Tensor> with_resting(int block, std::vector<at::Tensor> streamed) const;
  /// What the slots of a resident block or of one on a donor hold; arrived() before that.
  const BlockValues& values(int block) const { return states_[block].values; }
  /// The bytes of a block that streams from a donor accelerator (uint8).
  const at::Tensor& donor(int block) const { return states_[block].donor; }
  /// Bytes of a block on the compute device when it is resident.
  std::int64_t resident_bytes(int block, bool converted) const;
  /// Bytes of a block on the compute device under a home.
  std::int64_t resident_bytes(int block, const BlockHome& home) const;
  /// Bytes held on a device.
  std::int64_t held_bytes(const std::string& device) const;

 private:
  /// Bytes on their way to a device, and how far they have got.
  struct Coming {
    at::Tensor buffer;         // uint8, laid out as the layout they are of
    std::size_t laid_out = 0;  // of Contents::channels_last(), that many are laid out so
  };
  struct State {
    at::Tensor donor;  // uint8 on a donor device, of a block that streams from there
    Coming weights, loras, resting;
    std::vector<at::Tensor> lora_tensors;     // of loras_of()
    std::optional<SplitBlock> split;          // of one that rests in part
    std::vector<at::Tensor> resting_tensors;  // of its part that does
    BlockValues values;                       // of resident blocks and those on a donor
    bool has_loras = false;                   // as loras_of() says
  };
  bool is_converted(int block) const { return converted_ && contents_.needs_conversion(block); }
  /// What uploads know its bytes by.
  enum class Kind { Weights, Loras, Resting };
  int number_of(int block, Kind kind) const {
    return block + static_cast<int>(kind) * static_cast<int>(states_.size());
  }
  bool rests(int block) const {
    return homes_[block].how != placement::How::Streamed &&
           homes_[block].how != placement::How::Aside;
  }
  std::optional<at::Device> target_of(int block) const;
  Upload& upload_to(at::Device device);
  at::Tensor bring(int number, const Layout& layout, at::Device target, bool in_pieces);
  void wait_for(int number, at::Device device);
  void load(const std::vector<int>& blocks, const std::vector<int>& loras, int& current);
  void load_on_host(int block);
  void settle(int block);
  static void lay_out_images(Coming& coming, const Layout& layout, const std::vector<int>& images);
  void take_weights(int block);
  void take_resting(int block);
  void drop(int block);
  void drop_loras(int block);

  const Contents& contents_;
  Options options_;
  at::Device compute_;
  std::vector<BlockHome> homes_;
  bool converted_ = false;
  bool stale_ = false;
  std::string asked_;
  std::vector<State> states_;
  std::map<std::string, std::unique_ptr<Upload>> uploads_;  // by device, while something comes
};

}  // namespace distorch::streaming
