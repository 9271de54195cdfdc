#pragma once
#include <string>
#include <vector>

/// How the WanVideoWrapper reads prompts, without a graph. Source: ComfyUI-WanVideoWrapper,
/// nodes.py and wanvideo/modules/tokenizers.py.
namespace distorch::nodes::wan_wrapper {

/// Prompts for one stretch of the video each, with "|" between them; blanks around them go.
std::vector<std::string> split_prompts(const std::string& text);

/// "(text:1.3)" without parentheses and number; the numbers count for the whole prompt.
struct WeightedPrompt {
  std::string text;
  std::vector<double> weights;
};
WeightedPrompt without_weights(const std::string& prompt);

/// As the tokenizer gets it: entities of HTML are characters, full-width letters and curly quotes
/// plain ones, every run of white space is one blank, and none is at the ends.
std::string cleaned_prompt(const std::string& prompt);

}  // namespace distorch::nodes::wan_wrapper
