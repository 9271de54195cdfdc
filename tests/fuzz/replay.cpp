// Runs a fuzz target without libFuzzer, so that any compiler will do and `make test` has it: each
// file of a folder as it is, then cut, with bytes changed, taken out, doubled and joined with other
// files, so many times by a fixed sequence.
//   <name>_replay FOLDER CHANGES
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <set>
#include <string>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

namespace {

using Random = std::mt19937;

std::size_t below(Random& random, std::size_t end) {
  return std::uniform_int_distribution<std::size_t>(0, end - 1)(random);
}

void change(std::string& text, const std::vector<std::string>& others, Random& random) {
  const std::size_t at = below(random, text.size() + 1);
  switch (below(random, 7)) {
    case 0: text.resize(at); break;
    case 1: text.insert(at, 1, static_cast<char>(random())); break;
    case 2: text.erase(at, below(random, 8)); break;
    case 3: text.insert(at, text.substr(at, below(random, 64))); break;
    case 4: {
      const std::string& other = others[below(random, others.size())];
      text.insert(at, other.substr(below(random, other.size() + 1), below(random, 64)));
      break;
    }
    default:
      if (at < text.size()) text[at] = static_cast<char>(text[at] ^ (1u << below(random, 8)));
  }
}

void run(const std::string& text) {
  LLVMFuzzerTestOneInput(reinterpret_cast<const std::uint8_t*>(text.data()), text.size());
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) return 2;
  std::set<std::filesystem::path> files;
  for (const auto& entry : std::filesystem::directory_iterator(argv[1])) files.insert(entry.path());
  std::vector<std::string> inputs;
  for (const auto& file : files) {
    std::ifstream in(file, std::ios::binary);
    inputs.emplace_back(std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>());
    run(inputs.back());
  }
  if (inputs.empty()) return std::fprintf(stderr, "%s holds no inputs\n", argv[1]), 1;
  constexpr unsigned kSeed = 7;
  Random random(kSeed);
  const long changes = std::atol(argv[2]);
  for (long i = 0; i < changes; ++i) {
    std::string text = inputs[below(random, inputs.size())];
    for (std::size_t j = 0, n = 1 + below(random, 6); j < n; ++j) change(text, inputs, random);
    run(text);
  }
  std::printf("%zu inputs and %ld changes of them\n", inputs.size(), changes);
  return 0;
}
