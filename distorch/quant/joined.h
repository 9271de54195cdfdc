#pragma once
#include <compare>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "distorch/quant/encoding.h"

namespace distorch::quant {

/// A weight whose rows lie in several tensors one after the other, as files have it that keep the
/// parts of a fused projection apart. `values` is the first piece, `parts` are the others, each with
/// its rows; the elements are plain numbers of any types. Made by Checkpoint::add_joined(), never by
/// a file's marker. Where the pieces are laid one behind the other (streaming::Contents), the weight
/// is a plain tensor.
const Encoding& joined();

/// One piece of a joined weight.
struct PieceForm {
  const Encoding* encoding = nullptr;  // null: plain numbers
  std::vector<std::int64_t> shape;     // of the numbers, rows first
  std::size_t parts = 0;               // of Packed::parts
  auto operator<=>(const PieceForm&) const = default;
};

/// The same of pieces of which any may be packed, each in its own way: joined() where none is, else
/// an encoding for just these forms. `values` is the first piece's; `parts` are the first piece's
/// parts, then the second's values and its parts, and so on. A piece is decoded, and multiplied with,
/// as if it were alone, so that scales for a whole piece stay what they are.
const Encoding& joined(const std::vector<PieceForm>& forms);

/// Whether it is one of those.
bool is_joined(const Encoding* encoding);

/// The pieces as one weight; plain ones have no encoding.
Packed join(const std::vector<Packed>& pieces);

/// The pieces of a joined weight, in order.
std::vector<Packed> pieces_of(const Packed& weight);

}  // namespace distorch::quant
