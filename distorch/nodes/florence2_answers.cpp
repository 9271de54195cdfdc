#include "distorch/nodes/florence2_answers.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "distorch/base/error.h"
#include "distorch/nodes/python_regex.h"
#include "distorch/nodes/python_text.h"

namespace distorch::nodes::florence2 {

namespace {

using Text = std::u32string;

struct Question {
  const char* token;
  const char* words;
  bool takes_text = false;  // at "{}"
};

/// Other tokens are asked as they are.
constexpr Question kQuestions[] = {
    {"<OCR>", "What is the text in the image?"},
    {"<OCR_WITH_REGION>", "What is the text in the image, with regions?"},
    {"<CAPTION>", "What does the image describe?"},
    {"<DETAILED_CAPTION>", "Describe in detail what is shown in the image."},
    {"<MORE_DETAILED_CAPTION>", "Describe with a paragraph what is shown in the image."},
    {"<OD>", "Locate the objects with category name in the image."},
    {"<DENSE_REGION_CAPTION>", "Locate the objects in the image, with their descriptions."},
    {"<REGION_PROPOSAL>", "Locate the region proposals in the image."},
    {"<CAPTION_TO_PHRASE_GROUNDING>", "Locate the phrases in the caption: {}", true},
    {"<REFERRING_EXPRESSION_SEGMENTATION>", "Locate {} in the image with mask", true},
};

/// Words that stand for nothing that could be pointed at.
bool is_pointless(const std::string& phrase) {
  static const std::set<std::string> words = {
      "I",          "a",           "a group",  "a set",         "all",      "an",
      "another",    "any",         "anybody",  "anyone",        "anything", "each",
      "each other", "everybody",   "everyone", "everything",    "few",      "he",
      "her",        "hers",        "herself",  "him",           "himself",  "his",
      "image",      "images",      "it",       "its",           "itself",   "lots",
      "many",       "me",          "mine",     "myself",        "nobody",   "none",
      "one",        "one another", "oneself",  "other objects", "our",      "ours",
      "ourselves",  "several",     "she",      "some",          "somebody", "someone",
      "something",  "that",        "the",      "the image",     "their",    "theirs",
      "them",       "themselves",  "these",    "they",          "this",     "those",
      "us",         "we",          "what",     "which",         "who",      "whom",
      "whose",      "you",         "your",     "yours",         "yourself", "yourselves"};
  return words.count(phrase) != 0;
}

Text without(Text text, std::initializer_list<const char32_t*> tokens) {
  for (const auto* token : tokens) {
    const std::u32string_view gone(token);
    for (auto at = text.find(gone); at != Text::npos; at = text.find(gone, at))
      text.erase(at, gone.size());
  }
  return text;
}

Text stripped(Text text) {
  auto first = std::find_if_not(text.begin(), text.end(), is_white_space);
  auto last = text.end();
  while (last != first && is_white_space(*(last - 1))) --last;
  return {first, last};
}

/// Labels keep their ASCII characters only.
std::string ascii(const Text& text) {
  std::string result;
  for (auto c : text)
    if (c < 128) result += static_cast<char>(c);
  return result;
}

/// Reads answers about one picture.
class Reader {
 public:
  Reader(std::int64_t width, std::int64_t height)
      : width_(static_cast<double>(width)), height_(static_cast<double>(height)) {}

  std::vector<Region> boxes(const Text& answer, Form form) const;
  std::vector<Region> polygons(const Text& answer) const;
  std::vector<Region> lines(const Text& answer) const;

 private:
  /// All numbers of <loc_N> in a text.
  static std::vector<std::int64_t> numbers(const Text& text);
  /// The middles of the steps from `first` on, in pixels.
  Points pixels(const std::vector<std::int64_t>& steps, std::size_t first,
                std::size_t count) const {
    Points points;
    for (std::size_t i = first; i < first + count; ++i) {
      // The model's own arithmetic is in single precision.
      const auto middle = static_cast<float>(steps[i]) + 0.5f;
      const auto size = static_cast<float>(((i - first) % 2 == 0 ? width_ : height_) / 1000.0);
      points.push_back(static_cast<double>(middle * size));
    }
    return points;
  }

