#include "distorch/media/png.h"

#include <doctest/doctest.h>
#include <unistd.h>
#include <zlib.h>

#include <random>

#include "distorch/base/atomic_file.h"
#include "distorch/base/error.h"
#include "distorch/media/png_rows.h"
#include "tests/support/source_dir.h"

using namespace distorch;
using namespace distorch::media;

namespace {

const std::filesystem::path data = test::source_dir() / "tests/media/data";

Image noise(int width, int height, int channels) {
  auto image = blank_image(width, height, channels);
  std::mt19937 random(1);
  for (auto& p : image.pixels) p = static_cast<std::uint8_t>(random());
  return image;
}

std::string big_endian(std::uint32_t value) {
  std::string bytes;
  for (int shift = 24; shift >= 0; shift -= 8) bytes.push_back(static_cast<char>(value >> shift));
  return bytes;
}

std::string chunk(const std::string& type, const std::string& body) {
  auto whole = type + body;
  return big_endian(static_cast<std::uint32_t>(body.size())) + whole +
         big_endian(static_cast<std::uint32_t>(crc32(
             0, reinterpret_cast<const Bytef*>(whole.data()), static_cast<uInt>(whole.size()))));
}

std::string deflate(const std::string& text) {
  std::string packed(compressBound(text.size()), '\0');
  auto size = static_cast<uLongf>(packed.size());
  compress(reinterpret_cast<Bytef*>(packed.data()), &size,
           reinterpret_cast<const Bytef*>(text.data()), text.size());
  packed.resize(size);
  return packed;
}

const std::string signature = "\x89PNG\r\n\x1a\n";
const std::string zero(1, '\0');

std::string header(std::uint32_t width, std::uint32_t height) {
  return chunk("IHDR", big_endian(width) + big_endian(height) + std::string("\x08\x02\0\0\0", 5));
}

std::vector<Text> texts_in(const std::string& chunks) {
  return png_texts(signature + chunks, "tiny.png");
}

}  // namespace

TEST_CASE("png: what is written is read back, at every compression") {
  for (int channels : {1, 3, 4})
    for (int compression : {0, 1, 4, 9}) {
      auto image = noise(33, 17, channels);
      auto back = decode_png(encode_png(image, {.compression = compression}), "x");
      CHECK(back == (channels == 1 ? to_rgb(image) : image));
    }
}

TEST_CASE("png: a picture that is compressed in pieces is one stream, whatever threads there are") {
  // Smooth with some noise: every filter is the best one somewhere.
  auto image = noise(900, 700, 3);
  for (std::size_t i = 0; i < image.pixels.size(); ++i) {
    const auto x = i / 3 % 900, y = i / 2700;
    image.pixels[i] = static_cast<std::uint8_t>((x * y / 200 + (y / 100 % 2 ? x : y) / 3) % 256 +
                                                image.pixels[i] % 4);
  }
  const auto bytes = encode_png(image);
  CHECK(decode_png(bytes, "x") == image);
  const auto alone = deflate_rows(image.pixels, 2700, 3, 4, 1);
  CHECK(alone == deflate_rows(image.pixels, 2700, 3, 4, 5));
  CHECK(bytes.find(alone.substr(0, 1000)) != std::string::npos);
  // Filters make the picture less than two thirds of what zlib alone makes of it.
  const std::string plain(image.pixels.begin(), image.pixels.end());
  CHECK(bytes.size() * 3 < deflate(plain).size() * 2);
}

TEST_CASE("png: texts stand before the pixels and come back in order") {
  std::vector<Text> texts = {{"prompt", R"({"a":"\u2603"})"},
                             {"workflow", std::string(300000, 'w')},
                             {"snow", "\xe2\x98\x83"},
                             {"empty", ""}};
  auto bytes = encode_png(noise(8, 8, 3), {.texts = texts});
  CHECK(png_texts(bytes, "x") == texts);
  CHECK(bytes.find("tEXtprompt") < bytes.find("IDAT"));
  CHECK(bytes.find("tEXtworkflow") < bytes.find("IDAT"));
  CHECK(bytes.find("iTXtsnow") < bytes.find("IDAT"));
  CHECK(decode_png(bytes, "x") == noise(8, 8, 3));
  CHECK_THROWS_AS(encode_png(noise(1, 1, 3), {.texts = {{"", "x"}}}), Error);
  CHECK_THROWS_AS(encode_png(noise(1, 1, 3), {.texts = {{std::string(80, 'k'), "x"}}}), Error);
  CHECK_THROWS_AS(encode_png(noise(1, 1, 3), {.texts = {{"k", zero}}}), Error);
}

