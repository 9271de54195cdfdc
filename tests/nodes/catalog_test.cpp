#include <fstream>
#include <set>
#include <sstream>

#include "tests/nodes/tiny_app.h"
#include "tests/support/source_dir.h"

using namespace distorch;
using namespace distorch::test;

namespace {

/// The sentences of more than three words in a text, as lower-case words with one space between.
void add_sentences(const std::string& text, std::set<std::string>& sentences) {
  std::string sentence;
  int words = 0;
  auto end = [&] {
    if (words > 3) sentences.insert(sentence);
    sentence.clear();
    words = 0;
  };
  std::istringstream stream(text);
  for (std::string word; stream >> word;) {
    bool last = std::string_view(".:!").find(word.back()) != std::string_view::npos;
    if (last) word.pop_back();
    for (auto& letter : word) letter = static_cast<char>(std::tolower(letter));
    sentence += (sentence.empty() ? "" : " ") + word;
    ++words;
    if (last) end();
  }
  end();
}

/// All sentences of the descriptions and tooltips of a definition, or of many.
void collect_sentences(const graph::Json& value, std::set<std::string>& sentences) {
  for (const auto& [key, entry] : value.items()) {
    bool prose = key == "tooltip" || key == "description" || key == "output_tooltips";
    if (prose && entry.is_string()) add_sentences(entry, sentences);
    if (prose && entry.is_array())
      for (const auto& tip : entry)
        if (tip.is_string()) add_sentences(tip, sentences);
    if (entry.is_structured()) collect_sentences(entry, sentences);
  }
}

/// FNV-1a, 64 bits, as make_reference_sentences.py hashes. (Fowler, Noll, Vo:
/// draft-eastlake-fnv.)
std::uint64_t fnv1a(std::string_view bytes) {
  std::uint64_t hash = 0xcbf29ce484222325ull;
  for (char c : bytes) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3ull;
  return hash;
}

}  // namespace

TEST_CASE("every node has exactly the signature that ComfyUI shows") {
  TinyApp tiny;
  auto reference = graph::Json::parse(
      std::ifstream(test::source_dir() / "tests" / "nodes" / "object_info_reference.json"));
  for (const char* pack : {"object_info_wrapper.json", "object_info_hyvideo.json"})
    reference.update(
        graph::Json::parse(std::ifstream(test::source_dir() / "tests" / "nodes" / pack)));
  std::set<std::string> compared;
  for (const auto& type : tiny.catalog.all()) {
    if (type->name == "Keep") continue;
    REQUIRE_MESSAGE(reference.contains(type->name), type->name << " is not in the reference");
    for (const auto& line : graph::differences(*type, reference[type->name]))
      FAIL_CHECK(type->name << ": " << line);
    compared.insert(type->name);
  }
  for (const auto& [name, definition] : reference.items())
    CHECK_MESSAGE(compared.count(name), name << " has gone");
}

TEST_CASE("tooltips and descriptions repeat no sentence of ComfyUI") {
  std::set<std::uint64_t> theirs;
  std::ifstream file(test::source_dir() / "tests" / "nodes" / "reference_sentences.txt");
  for (std::uint64_t hash; file >> std::hex >> hash;) theirs.insert(hash);
  // One that KSampler has there, so that both sides are known to hash alike.
  CHECK(theirs.count(fnv1a("the latent image to denoise")));
  TinyApp tiny;
  for (const auto& type : tiny.catalog.all()) {
    std::set<std::string> ours;
    collect_sentences(graph::definition_of(*type), ours);
    for (const auto& sentence : ours)
      CHECK_MESSAGE(!theirs.count(fnv1a(sentence)), type->name << " repeats: " << sentence);
  }
}

TEST_CASE("both spellings of the DisTorch2 variants are known") {
  TinyApp tiny;
  CHECK(tiny.catalog.find("CheckpointLoaderSimpleDistorch2MultiGPU") != nullptr);
  CHECK(tiny.catalog.find("UNETLoaderDistorch2MultiGPU") ==
        tiny.catalog.find("UNETLoaderDisTorch2MultiGPU"));
}
