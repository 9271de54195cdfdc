#pragma once
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "distorch/tokenizers/charsmap.h"

namespace distorch::tokenizers {

/// What files say of a unigram vocabulary.
struct UnigramData {
  struct Piece {
    std::string text;
    double score = 0;      // log of its probability
    bool special = false;  // found in the text as it is written, before anything else
  };
  std::vector<Piece> pieces;  // by token
  int unknown = 2;            // the token of what no piece spells
  std::string charsmap;       // see CharsMap
};

/// Reads a SentencePiece model (a protocol buffer: spiece.model, or the tensor `spiece_model` of
/// text encoder files) of the unigram kind; `where` names the file. Error(Format).
UnigramData read_sentencepiece(std::string_view bytes, const std::string& where);
/// Reads a tokenizer.json of the library `tokenizers` whose model is of the unigram kind.
/// Error(Format).
UnigramData read_tokenizer_json(std::string_view text, const std::string& where);

/// T5's tokenizer: the most probable way to spell a text with the vocabulary's pieces. Source: Kudo
/// 2018 (unigram language model); behaviour of T5TokenizerFast with the tokenizer.json that ComfyUI
/// ships: two spaces or more are one, the first word begins with a space, the text's end has none.
class Unigram {
 public:
  static constexpr int end_token = 1;

  /// `where` names the file. Error(Format) for a vocabulary without pieces.
  Unigram(UnigramData data, const std::string& where);
  Unigram(const Unigram&) = delete;
  /// Looks for tokenizer.json and spiece.model in `folder`. Error(MissingFile) that says where to
  /// put one, Error(Format).
  static std::shared_ptr<const Unigram> load(const std::filesystem::path& folder);

  /// Token numbers of a text, without the end token; any bytes are accepted. Time in proportion to
  /// the text.
  std::vector<int> encode(std::string_view utf8) const;

  std::size_t size() const { return data_.pieces.size(); }
  std::string text_of(int token) const;  // "" for numbers out of range

 private:
  void encode_section(std::string_view text, bool first, std::vector<int>& ids) const;
  void encode_word(std::string_view word, std::vector<int>& ids) const;

  UnigramData data_;
  CharsMap charsmap_;
  std::unordered_map<std::string_view, int> by_text_;
  std::vector<int> special_;
  std::size_t longest_ = 0;  // bytes of a piece
  double unknown_score_ = 0;
};

}  // namespace distorch::tokenizers
