// Merging and spelling against the slowest way of doing them: every possibility, in order.
#include <doctest/doctest.h>

#include <algorithm>
#include <functional>
#include <limits>
#include <random>

#include "distorch/base/error.h"
#include "distorch/tokenizers/base64.h"
#include "distorch/tokenizers/bpe_merge.h"
#include "distorch/tokenizers/charsmap.h"
#include "distorch/tokenizers/unicode.h"
#include "distorch/tokenizers/unigram.h"

using namespace distorch;
using namespace distorch::tokenizers;

namespace {

/// The rule as it is written: of all neighbours that merge take the lowest, the leftmost of equals.
std::vector<int> merged_slowly(std::vector<int> tokens, const Merges& merges) {
  while (true) {
    std::size_t best = tokens.size();
    int lowest = std::numeric_limits<int>::max();
    for (std::size_t i = 0; i + 1 < tokens.size(); ++i) {
      auto found = merges.find(pair_key(tokens[i], tokens[i + 1]));
      if (found != merges.end() && found->second < lowest) best = i, lowest = found->second;
    }
    if (best == tokens.size()) return tokens;
    tokens[best] = lowest;
    tokens.erase(tokens.begin() + static_cast<std::ptrdiff_t>(best) + 1);
  }
}

/// The most that the scores of a spelling add up to, over all of them; pieces of one letter are
/// always there.
double best_score(const UnigramData& data, std::string_view text) {
  std::function<double(std::size_t)> from = [&](std::size_t at) {
    if (at == text.size()) return 0.0;
    double best = -std::numeric_limits<double>::infinity();
    for (const auto& piece : data.pieces)
      if (!piece.text.empty() && text.substr(at).starts_with(piece.text))
        best = std::max(best, piece.score + from(at + piece.text.size()));
    return best;
  };
  return from(0);
}

}  // namespace

TEST_CASE("merging: random vocabularies and words as the plain rule has them") {
  std::mt19937 random(7);
  for (int round = 0; round < 400; ++round) {
    const int letters = 2 + static_cast<int>(random() % 3);
    Merges merges;
    int next = letters;
    for (int tries = 0; tries < 12; ++tries) {
      auto any = [&] { return static_cast<int>(random() % static_cast<unsigned>(next)); };
      if (merges.emplace(pair_key(any(), any()), next).second) ++next;
    }
    for (int word = 0; word < 20; ++word) {
      std::vector<int> tokens(random() % 24);
      for (int& token : tokens) token = static_cast<int>(random() % static_cast<unsigned>(letters));
      CHECK(merged(tokens, merges) == merged_slowly(tokens, merges));
    }
  }
}

TEST_CASE("merging: a run of one letter pairs from the left") {
  const Merges merges{{pair_key(0, 0), 1}, {pair_key(1, 1), 2}, {pair_key(1, 0), 3}};
  CHECK(merged({}, merges).empty());
  CHECK(merged({0}, merges) == std::vector<int>{0});
  CHECK(merged({0, 0}, merges) == std::vector<int>{1});
  CHECK(merged({0, 0, 0}, merges) == std::vector<int>{3});
  CHECK(merged({0, 0, 0, 0}, merges) == std::vector<int>{2});
  CHECK(merged({0, 0, 0, 0, 0}, merges) == std::vector<int>{2, 0});
  CHECK(merged({0, 0, 0, 0, 0, 0}, merges) == std::vector<int>{2, 1});
  CHECK(merged({0, 0, 0, 0, 0, 0, 0}, merges) == std::vector<int>{2, 3});
}

TEST_CASE("unigram: no spelling is more probable, and the pieces are the text") {
  std::mt19937 random(19);
  for (int round = 0; round < 150; ++round) {
    UnigramData data;
    data.unknown = 0;
    data.pieces.push_back({"<unk>", 0.0, true});
    auto score = [&] { return -static_cast<double>(1 + random() % 1000) / 100; };
    for (const char* letter : {"\xe2\x96\x81", "a", "b", "c"})
      data.pieces.push_back({letter, score()});
    for (int i = 0; i < 12; ++i) {
      std::string piece = random() % 3 == 0 ? "\xe2\x96\x81" : "";
      for (auto n = 1 + random() % 4; n > 0; --n) piece += "abc"[random() % 3];
      auto same = [&](const UnigramData::Piece& other) { return other.text == piece; };
      if (std::ranges::none_of(data.pieces, same)) data.pieces.push_back({piece, score()});
    }
    Unigram unigram(data, "vocabulary");
    std::string text;
    for (auto n = 1 + random() % 9; n > 0; --n) text += "abc"[random() % 3];
    std::string spelled;
    double total = 0;
    for (int id : unigram.encode(text)) {
      spelled += unigram.text_of(id);
      total += data.pieces[static_cast<std::size_t>(id)].score;
    }
    CHECK(spelled == "\xe2\x96\x81" + text);
    CHECK(total == doctest::Approx(best_score(data, spelled)));
  }
}

