#include "distorch/tokenizers/rank_bpe.h"

#include <fmt/format.h>
#include <utf8proc.h>

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <utility>

#include "distorch/base/error.h"
#include "distorch/tokenizers/base64.h"
#include "distorch/tokenizers/bpe_merge.h"
#include "distorch/tokenizers/unicode.h"
#include "distorch/tokenizers/word_parts.h"

namespace distorch::tokenizers {

namespace {

constexpr std::size_t kLongestToken = 1024;  // bytes

std::string composed(const std::string& valid) {
  utf8proc_uint8_t* output = nullptr;
  auto options = static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE);
  auto length = utf8proc_map(reinterpret_cast<const utf8proc_uint8_t*>(valid.data()),
                             static_cast<utf8proc_ssize_t>(valid.size()), &output, options);
  std::unique_ptr<utf8proc_uint8_t, decltype(&std::free)> owner(output, std::free);
  if (length < 0) throw Error(ErrorKind::OutOfMemory, "prompt", utf8proc_errmsg(length));
  return {reinterpret_cast<const char*>(output), static_cast<std::size_t>(length)};
}

/// Length of the contraction at the start of `text` in any case, 0 if there is none.
std::size_t contraction(std::string_view text) {
  if (!text.starts_with('\'')) return 0;
  if (text.substr(1).starts_with("\xc5\xbf")) return 3;  // long s folds to s
  auto lower = [&](std::size_t at) {
    auto c = at < text.size() ? text[at] : '\0';
    return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  };
  for (std::string_view ending : {"s", "t", "re", "ve", "m", "ll", "d"})
    if (lower(1) == ending[0] && (ending.size() == 1 || lower(2) == ending[1]))
      return 1 + ending.size();
  return 0;
}

bool is_line_end(std::int32_t c) { return c == '\r' || c == '\n'; }

/// Bytes of the white space at the start of `text` up to the last line end among it; 0 without one.
std::size_t line_ends_length(std::string_view text) {
  const auto blanks = text.substr(0, run_length(text, is_blank));
  const auto last = blanks.find_last_of("\r\n");
  return last == std::string_view::npos ? 0 : last + 1;
}

/// Bytes from the start of `text` (not empty) that are one word: letters with one other character
/// before them, a number of so many digits at most, other characters with a space before and line
/// ends behind, white space up to its last line end.
std::size_t word_length(std::string_view text, int most_digits) {
  if (auto length = contraction(text)) return length;
  auto rest = text;
  auto first = take_character(rest);
  if (is_number(first)) {
    int more = most_digits - 1;
    rest.remove_prefix(
        run_length(rest, [&](std::int32_t c) { return is_number(c) && more-- > 0; }));
    return text.size() - rest.size();
  }
  if (is_letter(first) || !is_line_end(first)) {
    const auto letters = run_length(rest, is_letter);
    if (letters > 0 || is_letter(first)) return text.size() - rest.size() + letters;
  }
  auto others = first == ' ' ? rest : text;
  if (const auto length = run_length(others, is_other)) {
    others.remove_prefix(length);
    return text.size() - others.size() + run_length(others, is_line_end);
  }
  const auto lines = line_ends_length(text);
  return lines > 0 ? lines : blanks_length(text);
}

}  // namespace

/// The next one by rank.
void RankBpe::add(std::string bytes) {
  auto rank = static_cast<int>(text_.size());
  std::vector<int> parts;
  for (char c : bytes) parts.push_back(byte_token_[static_cast<unsigned char>(c)]);
  if (parts.size() == 1)
    byte_token_[static_cast<unsigned char>(bytes[0])] = rank;
  else if (std::ranges::find(parts, -1) == parts.end())
    // A token is the merge of the two that tokens before it leave of its bytes.
    if (parts = merged(std::move(parts), merges_); parts.size() == 2)
      merges_.emplace(pair_key(parts[0], parts[1]), rank);
  if (rules_.whole_words) whole_.emplace(bytes, rank);
  text_.push_back(std::move(bytes));
}

