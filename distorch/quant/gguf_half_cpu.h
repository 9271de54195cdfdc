#pragma once
#include "distorch/quant/gguf_cpu.h"

namespace distorch::quant {

/// Decodes float32 numbers (`job.kind` Float) of which every step was rounded to float16, in this
/// thread, by the widest instructions that the processor has. False for other types than those of
/// has_half_steps() (gguf_in_half.h).
bool decode_in_half_on_cpu(const BlockJob& job);

}  // namespace distorch::quant
