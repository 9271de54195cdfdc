#pragma once
#include <cstdint>
#include <span>

namespace distorch::quant {

/// The points that blocks of an IQ type name by number, one behind the other: eight coordinates each
/// (four of IQ3 types). Empty for types without. `type` is formats::BlockType::id. Lives as long as
/// the process. Source: the PyPI package `gguf` 0.19, quants.py.
std::span<const std::int8_t> grid_of(int type);

}  // namespace distorch::quant
