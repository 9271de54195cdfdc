#pragma once
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "distorch/tokenizers/clip_bpe.h"

namespace distorch::tokenizers {

/// One place of a chunk: a token of the vocabulary, or one row of a textual-inversion embedding.
struct Token {
  int id = 0;  // unused where `embedding` >= 0
  float weight = 1.0f;
  // same for tokens of one stretch of text or one embedding, from 1; 0 for start, end, padding
  int word_id = 0;
  int embedding = -1;  // index into PromptTokens::embeddings
  int row = 0;         // of that embedding

  bool is_embedding() const { return embedding >= 0; }
  bool operator==(const Token&) const = default;
};

struct PromptTokens {
  // at least one; each of max_length tokens, start and end included
  std::vector<std::vector<Token>> chunks;
  std::vector<std::string> embeddings;  // names that were found, as given to the lookup
  std::vector<std::string> missing;     // names that were not; they are left out of the prompt
};

/// Number of rows of the embedding of that name, nothing if there is none.
using EmbeddingLookup = std::function<std::optional<int>(const std::string& name)>;

struct ClipTokenizerOptions {
  int max_length = 77;  // tokens of a chunk
  int padding =
      ClipBpe::end_token;     // SD 1.x CLIP-L; OpenCLIP-H of SD 2.x (and G of SDXL) pad with 0
  int longest_kept_word = 8;  // stretches of fewer tokens are not cut at a chunk's end
};

inline constexpr ClipTokenizerOptions clip_l_options{};
inline constexpr ClipTokenizerOptions clip_h_options{.padding = 0};

/// Prompts to chunks as ComfyUI makes them: weights in parentheses (prompt.h), "embedding:NAME", as
/// many chunks as it takes. Source: behaviour of ComfyUI comfy/sd1_clip.py, SDTokenizer.
class ClipTokenizer {
 public:
  explicit ClipTokenizer(std::shared_ptr<const ClipBpe> vocabulary,
                         ClipTokenizerOptions options = {});

  /// Accepts any bytes. Without a lookup "embedding:x" is plain text.
  PromptTokens tokenize(std::string_view prompt, const EmbeddingLookup& lookup = nullptr) const;

  const ClipTokenizerOptions& options() const { return options_; }
  const ClipBpe& vocabulary() const { return *vocabulary_; }

 private:
  using Group = std::vector<Token>;  // is kept together where it is short
  void add_stretch(std::string_view text, float weight, const EmbeddingLookup& lookup,
                   PromptTokens& result, std::vector<Group>& groups) const;
  std::string take_embedding(std::string_view words, float weight, const EmbeddingLookup& lookup,
                             PromptTokens& result, std::vector<Group>& groups) const;
  std::vector<std::vector<Token>> to_chunks(const std::vector<Group>& groups) const;

  std::shared_ptr<const ClipBpe> vocabulary_;
  ClipTokenizerOptions options_;
};

}  // namespace distorch::tokenizers
