#include "distorch/graph/text_replace.h"

#include <fmt/format.h>

#include <vector>

namespace distorch::graph {
namespace {

std::string sanitized(const std::string& text) {
  std::string result = text;
  for (char& c : result) {
    auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte == 0x7F ||
        std::string_view("/?<>\\:*|\"").find(c) != std::string_view::npos)
      c = '_';
  }
  return result;
}

std::string without_comments(const std::string& text) {
  std::string result;
  for (std::size_t i = 0; i < text.size();) {
    if (text.compare(i, 2, "/*") == 0) {
      std::size_t end = text.find("*/", i + 2);
      if (end != std::string::npos) {
        i = end + 2;
        continue;
      }
    }
    if (text.compare(i, 2, "//") == 0) {
      i = std::min(text.find('\n', i), text.size());
      continue;
    }
    result += text[i++];
  }
  return result;
}

// splitmix64: small, good enough to choose among words, the same everywhere.
class Chooser {
 public:
  explicit Chooser(std::uint64_t seed) : state_(seed) {}
  std::size_t below(std::size_t count) {
    std::uint64_t z = (state_ += 0x9E3779B97F4A7C15ull);
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
    return static_cast<std::size_t>((z ^ (z >> 31)) % count);
  }

 private:
  std::uint64_t state_;
};

}  // namespace

std::string format_date(const std::string& format, const std::tm& time) {
  std::string result;
  for (std::size_t i = 0; i < format.size();) {
    char c = format[i];
    std::size_t run = 1;
    while (i + run < format.size() && format[i + run] == c) ++run;
    if (c == 'y' && run >= 2) {
      run = run >= 4 ? 4 : 2;
      result += run == 4 ? fmt::format("{:04d}", time.tm_year + 1900)
                         : fmt::format("{:02d}", time.tm_year % 100);
    } else if (std::string_view("dMhms").find(c) != std::string_view::npos) {
      run = std::min<std::size_t>(run, 2);
      int value = c == 'd'   ? time.tm_mday
                  : c == 'M' ? time.tm_mon + 1
                  : c == 'h' ? time.tm_hour
                  : c == 'm' ? time.tm_min
                             : time.tm_sec;
      result += fmt::format("{:0{}d}", value, run);
    } else {
      run = 1;
      result += c;
    }
    i += run;
  }
  return result;
}

std::string replace_placeholders(
    const std::string& text, const std::tm& time,
    const std::function<std::optional<std::string>(const std::string&, const std::string&)>&
        widget) {
  std::string result;
  for (std::size_t i = 0; i < text.size();) {
    std::size_t end = text[i] == '%' ? text.find('%', i + 1) : std::string::npos;
    if (end == std::string::npos || end == i + 1) {
      result += text[i++];
      continue;
    }
    std::string inner = text.substr(i + 1, end - i - 1);
    std::optional<std::string> replaced;
    std::size_t dot = inner.find('.');
    if (inner.rfind("date:", 0) == 0)
      replaced = format_date(inner.substr(5), time);
    else if (dot != std::string::npos && inner.find('.', dot + 1) == std::string::npos)
      replaced = widget(inner.substr(0, dot), inner.substr(dot + 1));
    if (replaced && inner.rfind("date:", 0) != 0) replaced = sanitized(*replaced);
    result += replaced ? *replaced : text.substr(i, end + 1 - i);
    i = end + 1;
  }
  return result;
}

std::string choose_dynamic(const std::string& text, std::uint64_t seed, bool* chose) {
  struct Choice {
    std::vector<std::string> done;
    std::string current;
  };
  std::string source = without_comments(text);
  Chooser chooser(seed);
  std::vector<Choice> stack(1);
  bool several = false;
  auto close = [&] {
    Choice choice = std::move(stack.back());
    stack.pop_back();
    choice.done.push_back(std::move(choice.current));
    several = several || choice.done.size() > 1;
    stack.back().current += choice.done[chooser.below(choice.done.size())];
  };
  for (std::size_t i = 0; i < source.size(); ++i) {
    char c = source[i];
    if (c == '\\' && i + 1 < source.size()) {
      stack.back().current += c;
      stack.back().current += source[++i];
    } else if (c == '{') {
      stack.emplace_back();
    } else if (c == '|' && stack.size() > 1) {
      stack.back().done.push_back(std::move(stack.back().current));
      stack.back().current.clear();
    } else if (c == '}' && stack.size() > 1) {
      close();
    } else {
      stack.back().current += c;
    }
  }
  while (stack.size() > 1) close();
  std::string result;
  const std::string& chosen = stack.front().current;
  for (std::size_t i = 0; i < chosen.size(); ++i) {
    bool escape = chosen[i] == '\\' && i + 1 < chosen.size() &&
                  std::string_view("{}|").find(chosen[i + 1]) != std::string_view::npos;
    if (!escape) result += chosen[i];
  }
  if (chose) *chose = several;
  return result;
}

}  // namespace distorch::graph
