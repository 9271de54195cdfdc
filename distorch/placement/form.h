#pragma once
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "distorch/placement/placement.h"

namespace distorch::placement {

/// How the weights of a model rest and travel while it is used.
enum class Form {
  Stored,    // as the file has them; layers decode what they use, in every step
  Converted  // brought into the dtype of computation once, when they are loaded
};

/// What the two forms of one block differ in.
struct BlockForms {
  std::int64_t converted_bytes = 0;
  double decode_s = 0;   // of one step, on the compute device, where the block is stored
  double convert_s = 0;  // once, when it is loaded
};

/// One model in both forms. The blocks are the same ones in the same order.
struct ModelForms {
  Model stored;          // bytes of the file; seconds contain the decoding
  Model converted;       // bytes and seconds of the dtype of computation
  double decode_s = 0;   // what of a stored step is decoding
  double convert_s = 0;  // once
};

/// `bare`: bytes of the file, seconds without decoding; `blocks`: one entry a block. Decoding is
/// added wherever a block can run, since a donor decodes as well.
ModelForms both_forms(const Model& bare, const std::vector<BlockForms>& blocks);

struct FormChoice {
  Form form = Form::Stored;
  Placement placement;  // of the model in that form
  double step_s = 0;    // a steady step by the clock
  std::string reason;   // one clause for the log
};

/// Makes a placement or throws Error(OutOfMemory).
using MakePlan = std::function<Placement(const System&, const Model&)>;

/// Memory against time. Both forms are planned by `make_plan` (auto_plan() where empty), both plans
/// are timed by the same clock, and the shorter time of `steps` steps, with the conversion that
/// precedes them, wins, except that
///  * what runs once (`steps` <= 1: text encoders) stays as stored;
///  * where conversion makes the weights larger by more than a hundredth (fp8, packed) it is taken only if all of them stay
///    resident and decoding costs more than a tenth of a stored step: memory given away for less
///    is missed by the next model;
///  * equal times go to the form with fewer bytes, and where those are equal too (float16 computed
///    in bfloat16) to the converted one.
/// A form that fits nowhere is no candidate; where neither fits, the error is that of the smaller.
FormChoice choose_form(const System& system, const ModelForms& forms, double steps,
                       const MakePlan& make_plan = {});

}  // namespace distorch::placement
