// Chunks of every size around their limits, with a vocabulary in which each letter is a token.
#include <doctest/doctest.h>

#include <random>

#include "distorch/tokenizers/prompt.h"
#include "distorch/tokenizers/prompt_tokenizer.h"

using namespace distorch::tokenizers;

namespace {

constexpr int kStart = 1000, kEnd = 1001, kPadding = 1002;

std::vector<int> letters(std::string_view text) {
  std::vector<int> ids;
  for (unsigned char c : text) ids.push_back(c);
  return ids;
}

PromptTokenizerOptions chunks_of(int length) {
  return {.max_length = length, .start = kStart, .end = kEnd, .padding = kPadding};
}

/// "^ab$__" for a chunk: start, letters, end, padding.
std::string drawn(const std::vector<Token>& chunk) {
  std::string text;
  for (const auto& token : chunk)
    text += token.is_embedding()   ? '#'
            : token.id == kStart   ? '^'
            : token.id == kEnd     ? '$'
            : token.id == kPadding ? '_'
                                   : static_cast<char>(token.id);
  return text;
}

std::vector<std::string> drawn(const PromptTokens& tokens) {
  std::vector<std::string> all;
  for (const auto& chunk : tokens.chunks) all.push_back(drawn(chunk));
  return all;
}

using Chunks = std::vector<std::string>;

}  // namespace

TEST_CASE("chunks: a text is as long as a chunk, one less, one more") {
  PromptTokenizer tokenizer(letters, chunks_of(10));
  CHECK(drawn(tokenizer.tokenize("")) == Chunks{"^$________"});
  CHECK(drawn(tokenizer.tokenize("abcdefg")) == Chunks{"^abcdefg$_"});
  CHECK(drawn(tokenizer.tokenize("abcdefgh")) == Chunks{"^abcdefgh$"});
  CHECK(drawn(tokenizer.tokenize("abcdefghi")) == Chunks{"^abcdefgh$", "^i$_______"});
  CHECK(drawn(tokenizer.tokenize("abcdefghijklmnopq")) ==
        Chunks{"^abcdefgh$", "^ijklmnop$", "^q$_______"});
}

TEST_CASE("chunks: a short stretch moves to the next chunk whole, a long one is cut") {
  PromptTokenizer tokenizer(letters, chunks_of(12));
  // Seven letters are a word that stays together, eight may be cut.
  CHECK(drawn(tokenizer.tokenize("abcdef(ghijklm)")) == Chunks{"^abcdef$____", "^ghijklm$___"});
  CHECK(drawn(tokenizer.tokenize("abcdef(ghijklmn)")) == Chunks{"^abcdefghij$", "^klmn$______"});
  CHECK(drawn(tokenizer.tokenize("abc(ghijklm)")) == Chunks{"^abcghijklm$"});
  auto options = chunks_of(12);
  options.longest_kept_word = 3;
  PromptTokenizer cutting(letters, options);
  CHECK(drawn(cutting.tokenize("abcdefghi(xyz)")) == Chunks{"^abcdefghix$", "^yz$________"});
  CHECK(drawn(cutting.tokenize("abcdefghi(xy)")) == Chunks{"^abcdefghi$_", "^xy$________"});
}

TEST_CASE("chunks: without a longest length there is one, filled up to the shortest") {
  PromptTokenizer open(letters, {.min_length = 6, .end = kEnd, .padding = kPadding});
  CHECK(drawn(open.tokenize("")) == Chunks{"$_____"});
  CHECK(drawn(open.tokenize("abcde")) == Chunks{"abcde$"});
  CHECK(drawn(open.tokenize(std::string(40, 'x'))) == Chunks{std::string(40, 'x') + "$"});
  PromptTokenizer bare(letters, {});
  CHECK(drawn(bare.tokenize("ab")) == Chunks{"ab"});
  CHECK(bare.tokenize("").chunks.size() == 1);
}