  double width_, height_;
};

Regex pattern(const char32_t* text) { return Regex(text, {}); }

Text part(const Text& text, const Match& match, std::size_t group) {
  const auto& span = match[group];
  return span ? text.substr(span->first, span->second - span->first) : Text();
}

std::vector<std::int64_t> Reader::numbers(const Text& text) {
  static const auto one = pattern(UR"(<loc_(\d+)>)");
  std::vector<std::int64_t> result;
  for (const auto& match : one.find_all(text)) {
    std::int64_t number = 0;
    for (auto c : part(text, match, 1))
      if (c >= U'0' && c <= U'9' && number < 1'000'000)
        number = 10 * number + static_cast<std::int64_t>(c - U'0');
    result.push_back(number);
  }
  return result;
}

std::vector<Region> Reader::boxes(const Text& answer, Form form) const {
  static const auto with_phrase = pattern(UR"([^<]+(?:<loc_\d+>){4,})");
  static const auto alone = pattern(UR"((?:<loc_\d+>){4,})");
  const auto text = without(answer, {U"<s>", U"</s>", U"<pad>"});
  std::vector<Region> regions;
  for (const auto& match : (form == Form::Proposals ? alone : with_phrase).find_all(text)) {
    const auto whole = part(text, match, 0);
    const auto words = whole.substr(0, whole.find(U"<loc_"));
    const auto phrase = stripped(words);
    // A phrase is one line.
    const auto begin = std::find_if_not(words.begin(), words.end(), is_white_space);
    if (std::find(begin, words.end(), U'\n') != words.end()) continue;
    if (form == Form::Grounding && is_pointless(utf8_of(phrase))) continue;
    // A number that is left over belongs to no box.
    const auto steps = numbers(whole);
    for (std::size_t i = 0; i + 4 <= steps.size(); i += 4)
      regions.push_back({ascii(phrase), {pixels(steps, i, 4)}});
  }
  return regions;
}

std::vector<Region> Reader::polygons(const Text& answer) const {
  static const auto all = pattern(UR"((?:<loc_\d+>|<sep>|<poly>|</poly>){4,})");
  static const auto enclosed = pattern(UR"(<poly>(.*?)</poly>)");
  static const auto run = pattern(UR"(((?:<loc_\d+>)+)(?:<sep>|$))");
  const auto text = without(answer, {U"<s>", U"</s>", U"<pad>"});
  std::vector<Region> regions;
  for (const auto& match : all.find_all(text)) {
    const auto whole = part(text, match, 0);
    std::vector<Text> pieces;
    for (const auto& one : enclosed.find_all(whole)) pieces.push_back(part(whole, one, 1));
    const bool encloses =
        whole.find(U"<poly>") != Text::npos && whole.find(U"</poly>") != Text::npos;
    if (!encloses) pieces = {whole};
    for (const auto& piece : pieces) {
      Region region;
      for (const auto& one : run.find_all(piece)) {
        const auto steps = numbers(part(piece, one, 1));
        region.shapes.push_back(pixels(steps, 0, steps.size() - steps.size() % 2));
      }
      if (!region.shapes.empty()) regions.push_back(std::move(region));
    }
  }
  return regions;
}

std::vector<Region> Reader::lines(const Text& answer) const {
  static const auto one = pattern(UR"((.+?)((?:<loc_\d+>){8}))");
  // The model's own code leaves the end token in front of the first line, by accident.
  const auto text = without(answer, {U"<s>", U"</s>", U"<pad>"});
  std::vector<Region> regions;
  for (const auto& match : one.find_all(text))
    regions.push_back(
        {utf8_of(part(text, match, 1)), {pixels(numbers(part(text, match, 2)), 0, 8)}});
  return regions;
}

}  // namespace

const std::vector<Task>& tasks() {
  static const std::vector<Task> list = {
      {"region_caption", "<OD>", Form::Boxes},
      {"dense_region_caption", "<DENSE_REGION_CAPTION>", Form::Boxes},
      {"region_proposal", "<REGION_PROPOSAL>", Form::Proposals},
      {"caption", "<CAPTION>"},
      {"detailed_caption", "<DETAILED_CAPTION>"},
      {"more_detailed_caption", "<MORE_DETAILED_CAPTION>"},
      {"caption_to_phrase_grounding", "<CAPTION_TO_PHRASE_GROUNDING>", Form::Grounding, true},
      {"referring_expression_segmentation", "<REFERRING_EXPRESSION_SEGMENTATION>", Form::Polygons,
       true},
      {"ocr", "<OCR>"},
      {"ocr_with_region", "<OCR_WITH_REGION>", Form::TextLines},
      {"docvqa", "<DocVQA>", Form::Text, true},
      {"prompt_gen_tags", "<GENERATE_TAGS>"},
      {"prompt_gen_mixed_caption", "<MIXED_CAPTION>"},
      {"prompt_gen_analyze", "<ANALYZE>"},
      {"prompt_gen_mixed_caption_plus", "<MIXED_CAPTION_PLUS>"},
  };
  return list;
}

const Task& task_named(const std::string& name, const std::string& place) {
  const auto& all = tasks();
  const auto found =
      std::find_if(all.begin(), all.end(), [&](const Task& task) { return task.name == name; });
  if (found != all.end()) return *found;
  std::string names;
  for (const auto& task : all) names += (names.empty() ? "" : ", ") + task.name;
  throw Error(ErrorKind::Usage, place,
              fmt::format("'{}' is no task of Florence-2; it knows {}", name, names));
}

std::string question(const Task& task, const std::string& text) {
  // The blank behind the token stays with the text.
  const auto input = text.empty() ? "" : " " + text;
  for (const auto& one : kQuestions) {
    if (one.token != task.token) continue;
    std::string words = one.words;
    if (one.takes_text) words.replace(words.find("{}"), 2, input);
    return words;
  }
  return task.token + input;
}

std::vector<Region> regions_of(const std::string& answer, Form form, std::int64_t width,
                               std::int64_t height) {
  const Reader reader(width, height);
  const auto text = characters_of(answer);
  switch (form) {
    case Form::Text: return {};
    case Form::Polygons: return reader.polygons(text);
    case Form::TextLines: return reader.lines(text);
    default: return reader.boxes(text, form);
  }
}

std::string caption_of(const std::string& answer, Form form) {
  const auto text = characters_of(answer);
  if (form != Form::TextLines) return utf8_of(without(text, {U"</s>", U"<s>"}));
  static const auto token = pattern(UR"(<[^>]*>)"), breaks = pattern(UR"(\n+)");
  return utf8_of(breaks.replace(token.replace(text, U"\n", 0), U"\n", 0));
}

}  // namespace distorch::nodes::florence2
