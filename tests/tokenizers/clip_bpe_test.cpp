#include "distorch/tokenizers/clip_bpe.h"

#include <doctest/doctest.h>
#include <unistd.h>
#include <zlib.h>

#include "distorch/base/atomic_file.h"
#include "distorch/base/error.h"
#include "distorch/tokenizers/clip_text.h"
#include "tests/support/source_dir.h"

using namespace distorch;
using namespace distorch::tokenizers;

namespace {

const std::filesystem::path real =
    test::source_dir() / ".deps/tokenizers/clip/bpe_simple_vocab_16e6.txt.gz";

struct Folder {
  std::filesystem::path path =
      std::filesystem::temp_directory_path() / ("distorch_bpe_" + std::to_string(::getpid()));
  Folder() { std::filesystem::create_directories(path); }
  ~Folder() { std::filesystem::remove_all(path); }
};

std::string refusal(const std::filesystem::path& path, ErrorKind kind) {
  try {
    ClipBpe::load(path);
  } catch (const Error& e) {
    CHECK(e.kind() == kind);
    CHECK(e.where() == path.string());
    return e.sentence();
  }
  return "accepted";
}

}  // namespace

TEST_CASE("clip bpe: known numbers, and back to text") {
  auto bpe = ClipBpe::load(real);
  CHECK(bpe->encode("a photo of a cat") == std::vector<int>{320, 1125, 539, 320, 2368});
  CHECK(bpe->encode("").empty());
  CHECK(bpe->encode("!")[0] == 256);  // the first byte, at the end of a word
  CHECK(bpe->text_of(2368) == "cat ");
  CHECK(bpe->text_of(ClipBpe::start_token) == "<|startoftext|>");
  CHECK(bpe->text_of(-1).empty());
  CHECK(bpe->text_of(49408).empty());
  CHECK(bpe->encode("!<|endoftext|>!") == std::vector<int>{256, ClipBpe::end_token, 256});
  // No text gets lost: what the tokens stand for is the cleaned text with words parted.
  for (const char* text : {"supercalifragilisticexpialidocious", "na\xc3\xafve caf\xc3\xa9s",
                           "\xf0\x9f\x98\x80 smile", "aaaaaaaaaaaaaaaaaaaaaaa"}) {
    std::string back;
    for (int id : bpe->encode(text)) back += bpe->text_of(id);
    CHECK(back == clean_clip_text(text) + " ");
  }
}

TEST_CASE("clip bpe: a vocabulary that is missing or broken") {
  Folder folder;
  auto file = [&](const std::string& bytes) {
    write_file(folder.path / "v.gz", bytes);
    return folder.path / "v.gz";
  };
  auto gzipped = [&](const std::string& text) {
    auto path = folder.path / "v.gz";
    gzFile out = gzopen(path.c_str(), "wb");
    gzwrite(out, text.data(), static_cast<unsigned>(text.size()));
    gzclose(out);
    return path;
  };
  CHECK(refusal(folder.path / "nothing.gz", ErrorKind::MissingFile).find("run tools/setup.sh") !=
        std::string::npos);
  CHECK(refusal(folder.path, ErrorKind::MissingFile).find("is not there") != std::string::npos);
  auto whole = read_file(real);
  CHECK(refusal(file(whole.substr(0, whole.size() / 2)), ErrorKind::Format) != "accepted");
  CHECK(refusal(file("plain text"), ErrorKind::Format) == "has 0 merges, 48894 are needed");
  CHECK(refusal(gzipped("title\ni n\nt h\n"), ErrorKind::Format) ==
        "has 2 merges, 48894 are needed");
  CHECK(refusal(gzipped("title\nfoo bar\n"), ErrorKind::Format) ==
        "line 2 merges what no line before it made: 'foo bar'");
}

TEST_CASE("clip text: cleaned as without ftfy") {
  CHECK(clean_clip_text("  A\t B\nC  ") == "a b c");
  CHECK(clean_clip_text(std::string("a\0b\x01"
                                    "c\x7f",
                                    6)) == "abc");
  CHECK(clean_clip_text("a\xff\xfe"
                        "b\xc3") == "ab");
  CHECK(clean_clip_text("a\xe4\xb8\xad"
                        "b") == "a \xe4\xb8\xad b");
  CHECK(clean_clip_text("e\xcc\x81") == "\xc3\xa9");  // NFC
  CHECK(clean_clip_text("\xc4\xb0") == "i\xcc\x87");  // dotted I
  // the last sigma of a word
  CHECK(clean_clip_text("\xce\xa3\xce\x91\xce\xa3") == "\xcf\x83\xce\xb1\xcf\x82");
  CHECK(clean_clip_text("\xce\xa3") == "\xcf\x83");
  // line separator
  CHECK(clean_clip_text("a\xe2\x80\xa8"
                        "b") == "a b");
  CHECK(clean_clip_text("").empty());
}
