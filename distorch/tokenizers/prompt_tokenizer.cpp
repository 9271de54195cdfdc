#include "distorch/tokenizers/prompt_tokenizer.h"

#include <algorithm>
#include <limits>

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

/// Adds the embedding whose name begins `words` and returns the text that is left behind the name.
std::string PromptTokenizer::take_embedding(std::string_view words, float weight,
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

void PromptTokenizer::add_stretch(std::string_view text, float weight,
                                  const EmbeddingLookup& lookup, PromptTokens& result,
                                  std::vector<Group>& groups) const {
  for (auto part : cut_at_embeddings(text)) {
    if (part.empty()) continue;
    std::string plain(part);
    if (lookup && part.starts_with(embedding_mark) &&
        !split_words(part.substr(embedding_mark.size())).empty()) {
      plain = take_embedding(part.substr(embedding_mark.size()), weight, lookup, result, groups);
      if (plain.empty()) continue;
    }
    Group group;
    for (int id : encode_(plain)) group.push_back({.id = id, .weight = weight});
    groups.push_back(std::move(group));
  }
}

std::vector<Token> PromptTokenizer::opened() const {
  return options_.start ? std::vector<Token>{Token{.id = *options_.start}} : std::vector<Token>{};
}

void PromptTokenizer::close(std::vector<Token>& chunk) const {
  if (options_.end) chunk.push_back({.id = *options_.end});
  auto length = static_cast<std::size_t>(options_.max_length.value_or(options_.min_length));
  if (chunk.size() < length) chunk.resize(length, Token{.id = options_.padding});
}

std::vector<std::vector<Token>> PromptTokenizer::to_chunks(const std::vector<Group>& groups) const {
  auto full = options_.max_length ? static_cast<std::size_t>(*options_.max_length)
                                  : std::numeric_limits<std::size_t>::max();
  if (options_.end) --full;
  std::vector<std::vector<Token>> chunks = {opened()};
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
      close(chunks.back());
      chunks.push_back(opened());
    }
  }
  close(chunks.back());
  return chunks;
}

PromptTokens PromptTokenizer::tokenize(std::string_view prompt,
                                       const EmbeddingLookup& lookup) const {
  PromptTokens result;
  std::vector<Group> groups;
  auto stretches = options_.weights ? parse_prompt(prompt) : unweighted(prompt);
  for (const auto& [text, weight] : stretches)
    add_stretch(text, static_cast<float>(weight), lookup, result, groups);
  result.chunks = to_chunks(groups);
  return result;
}

}  // namespace distorch::tokenizers
