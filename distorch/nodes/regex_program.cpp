#include "distorch/nodes/regex_program.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>

#include "distorch/base/error.h"
#include "distorch/nodes/python_text.h"

namespace distorch::nodes {

namespace {

constexpr std::size_t kLargestProgram = 200'000;
constexpr std::size_t kDeepest = 100;  // groups within groups
constexpr std::size_t kEndless = static_cast<std::size_t>(-1);

/// Instructions whose targets are counted from the instruction itself, so that they can be copied.
struct Fragment {
  std::vector<Instruction> code;
  std::optional<std::size_t> width = 0;  // in characters, where it is always the same

  void add(const Instruction& instruction) { code.push_back(instruction); }
  void append(const Fragment& other) {
    code.insert(code.end(), other.code.begin(), other.code.end());
    width = width && other.width ? std::optional(*width + *other.width) : std::nullopt;
    if (code.size() > kLargestProgram)
      throw Error(ErrorKind::Usage, "regular expression", "it repeats more than can be held");
  }
};

Fragment one(Instruction instruction, std::optional<std::size_t> width) {
  Fragment fragment;
  fragment.add(instruction);
  fragment.width = width;
  return fragment;
}

struct Repeat {
  std::size_t least = 1, most = 1;
  bool lazy = false, possessive = false;
};

class Parser {
 public:
  Parser(std::u32string_view pattern, RegexFlags flags) : text_(pattern), flags_(flags) {}

  Regex::Program run() {
    read_leading_flags();
    Fragment whole = one({.op = Op::Save, .index = 0}, 0);
    whole.append(alternatives());
    if (at_ < text_.size()) fail("a closing bracket without an opening one");
    whole.add({.op = Op::Save, .index = 1});
    whole.add({.op = Op::Accept});
    program_.code = std::move(whole.code);
    return std::move(program_);
  }

 private:
  // --- reading
  [[noreturn]] void fail(const std::string& what) const {
    throw Error(ErrorKind::Usage, "regular expression",
                fmt::format("{} (at character {})", what, at_));
  }
  bool more() const { return at_ < text_.size(); }
  bool next_is(char32_t c) const { return more() && text_[at_] == c; }
  bool take(std::u32string_view token) {
    if (text_.substr(at_, token.size()) != token) return false;
    at_ += token.size();
    return true;
  }
  char32_t take_any(const char* missing) {
    if (!more()) fail(missing);
    return text_[at_++];
  }

  static bool set_flag(RegexFlags& flags, char32_t letter, bool value) {
    if (letter == U'i')
      flags.ignore_case = value;
    else if (letter == U'm')
      flags.multiline = value;
    else if (letter == U's')
      flags.dotall = value;
    else
      return letter == U'u' || letter == U'a';
    return true;
  }

  // "(?i)" and the like count for the whole pattern.
  void read_leading_flags() {
    while (take(U"(?")) {
      auto start = at_ - 2;
      auto flags = flags_;
      while (more() && set_flag(flags, text_[at_], true)) ++at_;
      if (at_ == start + 2 || !take(U")")) {
        at_ = start;
        return;
      }
      flags_ = flags;
    }
  }

  // --- structure
  Fragment alternatives() {
    if (++depth_ > kDeepest) fail("groups are nested too deep");
    std::vector<Fragment> branches = {sequence()};
    while (take(U"|")) branches.push_back(sequence());
    --depth_;
    Fragment result = std::move(branches.back());
    branches.pop_back();
    while (!branches.empty()) {
      Fragment branch = std::move(branches.back());
      branches.pop_back();
      Fragment both = one({.op = Op::Split, .index = 1, .other = branch.code.size() + 2}, 0);
      auto width = branch.width == result.width ? branch.width : std::nullopt;
      both.append(branch);
      both.add({.op = Op::Jump, .index = result.code.size() + 1});
      both.append(result);
      both.width = width;
      result = std::move(both);
    }
    return result;
  }

