#include "distorch/nodes/python_regex.h"

#include "distorch/base/error.h"
#include "distorch/nodes/python_text.h"
#include "distorch/nodes/regex_program.h"

namespace distorch::nodes {

namespace {

constexpr std::size_t kMostSteps = 10'000'000;
constexpr std::size_t kNowhere = static_cast<std::size_t>(-1);

/// Where to go back to: another way at `target` and `position`, or an old value of a slot.
struct Choice {
  std::size_t target, position;
  std::size_t slot = kNowhere;
};

class Machine {
 public:
  Machine(const Regex::Program& program, std::u32string_view text)
      : program_(program),
        text_(text),
        slots_(2 * (program.groups + 1) + program.registers, kNowhere) {}

  /// Runs from an instruction until Accept; `position` moves. False: no way leads there, all slots
  /// are as before.
  bool run(std::size_t at, std::size_t& position, bool not_empty = false);

  void reset() { std::fill(slots_.begin(), slots_.end(), kNowhere); }
  Match match() const {
    Match result;
    for (std::size_t i = 0; i <= program_.groups; ++i) {
      auto first = slots_[2 * i], last = slots_[2 * i + 1];
      result.push_back(first == kNowhere || last == kNowhere ? Span()
                                                             : Span(std::pair(first, last)));
    }
    return result;
  }

 private:
  bool is_word_at(std::size_t position) const {
    return position < text_.size() && is_word(text_[position]);
  }
  bool at_word_border(std::size_t position) const {
    return (position > 0 && is_word_at(position - 1)) != is_word_at(position);
  }

  // Instructions that take no way back; false: they do not match.
  bool simple(const Instruction& step, std::size_t& position) const {
    auto size = text_.size();
    switch (step.op) {
      case Op::Character: return position < size && take_character(step, text_[position++]);
      case Op::Any: return position < size && (step.flag || text_[position] != U'\n') && ++position;
      case Op::Class:
        return position < size && program_.classes[step.index].contains(text_[position++]);
      case Op::Reference: return reference(step, position);
      case Op::LineStart: return position == 0 || (step.flag && text_[position - 1] == U'\n');
      case Op::LineEnd:
        return position == size ||
               (text_[position] == U'\n' && (step.flag || position + 1 == size));
      case Op::TextStart: return position == 0;
      case Op::TextEnd: return position == size;
      case Op::WordBorder: return at_word_border(position);
      default: return !at_word_border(position);
    }
  }

  static bool take_character(const Instruction& step, char32_t c) {
    return (step.flag ? simple_lower(c) : c) == step.value;
  }

  bool reference(const Instruction& step, std::size_t& position) const {
    auto first = slots_[2 * step.index], last = slots_[2 * step.index + 1];
    if (first == kNowhere || last == kNowhere) return false;
    for (auto i = first; i < last; ++i, ++position) {
      if (position >= text_.size()) return false;
      auto a = text_[i], b = text_[position];
      if (a != b && !(step.flag && simple_lower(a) == simple_lower(b))) return false;
    }
    return true;
  }

  void set(std::vector<Choice>& choices, std::size_t slot, std::size_t value) {
    choices.push_back({0, slots_[slot], slot});
    slots_[slot] = value;
  }

  // Look-arounds and atomic groups. False: the way ends here.
  bool enclosed(std::vector<Choice>& choices, const Instruction& step, std::size_t at,
                std::size_t& position) {
    auto before = slots_;
    auto inside = position;
    bool matches = true;
    if (step.op == Op::LookBehind) {
      matches = position >= step.other;
      inside = matches ? position - step.other : 0;
    }
    matches = matches && run(at + 1, inside);
    auto after = std::exchange(slots_, before);
    if (matches == step.flag) return false;
    if (!matches) return true;
    for (std::size_t i = 0; i < after.size(); ++i)
      if (after[i] != slots_[i]) set(choices, i, after[i]);
    if (step.op == Op::Atomic) position = inside;
    return true;
  }

  const Regex::Program& program_;
  std::u32string_view text_;
  std::vector<std::size_t> slots_;  // group borders, then registers of loops
  std::size_t steps_ = 0;
};

bool Machine::run(std::size_t at, std::size_t& position, bool not_empty) {
  const auto start = position;
  const auto registers = 2 * (program_.groups + 1);
  std::vector<Choice> choices;
  for (;;) {
    if (++steps_ > kMostSteps)
      throw Error(
          ErrorKind::Usage, "regular expression",
          "it tries too many ways on this text; repeats within repeats are often the cause");
    const auto& step = program_.code[at];
    bool goes_on = true;
    switch (step.op) {
      case Op::Split:
        choices.push_back({at + step.other, position});
        at += step.index;
        continue;
      case Op::Jump: at += step.index; continue;
      case Op::Save: set(choices, step.index, position); break;
      case Op::LoopStart: set(choices, registers + step.index, position); break;
      case Op::LoopCheck:
        if (slots_[registers + step.index] == position) {
          at += step.other;
          continue;
        }
        break;
      case Op::LookAhead:
      case Op::LookBehind:
      case Op::Atomic:
        goes_on = enclosed(choices, step, at, position);
        if (goes_on) {
          at += step.index;
          continue;
        }
        break;
      case Op::Accept:
        if (!not_empty || position != start) return true;
        goes_on = false;
        break;
      default: goes_on = simple(step, position);
    }
    if (goes_on) {
      ++at;
      continue;
    }
    while (!choices.empty() && choices.back().slot != kNowhere) {
      slots_[choices.back().slot] = choices.back().position;
      choices.pop_back();
    }
    if (choices.empty()) return false;
    at = choices.back().target;
    position = choices.back().position;
    choices.pop_back();
  }
}

/// The parts of a replacement: text, or a group's number.
struct Part {
  std::u32string text;
  std::size_t group = kNowhere;
};

class Template {
 public:
  Template(std::u32string_view text, const Regex::Program& program)
      : text_(text), program_(program) {
    while (at_ < text_.size()) {
      auto c = text_[at_++];
      if (c == U'\\')
        escape();
      else
        literal(c);
    }
  }

