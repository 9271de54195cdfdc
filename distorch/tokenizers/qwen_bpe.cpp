#include "distorch/tokenizers/qwen_bpe.h"

#include <fmt/format.h>
#include <utf8proc.h>

#include <algorithm>
#include <charconv>
#include <cstdlib>

#include "distorch/base/atomic_file.h"
#include "distorch/base/error.h"
#include "distorch/tokenizers/base64.h"
#include "distorch/tokenizers/bpe_merge.h"
#include "distorch/tokenizers/unicode.h"

namespace distorch::tokenizers {

namespace {

constexpr std::array<std::string_view, 26> special_tokens = {
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|object_ref_start|>",
    "<|object_ref_end|>",
    "<|box_start|>",
    "<|box_end|>",
    "<|quad_start|>",
    "<|quad_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
    "<tool_call>",
    "</tool_call>",
    "<|fim_prefix|>",
    "<|fim_middle|>",
    "<|fim_suffix|>",
    "<|fim_pad|>",
    "<|repo_name|>",
    "<|file_sep|>",
    "<tool_response>",
    "</tool_response>",
    "<think>",
    "</think>",
};

std::string composed(std::string_view text) {
  // Bytes that are no UTF-8 become U+FFFD.
  std::string valid;
  while (!text.empty()) {
    auto c = take_character(text);
    append_character(valid, c < 0 ? 0xfffd : c);
  }
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

bool is_blank(std::int32_t c) { return is_space(c) && !(c >= 28 && c <= 31); }
bool is_line_end(std::int32_t c) { return c == '\r' || c == '\n'; }
bool is_other(std::int32_t c) { return !is_blank(c) && !is_letter(c) && !is_number(c); }

/// Takes characters off `text` while `wanted` says so; whether there were any.
template <class Wanted>
bool take_while(std::string_view& text, Wanted wanted) {
  bool any = false;
  while (!text.empty()) {
    auto after = text;
    if (!wanted(take_character(after))) break;
    text = after;
    any = true;
  }
  return any;
}

/// Bytes of the white space at the start of `text` (not empty) that are one word: up to the last
/// line end among it; else all of it at the end of the text; else all but the last one, which
/// belongs to what follows.
std::size_t blanks_length(std::string_view text) {
  auto rest = text;
  std::size_t line_end = 0, last = 0;
  while (!rest.empty()) {
    auto after = rest;
    auto c = take_character(after);
    if (!is_blank(c)) break;
    last = text.size() - rest.size();
    rest = after;
    if (is_line_end(c)) line_end = text.size() - rest.size();
  }
  if (line_end > 0) return line_end;
  return rest.empty() || last == 0 ? text.size() - rest.size() : last;
}

/// Bytes from the start of `text` (not empty) that are one word: letters with one other character
/// before them, one number, other characters with a space before and line ends behind, white space.
std::size_t word_length(std::string_view text) {
  if (auto length = contraction(text)) return length;
  auto rest = text;
  auto first = take_character(rest);
  if (is_number(first)) return text.size() - rest.size();
  if (is_letter(first) || !is_line_end(first)) {
    auto after = rest;
    if (take_while(after, is_letter) || is_letter(first)) return text.size() - after.size();
  }
  auto others = first == ' ' ? rest : text;
  if (take_while(others, is_other)) {
    take_while(others, is_line_end);
    return text.size() - others.size();
  }
  return blanks_length(text);
}

}  // namespace

std::shared_ptr<const QwenBpe> QwenBpe::load(const std::filesystem::path& folder) {
  auto path = folder / "qwen.tiktoken";
  if (!std::filesystem::is_regular_file(path))
    throw Error(ErrorKind::MissingFile, path.string(),
                "the Qwen vocabulary is not there; run tools/setup.sh, which fetches it, or put "
                "qwen.tiktoken of any Qwen model into this folder or into tokenizers/qwen/ below "
                "the models");
  return parse(read_file(path), path.string());
}

std::shared_ptr<const QwenBpe> QwenBpe::parse(std::string_view text, const std::string& where) {
  std::shared_ptr<QwenBpe> bpe(new QwenBpe);
  bpe->byte_token_.fill(-1);
  bpe->merges_.reserve(padding_token);
  while (!text.empty()) {
    auto line = text.substr(0, text.find('\n'));
    text.remove_prefix(std::min(text.size(), line.size() + 1));
    auto rank = static_cast<int>(bpe->text_.size());
    auto space = std::min(line.find(' '), line.size());
    auto bytes = decoded_base64(line.substr(0, space));
    int stated = -1;
    auto digits = line.substr(std::min(space + 1, line.size()));
    std::from_chars(digits.data(), digits.data() + digits.size(), stated);
    if (!bytes || bytes->empty() || bytes->size() > 1024 || stated != rank || rank >= padding_token)
      throw Error(ErrorKind::Format, where,
                  fmt::format("line {} is no token with the rank {}", rank + 1, rank));
    std::vector<int> parts;
    for (char c : *bytes) parts.push_back(bpe->byte_token_[static_cast<unsigned char>(c)]);
    if (parts.size() == 1)
      bpe->byte_token_[static_cast<unsigned char>((*bytes)[0])] = rank;
    else if (std::ranges::find(parts, -1) == parts.end())
      // A token is the merge of the two that tokens before it leave of its bytes.
      if (parts = merged(std::move(parts), bpe->merges_); parts.size() == 2)
        bpe->merges_.emplace(pair_key(parts[0], parts[1]), rank);
    bpe->text_.push_back(std::move(*bytes));
  }
  if (bpe->text_.size() != padding_token ||
      std::ranges::find(bpe->byte_token_, -1) != bpe->byte_token_.end())
    throw Error(
        ErrorKind::Format, where,
        fmt::format("has {} tokens, the Qwen vocabulary has {}", bpe->text_.size(), padding_token));
  for (auto special : special_tokens) bpe->text_.emplace_back(special);
  return bpe;
}

void QwenBpe::encode_word(std::string_view word, std::vector<int>& ids) const {
  std::vector<int> bytes;
  for (char c : word) bytes.push_back(byte_token_[static_cast<unsigned char>(c)]);
  auto tokens = merged(std::move(bytes), merges_);
  ids.insert(ids.end(), tokens.begin(), tokens.end());
}

/// A text without special tokens inside.
void QwenBpe::encode_plain(std::string_view text, std::vector<int>& ids) const {
  while (!text.empty()) {
    auto length = word_length(text);
    encode_word(text.substr(0, length), ids);
    text.remove_prefix(length);
  }
}

std::vector<int> QwenBpe::encode(std::string_view utf8) const {
  std::vector<int> ids;
  auto text = composed(utf8);
  std::string_view rest = text;
  for (std::size_t at = rest.find('<'); at != std::string_view::npos;) {
    auto token = std::ranges::find_if(
        special_tokens, [&](std::string_view t) { return rest.substr(at).starts_with(t); });
    if (token == special_tokens.end()) {
      at = rest.find('<', at + 1);
      continue;
    }
    encode_plain(rest.substr(0, at), ids);
    ids.push_back(padding_token + static_cast<int>(token - special_tokens.begin()));
    rest.remove_prefix(at + token->size());
    at = rest.find('<');
  }
  encode_plain(rest, ids);
  return ids;
}

std::string QwenBpe::text_of(int token) const {
  if (token < 0 || static_cast<std::size_t>(token) >= text_.size()) return {};
  return text_[static_cast<std::size_t>(token)];
}

}  // namespace distorch::tokenizers