TEST_CASE("unigram: blanks, unknown characters, special tokens") {
  UnigramData data;
  data.unknown = 1;
  data.pieces = {{"<pad>", 0, true},
                 {"<unk>", 0, true},
                 {"\xe2\x96\x81", -2},
                 {"a", -1},
                 {"\xe2\x96\x81"
                  "a",
                  -1.5},
                 {"<x>", 0, true}};
  Unigram unigram(data, "v");
  using Ids = std::vector<int>;
  CHECK(unigram.encode("").empty());
  CHECK(unigram.encode("a") == Ids{4});
  CHECK(unigram.encode(" a") == Ids{4});
  CHECK(unigram.encode("a  a") == Ids{4, 4});
  CHECK(unigram.encode("a a   ") == Ids{4, 4});
  // What nothing spells is one unknown however long, apart from what is known.
  CHECK(unigram.encode("a\xc3\xa9\xc3\xa9zza") == Ids{4, 1, 3});
  CHECK(unigram.encode("\xff") == Ids{2, 1});
  // A special token stands for itself; only the text's very beginning gets a blank before it.
  CHECK(unigram.encode("a<x>a") == Ids{4, 5, 3});
  CHECK(unigram.encode("<x>") == Ids{5});
  CHECK(unigram.encode("<x>a") == Ids{5, 3});
  CHECK(unigram.encode("<x> a") == Ids{5, 4});
  CHECK(unigram.encode("<y>") == Ids{2, 1});
  CHECK(unigram.text_of(5) == "<x>");
  CHECK(unigram.text_of(6).empty());
  CHECK(unigram.text_of(-1).empty());
}

TEST_CASE("base64: what its own alphabet gives, and nothing else") {
  const std::string alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::mt19937 random(3);
  for (std::size_t size = 0; size < 40; ++size) {
    std::string bytes;
    for (std::size_t i = 0; i < size; ++i) bytes.push_back(static_cast<char>(random()));
    std::string bits, text;
    for (unsigned char byte : bytes)
      for (int bit = 7; bit >= 0; --bit) bits.push_back((byte >> bit & 1) ? '1' : '0');
    while (bits.size() % 6 != 0) bits.push_back('0');
    for (std::size_t i = 0; i < bits.size(); i += 6)
      text.push_back(alphabet[std::stoul(bits.substr(i, 6), nullptr, 2)]);
    CHECK(decoded_base64(text) == bytes);
    while (text.size() % 4 != 0) text.push_back('=');
    CHECK(decoded_base64(text) == bytes);
  }
  for (const char* broken : {"AB-C", "AB_C", "A B", "AB\n", "\xc3\xa9"})
    CHECK_FALSE(decoded_base64(broken).has_value());
  CHECK(decoded_base64("=ABC") == "");
}

TEST_CASE("words are parted at every blank that Python knows, and only there") {
  auto words = [](std::string_view text) {
    std::vector<std::string> list;
    for (auto word : split_words(text)) list.emplace_back(word);
    return list;
  };
  using Words = std::vector<std::string>;
  CHECK(words("").empty());
  CHECK(words(" \t\n").empty());
  CHECK(words("a") == Words{"a"});
  CHECK(words("  a b  ") == Words{"a", "b"});
  std::string text;
  for (std::int32_t c = 0; c < 0x3100; ++c) {
    bool blank = (c >= 9 && c <= 13) || (c >= 28 && c <= 32) || c == 0x85 || c == 0xa0 ||
                 c == 0x1680 || (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 ||
                 c == 0x202f || c == 0x205f || c == 0x3000;
    text = "x";
    append_character(text, c);
    text += "y";
    CHECK(words(text).size() == (blank ? 2 : 1));
  }
}

TEST_CASE("characters: taken one by one, a byte where there is none") {
  std::string_view text = "a\xc3\xa9\xe4\xb8\xad\xf0\x9f\x98\x80\xff\xc3";
  std::vector<std::int32_t> characters;
  std::string again;
  while (!text.empty()) {
    characters.push_back(take_character(text));
    if (characters.back() >= 0) append_character(again, characters.back());
  }
  CHECK(characters == std::vector<std::int32_t>{'a', 0xe9, 0x4e2d, 0x1f600, -1, -1});
  CHECK(again == "a\xc3\xa9\xe4\xb8\xad\xf0\x9f\x98\x80");
  // Overlong forms and halves of pairs are no characters.
  for (std::string_view broken : {"\xc0\x80", "\xed\xa0\x80", "\xf4\x90\x80\x80"}) {
    auto rest = broken;
    CHECK(take_character(rest) == -1);
    CHECK(rest.size() == broken.size() - 1);
  }
  CHECK(is_letter('a'));
  CHECK(is_letter(0x4e2d));
  CHECK_FALSE(is_letter('1'));
  CHECK(is_number('1'));
  CHECK(is_number(0xbd));    // one half
  CHECK(is_number(0x2160));  // the Roman one
  CHECK_FALSE(is_number('a'));
  CHECK_FALSE(is_number('-'));
}

TEST_CASE("character tables: sizes that do not fit are refused, no table changes nothing") {
  auto refused = [](std::string_view bytes) {
    try {
      CharsMap map(bytes, "file");
    } catch (const Error& error) {
      CHECK((error.kind() == ErrorKind::Format));
      CHECK(error.where() == "file");
      return true;
    }
    return false;
  };
  using namespace std::string_view_literals;
  CHECK(CharsMap().normalized("a\xff") == "a\xff");
  CHECK_FALSE(refused(""));
  CHECK(refused("\4\0\0"sv));
  CHECK(refused("\3\0\0\0aaa"sv));
  CHECK(refused("\4\0\0\0aaa"sv));
  CHECK_FALSE(refused("\4\0\0\0aaaa"sv));
  CHECK_FALSE(refused("\0\0\0\0"sv));
  // Nodes that lead out of the table find nothing.
  for (unsigned seed = 0; seed < 300; ++seed) {
    std::mt19937 random(seed);
    std::string bytes("\x40\0\0\0"sv);
    for (int i = 0; i < 64 + 8; ++i) bytes.push_back(static_cast<char>(random()));
    CHECK_NOTHROW(CharsMap(bytes, "f").normalized("ab e\xcc\x81 \xef\xbc\xa1\xff"));
  }
}
