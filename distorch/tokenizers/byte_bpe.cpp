#include "distorch/tokenizers/byte_bpe.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "distorch/base/atomic_file.h"
#include "distorch/base/error.h"
#include "distorch/tokenizers/bpe_merge.h"
#include "distorch/tokenizers/byte_spelling.h"
#include "distorch/tokenizers/unicode.h"
#include "distorch/tokenizers/word_parts.h"

namespace distorch::tokenizers {

namespace {

using Json = nlohmann::json;
using Ids = std::vector<std::int64_t>;

constexpr std::int64_t kMostTokens = 1 << 22;

/// What a token of a vocabulary file stands for; a token with other characters stands for itself.
std::string bytes_of(const std::string& token) {
  auto bytes = bytes_of_spelling(token);
  return bytes.empty() ? token : bytes;
}

/// Bytes from the start of `text` (not empty) that are one word: an ending like 's; letters, numbers
/// or other characters, a blank before them with them; white space.
std::size_t word_length(std::string_view text) {
  for (std::string_view ending : {"'s", "'t", "'re", "'ve", "'m", "'ll", "'d"})
    if (text.starts_with(ending)) return ending.size();
  const std::size_t blank = text[0] == ' ' ? 1 : 0;
  const auto rest = text.substr(blank);
  for (auto wanted : {is_letter, is_number, is_other})
    if (auto length = run_length(rest, wanted)) return blank + length;
  return blanks_length(text);
}

/// Bytes at the start of `text` that begin a character and are then cut short or broken off: what
/// one U+FFFD stands for.
std::size_t broken_length(std::string_view text) {
  auto byte = [&](std::size_t at) { return static_cast<unsigned char>(text[at]); };
  const auto first = byte(0);
  const std::size_t wanted = first >= 0xf0 && first <= 0xf4  ? 4
                             : first >= 0xe0 && first < 0xf0 ? 3
                             : first >= 0xc2 && first < 0xe0 ? 2
                                                             : 1;
  // The second byte of some is bounded more narrowly.
  const unsigned low = first == 0xe0 ? 0xa0 : first == 0xf0 ? 0x90 : 0x80;
  const unsigned high = first == 0xed ? 0x9f : first == 0xf4 ? 0x8f : 0xbf;
  std::size_t length = 1;
  while (length < wanted && length < text.size()) {
    const unsigned least = length == 1 ? low : 0x80, most = length == 1 ? high : 0xbf;
    if (byte(length) < least || byte(length) > most) break;
    ++length;
  }
  return length;
}

std::string as_utf8(std::string_view bytes) {
  std::string text;
  while (!bytes.empty()) {
    auto after = bytes;
    if (take_character(after) >= 0) {
      text += bytes.substr(0, bytes.size() - after.size());
      bytes = after;
    } else {
      append_character(text, 0xfffd);
      bytes.remove_prefix(broken_length(bytes));
    }
  }
  return text;
}

}  // namespace

/// Fills a ByteBpe from files.
class ByteBpe::Reader {
 public:
  explicit Reader(ByteBpe& bpe) : bpe_(bpe) {}

  void read_folder(const std::filesystem::path& folder) {
    const auto one = folder / "tokenizer.json";
    if (std::filesystem::is_regular_file(one)) return read_tokenizer(one);
    const auto vocabulary = folder / "vocab.json", merges = folder / "merges.txt";
    for (const auto& path : {vocabulary, merges})
      if (!std::filesystem::is_regular_file(path))
        throw Error(ErrorKind::MissingFile, folder.string(),
                    "has no tokenizer: put tokenizer.json, or vocab.json and merges.txt, of the "
                    "model into this folder");
    where_ = vocabulary.string();
    read_vocabulary(parsed(vocabulary));
    where_ = merges.string();
    read_merge_lines(read_file(merges));
    for (const char* name : {"<s>", "<pad>", "</s>", "<unk>", "<mask>"})
      if (ids_.count(name)) add_special(name, std::string_view(name) == "<mask>");
    const auto added = folder / "added_tokens.json";
    if (!std::filesystem::is_regular_file(added)) return;
    where_ = added.string();
    const auto more = parsed(added);
    for (const auto& [name, id] : more.items()) {
      add_token(name, id);
      add_special(name, false);
    }
  }

