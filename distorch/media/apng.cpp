#include "distorch/media/apng.h"

#include <fmt/format.h>
#include <zlib.h>

#include <algorithm>
#include <array>
#include <optional>
#include <utility>

#include "distorch/base/error.h"
#include "distorch/media/png.h"

namespace distorch::media {

namespace {

constexpr std::size_t signature = 8, around = 12;  // bytes; length, kind and checksum of a chunk

struct Chunk {
  std::string_view kind, body;
};

std::uint32_t number(std::string_view bytes, std::size_t at, std::size_t size = 4) {
  std::uint32_t value = 0;
  for (std::size_t i = 0; i < size; ++i)
    value = value << 8 | static_cast<unsigned char>(bytes[at + i]);
  return value;
}

std::uint32_t checksum(std::string_view bytes) {
  return static_cast<std::uint32_t>(
      ::crc32(0, reinterpret_cast<const Bytef*>(bytes.data()), static_cast<uInt>(bytes.size())));
}

/// The next chunk, taken off `left`; nothing where it is cut short or its checksum is wrong.
std::optional<Chunk> next_chunk(std::string_view& left) {
  if (left.size() < around) return std::nullopt;
  std::size_t length = number(left, 0);
  if (length > left.size() - around) return std::nullopt;
  if (checksum(left.substr(4, 4 + length)) != number(left, 8 + length)) return std::nullopt;
  Chunk chunk{left.substr(4, 4), left.substr(8, length)};
  left.remove_prefix(around + length);
  return chunk;
}

void append_number(std::string& to, std::uint32_t value) {
  for (int shift = 24; shift >= 0; shift -= 8) to += static_cast<char>(value >> shift & 255);
}

void append_chunk(std::string& to, std::string_view kind, std::string_view body) {
  append_number(to, static_cast<std::uint32_t>(body.size()));
  auto start = to.size();
  to += kind;
  to += body;
  append_number(to, checksum(std::string_view(to).substr(start)));
}

/// An fcTL chunk.
struct Control {
  std::uint32_t width = 0, height = 0, left = 0, top = 0;
  enum class Going { Stays = 0, Cleared = 1, TakenBack = 2 } going = Going::Stays;
  bool over = false;  // blended with what is below, else in its place
};

class Reader {
 public:
  Reader(std::string_view bytes, const std::string& where)
      : left_(bytes.substr(signature)), where_(where), budget_(where) {}

  void decode(const TakeFrame& take) {
    while (auto chunk = next_chunk(left_)) {
      if (chunk->kind == "IEND") {
        ended_ = true;
        break;
      }
      if (!add(*chunk, take)) return;
    }
    if (!data_.empty() && !finish(take)) return;
    if (!ended_ || shown_ == 0) throw fault("it ends in the middle of a frame");
  }

 private:
  Error fault(const std::string& what) const {
    return Error(ErrorKind::Format, where_, "is a broken animated PNG: " + what);
  }

  /// False: no more frames are wanted.
  bool add(const Chunk& chunk, const TakeFrame& take) {
    if (chunk.kind == "IHDR") {
      if (chunk.body.size() != 13) throw fault("its header has a wrong size");
      header_ = chunk.body;
      check_size(number(header_, 0), number(header_, 4), where_);
    } else if (chunk.kind == "fcTL") {
      if (!data_.empty() && !finish(take)) return false;
      control_ = control_of(chunk.body);
    } else if (chunk.kind == "IDAT") {
      data_ += chunk.body;
    } else if (chunk.kind == "fdAT") {
      if (chunk.body.size() < 4) throw fault("a frame without data");
      in_order(chunk.body);
      if (!control_) throw fault("a frame without a size");
      data_ += chunk.body.substr(4);
    } else if (chunk.kind == "PLTE" || chunk.kind == "tRNS") {
      append_chunk(shared_, chunk.kind, chunk.body);
      (chunk.kind == "PLTE" ? colours_ : transparency_) = chunk.body;
    }
    return true;
  }

