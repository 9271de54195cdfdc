#include "distorch/tokenizers/clip_bpe.h"

#include <fmt/format.h>
#include <zlib.h>

#include <algorithm>
#include <numeric>

#include "distorch/base/error.h"
#include "distorch/tokenizers/bpe_merge.h"
#include "distorch/tokenizers/byte_spelling.h"
#include "distorch/tokenizers/clip_text.h"
#include "distorch/tokenizers/unicode.h"

namespace distorch::tokenizers {

namespace {

constexpr int byte_tokens = 256;
constexpr int merge_count = ClipBpe::start_token - 2 * byte_tokens;
constexpr std::string_view start_text = "<|startoftext|>";
constexpr std::string_view end_text = "<|endoftext|>";

std::string unpack(const std::filesystem::path& path) {
  if (!std::filesystem::is_regular_file(path))
    throw Error(ErrorKind::MissingFile, path.string(),
                "the CLIP vocabulary is not there; run tools/setup.sh, which fetches it");
  gzFile file = ::gzopen(path.c_str(), "rb");
  if (file == nullptr)
    throw Error(ErrorKind::MissingFile, path.string(), "the CLIP vocabulary cannot be read");
  constexpr std::size_t limit = 16 << 20;  // bytes; the real one has 3.2 million
  std::string text(limit, '\0');
  auto size = ::gzread(file, text.data(), static_cast<unsigned>(limit));
  bool whole = ::gzclose_r(file) == Z_OK && size >= 0;
  if (!whole)
    throw Error(ErrorKind::Format, path.string(),
                "is a broken gzip file; remove it and run tools/setup.sh again");
  text.resize(static_cast<std::size_t>(size));
  return text;
}

/// Bytes in the order of their tokens: that of the characters that spell them.
std::vector<int> byte_order() {
  std::vector<int> order(byte_tokens);
  std::iota(order.begin(), order.end(), 0);
  std::ranges::sort(order, {},
                    [](int byte) { return character_of_byte(static_cast<unsigned char>(byte)); });
  return order;
}

/// Length of the contraction at the start of lower-case `text`, 0 if there is none.
std::size_t contraction(std::string_view text) {
  for (std::string_view ending :
       {"'s", "'t", "'re", "'ve", "'m", "'ll", "'d", "'\xc5\xbf"})  // the last: long s folds to s
    if (text.starts_with(ending)) return ending.size();
  return 0;
}

enum class CharacterKind { Space, Letter, Number, Other };

CharacterKind kind_of(std::int32_t c) {
  if (is_letter(c)) return CharacterKind::Letter;
  if (is_number(c)) return CharacterKind::Number;
  return is_space(c) ? CharacterKind::Space : CharacterKind::Other;
}

/// Bytes from the start of `text` that are one word: letters, one number, or a run of anything
/// else.
std::size_t word_length(std::string_view text) {
  auto rest = text;
  auto kind = kind_of(take_character(rest));
  if (kind == CharacterKind::Number || kind == CharacterKind::Space)
    return text.size() - rest.size();
  while (!rest.empty()) {
    auto after = rest;
    if (kind_of(take_character(after)) != kind) break;
    rest = after;
  }
  return text.size() - rest.size();
}

}  // namespace

std::shared_ptr<const ClipBpe> ClipBpe::load(const std::filesystem::path& vocabulary) {
  auto text = unpack(vocabulary);
  auto fail = [&](const std::string& sentence) {
    return Error(ErrorKind::Format, vocabulary.string(), sentence);
  };
  std::shared_ptr<ClipBpe> bpe(new ClipBpe);
  std::unordered_map<std::string, int> by_spelling;
  by_spelling.reserve(end_token + 1);
  auto order = byte_order();
  bpe->text_.resize(2 * byte_tokens);
  for (int i = 0; i < byte_tokens; ++i) {
    auto byte = order[static_cast<std::size_t>(i)];
    bpe->byte_token_[static_cast<std::size_t>(byte)] = i;
    const auto spelling = spelling_of_bytes(std::string(1, static_cast<char>(byte)));
    by_spelling[spelling] = i;
    by_spelling[spelling + "</w>"] = i + byte_tokens;
    bpe->text_[static_cast<std::size_t>(i)] = static_cast<char>(byte);
    bpe->text_[static_cast<std::size_t>(i + byte_tokens)] = {static_cast<char>(byte), ' '};
  }
  std::string_view rest = text;
  auto take_line = [&] {
    auto line = rest.substr(0, rest.find('\n'));
    rest.remove_prefix(std::min(rest.size(), line.size() + 1));
    return line;
  };
  take_line();  // a title
  for (int i = 0; i < merge_count; ++i) {
    auto line = take_line();
    auto space = line.find(' ');
    if (space == std::string_view::npos)
      throw fail(fmt::format("has {} merges, {} are needed", i, merge_count));
    auto left = by_spelling.find(std::string(line.substr(0, space)));
    auto right = by_spelling.find(std::string(line.substr(space + 1)));
    if (left == by_spelling.end() || right == by_spelling.end())
      throw fail(fmt::format("line {} merges what no line before it made: '{}'", i + 2, line));
    int merged = 2 * byte_tokens + i;
    bpe->merges_.emplace(pair_key(left->second, right->second), merged);
    by_spelling.emplace(left->first + right->first, merged);
    bpe->text_.push_back(bpe->text_[static_cast<std::size_t>(left->second)] +
                         bpe->text_[static_cast<std::size_t>(right->second)]);
  }
  bpe->text_.emplace_back(start_text);
  bpe->text_.emplace_back(end_text);
  return bpe;
}

void ClipBpe::encode_word(std::string_view word, std::vector<int>& ids) const {
  std::vector<int> bytes;
  for (char c : word) bytes.push_back(byte_token_[static_cast<unsigned char>(c)]);
  bytes.back() += byte_tokens;
  auto tokens = merged(std::move(bytes), merges_);
  ids.insert(ids.end(), tokens.begin(), tokens.end());
}

void ClipBpe::encode_plain(std::string_view text, std::vector<int>& ids) const {
  auto clean = clean_clip_text(text);
  for (std::string_view rest = clean; !rest.empty();) {
    std::size_t length = 0;
    if (rest.starts_with(start_text)) {
      ids.push_back(start_token);
      length = start_text.size();
    } else if (rest.starts_with(end_text)) {
      ids.push_back(end_token);
      length = end_text.size();
    } else {
      length = contraction(rest);
      if (length == 0) length = word_length(rest);
      auto word = rest.substr(0, length);
      auto first = word;
      if (!is_space(take_character(first))) encode_word(word, ids);
    }
    rest.remove_prefix(length);
  }
}

std::vector<int> ClipBpe::encode(std::string_view utf8) const {
  std::vector<int> ids;
  // Special tokens in their exact spelling cut the text before anything else; encode_plain() finds
  // other spellings.
  while (!utf8.empty()) {
    auto start = utf8.find(start_text), end = utf8.find(end_text);
    auto at = std::min({start, end, utf8.size()});
    encode_plain(utf8.substr(0, at), ids);
    if (at == utf8.size()) break;
    ids.push_back(at == start ? start_token : end_token);
    utf8.remove_prefix(at + (at == start ? start_text : end_text).size());
  }
  return ids;
}

std::string ClipBpe::text_of(int token) const {
  return token >= 0 && static_cast<std::size_t>(token) < text_.size()
             ? text_[static_cast<std::size_t>(token)]
             : std::string();
}

}  // namespace distorch::tokenizers