  void add_more(const std::vector<std::string>& more) {
    for (const auto& name : more) {
      if (!ids_.count(name)) add_token(name, Json(bpe_.texts_.size()));
      add_special(name, false);
    }
    std::stable_sort(
        bpe_.specials_.begin(), bpe_.specials_.end(),
        [](const Special& a, const Special& b) { return a.text.size() > b.text.size(); });
  }

 private:
  [[noreturn]] void refuse(const std::string& sentence) const {
    throw Error(ErrorKind::Format, where_, sentence);
  }

  Json parsed(const std::filesystem::path& path) const {
    auto json = Json::parse(read_file(path, std::size_t{1} << 28), nullptr, false);
    if (!json.is_object()) throw Error(ErrorKind::Format, path.string(), "holds no JSON object");
    return json;
  }

  void read_tokenizer(const std::filesystem::path& path) {
    where_ = path.string();
    const auto json = parsed(path);
    const auto model = json.value("model", Json());
    if (!model.is_object() || model.value("type", Json("BPE")) != "BPE" ||
        !model.contains("vocab") || !model.contains("merges"))
      refuse("holds no byte-pair vocabulary (BART's would fit)");
    read_vocabulary(model["vocab"]);
    if (!model["merges"].is_array()) refuse("'model.merges' is no list");
    for (const auto& merge : model["merges"]) {
      if (merge.is_string())
        read_merge(merge.get<std::string>());
      else if (merge.is_array() && merge.size() == 2 && merge[0].is_string() &&
               merge[1].is_string())
        add_merge(merge[0].get<std::string>(), merge[1].get<std::string>());
      else
        refuse(fmt::format("merge {} is no pair of tokens", merge_count_ + 1));
    }
    for (const auto& token : json.value("added_tokens", Json::array())) {
      if (!token.is_object() || !token.value("content", Json()).is_string())
        refuse("'added_tokens' holds something without 'content'");
      const auto name = token["content"].get<std::string>();
      if (!ids_.count(name)) add_token(name, token.value("id", Json()));
      add_special(name, token.value("lstrip", Json(false)) == true);
    }
  }

  void read_vocabulary(const Json& vocabulary) {
    if (!vocabulary.is_object()) refuse("holds no vocabulary");
    for (const auto& [token, id] : vocabulary.items()) add_token(token, id);
    for (int byte = 0; byte < 256; ++byte) {
      const auto character = spelling_of_bytes(std::string(1, static_cast<char>(byte)));
      const auto found = ids_.find(character);
      if (found == ids_.end())
        refuse(fmt::format("lacks the token '{}', which stands for a byte", character));
      inner_of_[character] = static_cast<int>(bpe_.id_of_.size());
      bpe_.id_of_.push_back(found->second);
    }
  }

  void read_merge_lines(std::string_view text) {
    while (!text.empty()) {
      auto line = text.substr(0, text.find('\n'));
      text.remove_prefix(std::min(text.size(), line.size() + 1));
      if (line.ends_with('\r')) line.remove_suffix(1);
      if (!line.empty() && !line.starts_with("#version")) read_merge(std::string(line));
    }
  }

  void read_merge(const std::string& pair) {
    const auto blank = pair.find(' ');
    if (blank == std::string::npos)
      refuse(fmt::format("merge {} is no pair of tokens", merge_count_ + 1));
    add_merge(pair.substr(0, blank), pair.substr(blank + 1));
  }