  void in_order(std::string_view body) {
    if (number(body, 0) != sequence_++) throw fault("its frames are out of order");
  }

  Control control_of(std::string_view body) {
    if (body.size() < 26 || header_.empty()) throw fault("a frame without a size");
    in_order(body);
    Control control{number(body, 4), number(body, 8), number(body, 12), number(body, 16)};
    auto going = number(body, 24, 1);
    control.going = going <= 2 ? static_cast<Control::Going>(going) : Control::Going::Stays;
    control.over = number(body, 25, 1) == 1;
    auto width = number(header_, 0), height = number(header_, 4);
    if (control.width == 0 || control.height == 0 || control.width > width ||
        control.height > height || control.left > width - control.width ||
        control.top > height - control.height)
      throw fault(fmt::format("a frame of {} x {} pixels at {}, {}", control.width, control.height,
                              control.left, control.top));
    return control;
  }

  /// Decodes the frame whose data are complete, draws and shows it.
  bool finish(const TakeFrame& take) {
    if (header_.empty()) throw fault("it has no header");
    auto width = number(header_, 0), height = number(header_, 4);
    budget_.add(width, height);
    auto control = control_.value_or(Control{width, height});
    std::string head;
    append_number(head, control.width);
    append_number(head, control.height);
    head += header_.substr(8);
    std::string png("\x89PNG\r\n\x1a\n");
    append_chunk(png, "IHDR", head);
    png += shared_;
    append_chunk(png, "IDAT", data_);
    append_chunk(png, "IEND", "");
    data_.clear();
    auto part = decode_png(png, where_);
    if (shown_ == 0)
      canvas_ = blank_image(static_cast<int>(width), static_cast<int>(height), part.channels);
    clear_last();
    bool takes_back = control.going == Control::Going::TakenBack && shown_ > 0;
    if (takes_back) before_ = canvas_;
    draw(part, control);
    last_ = control;
    // Before the first frame there is nothing: it is cleared instead.
    if (control.going == Control::Going::TakenBack && !takes_back)
      last_.going = Control::Going::Cleared;
    control_.reset();
    ++shown_;
    return take(canvas_);
  }

  std::uint8_t* pixel(const Control& at, std::uint32_t x, std::uint32_t y) {
    auto channels = static_cast<std::size_t>(canvas_.channels);
    return canvas_.pixels.data() + (at.top + y) * canvas_.row_bytes() + (at.left + x) * channels;
  }

  void clear_last() {
    if (last_.going == Control::Going::TakenBack) canvas_ = std::move(before_);
    if (last_.going != Control::Going::Cleared) return;
    auto empty = empty_colour();
    for (std::uint32_t y = 0; y < last_.height; ++y)
      for (std::uint32_t x = 0; x < last_.width; ++x)
        std::copy_n(empty.data(), canvas_.channels, pixel(last_, x, y));
  }

  /// What a cleared place holds: nothing, or with a palette its first colour.
  std::array<std::uint8_t, 4> empty_colour() const {
    constexpr char palette = 3;
    if (header_[9] != palette || colours_.size() < 3) return {0, 0, 0, 0};
    auto byte = [](char c) { return static_cast<std::uint8_t>(c); };
    return {byte(colours_[0]), byte(colours_[1]), byte(colours_[2]),
            transparency_.empty() ? std::uint8_t{255} : byte(transparency_[0])};
  }

  void draw(const Image& part, const Control& at) {
    const auto* from = part.pixels.data();
    auto channels = part.channels;
    for (std::uint32_t y = 0; y < at.height; ++y) {
      for (std::uint32_t x = 0; x < at.width; ++x, from += channels) {
        auto* to = pixel(at, x, y);
        unsigned cover = at.over && channels == 4 && shown_ > 0 ? from[3] : 255;
        for (int c = 0; c < channels; ++c) {
          auto sum = from[c] * cover + to[c] * (255 - cover) + 128;
          to[c] = static_cast<std::uint8_t>((sum + (sum >> 8)) >> 8);
        }
      }
    }
  }

