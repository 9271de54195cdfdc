#include "distorch/streaming/streamed_model.h"

#include <fmt/format.h>

#include <algorithm>

#include "distorch/base/error.h"
#include "distorch/base/log.h"
#include "distorch/base/run_token.h"
#include "distorch/base/units.h"
#include "distorch/device/device.h"
#include "distorch/device/memory.h"
#include "distorch/device/recording.h"
#include "distorch/device/retry.h"
#include "distorch/device/streams.h"
#include "distorch/streaming/shift.h"
#include "distorch/streaming/trace.h"
#include "distorch/weights/padding.h"

namespace distorch::streaming {

using placement::How;
using weights::Body;
using weights::Tensors;

StreamedModel::StreamedModel(weights::Manifest& manifest, weights::Checkpoint checkpoint,
                             StreamedOptions options)
    : checkpoint_(weights::without_padding(manifest, std::move(checkpoint))),
      options_(std::move(options)),
      compute_(device::to_torch(options_.compute)),
      contents_(manifest, checkpoint_,
                {.name = options_.name,
                 .dtype = options_.dtype,
                 .kept_in = options_.kept_in,
                 .fast_products = options_.fast_products,
                 .channels_last = options_.channels_last,
                 .compute = compute_}),
      residence_(contents_,
                 {.compute = options_.compute, .upload_from_bytes = options_.upload_from_bytes}),
      rings_(contents_, residence_,
             {.name = options_.name, .compute = options_.compute, .slots = options_.slots}),
      recorder_(compute_),
      leases_(contents_.block_count()) {
  manifest.attach(this);
}

StreamedModel::~StreamedModel() { unload(); }

std::int64_t StreamedModel::total_file_bytes() const {
  std::int64_t total = 0;
  for (std::size_t block = 0; block < block_count(); ++block)
    total += file_bytes(static_cast<int>(block));
  return total;
}

bool StreamedModel::needs_conversion() const {
  for (std::size_t block = 0; block < block_count(); ++block)
    if (contents_.needs_conversion(static_cast<int>(block))) return true;
  return false;
}

std::int64_t StreamedModel::device_bytes(const std::string& name) const {
  auto bytes = residence_.held_bytes(name);
  if (name == options_.compute) bytes += rings_.held_bytes() + recorder_.held_bytes();
  return bytes;
}

// --- loading

void StreamedModel::set_loras(const std::vector<LoraUse>& loras) {
  if (loras == contents_.loras()) return;
  carried_.clear();
  drop_recordings();  // strengths are part of what was recorded
  if (contents_.other_strengths_only(loras)) {
    contents_.set_loras(loras);
    residence_.strengths_changed();
    rings_.forget_values();
    return;
  }
  // Who reads weights looks at layouts until the end, and rings know them: they go.
  wait_for_weights([&] { residence_.finish(); });
  drop_leases();
  rings_.drop();
  residence_.loras_changed(contents_.set_loras(loras));
}

void StreamedModel::load(const std::vector<BlockHome>& homes,
                         const std::map<std::string, double>& slots) {
  if (homes.size() != block_count())
    throw Error(ErrorKind::Internal, options_.name,
                fmt::format("has {} blocks, the placement {}", block_count(), homes.size()));
  if (homes == this->homes() && slots == rings_.slots() && !residence_.stale() &&
      rests_converted_ == residence_.converted())
    return;
  const auto wanted = homes;  // may be our own
  carried_.clear();
  drop_recordings();
  recorder_.forget();
  drop_leases();
  rings_.drop();
  rings_.set_slots(std::map(slots));
  began_with_ = -1;
  int block = 0;
  try {
    residence_.move(wanted, rests_converted_, block);
    block = static_cast<int>(wanted.size());
    make_rings_fit();
  } catch (const std::exception& error) {
    bool memory = device::is_out_of_memory(error);
    auto name = block < static_cast<int>(wanted.size()) ? manifest().blocks()[block]
                                                        : std::string("the streaming ring");
    auto where = block == static_cast<int>(wanted.size()) ? options_.compute
                 : wanted[block].rests                    ? residence_.asked()
                                                          : wanted[block].device;
    unload();
    if (!memory) throw;
    throw Error(ErrorKind::OutOfMemory, where,
                fmt::format("there is no room for {} of {}", name, options_.name));
  }
}

/// Where not even the smallest ring finds room beside the resident weights (an allocator's memory
/// has holes that no plan knows of), these make way.
void StreamedModel::make_rings_fit() {
  for (;;) {
    try {
      return rings_.make();
    } catch (const std::exception& error) {
      if (!device::is_out_of_memory(error)) throw;
      residence_.finish();
      std::int64_t most = 1;
      for (int block = 0; block < static_cast<int>(block_count()); ++block)
        if (homes()[block].how == How::Streamed)
          most = std::max(most, residence_.streamed(block).slot_bytes);
      if (!offload(most)) throw;
      log::info("{}: weights make way for the streaming ring", options_.name);
      device::empty_cache(compute_);
    }
  }
}

void StreamedModel::unload() {
  drop_recordings();
  drop_leases();
  carried_.clear();
  rings_.clear();
  residence_.clear();
  began_with_ = -1;
}

/// Weights that rest on the compute device stream from now on, so that `bytes` come free with the
/// ring that will be needed. False where none rests. No ring may be there.
bool StreamedModel::offload(std::int64_t bytes, const StepPrice& price) {
  Shift shift(contents_, residence_, rings_, price);
  if (!shift.free(bytes)) return false;
  move(shift.homes());
  return true;
}

/// Where there is no room to bring what is to stay of blocks that move, they stream as a whole.
void StreamedModel::move(std::vector<BlockHome> homes) {
  const auto before = residence_.homes();
  int block = 0;
  try {
    residence_.move(homes, residence_.converted(), block);
  } catch (const std::exception& error) {
    if (!device::is_out_of_memory(error)) throw;
    for (std::size_t i = 0; i < homes.size(); ++i) {
      if (homes[i] == before[i]) continue;
      const bool streams = homes[i].how == How::Streamed;
      if (homes[i].how == How::Aside) continue;
      homes[i] = {How::Streamed, streams ? homes[i].device : std::string("cpu")};
    }
    residence_.move(homes, residence_.converted(), block);
  }
}

/// Whether weights and whole rings find room in these homes. Where they do not some have moved.
bool StreamedModel::settle(const std::vector<BlockHome>& homes) {
  int block = 0;
  try {
    residence_.move(homes, residence_.converted(), block);
    return rings_.make_all();
  } catch (const std::exception& error) {
    if (!device::is_out_of_memory(error)) throw;
    return false;
  }
}

bool StreamedModel::rearrange(const std::vector<BlockHome>& homes,
                              const std::map<std::string, double>& slots) {
  if (!loaded()) return false;
  const auto homes_before = this->homes();
  const auto slots_before = rings_.slots();
  try {
    drop_recordings();
    drop_leases();
    residence_.finish();
    rings_.drop();
    rings_.set_slots(std::map(slots));
    // In what an allocator keeps of the ring weights would leave holes that no ring fits into.
    device::empty_cache(compute_);
    if (settle(homes)) return true;
    // What was coming may not find room either: all comes anew.
    const bool converted = residence_.converted();
    residence_.clear();
    rings_.set_slots(std::map(slots_before));
    device::empty_cache(compute_);
    int block = 0;
    try {
      residence_.move(homes_before, converted, block);
    } catch (const std::exception& error) {
      if (!device::is_out_of_memory(error)) throw;
      auto streamed = homes_before;
      for (auto& home : streamed)
        if (home.how == How::Resident)
          home = {How::Streamed, "cpu"};
        else
          home.rests = 0;
      residence_.clear();
      device::empty_cache(compute_);
      residence_.move(streamed, converted, block);
    }
    make_rings_fit();
    return false;
  } catch (const std::exception& error) {
    const bool memory = device::is_out_of_memory(error);
    unload();
    if (!memory) throw;
    throw Error(ErrorKind::OutOfMemory, options_.compute,
                fmt::format("{} finds no room for the streaming ring", options_.name));
  }
}

std::optional<std::int64_t> StreamedModel::grow(std::int64_t bytes, const StepPrice& price) {
  if (!loaded()) return 0;
  Shift shift(contents_, residence_, rings_, price);
  if (compute_.is_cpu() || !shift.take(bytes)) return 0;
  const auto before = device_bytes(options_.compute) - recorder_.held_bytes();
  if (!rearrange(shift.homes(), std::map(rings_.slots()))) return std::nullopt;
  const auto taken = device_bytes(options_.compute) - before;
  log::info("{}: {} more of weights rest on {}", options_.name,
            human_bytes(static_cast<double>(taken)), options_.compute);
  return taken;
}

std::int64_t StreamedModel::shrink(std::int64_t bytes, const StepPrice& price) {
  if (!loaded()) return 0;
  constexpr int comfortable_slots = 2;
  // A step is recorded again as soon as there is room: what comes free with a recording does not last.
  const auto recorded = recorder_.held_bytes();
  const auto before = device_bytes(options_.compute) - recorded;
  auto freed = [&] { return before - device_bytes(options_.compute); };
  try {
    drop_recordings();
    drop_leases();
    residence_.finish();
    // More slots than two are there because a plan has a use for them: of what has a price the cheapest
    // weights go first.
    if (!price && rings_.limit_slots(comfortable_slots)) rings_.make();
    // What comes free is counted as planners count; where that was too little, once more.
    for (auto missing = bytes - freed(); missing > 0; missing = bytes - freed()) {
      rings_.drop();
      const bool any = offload(missing, price);
      make_rings_fit();
      if (!any) break;
    }
    if (freed() < bytes && rings_.limit_slots(comfortable_slots)) rings_.make();
    if (freed() + recorded <= 0 && rings_.limit_slots(1)) rings_.make();
  } catch (const std::exception& error) {
    bool memory = device::is_out_of_memory(error);
    unload();
    if (!memory) throw;
    throw Error(ErrorKind::OutOfMemory, options_.compute,
                fmt::format("{} finds no room for the streaming ring", options_.name));
  }
  log::info("{}: {} of weights moved out of {}", options_.name,
            human_bytes(static_cast<double>(freed())), options_.compute);
  return freed() + recorded;
}

// --- running

/// Waits for weights that are on their way, by `wait`. What cannot be brought leaves the model
/// unloaded; who interrupts or makes room goes on later.
void StreamedModel::wait_for_weights(const std::function<void()>& wait) {
  try {
    wait();
  } catch (const std::exception& error) {
    const auto* ours = dynamic_cast<const Error*>(&error);
    bool later =
        device::is_out_of_memory(error) || (ours && ours->kind() == ErrorKind::Interrupted);
    if (!later || residence_.upload_failed()) unload();
    throw;
  }
}

Tensors StreamedModel::run_resident(int block, const Tensors& inputs, const Body& body) {
  wait_for_weights([&] { residence_.arrived(block); });
  auto results = body(inputs);
  if (compute_.is_cpu() && !(residence_.converted() && contents_.needs_conversion(block)))
    for (const auto& stretch : contents_.all_of(block).stretches) stretch.file->mapping()->check();
  return results;
}

Tensors StreamedModel::run_streamed(int block, const Tensors& inputs, const Body& body) {
  auto& lease = leases_[block];
  wait_for_weights([&] { residence_.arrived(block); });  // what of it rests
  // Again at each replay, where the recorded operations read from the place of the first time.
  device::aside([this, block, &lease, recorded = std::make_shared<std::int64_t>(-1)] {
    throw_if_interrupted();
    lease = rings_.of(block).pin(block);
    auto place = lease.offset();
    if (*recorded >= 0 && *recorded != place)
      throw Moved(options_.name,
                  fmt::format("block {} lies at {} of the ring, not at {}",
                              contents_.manifest().blocks()[block], place, *recorded));
    *recorded = place;
  });
  struct Leave {
    StreamedModel& model;
    int block;
    ~Leave() {
      model.contents_.clear_slots(block);
      // What is issued while recording may be thrown away: nobody may come to wait for it.
      if (!device::recording()) model.leases_[block] = Lease();
    }
  } leave{*this, block};
  bool in_mapping = !lease.places().empty();
  contents_.fill_slots(rings_.values_at(block, lease));
  auto results = body(inputs);
  // Bytes used in place read as zeros where the file was cut short meanwhile.
  if (in_mapping)
    for (const auto& stretch : contents_.all_of(block).stretches) stretch.file->mapping()->check();
  device::aside([&lease] { lease = Lease(); });
  return results;
}

Tensors StreamedModel::run_on_donor(int block, const Tensors& inputs, const Body& body) {
  contents_.fill_slots(residence_.values(block));
  struct Leave {
    const Contents& contents;
    int block;
    ~Leave() { contents.clear_slots(block); }
  } leave{contents_, block};
  const auto donor = device::to_torch(homes()[block].device);
  return carried_.fetch(body(carried_.send(inputs, donor)), compute_);
}

/// Does `action`; where memory runs out, again as soon as something has made way. `block`: that
/// runs, for the message; -1: what lies between blocks.
void StreamedModel::with_room(int block, const std::function<void()>& action) {
  constexpr int attempts = 8;
  // A little at first, twice as much each time: weights that go are missed.
  constexpr auto wanted = std::int64_t{64} << 20;
  for (int attempt = 0;; ++attempt) {
    try {
      // Making room in the middle of a block would take its weights from under it.
      device::RetryScope once;
      return action();
    } catch (const std::exception& error) {
      // A recorder cannot give memory back: it starts again without recording.
      if (!device::is_out_of_memory(error) || device::recording() || !loaded()) throw;
      if (attempt < attempts && make_room && make_room(options_.compute, wanted << attempt))
        continue;
      if (dynamic_cast<const Error*>(&error)) throw;
      auto what = block >= 0 ? "block " + manifest().blocks()[block] : "a step";
      throw Error(ErrorKind::OutOfMemory, options_.compute,
                  fmt::format("{} of {} does not fit even with every other weight moved out: {}",
                              what, options_.name, device::sentence_of(error)));
    }
  }
}

Tensors StreamedModel::run(int block, const Tensors& inputs, const Body& body) {
  throw_if_interrupted();
  if (!loaded() || residence_.stale())
    throw Error(ErrorKind::Internal, options_.name, "was run before its weights were placed");
  const auto& name = manifest().blocks()[block];
  if (block == began_with_) wait_for_weights([&] { residence_.finish(); });
  if (began_with_ < 0) began_with_ = block;
  device::NamedScope place(name);
  Traced traced(options_.compute + " compute", name, device::current_stream(compute_));
  Tensors results;
  with_room(block, [&] {
    // Read again at each attempt: making room may have moved this very block.
    if (homes()[block].how != How::OnDonor) carried_.forget_gone();
    switch (homes()[block].how) {
      case How::Resident: results = run_resident(block, inputs, body); break;
      case How::Streamed:
      case How::Aside: results = run_streamed(block, inputs, body); break;
      case How::OnDonor: results = run_on_donor(block, inputs, body); break;
    }
  });
  return results;
}

/// A recorded step holds memory that bringing blocks may need, and reads where their ring lay. What an
/// allocator keeps of the ring would be taken for memory that steps need.
at::Tensor StreamedModel::aside(const std::function<at::Tensor()>& forward) {
  const bool any = std::any_of(homes().begin(), homes().end(),
                               [](const BlockHome& home) { return home.how == How::Aside; });
  if (any) {
    ++asides_;
    drop_leases();
    if (drop_recordings()) device::empty_cache(compute_);
  }
  struct End {
    StreamedModel& model;
    bool any;
    int began_with;  // a step that begins with the same block does not wait for all weights
    ~End() {
      model.carried_.clear();
      model.began_with_ = began_with;
      if (!any) return;
      model.drop_leases();
      model.rings_.drop_aside();
      try {
        device::empty_cache(model.compute_);
      } catch (const std::exception& error) {
        log::debug("{}: memory was not given back: {}", model.options_.name, error.what());
      }
    }
  } end{*this, any, began_with_};
  return forward();
}

// --- recording

void StreamedModel::record_steps(bool allowed) {
  record_steps_ = allowed;
  if (!allowed) drop_recordings();
}

bool StreamedModel::drop_recordings() {
  bool held = recorder_.held_bytes() > 0;
  recorder_.clear();
  return held;
}

bool StreamedModel::can_record() const {
  return std::none_of(homes().begin(), homes().end(),
                      [](const BlockHome& home) { return home.how == How::OnDonor; });
}

void StreamedModel::drop_leases() {
  for (auto& lease : leases_) lease = Lease();
}

at::Tensor StreamedModel::step(const std::vector<at::Tensor>& inputs,
                               const StepRecorder::Forward& forward, const std::string& variant) {
  if (before_step) before_step();
  struct Forget {
    Carried& carried;
    ~Forget() { carried.clear(); }
  } forget{carried_};
  at::Tensor result;
  with_room(-1, [&] {
    // A profile wants to see the blocks.
    if (!record_steps_ || Trace::is_on() || !can_record()) {
      result = forward(inputs);
      return;
    }
    if (began_with_ >= 0) wait_for_weights([&] { residence_.finish(); });
    recorder_.compare(std::any_of(homes().begin(), homes().end(),
                                  [](const BlockHome& home) { return home.how == How::Streamed; }));
    try {
      result = recorder_.run(
          inputs,
          [this, forward](const std::vector<at::Tensor>& in) {
            if (!device::recording()) drop_leases();  // of a recording that was broken off
            return forward(in);
          },
          rings_.positions() + variant);
    } catch (...) {
      drop_leases();  // of a replay, too
      throw;
    }
  });
  return result;
}

}  // namespace distorch::streaming
