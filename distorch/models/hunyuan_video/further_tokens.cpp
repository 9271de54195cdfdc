#include "distorch/models/hunyuan_video/further_tokens.h"

#include "distorch/nn/activation.h"

namespace distorch::models::hunyuan_video {

using at::Tensor;
using weights::Scope;
using weights::Tensors;

namespace {

// Rows of the table of marks.
enum Kind : std::int64_t { Words, Glyphs, Seen, Kinds };

}  // namespace

GlyphTokens::GlyphTokens(const Scope& s, const Config& c)
    : norm(s / "layernorm", c.glyph_width),
      first(s / "fc1", c.glyph_width, c.glyph_hidden),
      second(s / "fc2", c.glyph_hidden, c.glyph_out),
      third(s / "fc3", c.glyph_out, c.hidden) {}

Tensor GlyphTokens::operator()(const Tensor& states) const {
  return third(nn::gelu(second(nn::gelu(first(norm(states))))));
}

FurtherTokens::FurtherTokens(const Scope& s, const Config& c)
    : block_(s), vision_(s / "vision_in" / "proj", c.vision_width, c.hidden) {
  if (c.glyph_width > 0) glyphs_.emplace(s / "byt5_in", c);
  if (c.marked_kinds) marks_.emplace(s / "cond_type_embedding", Kinds, c.hidden);
}

Tensor FurtherTokens::before(const Tensor& txt, const Tensor& glyphs, const Tensor& vision) const {
  return block_.run1({txt, glyphs, vision}, [this](const Tensors& in) {
    auto dtype = vision_.dtype();
    auto marks = marks_ ? marks_->first(Kinds).to(dtype) : Tensor();
    auto marked = [&](const Tensor& tokens, Kind kind) {
      return marks.defined() ? tokens + marks[kind] : tokens;
    };
    Tensors all;
    if (in[2].defined()) all.push_back(marked(vision_(in[2].to(dtype)), Seen));
    if (in[1].defined()) all.push_back(marked((*glyphs_)(in[1].to(dtype)), Glyphs));
    all.push_back(marked(in[0], Words));
    return at::cat(all, 1);
  });
}

}  // namespace distorch::models::hunyuan_video
