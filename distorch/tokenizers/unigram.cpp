#include "distorch/tokenizers/unigram.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>

#include "distorch/base/atomic_file.h"
#include "distorch/base/error.h"
#include "distorch/tokenizers/unicode.h"
#include "distorch/tokenizers/word_parts.h"

namespace distorch::tokenizers {

namespace {

constexpr std::string_view space_mark = "\xe2\x96\x81";  // U+2581, stands for a space in pieces
constexpr double unknown_penalty = 10.0;

std::string_view without_blank_end(std::string_view text) {
  std::string_view rest = text;
  auto end = text.size();
  bool blank = false;
  while (!rest.empty()) {
    auto at = text.size() - rest.size();
    bool is = is_blank(take_character(rest));
    if (is && !blank) end = at;
    blank = is;
  }
  return blank ? text.substr(0, end) : text;
}

/// Runs of two spaces or more, and single ones, as the mark.
std::string marked(std::string_view text) {
  std::string result;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] != ' ') {
      result.push_back(text[i]);
      continue;
    }
    result += space_mark;
    while (i + 1 < text.size() && text[i + 1] == ' ') ++i;
  }
  return result;
}

}  // namespace

Unigram::Unigram(UnigramData data, const std::string& where)
    : data_(std::move(data)), charsmap_(data_.charsmap, where) {
  if (data_.pieces.empty()) throw Error(ErrorKind::Format, where, "holds no vocabulary");
  if (data_.unknown < 0 || static_cast<std::size_t>(data_.unknown) >= data_.pieces.size())
    throw Error(ErrorKind::Format, where, "names no token for what its vocabulary cannot spell");
  double lowest = std::numeric_limits<double>::max();
  for (std::size_t i = 0; i < data_.pieces.size(); ++i) {
    const auto& piece = data_.pieces[i];
    by_text_.emplace(piece.text, static_cast<int>(i));
    longest_ = std::max(longest_, piece.text.size());
    lowest = std::min(lowest, piece.score);
    if (piece.special && !piece.text.empty()) special_.push_back(static_cast<int>(i));
  }
  unknown_score_ = lowest - unknown_penalty;
}

std::shared_ptr<const Unigram> Unigram::load(const std::filesystem::path& folder) {
  auto json = folder / "tokenizer.json", proto = folder / "spiece.model";
  if (std::filesystem::is_regular_file(json))
    return std::make_shared<Unigram>(read_tokenizer_json(read_file(json), json.string()),
                                     json.string());
  if (std::filesystem::is_regular_file(proto))
    return std::make_shared<Unigram>(read_sentencepiece(read_file(proto), proto.string()),
                                     proto.string());
  throw Error(ErrorKind::MissingFile, json.string(),
              "the T5 vocabulary is not there; run tools/setup.sh, which fetches it, or put the "
              "tokenizer.json or spiece.model of any T5 v1.1 into this folder or into "
              "tokenizers/t5/ below the models");
}

/// The best path over the positions of one word, with pieces that begin and end at characters.
void Unigram::encode_word(std::string_view word, std::vector<int>& ids) const {
  struct End {
    double score = 0;
    int token = -1;
    std::size_t begin = 0;
    bool reached = false;
  };
  std::vector<End> ends(word.size() + 1);
  auto offer = [&](std::size_t begin, std::size_t end, int token, double score) {
    score += ends[begin].score;
    if (!ends[end].reached || score > ends[end].score) ends[end] = {score, token, begin, true};
  };
  for (auto rest = word; !rest.empty();) {
    auto begin = word.size() - rest.size();
    auto after = rest;
    take_character(after);
    auto character = rest.size() - after.size();
    bool alone = false;
    for (std::size_t length = 1; length <= std::min(longest_, rest.size()); ++length) {
      auto found = by_text_.find(rest.substr(0, length));
      if (found == by_text_.end()) continue;
      offer(begin, begin + length, found->second,
            data_.pieces[static_cast<std::size_t>(found->second)].score);
      alone |= length == character;
    }
    if (!alone) offer(begin, begin + character, data_.unknown, unknown_score_);
    rest = after;
  }
  std::vector<int> backwards;
  for (auto end = word.size(); end > 0; end = ends[end].begin) {
    auto token = ends[end].token;
    // What is unknown is one token, however long.
    if (token == data_.unknown && !backwards.empty() && backwards.back() == token) continue;
    backwards.push_back(token);
  }
  ids.insert(ids.end(), backwards.rbegin(), backwards.rend());
}

/// A text without special tokens inside.
void Unigram::encode_section(std::string_view text, bool first, std::vector<int>& ids) const {
  auto normal = charsmap_.normalized(text);
  auto spelled = marked(without_blank_end(normal));
  if (spelled.empty()) return;
  if (first && !spelled.starts_with(space_mark)) spelled.insert(0, space_mark);
  for (std::size_t begin = 0; begin < spelled.size();) {
    auto end = std::min(spelled.find(space_mark, begin + 1), spelled.size());
    encode_word(std::string_view(spelled).substr(begin, end - begin), ids);
    begin = end;
  }
}

std::vector<int> Unigram::encode(std::string_view utf8) const {
  std::vector<int> ids;
  auto text = valid_utf8(utf8);
  std::string_view all = text;
  std::size_t begin = 0;
  for (auto at = all.find('<'); at != std::string_view::npos; at = all.find('<', at)) {
    auto token = std::ranges::find_if(special_, [&](int special) {
      return all.substr(at).starts_with(data_.pieces[static_cast<std::size_t>(special)].text);
    });
    if (token == special_.end()) {
      ++at;
      continue;
    }
    if (at > begin) encode_section(all.substr(begin, at - begin), begin == 0, ids);
    ids.push_back(*token);
    at += data_.pieces[static_cast<std::size_t>(*token)].text.size();
    begin = at;
  }
  if (begin < all.size()) encode_section(all.substr(begin), begin == 0, ids);
  return ids;
}

std::string Unigram::text_of(int token) const {
  if (token < 0 || static_cast<std::size_t>(token) >= data_.pieces.size()) return {};
  return data_.pieces[static_cast<std::size_t>(token)].text;
}

}  // namespace distorch::tokenizers
