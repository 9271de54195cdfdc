#pragma once
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace distorch::tokenizers {

/// A SentencePiece model run by its own library, for encoders whose reference does so too (UMT5).
/// T5's is another matter: see unigram.h. Source: Kudo and Richardson 2018.
class SentencePiece {
 public:
  /// `model`: the protocol buffer; `where` names the file. Error(Format) where it is none.
  SentencePiece(std::string_view model, const std::string& where);
  ~SentencePiece();
  SentencePiece(const SentencePiece&) = delete;
  SentencePiece& operator=(const SentencePiece&) = delete;
  /// Reads a file. Error(MissingFile) that says where to put one, Error(Format).
  static std::shared_ptr<const SentencePiece> load(const std::filesystem::path& file);

  /// Token numbers of a text without begin and end; any bytes are accepted.
  std::vector<int> encode(std::string_view utf8) const;
  std::size_t size() const;

 private:
  struct Model;
  std::unique_ptr<Model> model_;
};

}  // namespace distorch::tokenizers
