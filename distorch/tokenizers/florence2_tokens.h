#pragma once
#include <string>
#include <vector>

namespace distorch::tokenizers {

/// Tokens that Florence-2 adds to BART's, in the order of their numbers: the edges of answers, and
/// 1000 steps over a picture. Source: the published model folders' Florence2Processor.
std::vector<std::string> florence2_tokens();

}  // namespace distorch::tokenizers
