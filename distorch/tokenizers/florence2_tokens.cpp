#include "distorch/tokenizers/florence2_tokens.h"

#include <fmt/format.h>

namespace distorch::tokenizers {

std::vector<std::string> florence2_tokens() {
  std::vector<std::string> tokens = {"<od>", "</od>", "<ocr>", "</ocr>"};
  for (int i = 0; i < 1000; ++i) tokens.push_back(fmt::format("<loc_{}>", i));
  for (const char* token : {"<cap>",
                            "</cap>",
                            "<ncap>",
                            "</ncap>",
                            "<dcap>",
                            "</dcap>",
                            "<grounding>",
                            "</grounding>",
                            "<seg>",
                            "</seg>",
                            "<sep>",
                            "<region_cap>",
                            "</region_cap>",
                            "<region_to_desciption>",
                            "</region_to_desciption>",
                            "<proposal>",
                            "</proposal>",
                            "<poly>",
                            "</poly>",
                            "<and>"})
    tokens.emplace_back(token);
  return tokens;
}

}  // namespace distorch::tokenizers