TEST_CASE("chunks: weights and numbers of words go with their letters, not with the frame") {
  PromptTokenizer tokenizer(letters, chunks_of(8));
  auto tokens = tokenizer.tokenize("a(b:2)((c))");
  REQUIRE(tokens.chunks.size() == 1);
  const auto& chunk = tokens.chunks[0];
  REQUIRE(drawn(chunk) == "^abc$___");
  const std::vector<float> weights{1, 1, 2, 1.21f, 1, 1, 1, 1};
  const std::vector<int> words{0, 1, 2, 3, 0, 0, 0, 0};
  for (std::size_t i = 0; i < chunk.size(); ++i) {
    CHECK(chunk[i].weight == doctest::Approx(weights[i]));
    CHECK(chunk[i].word_id == words[i]);
  }
  auto plain = chunks_of(12);
  plain.weights = false;
  CHECK(drawn(PromptTokenizer(letters, plain).tokenize("(b:2)\\(")) == Chunks{"^(b:2)($____"});
}

TEST_CASE("chunks: embeddings take a place a row, and are named once") {
  PromptTokenizer tokenizer(letters, chunks_of(12));
  auto rows = [](const std::string& name) {
    return name == "two" ? std::optional(2) : name == "none" ? std::optional(0) : std::nullopt;
  };
  auto tokens = tokenizer.tokenize("a embedding:two embedding:two, b", rows);
  CHECK(drawn(tokens) == Chunks{"^a####, b$__"});
  CHECK(tokens.embeddings == std::vector<std::string>{"two"});
  CHECK(tokens.missing.empty());
  const auto& chunk = tokens.chunks[0];
  for (std::size_t i : {2u, 3u, 4u, 5u}) CHECK(chunk[i].row == static_cast<int>(i % 2));
  CHECK(chunk[2].word_id == chunk[3].word_id);
  CHECK(chunk[3].word_id != chunk[4].word_id);
  // Nine rows do not fit behind three letters, and are no word that must stay together.
  auto nine = [](const std::string&) { return std::optional(9); };
  CHECK(drawn(tokenizer.tokenize("abc embedding:x", nine)) ==
        Chunks{"^abc#######$", "^##$________"});
  auto missing = tokenizer.tokenize("embedding:lost,", rows);
  CHECK(missing.missing == std::vector<std::string>{"lost"});
  CHECK(drawn(missing) == Chunks{"^, $________"});
  // In the middle of a word it is text.
  CHECK(drawn(tokenizer.tokenize("xembedding:", rows)) == Chunks{"^xembedding$", "^:$_________"});
}

TEST_CASE("chunks: no letter is lost or doubled, whatever the lengths") {
  std::mt19937 random(23);
  for (int round = 0; round < 500; ++round) {
    const int length = 12 + static_cast<int>(random() % 10);
    PromptTokenizer tokenizer(letters, chunks_of(length));
    std::string prompt, wanted;
    for (auto n = random() % 8; n > 0; --n) {
      std::string word(1 + random() % 14, static_cast<char>('a' + random() % 26));
      wanted += word;
      prompt += random() % 2 ? "(" + word + ":1.5)" : "[" + word + "]";
      if (prompt.back() == ']') wanted.insert(wanted.size() - word.size(), "["), wanted += "]";
    }
    std::string got;
    for (const auto& chunk : drawn(tokenizer.tokenize(prompt))) {
      CHECK(chunk.size() == static_cast<std::size_t>(length));
      CHECK(chunk.front() == '^');
      auto end = chunk.find('$');
      REQUIRE(end != std::string::npos);
      CHECK(chunk.find_first_not_of('_', end + 1) == std::string::npos);
      got += chunk.substr(1, end - 1);
    }
    CHECK(got == wanted);
  }
}

TEST_CASE("prompt: what is written out from stretches is read back as them") {
  std::mt19937 random(31);
  for (int round = 0; round < 500; ++round) {
    std::vector<WeightedText> wanted;
    std::string prompt;
    for (auto n = 1 + random() % 6; n > 0; --n) {
      std::string text, written;
      for (auto k = 1 + random() % 6; k > 0; --k) {
        auto c = "ab ,:()"[random() % 7];
        text.push_back(c);
        if (c == '(' || c == ')') written.push_back('\\');
        written.push_back(c);
      }
      auto weight = static_cast<double>(random() % 40) / 16;
      wanted.push_back({text, weight});
      prompt += "(" + written + ":" + std::to_string(weight) + ")";
    }
    CHECK(parse_prompt(prompt) == wanted);
  }
}