TEST_CASE("png: all kinds of text chunks, written by Pillow") {
  auto texts = read_png_texts(data / "texts.png");
  REQUIRE(texts.size() == 6);
  CHECK(texts[1] == Text{"workflow", "{\"nodes\": []}"});
  CHECK(texts[2] == Text{"squeezed", std::string(5000, 'z')});
  CHECK(texts[3] == Text{"wide", "\xe2\x98\x83 \xc3\xa4"});
  CHECK(texts[4].value.size() == 900);
  CHECK(texts[5] == Text{"latin", "caf\xc3\xa9"});
}

TEST_CASE("png: text chunks that lie are left out, the others stay") {
  auto good = chunk("tEXt", "k" + zero + "v");
  std::vector<Text> one = {{"k", "v"}};
  CHECK(texts_in(good) == one);
  CHECK(texts_in(good + big_endian(0x7fffffff) + "tEXtx") == one);  // length beyond the file
  CHECK(texts_in(good + big_endian(0xffffffff) + "tEXt" + std::string(20, 'x')) == one);
  CHECK(texts_in(chunk("tEXt", "no zero byte") + good) == one);
  CHECK(texts_in(chunk("tEXt", zero + "no keyword") + good) == one);
  CHECK(texts_in(chunk("tEXt", std::string(80, 'k') + zero + "v") + good) == one);
  CHECK(texts_in(chunk("zTXt", "k" + zero) + good) == one);
  // unknown method
  CHECK(texts_in(chunk("zTXt", "k" + zero + "\x01" + deflate("v")) + good) == one);
  CHECK(texts_in(chunk("zTXt", "k" + zero + zero + "garbage") + good) == one);
  auto cut = deflate(std::string(1000, 'a') + "bcd");
  CHECK(texts_in(chunk("zTXt", "k" + zero + zero + cut.substr(0, cut.size() - 6)) + good) == one);
  CHECK(texts_in(chunk("iTXt", "k" + zero) + good) == one);
  CHECK(texts_in(chunk("iTXt", "k" + zero + zero + zero + "no more zeros") + good) == one);
  auto wrong_sum = good;
  wrong_sum.back() = static_cast<char>(~wrong_sum.back());
  CHECK(texts_in(wrong_sum + good) == one);
  CHECK(texts_in(good + chunk("IEND", "") + good) == one);
  CHECK(texts_in("").empty());
  CHECK_THROWS_WITH_AS(png_texts("GIF89a", "a.gif"), "a.gif: is no PNG", Error);
}

TEST_CASE("png: a text that inflates without end is left out") {
  auto bomb = deflate(std::string(65 << 20, 'b'));
  CHECK(bomb.size() < 100000);
  CHECK(texts_in(chunk("zTXt", "k" + zero + zero + bomb)).empty());
  auto half = chunk("zTXt", "k" + zero + zero + deflate(std::string(40 << 20, 'b')));
  CHECK(texts_in(half + half + half).size() == 1);  // the limit is for all together
}

TEST_CASE("png: pictures that lie about their size are refused before memory is taken") {
  auto message = [](const std::string& bytes) -> std::string {
    try {
      decode_png(bytes, "x");
    } catch (const Error& e) {
      CHECK(e.kind() == ErrorKind::Format);
      return e.sentence();
    }
    return "accepted";
  };
  auto pixels = chunk("IDAT", deflate(std::string(100, '\0'))) + chunk("IEND", "");
  CHECK(message(signature + header(100000, 100000) + pixels) ==
        "says it has 100000 x 100000 pixels, the limit is 268435456 in all");
  CHECK(message(signature + header(16000, 16000) + pixels)
            .find("says it has 16000 x 16000 pixels, which ") == 0);
  CHECK(message(signature + header(0, 5) + pixels).find("is a broken PNG") == 0);
  // 100 of 1220 bytes
  CHECK(message(signature + header(20, 20) + pixels).find("is a broken PNG") == 0);
  CHECK(message(signature + pixels).find("is a broken PNG") == 0);
  CHECK(message(signature).find("is a broken PNG") == 0);
}

TEST_CASE("png: written whole or not at all") {
  auto folder =
      std::filesystem::temp_directory_path() / ("distorch_png_" + std::to_string(::getpid()));
  std::filesystem::create_directories(folder);
  write_png(folder / "a.png", noise(5, 5, 3), {.texts = {{"prompt", "{}"}}});
  CHECK(read_png_texts(folder / "a.png").size() == 1);
  CHECK_THROWS_AS(write_png(folder / "no" / "a.png", noise(5, 5, 3)), Error);
  std::filesystem::remove_all(folder);
}