  Fragment sequence() {
    Fragment result;
    while (more() && !next_is(U'|') && !next_is(U')')) {
      auto piece = atom();
      if (!piece) continue;
      if (auto repeat = quantifier()) {
        *piece = repeated(*piece, *repeat);
        if (quantifier()) fail("a repeat of a repeat");
      }
      result.append(*piece);
    }
    return result;
  }

  std::optional<std::size_t> number() {
    std::optional<std::size_t> value;
    while (more() && text_[at_] >= U'0' && text_[at_] <= U'9') {
      value = std::min<std::size_t>(value.value_or(0) * 10 + (text_[at_] - U'0'), 1'000'000);
      ++at_;
    }
    return value;
  }

  std::optional<Repeat> quantifier() {
    Repeat repeat;
    if (take(U"*")) {
      repeat = {0, kEndless};
    } else if (take(U"+")) {
      repeat = {1, kEndless};
    } else if (take(U"?")) {
      repeat = {0, 1};
    } else if (next_is(U'{')) {
      auto start = at_++;
      auto least = number();
      bool comma = take(U",");
      auto most = comma ? number() : least;
      if ((!least && !comma) || !take(U"}")) {
        at_ = start;  // an ordinary brace
        return std::nullopt;
      }
      repeat = {least.value_or(0), most.value_or(kEndless)};
      if (repeat.least > repeat.most) fail("a repeat whose least is above its most");
    } else {
      return std::nullopt;
    }
    repeat.lazy = take(U"?");
    repeat.possessive = !repeat.lazy && take(U"+");
    return repeat;
  }

  Fragment repeated(const Fragment& piece, const Repeat& repeat) {
    Fragment result;
    for (std::size_t i = 0; i < repeat.least; ++i) result.append(piece);
    if (repeat.most == kEndless) {
      result.append(endless(piece, repeat.lazy));
    } else {
      Fragment maybe;
      for (auto i = repeat.least; i < repeat.most; ++i) {
        Fragment inner = piece;
        inner.append(maybe);
        maybe = optional_of(inner, repeat.lazy);
      }
      result.append(maybe);
    }
    if (repeat.least != repeat.most) result.width = std::nullopt;
    return repeat.possessive ? enclosed(Op::Atomic, result, false) : result;
  }

  static Instruction split(std::size_t first, std::size_t second, bool swapped) {
    if (swapped) std::swap(first, second);
    return {.op = Op::Split, .index = first, .other = second};
  }

  static Fragment optional_of(const Fragment& piece, bool lazy) {
    Fragment result = one(split(1, piece.code.size() + 1, lazy), std::nullopt);
    result.append(piece);
    return result;
  }

  Fragment endless(const Fragment& piece, bool lazy) {
    auto loop = program_.registers++;
    auto size = piece.code.size();
    Fragment result = one(split(1, size + 4, lazy), std::nullopt);
    result.add({.op = Op::LoopStart, .index = loop});
    result.append(piece);
    result.add({.op = Op::LoopCheck, .index = loop, .other = 2});
    result.add({.op = Op::Jump, .index = static_cast<std::size_t>(0) - (size + 3)});
    return result;
  }

  static Fragment enclosed(Op op, const Fragment& inner, bool negative, std::size_t width = 0) {
    Fragment result =
        one({.op = op, .flag = negative, .index = inner.code.size() + 2, .other = width}, 0);
    result.append(inner);
    result.add({.op = Op::Accept});
    if (op != Op::Atomic) result.width = 0;
    return result;
  }

  // --- atoms; nullopt for what stands for nothing (a comment)
  std::optional<Fragment> atom() {
    auto c = text_[at_];
    if (c == U'*' || c == U'+' || c == U'?') fail("nothing to repeat");
    ++at_;
    switch (c) {
      case U'.': return one({.op = Op::Any, .flag = flags_.dotall}, 1);
      case U'^': return one({.op = Op::LineStart, .flag = flags_.multiline}, 0);
      case U'$': return one({.op = Op::LineEnd, .flag = flags_.multiline}, 0);
      case U'(': return group();
      case U'[': return character_class();
      case U'\\': return escape();
      default: return literal(c);
    }
  }

