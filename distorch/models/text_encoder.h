#pragma once
#include <ATen/core/Tensor.h>

#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "distorch/models/lora_names.h"
#include "distorch/tokenizers/clip_bpe.h"
#include "distorch/tokenizers/llama_bpe.h"
#include "distorch/tokenizers/qwen_bpe.h"
#include "distorch/tokenizers/sentence_piece.h"
#include "distorch/tokenizers/unigram.h"
#include "distorch/weights/checkpoint.h"
#include "distorch/weights/manifest.h"

namespace distorch::models {

/// The vocabularies of tokenizers, each read when it is first needed.
class Vocabularies {
 public:
  /// `folder` holds bpe_simple_vocab_16e6.txt.gz. The other vocabularies are looked for in folders
  /// called "t5" and "qwen" beside or below it, then below each of `more`.
  explicit Vocabularies(std::filesystem::path folder, std::vector<std::filesystem::path> more = {});
  std::shared_ptr<const tokenizers::ClipBpe> clip();
  /// `own`: the SentencePiece model that the encoder's file carries (a byte tensor); undefined: it
  /// has none.
  std::shared_ptr<const tokenizers::Unigram> t5(const at::Tensor& own, const std::string& path);
  std::shared_ptr<const tokenizers::QwenBpe> qwen();
  /// Llama 3's. `own`: the tokens that the encoder's file lists, as GGUF files spell them; where it
  /// lists none it is looked for in a folder "llama3".
  std::shared_ptr<const tokenizers::LlamaBpe> llama(const std::vector<std::string>& own,
                                                    const std::string& path);
  /// UMT5's. Where the encoder's file carries none it is looked for in a folder "umt5".
  std::shared_ptr<const tokenizers::SentencePiece> sentence_piece(const at::Tensor& own,
                                                                  const std::string& path);

 private:
  std::filesystem::path find(const std::string& kind, const std::vector<std::string>& files) const;

  std::filesystem::path folder_;
  std::vector<std::filesystem::path> places_;
  std::shared_ptr<const tokenizers::ClipBpe> clip_;
  std::map<std::string, std::shared_ptr<const tokenizers::Unigram>> t5_;  // by file, "": ours
  std::shared_ptr<const tokenizers::QwenBpe> qwen_;
  std::map<std::string, std::shared_ptr<const tokenizers::LlamaBpe>> llama_;  // by file, "": ours
  std::map<std::string, std::shared_ptr<const tokenizers::SentencePiece>> sentence_pieces_;
};

/// A vector that stands in place of a token's embedding (textual inversion).
struct Replacement {
  std::int64_t row = 0;     // of the batch
  std::int64_t column = 0;  // position in the sequence
  at::Tensor vector;        // [width]
};

/// What an encoder is told.
struct Prompt {
  Prompt() = default;
  Prompt(std::string words) : text(std::move(words)) {}  // NOLINT: a text is a prompt
  std::string text;
  /// For encoders that see: [1, H, W, 3] float32 0..1 each, in the order in which the text has
  /// places for them.
  std::vector<at::Tensor> pictures;
  /// For encoders that are shown what a picture encoder saw: its states [tokens, width] each, in the
  /// order in which the text has places for them; of the results one in so many is kept.
  std::vector<at::Tensor> seen;
  std::int64_t seen_every = 1;
  /// In place of the encoder's own frame around the text, which stands where this has "{}".
  std::optional<std::string> frame;
  /// Say nothing at all, which is less than an empty text.
  bool silent = false;
};

/// A picture among the tokens of a row: its patches stand for `columns` places from `column` on.
struct TokenPicture {
  std::int64_t column = 0;
  std::int64_t columns = 0;
  at::Tensor patches;  // [rows · cols, numbers of a patch] float32 on the CPU
  std::int64_t grid_rows = 0, grid_columns = 0;  // in patches
};

/// Places of a row: every `step`-th of those from `first` to before `end`.
struct Places {
  std::int64_t first = 0, end = 0, step = 1;
  std::int64_t count() const { return end <= first ? 0 : (end - first + step - 1) / step; }
};

/// A prompt as one encoder takes it: its chunks, and at the end the empty prompt where weights need
/// it.
struct TokenBatch {
  at::Tensor ids;  // [rows, L] int64 on the CPU; any valid id where a replacement stands
  std::vector<Replacement> replacements;
  /// [chunks, L] float32 on the CPU, one number a place; undefined where all are 1. The last row of
  /// ids is then the empty prompt.
  at::Tensor weights;
  std::int64_t chunks = 1;
  bool silent = false;  // Prompt::silent
  /// [rows, L] float32 on the CPU, 1 where a token counts; undefined where all do.
  at::Tensor mask;
  std::vector<TokenPicture> pictures;  // of the first row
  std::int64_t dropped = 0;            // places at the start whose states nobody gets
  /// Of one row: the places whose states somebody gets, in this order, where they are not all behind
  /// `dropped`.
  std::vector<Places> kept;
  /// How many tokens come of it.
  std::int64_t tokens() const;
  /// What decides how much an encoder computes, for recordings and dry runs.
  std::string shape() const;
};

/// What an encoder makes of a prompt, float32.
struct TextStates {
  at::Tensor states;     // [1, tokens of all chunks, width]
  at::Tensor pooled;     // [1, width] of the first chunk; undefined: the encoder has none
  at::Tensor mask = {};  // [1, tokens], 1 where a token counts; undefined: all do
  bool silent = false;   // the prompt was Prompt::silent
};

/// One text encoder with its tokenizer.
class TextEncoder {
 public:
  virtual ~TextEncoder() = default;
  virtual weights::Manifest& manifest() = 0;
  virtual std::int64_t width() const = 0;  // of a token's state
  /// Of the vector that stands for a token, which textual inversions have.
  virtual std::int64_t token_width() const { return width(); }
  virtual std::int64_t pooled_width() const = 0;
  /// Vectors [rows, width] of a textual inversion by name; undefined where there is none.
  using Embeddings = std::function<at::Tensor(const std::string& name)>;
  /// As many chunks as the prompt takes, filled up with empty ones to `chunks`.
  virtual TokenBatch tokenize(const Prompt& prompt, const Embeddings& embeddings,
                              std::int64_t chunks = 1) const = 0;
  /// Needs weights attached to manifest(). `layer`: of CLIPSetLastLayer. Results on the CPU. On a
  /// device of shapes only the batch's values do not matter.
  virtual TextStates encode(const TokenBatch& batch, std::optional<int> layer,
                            at::Device device) const = 0;
};

/// One encoder of a recipe: its tensors and how it is made.
struct TextPart {
  std::string name;  // "clip_l", "clip_g", ...: also its tensor in textual inversion files
  weights::Checkpoint part;
  std::function<std::unique_ptr<TextEncoder>(std::shared_ptr<Vocabularies>)> make;
  std::function<LoraNames(const weights::Manifest&)> lora_names;
};

/// The text side of a model: its encoders in order and how what they give becomes one conditioning.
struct TextRecipe {
  std::vector<TextPart> encoders;
  using Join = std::function<TextStates(const std::vector<TextStates>&)>;
  Join join = nullptr;  // null: the first encoder's states as they are
  bool empty() const { return encoders.empty(); }
};

/// The encoders' states as one.
TextStates joined(const TextRecipe::Join& join, const std::vector<TextStates>& states);

}  // namespace distorch::models