void RankBpe::finish(const std::string& where) {
  if (text_.size() != static_cast<std::size_t>(rules_.tokens) ||
      std::ranges::find(byte_token_, -1) != byte_token_.end())
    throw Error(ErrorKind::Format, where,
                fmt::format("has {} tokens, the {} vocabulary has {}", text_.size(), rules_.name,
                            rules_.tokens));
  for (const auto& special : rules_.special) text_.push_back(special);
}

std::shared_ptr<const RankBpe> RankBpe::parse(std::string_view text, const std::string& where,
                                              RankBpeRules rules) {
  std::shared_ptr<RankBpe> bpe(new RankBpe(std::move(rules)));
  bpe->byte_token_.fill(-1);
  bpe->merges_.reserve(static_cast<std::size_t>(bpe->rules_.tokens));
  while (!text.empty()) {
    auto line = text.substr(0, text.find('\n'));
    text.remove_prefix(std::min(text.size(), line.size() + 1));
    auto rank = static_cast<int>(bpe->text_.size());
    auto space = std::min(line.find(' '), line.size());
    auto bytes = decoded_base64(line.substr(0, space));
    int stated = -1;
    auto digits = line.substr(std::min(space + 1, line.size()));
    std::from_chars(digits.data(), digits.data() + digits.size(), stated);
    if (!bytes || bytes->empty() || bytes->size() > kLongestToken || stated != rank ||
        rank >= bpe->rules_.tokens)
      throw Error(ErrorKind::Format, where,
                  fmt::format("line {} is no token with the rank {}", rank + 1, rank));
    bpe->add(std::move(*bytes));
  }
  bpe->finish(where);
  return bpe;
}

std::shared_ptr<const RankBpe> RankBpe::from_tokens(const std::vector<std::string>& tokens,
                                                    const std::string& where, RankBpeRules rules) {
  std::shared_ptr<RankBpe> bpe(new RankBpe(std::move(rules)));
  bpe->byte_token_.fill(-1);
  auto count = std::min(tokens.size(), static_cast<std::size_t>(bpe->rules_.tokens));
  bpe->merges_.reserve(count);
  for (std::size_t rank = 0; rank < count; ++rank) {
    if (tokens[rank].empty() || tokens[rank].size() > kLongestToken)
      throw Error(ErrorKind::Format, where, fmt::format("token {} stands for no bytes", rank));
    bpe->add(tokens[rank]);
  }
  bpe->finish(where);
  return bpe;
}

void RankBpe::encode_word(std::string_view word, std::vector<int>& ids) const {
  if (rules_.whole_words)
    if (auto whole = whole_.find(std::string(word)); whole != whole_.end()) {
      ids.push_back(whole->second);
      return;
    }
  std::vector<int> bytes;
  for (char c : word) bytes.push_back(byte_token_[static_cast<unsigned char>(c)]);
  auto tokens = merged(std::move(bytes), merges_);
  ids.insert(ids.end(), tokens.begin(), tokens.end());
}

/// A text without special tokens inside.
void RankBpe::encode_plain(std::string_view text, std::vector<int>& ids) const {
  while (!text.empty()) {
    auto length = word_length(text, rules_.most_digits);
    encode_word(text.substr(0, length), ids);
    text.remove_prefix(length);
  }
}

std::vector<int> RankBpe::encode(std::string_view utf8) const {
  std::vector<int> ids;
  auto text = valid_utf8(utf8);
  if (rules_.composed) text = composed(text);
  std::string_view rest = text;
  for (std::size_t at = rest.find('<'); at != std::string_view::npos;) {
    auto token = std::ranges::find_if(
        rules_.special, [&](const std::string& t) { return rest.substr(at).starts_with(t); });
    if (token == rules_.special.end()) {
      at = rest.find('<', at + 1);
      continue;
    }
    encode_plain(rest.substr(0, at), ids);
    ids.push_back(rules_.tokens + static_cast<int>(token - rules_.special.begin()));
    rest.remove_prefix(at + token->size());
    at = rest.find('<');
  }
  encode_plain(rest, ids);
  return ids;
}

std::string RankBpe::text_of(int token) const {
  if (token < 0 || static_cast<std::size_t>(token) >= text_.size()) return {};
  return text_[static_cast<std::size_t>(token)];
}

}  // namespace distorch::tokenizers