  Fragment literal(char32_t c) const {
    return one({.op = Op::Character,
                .flag = flags_.ignore_case,
                .value = flags_.ignore_case ? simple_lower(c) : c},
               1);
  }

  Fragment closed() {
    auto inner = alternatives();
    if (!take(U")")) fail("a bracket is not closed");
    return inner;
  }

  std::u32string name(char32_t end) {
    std::u32string result;
    while (more() && is_word(text_[at_])) result += text_[at_++];
    if (result.empty() || !more() || text_[at_] != end) fail("a group's name is missing");
    ++at_;
    return result;
  }

  Fragment captured(std::u32string named) {
    auto index = ++program_.groups;
    if (!named.empty() && !program_.names.emplace(named, index).second)
      fail("two groups have one name");
    open_.push_back(index);
    Fragment result = one({.op = Op::Save, .index = 2 * index}, 0);
    result.append(closed());
    result.add({.op = Op::Save, .index = 2 * index + 1});
    open_.pop_back();
    return result;
  }

  Fragment look_behind(bool negative) {
    auto inner = closed();
    if (!inner.width) fail("looking behind needs a fixed width");
    return enclosed(Op::LookBehind, inner, negative, *inner.width);
  }

  std::optional<Fragment> group() {
    if (!take(U"?")) return captured({});
    if (take(U":")) return closed();
    if (take(U"P<")) return captured(name(U'>'));
    if (take(U"P=")) {
      auto found = program_.names.find(name(U')'));
      if (found == program_.names.end()) fail("no group has this name");
      return reference(found->second);
    }
    if (take(U"#")) {
      while (more() && text_[at_] != U')') ++at_;
      if (!take(U")")) fail("a comment is not closed");
      return std::nullopt;
    }
    if (take(U"=")) return enclosed(Op::LookAhead, closed(), false);
    if (take(U"!")) return enclosed(Op::LookAhead, closed(), true);
    if (take(U"<=")) return look_behind(false);
    if (take(U"<!")) return look_behind(true);
    if (take(U">")) return enclosed(Op::Atomic, closed(), false);
    return group_with_flags();
  }

  Fragment group_with_flags() {
    auto outer = flags_;
    bool value = true;
    while (more() && text_[at_] != U':') {
      if (text_[at_] == U'-' && value)
        value = false;
      else if (!set_flag(flags_, text_[at_], value))
        fail("an unknown kind of group");
      ++at_;
    }
    if (!take(U":")) fail("flags for everything stand at the start");
    auto inner = closed();
    flags_ = outer;
    return inner;
  }

  Fragment reference(std::size_t index) {
    if (index == 0 || index > program_.groups ||
        std::find(open_.begin(), open_.end(), index) != open_.end())
      fail("there is no such group yet");
    return one({.op = Op::Reference, .flag = flags_.ignore_case, .index = index}, std::nullopt);
  }

  Fragment of_class(CharacterClass members) {
    members.ignore_case = flags_.ignore_case;
    program_.classes.push_back(std::move(members));
    return one({.op = Op::Class, .index = program_.classes.size() - 1}, 1);
  }

  Fragment character_class() {
    CharacterClass members;
    members.negated = take(U"^");
    for (bool first = true; first || !next_is(U']'); first = false) {
      auto item = class_member();
      if (next_is(U'-') && at_ + 1 < text_.size() && text_[at_ + 1] != U']') {
        ++at_;
        auto last = class_member();
        if (item.kind || last.kind || last.first < item.first) fail("a bad range of characters");
        item.last = last.first;
      }
      members.items.push_back(item);
    }
    ++at_;
    return of_class(std::move(members));
  }

