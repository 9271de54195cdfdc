#include "distorch/tokenizers/clip_tokenizer.h"

#include <algorithm>

#include "distorch/tokenizers/prompt.h"
#include "distorch/tokenizers/unicode.h"

namespace distorch::tokenizers {

namespace {

constexpr std::string_view embedding_mark = "embedding:";

/// Cuts before every "embedding:" that follows a space or a line break (which is dropped).
std::vector<std::string_view> cut_at_embeddings(std::string_view text) {
  std::vector<std::string_view> parts;
  std::size_t begin = 0;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if ((text[i] == ' ' || text[i] == '\n') && text.substr(i + 1).starts_with(embedding_mark)) {
      parts.push_back(text.substr(begin, i - begin));
      begin = i + 1;
      i += embedding_mark.size();
    }
  }
  parts.push_back(text.substr(begin));
  return parts;
}

std::string joined(const std::vector<std::string_view>& words, std::size_t first) {
  std::string text;
  for (auto i = first; i < words.size(); ++i) {
    if (i > first) text.push_back(' ');
    text += words[i];
  }
  return text;
}

std::string_view without_commas(std::string_view name) {
  auto first = name.find_first_not_of(',');
  if (first == std::string_view::npos) return {};
  return name.substr(first, name.find_last_not_of(',') - first + 1);
}

}  // namespace

ClipTokenizer::ClipTokenizer(std::shared_ptr<const ClipBpe> vocabulary,
                             ClipTokenizerOptions options)
    : vocabulary_(std::move(vocabulary)), options_(options) {}

/// Adds the embedding whose name begins `words` and returns the text that is left behind the name.
std::string ClipTokenizer::take_embedding(std::string_view words, float weight,
                                          const EmbeddingLookup& lookup, PromptTokens& result,
                                          std::vector<Group>& groups) const {
  auto parts = split_words(words);
  std::string name(parts[0]), left = joined(parts, 1);
  auto rows = lookup(name);
  if (!rows) {
    // "embedding:name, more": the comma belongs to the text.
    std::string bare(without_commas(name));
    if (bare.size() < name.size()) {
      left = name.substr(bare.size()) + " " + left;
      if (!bare.empty()) rows = lookup(bare);
      name = bare;
    }
  }
  if (!rows) {
    result.missing.push_back(name);
    return left;
  }
  auto known = std::ranges::find(result.embeddings, name);
  auto index = static_cast<int>(known - result.embeddings.begin());
  if (known == result.embeddings.end()) result.embeddings.push_back(name);
  Group group;
  for (int row = 0; row < *rows; ++row)
    group.push_back({.weight = weight, .embedding = index, .row = row});
  groups.push_back(std::move(group));
  return left;
}

void ClipTokenizer::add_stretch(std::string_view text, float weight, const EmbeddingLookup& lookup,
                                PromptTokens& result, std::vector<Group>& groups) const {
  for (auto part : cut_at_embeddings(text)) {
    if (part.empty()) continue;
    std::string plain(part);
    if (lookup && part.starts_with(embedding_mark) &&
        !split_words(part.substr(embedding_mark.size())).empty()) {
      plain = take_embedding(part.substr(embedding_mark.size()), weight, lookup, result, groups);
      if (plain.empty()) continue;
    }
    Group group;
    for (int id : vocabulary_->encode(plain)) group.push_back({.id = id, .weight = weight});
    groups.push_back(std::move(group));
  }
}

std::vector<std::vector<Token>> ClipTokenizer::to_chunks(const std::vector<Group>& groups) const {
  // the last place is the end token's
  auto full = static_cast<std::size_t>(options_.max_length - 1);
  std::vector<std::vector<Token>> chunks = {{Token{.id = ClipBpe::start_token}}};
  auto close = [&] {
    auto& chunk = chunks.back();
    chunk.push_back({.id = ClipBpe::end_token});
    chunk.resize(static_cast<std::size_t>(options_.max_length), Token{.id = options_.padding});
  };
  for (std::size_t g = 0; g < groups.size(); ++g) {
    const auto& group = groups[g];
    bool may_be_cut = group.size() >= static_cast<std::size_t>(options_.longest_kept_word);
    for (std::size_t done = 0; done < group.size();) {
      auto room = full - chunks.back().size(), left = group.size() - done;
      auto taken = left <= room ? left : may_be_cut ? room : 0;
      for (std::size_t i = 0; i < taken; ++i) {
        chunks.back().push_back(group[done + i]);
        chunks.back().back().word_id = static_cast<int>(g) + 1;
      }
      done += taken;
      if (taken == left) break;
      close();
      chunks.push_back({Token{.id = ClipBpe::start_token}});
    }
  }
  close();
  return chunks;
}

PromptTokens ClipTokenizer::tokenize(std::string_view prompt, const EmbeddingLookup& lookup) const {
  PromptTokens result;
  std::vector<Group> groups;
  for (const auto& [text, weight] : parse_prompt(prompt))
    add_stretch(text, static_cast<float>(weight), lookup, result, groups);
  result.chunks = to_chunks(groups);
  return result;
}

}  // namespace distorch::tokenizers
