#include "distorch/models/gguf_tokenizer.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <cstring>

#include "distorch/base/error.h"
#include "distorch/formats/gguf.h"
#include "distorch/tokenizers/sentence_piece_model.h"

namespace distorch::models {

namespace {

using formats::GgufArray;

const std::string kPrefix = "tokenizer.ggml.";

class Described {
 public:
  explicit Described(const formats::MappedFile& file)
      : file_(file), header_(formats::gguf_header(file)) {}

  const GgufArray& list(const std::string& name) const {
    const auto at = header_.values.find(kPrefix + name);
    const auto* array = at == header_.values.end() ? nullptr : std::get_if<GgufArray>(&at->second);
    if (!array)
      throw Error(ErrorKind::Format, file_.path().string(),
                  fmt::format("has a tokenizer and no list '{}{}'", kPrefix, name));
    return *array;
  }
  template <class Kind, class Result>
  Result value(const std::string& name, Result usual) const {
    const auto at = header_.values.find(kPrefix + name);
    const auto* found = at == header_.values.end() ? nullptr : std::get_if<Kind>(&at->second);
    return found ? static_cast<Result>(*found) : usual;
  }
  tokenizers::SentencePieceParts parts() const;

 private:
  const formats::MappedFile& file_;
  formats::GgufHeader header_;
};

tokenizers::SentencePieceParts Described::parts() const {
  const auto texts = formats::gguf_strings(file_, list("tokens"));
  const auto scores = formats::gguf_numbers(file_, list("scores"));
  const auto kinds = formats::gguf_numbers(file_, list("token_type"));
  if (scores.size() != texts.size() || kinds.size() != texts.size())
    throw Error(ErrorKind::Format, file_.path().string(),
                fmt::format("has a tokenizer of {} tokens with {} scores and {} types",
                            texts.size(), scores.size(), kinds.size()));
  tokenizers::SentencePieceParts parts;
  for (std::size_t i = 0; i < texts.size(); ++i)
    parts.pieces.push_back({texts[i], static_cast<float>(scores[i]), static_cast<int>(kinds[i])});
  parts.leading_space = value<bool>("add_space_prefix", true);
  parts.single_spaces = value<bool>("remove_extra_whitespaces", true);
  parts.end = value<std::uint64_t>("eos_token_id", parts.end);
  parts.padding = value<std::uint64_t>("padding_token_id", parts.padding);
  return parts;
}

bool has_tokenizer(const std::shared_ptr<const formats::TensorFile>& file,
                   const std::string& wanted) {
  if (!file || file->format() != "gguf") return false;
  const auto kind = file->metadata().find(kPrefix + "model");
  return kind != file->metadata().end() && kind->second == wanted;
}

}  // namespace

std::vector<std::string> gguf_byte_pairs(const std::shared_ptr<const formats::TensorFile>& file) {
  if (!has_tokenizer(file, "gpt2")) return {};
  Described described(*file->mapping());
  return formats::gguf_strings(*file->mapping(), described.list("tokens"));
}

at::Tensor gguf_sentence_piece(const std::shared_ptr<const formats::TensorFile>& file) {
  if (!has_tokenizer(file, "t5")) return {};
  const auto bytes = tokenizers::sentence_piece_model(Described(*file->mapping()).parts());
  auto tensor = at::empty({static_cast<std::int64_t>(bytes.size())}, at::kByte);
  std::memcpy(tensor.mutable_data_ptr(), bytes.data(), bytes.size());
  return tensor;
}

}  // namespace distorch::models