  ClassItem class_member() {
    auto c = take_any("a class of characters is not closed");
    if (c != U'\\') return {c, c};
    c = take_any("it ends in a backslash");
    if (c == U'd' || c == U'D' || c == U'w' || c == U'W' || c == U's' || c == U'S')
      return {0, 0, static_cast<char>(c)};
    if (c == U'b') return {8, 8};
    auto value = c >= U'0' && c <= U'7' ? octal(c, 3) : escaped_character(c);
    return {value, value};
  }

  Fragment escape() {
    auto c = take_any("it ends in a backslash");
    switch (c) {
      case U'd':
      case U'D':
      case U'w':
      case U'W':
      case U's':
      case U'S': return of_class({.items = {{0, 0, static_cast<char>(c)}}});
      case U'b': return one({.op = Op::WordBorder}, 0);
      case U'B': return one({.op = Op::NoWordBorder}, 0);
      case U'A': return one({.op = Op::TextStart}, 0);
      case U'Z': return one({.op = Op::TextEnd}, 0);
      default: break;
    }
    if (c == U'0') return literal(octal(c, 3));
    if (c < U'1' || c > U'9') return literal(escaped_character(c));
    auto is_octal = [&](std::size_t i) {
      return i < text_.size() && text_[i] >= U'0' && text_[i] <= U'7';
    };
    if (c <= U'3' && is_octal(at_) && is_octal(at_ + 1)) return literal(octal(c, 3));
    std::size_t index = c - U'0';
    if (more() && text_[at_] >= U'0' && text_[at_] <= U'9')
      index = index * 10 + text_[at_++] - U'0';
    return reference(index);
  }

  char32_t octal(char32_t first, int digits) {
    char32_t value = first - U'0';
    for (int i = 1; i < digits && more() && text_[at_] >= U'0' && text_[at_] <= U'7'; ++i)
      value = value * 8 + (text_[at_++] - U'0');
    return value;
  }

  char32_t hexadecimal(int digits) {
    char32_t value = 0;
    for (int i = 0; i < digits; ++i) {
      auto c = take_any("an escape is cut short");
      if (c >= U'0' && c <= U'9')
        value = value * 16 + (c - U'0');
      else if ((c | 32) >= U'a' && (c | 32) <= U'f')
        value = value * 16 + ((c | 32) - U'a' + 10);
      else
        fail("an escape needs hexadecimal digits");
    }
    if (value >= kStrayByte) fail("an escape is beyond Unicode");
    return value;
  }

  char32_t escaped_character(char32_t c) {
    switch (c) {
      case U'n': return U'\n';
      case U't': return U'\t';
      case U'r': return U'\r';
      case U'f': return U'\f';
      case U'v': return U'\v';
      case U'a': return U'\a';
      case U'x': return hexadecimal(2);
      case U'u': return hexadecimal(4);
      case U'U': return hexadecimal(8);
      default: break;
    }
    if ((c >= U'a' && c <= U'z') || (c >= U'A' && c <= U'Z')) fail("an unknown escape");
    return c;
  }

  std::u32string_view text_;
  RegexFlags flags_;
  std::size_t at_ = 0, depth_ = 0;
  std::vector<std::size_t> open_;  // groups that are not closed yet
  Regex::Program program_;
};

bool is_of_kind(char kind, char32_t c) {
  switch (kind) {
    case 'd': return is_digit(c);
    case 'D': return !is_digit(c);
    case 'w': return is_word(c);
    case 'W': return !is_word(c);
    case 's': return is_white_space(c);
    default: return !is_white_space(c);
  }
}

}  // namespace

bool CharacterClass::contains(char32_t c) const {
  auto listed = [&](char32_t one_case) {
    return std::any_of(items.begin(), items.end(), [&](const ClassItem& item) {
      return item.kind ? is_of_kind(item.kind, one_case)
                       : one_case >= item.first && one_case <= item.last;
    });
  };
  bool found = listed(c) || (ignore_case && (listed(simple_lower(c)) || listed(simple_upper(c))));
  return found != negated;
}

Regex::Program compile_regex(std::u32string_view pattern, RegexFlags flags) {
  return Parser(pattern, flags).run();
}

}  // namespace distorch::nodes
