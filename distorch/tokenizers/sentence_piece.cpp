#include "distorch/tokenizers/sentence_piece.h"

#include <sentencepiece_processor.h>

#include <fstream>
#include <iterator>

#include "distorch/base/error.h"

namespace distorch::tokenizers {

struct SentencePiece::Model {
  sentencepiece::SentencePieceProcessor processor;
};

SentencePiece::SentencePiece(std::string_view model, const std::string& where)
    : model_(std::make_unique<Model>()) {
  auto status = model_->processor.LoadFromSerializedProto(model);
  if (!status.ok())
    throw Error(ErrorKind::Format, where, "holds no SentencePiece model, or one that is cut short");
}

SentencePiece::~SentencePiece() = default;

std::shared_ptr<const SentencePiece> SentencePiece::load(const std::filesystem::path& file) {
  std::ifstream in(file, std::ios::binary);
  if (!in)
    throw Error(ErrorKind::MissingFile, file.string(),
                "is needed to read prompts for this text encoder, whose own file carries no "
                "vocabulary: put the model's spiece.model there");
  std::string bytes(std::istreambuf_iterator<char>(in), {});
  return std::make_shared<SentencePiece>(bytes, file.string());
}

std::vector<int> SentencePiece::encode(std::string_view utf8) const {
  return model_->processor.EncodeAsIds(utf8);
}

std::size_t SentencePiece::size() const {
  return static_cast<std::size_t>(model_->processor.GetPieceSize());
}

}  // namespace distorch::tokenizers