  const std::vector<Part>& parts() const { return parts_; }

 private:
  [[noreturn]] static void fail(const char* what) {
    throw Error(ErrorKind::Usage, "replacement", what);
  }

  void literal(char32_t c) {
    if (parts_.empty() || parts_.back().group != kNowhere) parts_.push_back({});
    parts_.back().text += c;
  }

  void group(std::size_t index) {
    if (index > program_.groups) fail("it names a group that the pattern does not have");
    parts_.push_back({{}, index});
  }

  static bool is_octal(char32_t c) { return c >= U'0' && c <= U'7'; }
  static bool is_decimal(char32_t c) { return c >= U'0' && c <= U'9'; }
  char32_t peek(std::size_t ahead = 0) const {
    return at_ + ahead < text_.size() ? text_[at_ + ahead] : 0;
  }

  void escape() {
    if (at_ == text_.size()) fail("it ends in a backslash");
    auto c = text_[at_++];
    static constexpr std::u32string_view letters = U"ntrfvab\\", meanings = U"\n\t\r\f\v\a\b\\";
    if (auto found = letters.find(c); found != letters.npos) return literal(meanings[found]);
    if (c == U'g') return named();
    if (c == U'0' || (is_octal(c) && is_octal(peek()) && is_octal(peek(1)))) {
      char32_t value = c - U'0';
      for (int i = 0; i < 2 && is_octal(peek()); ++i) value = value * 8 + (text_[at_++] - U'0');
      return literal(value);
    }
    if (is_decimal(c)) {
      std::size_t index = c - U'0';
      if (is_decimal(peek())) index = index * 10 + (text_[at_++] - U'0');
      return group(index);
    }
    if ((c >= U'a' && c <= U'z') || (c >= U'A' && c <= U'Z')) fail("it has an unknown escape");
    literal(U'\\');
    literal(c);
  }

  void named() {
    auto end = text_.find(U'>', at_);
    if (peek() != U'<' || end == text_.npos || end == at_ + 1) fail("\\g needs <name>");
    std::u32string name(text_.substr(at_ + 1, end - at_ - 1));
    at_ = end + 1;
    if (auto found = program_.names.find(name); found != program_.names.end())
      return group(found->second);
    std::size_t index = 0;
    for (auto c : name) {
      if (!is_decimal(c) || index > program_.groups)
        fail("it names a group that the pattern does not have");
      index = index * 10 + (c - U'0');
    }
    group(index);
  }

  std::u32string_view text_;
  const Regex::Program& program_;
  std::size_t at_ = 0;
  std::vector<Part> parts_;
};

}  // namespace

std::optional<Match> run_regex(const Regex::Program& program, std::u32string_view text,
                               std::size_t from, bool advance) {
  Machine machine(program, text);
  for (auto start = from; start <= text.size(); ++start) {
    machine.reset();
    auto position = start;
    if (machine.run(0, position, advance && start == from)) return machine.match();
  }
  return std::nullopt;
}

Regex::Regex(std::u32string_view pattern, const RegexFlags& flags)
    : program_(std::make_unique<Program>(compile_regex(pattern, flags))) {}
Regex::~Regex() = default;
Regex::Regex(Regex&&) noexcept = default;
Regex& Regex::operator=(Regex&&) noexcept = default;

std::size_t Regex::groups() const { return program_->groups; }

std::optional<Match> Regex::search(std::u32string_view text) const {
  return run_regex(*program_, text, 0, false);
}

std::vector<Match> Regex::find_all(std::u32string_view text) const {
  std::vector<Match> matches;
  std::size_t from = 0;
  bool advance = false;
  while (auto match = run_regex(*program_, text, from, advance)) {
    auto [first, last] = *match->front();
    advance = first == last;
    from = last;
    matches.push_back(std::move(*match));
  }
  return matches;
}

std::u32string Regex::replace(std::u32string_view text, std::u32string_view replacement,
                              std::size_t count) const {
  Template parts(replacement, *program_);
  std::u32string result;
  std::size_t done = 0, taken = 0;
  for (const auto& match : find_all(text)) {
    if (count != 0 && taken++ == count) break;
    auto [first, last] = *match.front();
    result += text.substr(done, first - done);
    for (const auto& part : parts.parts()) {
      if (part.group == kNowhere)
        result += part.text;
      else if (const auto& span = match[part.group])
        result += text.substr(span->first, span->second - span->first);
    }
    done = last;
  }
  return result += text.substr(done);
}

}  // namespace distorch::nodes
