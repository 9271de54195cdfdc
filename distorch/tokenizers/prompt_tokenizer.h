#pragma once
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

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
  // at least one; start and end included
  std::vector<std::vector<Token>> chunks;
  std::vector<std::string> embeddings;  // names that were found, as given to the lookup
  std::vector<std::string> missing;     // names that were not; they are left out of the prompt
};

/// Number of rows of the embedding of that name, nothing if there is none.
using EmbeddingLookup = std::function<std::optional<int>(const std::string& name)>;

struct PromptTokenizerOptions {
  /// Tokens of a chunk, which are filled up to it; unset: all in one chunk, as long as it takes.
  std::optional<int> max_length;
  int min_length = 0;        // tokens that a chunk is filled up to where it has no max_length
  std::optional<int> start;  // the token that opens a chunk
  std::optional<int> end;    // the token that closes its text
  int padding = 0;
  int longest_kept_word = 8;  // stretches of fewer tokens are not cut at a chunk's end
  bool weights = true;        // read parentheses as weights
};

/// Prompts to chunks as ComfyUI makes them: weights in parentheses (prompt.h), "embedding:NAME", as
/// many chunks as it takes. Source: behaviour of ComfyUI comfy/sd1_clip.py, SDTokenizer.
class PromptTokenizer {
 public:
  /// Token numbers of a text, without start and end.
  using Encode = std::function<std::vector<int>(std::string_view)>;

  PromptTokenizer(Encode encode, PromptTokenizerOptions options)
      : encode_(std::move(encode)), options_(options) {}

  /// Accepts any bytes. Without a lookup "embedding:x" is plain text.
  PromptTokens tokenize(std::string_view prompt, const EmbeddingLookup& lookup = nullptr) const;

  const PromptTokenizerOptions& options() const { return options_; }

 private:
  using Group = std::vector<Token>;  // is kept together where it is short
  void add_stretch(std::string_view text, float weight, const EmbeddingLookup& lookup,
                   PromptTokens& result, std::vector<Group>& groups) const;
  std::string take_embedding(std::string_view words, float weight, const EmbeddingLookup& lookup,
                             PromptTokens& result, std::vector<Group>& groups) const;
  std::vector<std::vector<Token>> to_chunks(const std::vector<Group>& groups) const;
  std::vector<Token> opened() const;
  void close(std::vector<Token>& chunk) const;

  Encode encode_;
  PromptTokenizerOptions options_;
};

}  // namespace distorch::tokenizers
