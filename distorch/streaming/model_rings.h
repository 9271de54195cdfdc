#pragma once
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "distorch/device/registered.h"
#include "distorch/streaming/contents.h"
#include "distorch/streaming/residence.h"
#include "distorch/streaming/ring.h"

namespace distorch::streaming {

/// The rings of one model, one for each donor that some of its blocks stream from, and one for the
/// blocks that are aside, from the first of them that runs until drop_aside().
class ModelRings {
 public:
  struct Options {
    std::string name;  // for the log
    std::string compute;
    double slots = 2;  // where no plan asks for another number
  };
  ModelRings(const Contents& contents, const Residence& residence, Options options);

  /// Slots by donor, as a plan asks for them; kept until it is called again.
  void set_slots(const std::map<std::string, double>& slots) { slots_ = slots; }
  const std::map<std::string, double>& slots() const { return slots_; }
  /// Makes a ring for every donor of the residence's homes; none is left after an exception. Where
  /// the wanted slots find no room, cached memory is given back first, then one slot has to do.
  void make();
  /// The same with all the wanted slots; false, and none is left, where they find no room.
  bool make_all();
  /// Frees them and their memory.
  void drop();
  /// Forgets also what is registered of files.
  void clear();
  /// Slots of the ring of a donor.
  double slots_of(const std::string& donor) const;
  /// The most slots of any; of what may come where nothing streams.
  double most_slots() const;
  /// At most so many slots each from the next make() on; false where no ring has more.
  bool limit_slots(double most);

  /// The ring that a block passes through. That of blocks that are aside is made here.
  Ring& of(int block);
  /// Frees the ring of blocks that are aside.
  void drop_aside();
  /// The values of a block whose bytes lie there, with what of it rests: made once for each place.
  const BlockValues& values_at(int block, const Lease& lease);
  /// Adapters have changed: values are made anew.
  void forget_values();
  /// Where the rings stand: it decides which places the blocks of the next step get.
  std::string positions() const;
  std::int64_t held_bytes() const;
  /// Bytes copied through them so far.
  std::int64_t copied_bytes() const;

 private:
  void make(bool fewer_do);
  std::unique_ptr<Ring> make_from(placement::How how, const std::string& donor, double slots,
                                  bool fewer_do);
  void make_aside(const std::string& donor);
  std::vector<RingBlock> blocks_where(placement::How how, const std::string& device) const;
  void register_streamed();
  BlockValues values_in(int block, std::vector<at::Tensor> streamed) const;
  std::unique_ptr<Ring> make_that_fits(const std::vector<RingBlock>& blocks, RingOptions ring,
                                       bool fewer_do);

  const Contents& contents_;
  const Residence& residence_;
  Options options_;
  at::Device compute_;
  std::map<std::string, double> slots_;
  std::map<std::string, std::unique_ptr<Ring>> rings_;  // by donor
  std::unique_ptr<Ring> aside_;
  /// Of files that blocks which are aside lie in; once, as it takes time by the page.
  std::vector<std::shared_ptr<const device::RegisteredRange>> aside_registered_;
  bool all_aside_registered_ = false, knows_aside_ = false;
  std::vector<std::map<const void*, BlockValues>> values_;  // by block and address
  BlockValues passing_;  // of a block that lies in the file's mapping
  std::vector<std::shared_ptr<const device::RegisteredRange>> registered_;
  bool all_registered_ = false;
};

}  // namespace distorch::streaming
