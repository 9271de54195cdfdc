#include "distorch/models/t5/glyphs.h"

namespace distorch::models::t5 {

namespace {

/// What `prompt` has between `open` and the next `close` of the same line, each time.
void add_quoted(std::string& result, std::string_view prompt, std::string_view open,
                std::string_view close) {
  for (auto begin = prompt.find(open); begin != prompt.npos; begin = prompt.find(open)) {
    prompt.remove_prefix(begin + open.size());
    auto end = prompt.find(close);
    if (end == prompt.npos) return;
    if (prompt.find('\n') < end) continue;
    result += "Text \"";
    result += prompt.substr(0, end);
    result += "\". ";
    prompt.remove_prefix(end + close.size());
  }
}

}  // namespace

std::string quoted_words(std::string_view prompt) {
  std::string result;
  add_quoted(result, prompt, "\"", "\"");
  add_quoted(result, prompt, "\u2018", "\u2019");
  add_quoted(result, prompt, "\u201c", "\u201d");
  return result;
}

}  // namespace distorch::models::t5
