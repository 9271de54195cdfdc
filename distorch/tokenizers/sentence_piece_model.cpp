// As the library reads them: sentencepiece_model.proto.
#include "distorch/tokenizers/sentence_piece_model.h"

#include <cstdint>
#include <cstring>

namespace distorch::tokenizers {

namespace {

/// A message of a protocol buffer, field by field.
class Message {
 public:
  void number(int field, std::uint64_t value) {
    varint(static_cast<std::uint64_t>(field) << 3);
    varint(value);
  }
  void real(int field, float value) {
    constexpr std::uint64_t four_bytes = 5;
    varint(static_cast<std::uint64_t>(field) << 3 | four_bytes);
    char bytes[sizeof value];
    std::memcpy(bytes, &value, sizeof value);
    bytes_.append(bytes, sizeof bytes);
  }
  void text(int field, const std::string& bytes) {
    constexpr std::uint64_t counted = 2;
    varint(static_cast<std::uint64_t>(field) << 3 | counted);
    varint(bytes.size());
    bytes_ += bytes;
  }
  const std::string& bytes() const { return bytes_; }

 private:
  void varint(std::uint64_t value) {
    for (; value >= 0x80; value >>= 7) bytes_ += static_cast<char>(value | 0x80);
    bytes_ += static_cast<char>(value);
  }

  std::string bytes_;
};

// Numbers of fields.
enum { kPieces = 1, kTrainer = 2, kNormalizer = 3 };
enum { kText = 1, kScore = 2, kKind = 3 };
enum { kVocabularySize = 4, kByteFallback = 35, kEnd = 42, kPadding = 43 };
enum { kLeadingSpace = 3, kSingleSpaces = 4 };

}  // namespace

std::string sentence_piece_model(const SentencePieceParts& parts) {
  Message model;
  for (const auto& [text, score, kind] : parts.pieces) {
    Message piece;
    piece.text(kText, text);
    piece.real(kScore, score);
    piece.number(kKind, static_cast<std::uint64_t>(kind));
    model.text(kPieces, piece.bytes());
  }
  Message trainer;
  trainer.number(kVocabularySize, parts.pieces.size());
  trainer.number(kByteFallback, 1);
  trainer.number(kEnd, static_cast<std::uint64_t>(parts.end));
  trainer.number(kPadding, static_cast<std::uint64_t>(parts.padding));
  model.text(kTrainer, trainer.bytes());
  Message normalizer;
  normalizer.number(kLeadingSpace, parts.leading_space ? 1 : 0);
  normalizer.number(kSingleSpaces, parts.single_spaces ? 1 : 0);
  model.text(kNormalizer, normalizer.bytes());
  return model.bytes();
}

}  // namespace distorch::tokenizers
