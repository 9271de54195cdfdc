#include "distorch/tokenizers/qwen_bpe.h"

#include "distorch/base/atomic_file.h"
#include "distorch/base/error.h"

namespace distorch::tokenizers {

namespace {

const std::vector<std::string>& special_tokens() {
  static const std::vector<std::string> list = {
      "<|endoftext|>",
      "<|im_start|>",
      "<|im_end|>",
      "<|object_ref_start|>",
      "<|object_ref_end|>",
      "<|box_start|>",
      "<|box_end|>",
      "<|quad_start|>",
      "<|quad_end|>",
      "<|vision_start|>",
      "<|vision_end|>",
      "<|vision_pad|>",
      "<|image_pad|>",
      "<|video_pad|>",
      "<tool_call>",
      "</tool_call>",
      "<|fim_prefix|>",
      "<|fim_middle|>",
      "<|fim_suffix|>",
      "<|fim_pad|>",
      "<|repo_name|>",
      "<|file_sep|>",
      "<tool_response>",
      "</tool_response>",
      "<think>",
      "</think>",
  };
  return list;
}

}  // namespace

std::shared_ptr<const QwenBpe> QwenBpe::load(const std::filesystem::path& folder) {
  auto path = folder / "qwen.tiktoken";
  if (!std::filesystem::is_regular_file(path))
    throw Error(ErrorKind::MissingFile, path.string(),
                "the Qwen vocabulary is not there; run tools/setup.sh, which fetches it, or put "
                "qwen.tiktoken of any Qwen model into this folder or into tokenizers/qwen/ below "
                "the models");
  return parse(read_file(path), path.string());
}

std::shared_ptr<const QwenBpe> QwenBpe::parse(std::string_view text, const std::string& where) {
  RankBpeRules rules{
      .name = "Qwen", .tokens = padding_token, .special = special_tokens(), .composed = true};
  return std::shared_ptr<const QwenBpe>(new QwenBpe(RankBpe::parse(text, where, std::move(rules))));
}

}  // namespace distorch::tokenizers