  std::string_view left_;
  const std::string& where_;
  FrameBudget budget_;
  std::string_view header_, colours_, transparency_;
  std::string shared_;  // chunks that every frame needs
  std::string data_;    // of the frame that is being collected
  std::optional<Control> control_;
  Control last_;
  Image canvas_, before_;
  std::uint32_t sequence_ = 0;
  std::size_t shown_ = 0;
  bool ended_ = false;
};

}  // namespace

bool is_apng(std::string_view bytes) {
  if (!is_png(bytes)) return false;
  bytes.remove_prefix(signature);
  while (auto chunk = next_chunk(bytes)) {
    if (chunk->kind == "acTL") return chunk->body.size() == 8 && number(chunk->body, 0) > 0;
    if (chunk->kind == "IDAT") return false;
  }
  return false;
}

void decode_apng(std::string_view bytes, const std::string& where, const TakeFrame& take) {
  Reader(bytes, where).decode(take);
}

namespace {

/// A frame of an animation that is written: how long it stands, in fractions of a second.
struct Shown {
  const Image* image;
  std::int64_t milliseconds;
};

/// Frames that differ from those before.
std::vector<Shown> changes(const std::vector<Image>& frames, int milliseconds) {
  std::vector<Shown> list;
  for (const auto& frame : frames)
    if (!list.empty() && *list.back().image == frame)
      list.back().milliseconds += milliseconds;
    else
      list.push_back({&frame, milliseconds});
  return list;
}

void append_short(std::string& to, std::int64_t value) {
  to += static_cast<char>(value >> 8 & 255);
  to += static_cast<char>(value & 255);
}

std::string control(const Shown& frame, std::uint32_t place) {
  std::int64_t parts = 1000, time = frame.milliseconds;
  // Two bytes for each: long times are counted less finely.
  for (; time > 65535 && parts > 1; parts /= 10) time /= 10;
  std::string body;
  append_number(body, place);
  append_number(body, static_cast<std::uint32_t>(frame.image->width));
  append_number(body, static_cast<std::uint32_t>(frame.image->height));
  append_number(body, 0);
  append_number(body, 0);
  append_short(body, std::min<std::int64_t>(time, 65535));
  append_short(body, parts);
  body += std::string(2, '\0');
  return body;
}

}  // namespace

std::string encode_apng(const std::vector<Image>& frames, const ApngOptions& options) {
  if (frames.empty()) throw Error(ErrorKind::Usage, "PNG", "an animation has at least one frame");
  auto shown = changes(frames, options.milliseconds);
  const bool moves = shown.size() > 1;
  std::string file;
  std::uint32_t place = 0;
  for (std::size_t i = 0; i < shown.size(); ++i) {
    auto still = encode_png(*shown[i].image, {.compression = options.compression});
    std::string_view left(still);
    if (i == 0) file = still.substr(0, signature);
    left.remove_prefix(signature);
    bool controlled = !moves;
    while (auto chunk = next_chunk(left)) {
      if (chunk->kind == "IHDR") {
        if (i == 0) append_chunk(file, "IHDR", chunk->body);
        if (i > 0 || !moves) continue;
        std::string animation;
        append_number(animation, static_cast<std::uint32_t>(shown.size()));
        append_number(animation, 0);
        append_chunk(file, "acTL", animation);
      } else if (chunk->kind == "IDAT") {
        if (!std::exchange(controlled, true))
          append_chunk(file, "fcTL", control(shown[i], place++));
        if (i == 0) {
          append_chunk(file, "IDAT", chunk->body);
          continue;
        }
        std::string body;
        append_number(body, place++);
        append_chunk(file, "fdAT", body.append(chunk->body));
      }
    }
  }
  for (const auto& text : options.texts)
    append_chunk(file, "comf", text.keyword + '\0' + text.value);
  append_chunk(file, "IEND", "");
  return file;
}

}  // namespace distorch::media