  void add_merge(const std::string& left, const std::string& right) {
    ++merge_count_;
    const auto a = inner_of_.find(left), b = inner_of_.find(right);
    const auto whole = ids_.find(left + right);
    if (a == inner_of_.end() || b == inner_of_.end() || whole == ids_.end())
      refuse(fmt::format("merge {}, '{}' and '{}', is of tokens that are not there", merge_count_,
                         left, right));
    const auto inner = static_cast<int>(bpe_.id_of_.size());
    bpe_.merges_.emplace(pair_key(a->second, b->second), inner);
    bpe_.id_of_.push_back(whole->second);
    inner_of_.emplace(left + right, inner);
  }

  void add_token(const std::string& name, const Json& number) {
    if (!number.is_number_integer() || number.get<double>() < 0 ||
        number.get<double>() >= static_cast<double>(kMostTokens))
      refuse(fmt::format("token '{}' has the number {}", name, number.dump()));
    const auto id = number.get<std::int64_t>();
    ids_[name] = id;
    if (static_cast<std::int64_t>(bpe_.texts_.size()) <= id)
      bpe_.texts_.resize(static_cast<std::size_t>(id) + 1);
    bpe_.texts_[static_cast<std::size_t>(id)] = bytes_of(name);
  }

  void add_special(const std::string& name, bool takes_blanks) {
    if (bpe_.special(name) < 0 && !name.empty())
      bpe_.specials_.push_back({name, ids_.at(name), takes_blanks});
  }

  ByteBpe& bpe_;
  std::string where_;
  std::unordered_map<std::string, std::int64_t> ids_;
  std::unordered_map<std::string, int> inner_of_;
  std::size_t merge_count_ = 0;
};

std::shared_ptr<const ByteBpe> ByteBpe::load(const std::filesystem::path& folder,
                                             const std::vector<std::string>& more) {
  std::shared_ptr<ByteBpe> bpe(new ByteBpe);
  Reader reader(*bpe);
  reader.read_folder(folder);
  reader.add_more(more);
  return bpe;
}

std::int64_t ByteBpe::special(std::string_view token) const {
  const auto found = std::find_if(specials_.begin(), specials_.end(),
                                  [&](const Special& one) { return one.text == token; });
  return found == specials_.end() ? -1 : found->id;
}

const ByteBpe::Special* ByteBpe::special_at(std::string_view text) const {
  const auto found = std::find_if(specials_.begin(), specials_.end(),
                                  [&](const Special& one) { return text.starts_with(one.text); });
  return found == specials_.end() ? nullptr : &*found;
}

/// A text without special tokens inside.
void ByteBpe::encode_plain(std::string_view text, Ids& ids) const {
  while (!text.empty()) {
    const auto word = text.substr(0, word_length(text));
    text.remove_prefix(word.size());
    std::vector<int> inner;
    for (char c : word) inner.push_back(static_cast<unsigned char>(c));
    for (int token : merged(std::move(inner), merges_))
      ids.push_back(id_of_[static_cast<std::size_t>(token)]);
  }
}

Ids ByteBpe::encode(std::string_view utf8) const {
  Ids ids;
  std::size_t begin = 0;
  for (std::size_t at = 0; at < utf8.size();) {
    const auto* special = special_at(utf8.substr(at));
    if (special == nullptr) {
      ++at;
      continue;
    }
    auto plain = utf8.substr(begin, at - begin);
    while (special->takes_blanks && !plain.empty() &&
           std::string_view(" \t\r\n\v\f").find(plain.back()) != std::string_view::npos)
      plain.remove_suffix(1);
    encode_plain(plain, ids);
    ids.push_back(special->id);
    at += special->text.size();
    begin = at;
  }
  encode_plain(utf8.substr(begin), ids);
  return ids;
}

std::string ByteBpe::decode(const Ids& ids) const {
  std::string bytes;
  for (auto id : ids)
    if (id >= 0 && static_cast<std::size_t>(id) < texts_.size())
      bytes += texts_[static_cast<std::size_t>(id)];
  return as_utf8(bytes);
}

}  // namespace distorch::tokenizers
