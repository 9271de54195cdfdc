#include "distorch/tokenizers/byte_tokens.h"

#include <doctest/doctest.h>

using distorch::tokenizers::byte_tokens;

// Ids of transformers' ByT5Tokenizer, without the end that it adds.
TEST_CASE("byte tokens: bytes of UTF-8, and names of tokens") {
  CHECK(byte_tokens("").empty());
  CHECK(byte_tokens("a\n") == std::vector<int>{100, 13});
  CHECK(byte_tokens("\u00e9") == std::vector<int>{198, 172});
  CHECK(byte_tokens("<extra_id_124><pad><unk>") == std::vector<int>{383, 0, 2});
  CHECK(byte_tokens("x</s>y") == std::vector<int>{123, 1, 124});
  CHECK(byte_tokens("x</s>") == std::vector<int>{123});
  CHECK(byte_tokens("<extra_id_125>").size() == 14);
  CHECK(byte_tokens("<extra_id_07>").size() == 13);
  CHECK(byte_tokens("<extra_id_").size() == 10);
  CHECK(byte_tokens("<extra_id_-1>").size() == 13);
}
