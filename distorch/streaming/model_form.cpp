#include "distorch/streaming/model_form.h"

#include <algorithm>

#include "distorch/base/error.h"
#include "distorch/base/log.h"
#include "distorch/streaming/described_model.h"

namespace distorch::streaming {

using placement::Form;

namespace {

/// Reading what the file has and writing what is computed with, once.
double conversion_seconds(const StreamedModel& model, const RigDevice& compute) {
  if (compute.memory_bytes_per_s <= 0) return 0;
  std::int64_t bytes = 0;
  const auto& contents = model.contents();
  for (int block = 0; block < static_cast<int>(model.block_count()); ++block)
    if (contents.needs_conversion(block))
      bytes += contents.weights_of(block).link_bytes + contents.converted_bytes(block);
  return static_cast<double>(bytes) / compute.memory_bytes_per_s;
}

bool is_converted(const std::string& name, const placement::ModelForms& forms,
                  const FormRequest& request) try {
  auto choice = placement::choose_form(request.system, forms, request.steps, request.plan);
  const bool converted = choice.form == Form::Converted;
  log::debug("{}: weights rest {}: {}", name, converted ? "converted" : "as the file has them",
             choice.reason);
  return converted;
} catch (const Error& error) {
  if (error.kind() != ErrorKind::OutOfMemory) throw;
  return forms.converted.bytes() < forms.stored.bytes();
}

}  // namespace

Profile choose_form(StreamedModel& model, const Machine& machine, const FormRequest& request) {
  const bool converted_now = model.rests_converted() && model.loaded();
  Profile profiles[2];
  placement::ModelForms forms;
  for (bool converted : {false, true}) {
    model.rest_converted(converted);
    profiles[converted] = request.profile();
    // Layers decode what streams in either form, and need the room for it.
    if (converted)
      profiles[true].peak_activation_bytes =
          std::max(profiles[true].peak_activation_bytes, profiles[false].peak_activation_bytes);
    (converted ? forms.converted : forms.stored) =
        describe(model, request.system, request.timed(profiles[converted]), machine);
  }
  // Who says what is to lie where has idle blocks counted too.
  if (!request.plan)
    for (auto* form : {&forms.converted, &forms.stored})
      *form = fitting(std::move(*form), request.system);
  forms.decode_s = std::max(0.0, profiles[false].total_s - profiles[true].total_s);
  if (!converted_now)
    forms.convert_s = conversion_seconds(model, machine.speeds(model.options().compute));
  const bool converted = is_converted(model.options().name, forms, request);
  model.rest_converted(converted);
  return std::move(profiles[converted]);
}

}  // namespace distorch::streaming
