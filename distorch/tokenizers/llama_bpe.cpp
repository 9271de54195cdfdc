#include "distorch/tokenizers/llama_bpe.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "distorch/base/atomic_file.h"
#include "distorch/base/error.h"
#include "distorch/tokenizers/byte_spelling.h"

namespace distorch::tokenizers {

namespace {

constexpr int kReserved = 251;  // special tokens without a meaning

RankBpeRules rules() {
  RankBpeRules r{
      .name = "Llama 3", .tokens = LlamaBpe::start_token, .most_digits = 3, .whole_words = true};
  auto& list = r.special;
  int reserved = 0;
  auto reserve = [&](int count) {
    for (int i = 0; i < count; ++i)
      list.push_back(fmt::format("<|reserved_special_token_{}|>", reserved++));
  };
  list = {"<|begin_of_text|>", "<|end_of_text|>"};
  reserve(4);
  list.insert(list.end(), {"<|start_header_id|>", "<|end_header_id|>"});
  reserve(1);
  list.emplace_back("<|eot_id|>");
  reserve(kReserved - reserved);
  list.insert(list.end(), {"<unk>", "<image>", "<pad>"});
  return r;
}

}  // namespace

std::shared_ptr<const LlamaBpe> LlamaBpe::load(const std::filesystem::path& folder) {
  for (const char* name : {"tokenizer.model", "tokenizer.json"}) {
    auto path = folder / name;
    if (!std::filesystem::is_regular_file(path)) continue;
    auto text = read_file(path);
    return path.extension() == ".json" ? parse_json(text, path.string())
                                       : parse(text, path.string());
  }
  throw Error(ErrorKind::MissingFile, (folder / "tokenizer.model").string(),
              "the Llama 3 vocabulary is not there; run tools/setup.sh, which fetches it, or put "
              "tokenizer.model or tokenizer.json of any Llama 3 model into this folder or into "
              "tokenizers/llama3/ below the models");
}

std::shared_ptr<const LlamaBpe> LlamaBpe::parse(std::string_view text, const std::string& where) {
  return std::shared_ptr<const LlamaBpe>(new LlamaBpe(RankBpe::parse(text, where, rules())));
}

std::shared_ptr<const LlamaBpe> LlamaBpe::from_spellings(const std::vector<std::string>& tokens,
                                                         const std::string& where) {
  std::vector<std::string> bytes;
  for (const auto& token : tokens) {
    if (bytes.size() == static_cast<std::size_t>(start_token)) break;
    bytes.push_back(bytes_of_spelling(token));
  }
  return std::shared_ptr<const LlamaBpe>(new LlamaBpe(RankBpe::from_tokens(bytes, where, rules())));
}

std::shared_ptr<const LlamaBpe> LlamaBpe::parse_json(std::string_view text,
                                                     const std::string& where) {
  auto json = nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
  auto vocabulary = nlohmann::json::json_pointer("/model/vocab");
  if (!json.is_object() || !json.contains(vocabulary) || !json.at(vocabulary).is_object())
    throw Error(ErrorKind::Format, where, "holds no 'model' with a 'vocab' of tokens");
  std::vector<std::string> tokens(static_cast<std::size_t>(start_token));
  for (const auto& [token, id] : json.at(vocabulary).items())
    if (id.is_number_unsigned() && id.get<std::uint64_t>() < tokens.size())
      tokens[id.get<std::size_t>()] = token;
  return from_spellings(tokens, where);
}

}  // namespace distorch::tokenizers
