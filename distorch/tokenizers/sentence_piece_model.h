#pragma once
#include <string>
#include <vector>

namespace distorch::tokenizers {

/// What a SentencePiece model of the unigram kind says, for files that say it in other words.
struct SentencePieceParts {
  struct Piece {
    std::string text;
    float score = 0;
    int kind = 1;  // 1 usual, 2 unknown, 3 control, 4 of the user, 5 unused, 6 a byte
  };
  std::vector<Piece> pieces;
  bool leading_space = true;  // one is put before a text
  bool single_spaces = true;  // several become one, none stays at the ends
  int end = 1, padding = 0;   // tokens
};
/// It as a protocol buffer. What no piece spells is spelled in bytes; characters stay as they are.
std::string sentence_piece_model(const SentencePieceParts& parts);

}  // namespace distorch::tokenizers
