#pragma once
#include <string>
#include <vector>

#include "distorch/cli/plan_report.h"
#include "distorch/nodes/model_folders.h"

namespace distorch::cli {

/// What a step would take if the model's file were in another form, placed by the free planner.
struct OtherForm {
  std::string name;  // as `distorch convert --type` has it
  double bits = 0;   // of a number
  double step_s = 0;
  double times = 1;  // as fast as the best step of the file as it is
};

/// The forms that make the run at least a twentieth faster, the fastest first: links carry and
/// memories hold so many bits a number instead of `bits_now`, and what is decoded is written to the
/// compute device's memory, which moves `memory_bytes_per_s`, and read again. Products of fewer bits
/// are not counted. Empty where the run gains nothing, or where one of the two is not known (0).
std::vector<OtherForm> faster_forms(const Priced& priced, double bits_now,
                                    double memory_bytes_per_s);

/// Bits of a number in the model file that planned runs call `model` (its name without folder and
/// ending), all tensors together; 0 where there is no such file. Reads headers only.
double bits_of_model(const nodes::ModelFolders& folders, const std::string& model);

/// "Q4_K 3.10 x as fast, packed 1.29 x"; empty where there are none.
std::string forms_text(const std::vector<OtherForm>& forms);

}  // namespace distorch::cli
