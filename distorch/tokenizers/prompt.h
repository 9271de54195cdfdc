#pragma once
#include <string>
#include <string_view>
#include <vector>

namespace distorch::tokenizers {

/// A stretch of a prompt with one weight.
struct WeightedText {
  std::string text;  // escapes resolved
  double weight = 1.0;
  bool operator==(const WeightedText&) const = default;
};

/// Splits a prompt by ComfyUI's syntax: "(a)" weighs 1.1 times what surrounds it, "(a:1.3)"
/// weighs 1.3 whatever surrounds it, groups nest, "\(" and "\)" are parentheses of the text. Text
/// outside weighs 1.0. What does not close is text. A weight that is not a finite number is text
/// too (ComfyUI would take "(a:nan)" at its word and give a black picture). Never fails, except
/// Error(Usage) for more than 500 nested groups. Source: behaviour of ComfyUI comfy/sd1_clip.py,
/// token_weights.
std::vector<WeightedText> parse_prompt(std::string_view prompt);

/// A prompt whose parentheses mean nothing, as one stretch; escapes are resolved all the same.
std::vector<WeightedText> unweighted(std::string_view prompt);

}  // namespace distorch::tokenizers
