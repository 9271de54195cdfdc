#pragma once
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace distorch::nodes {

struct RegexFlags {
  bool ignore_case = false;
  bool multiline = false;
  bool dotall = false;
};

/// Where a group begins and ends, in characters; nullopt where it took no part.
using Span = std::optional<std::pair<std::size_t, std::size_t>>;
/// Group 0 is the whole match.
using Match = std::vector<Span>;

/// A regular expression in the language of Python's `re` for str, without verbose mode: classes,
/// groups (named and atomic ones too, no conditional ones), back references, look around (behind: of fixed width), lazy and
/// possessive repeats, flags inside.
/// Errors: Error(Usage) with the position for a pattern that is none; a search that takes more than
/// some ten million steps ends in Error(Usage) too, where Python would go on for minutes.
class Regex {
 public:
  Regex(std::u32string_view pattern, const RegexFlags& flags);
  ~Regex();
  Regex(Regex&&) noexcept;
  Regex& operator=(Regex&&) noexcept;

  std::size_t groups() const;  // without group 0
  std::optional<Match> search(std::u32string_view text) const;
  /// All matches that do not overlap, from left to right.
  std::vector<Match> find_all(std::u32string_view text) const;
  /// re.sub: up to `count` matches (0: all) become `replacement`, where \1, \g<1> and \g<name>
  /// stand for groups.
  std::u32string replace(std::u32string_view text, std::u32string_view replacement,
                         std::size_t count) const;

  struct Program;

 private:
  std::unique_ptr<Program> program_;
};

}  // namespace distorch::nodes
