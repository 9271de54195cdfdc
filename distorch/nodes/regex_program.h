#pragma once
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "distorch/nodes/python_regex.h"

/// A regular expression as instructions of a machine that tries and goes back. Private to
/// python_regex.
namespace distorch::nodes {

/// One member of a class of characters: a range, or one of \d \w \s and their opposites.
struct ClassItem {
  char32_t first = 0, last = 0;
  char kind = 0;  // 'd', 'w', 's', 'D', 'W', 'S'; 0: the range
};

struct CharacterClass {
  std::vector<ClassItem> items;
  bool negated = false;
  bool ignore_case = false;

  bool contains(char32_t c) const;
};

enum class Op : std::uint8_t {
  Character,  // value; flag: case does not count
  Any,        // flag: also a line's end
  Class,      // index
  Split,      // go on at `index`, and at `other` where that fails
  Jump,       // index
  Save,       // index of a position
  LoopStart,  // remembers the position in register `index`
  LoopCheck,  // fails where register `index` is the position: an empty turn
  Reference,  // group `index`; flag: case does not count
  LineStart,  // flag: at every line
  LineEnd,    // flag: at every line
  TextStart,
  TextEnd,
  WordBorder,
  NoWordBorder,
  LookAhead,   // the instructions behind match here, up to Accept; goes on at `index`;
               // flag: they must not
  LookBehind,  // the same `other` characters before
  Atomic,      // as LookAhead, but what matched is taken
  Accept,
};

struct Instruction {
  Op op;
  bool flag = false;
  std::size_t index = 0, other = 0;
  char32_t value = 0;
};

struct Regex::Program {
  std::vector<Instruction> code;
  std::vector<CharacterClass> classes;
  std::map<std::u32string, std::size_t> names;
  std::size_t groups = 0;
  std::size_t registers = 0;  // of loops
};

/// Error(Usage) as Regex says.
Regex::Program compile_regex(std::u32string_view pattern, RegexFlags flags);

/// The first match at or after `from`. `advance`: one that begins at `from` must not be empty.
std::optional<Match> run_regex(const Regex::Program& program, std::u32string_view text,
                               std::size_t from, bool advance);

}  // namespace distorch::nodes
