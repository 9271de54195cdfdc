#include "distorch/nodes/hyvideo_wrapper_prompts.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <map>

#include "distorch/base/error.h"
#include "distorch/nodes/pictures.h"
#include "distorch/nodes/resize_bytes.h"
#include "distorch/nodes/text_encode.h"
#include "distorch/nodes/vision_states.h"
#include "distorch/tokenizers/clip_bpe.h"

namespace distorch::nodes::hyvideo {

using at::Tensor;
using graph::Call;
using models::Places;
using models::TokenBatch;
using tokenizers::ClipBpe;
using tokenizers::LlamaBpe;

namespace {

constexpr std::size_t kMostTokens = 256, kClipTokens = 77;

std::string trimmed(std::string text) {
  std::erase(text, ' ');
  return text;
}

/// A whole number of Python's; nothing where it is none.
std::optional<std::int64_t> whole(const std::string& text) {
  std::int64_t value = 0;
  const auto* end = text.data() + text.size();
  const auto* begin = text.data() + (text.starts_with('+') ? 1 : 0);
  const auto [stopped, problem] = std::from_chars(begin, end, value);
  if (problem != std::errc{} || stopped != end) return std::nullopt;
  return value;
}

std::vector<std::string> split(const std::string& text, char at) {
  std::vector<std::string> parts;
  for (std::size_t first = 0;;) {
    const auto end = text.find(at, first);
    parts.push_back(text.substr(first, end == std::string::npos ? end : end - first));
    if (end == std::string::npos) return parts;
    first = end + 1;
  }
}

[[noreturn]] void no_slices(const std::string& slices) {
  throw Error(ErrorKind::Usage, "image_token_selection_expr",
              fmt::format("\"{}\" is no list of slices and indices such as \"::4\" or \"0:100,-1\"",
                          slices));
}

/// Python's slice of so many places.
void mark_slice(const std::vector<std::string>& parts, const std::string& all,
                std::vector<bool>& marked) {
  if (parts.size() > 3) no_slices(all);
  std::array<std::optional<std::int64_t>, 3> given;
  for (std::size_t i = 0; i < parts.size(); ++i)
    if (!parts[i].empty() && !(given[i] = whole(parts[i]))) no_slices(all);
  const auto step = given[2].value_or(1), length = static_cast<std::int64_t>(marked.size());
  if (step < 1) no_slices(all);
  auto place = [&](std::int64_t at) {
    return std::clamp<std::int64_t>(at < 0 ? at + length : at, 0, length);
  };
  for (auto i = place(given[0].value_or(0)); i < place(given[1].value_or(length)); i += step)
    marked[static_cast<std::size_t>(i)] = true;
}

/// The start token and the words', cut at what the model was trained with; a text with pictures is
/// left whole, since a picture that is cut away would be missed.
std::vector<int> tokens_of(const HyText& text, const std::string& words, bool pictures) {
  std::vector<int> ids = {LlamaBpe::start_token};
  const auto more = text.vocabulary->encode(words);
  ids.insert(ids.end(), more.begin(), more.end());
  if (!pictures) ids.resize(std::min(ids.size(), kMostTokens));
  return ids;
}

std::string framed(const Frame* frame, const std::string& text) {
  if (!frame) return text;
  auto whole = frame->text;
  return whole.replace(whole.find("{}"), 2, text);
}

/// Runs of marked places, from `first` on.
void add_runs(const std::vector<bool>& marked, std::int64_t first, std::vector<Places>& kept) {
  for (std::size_t i = 0; i < marked.size(); ++i) {
    if (!marked[i]) continue;
    const auto at = first + static_cast<std::int64_t>(i);
    if (!kept.empty() && kept.back().end == at && kept.back().step == 1)
      ++kept.back().end;
    else
      kept.push_back({at, at + 1, 1});
  }
}

/// One prompt on its way to a language model.
class Encoding {
 public:
  Encoding(Call& call, const HyText& text, const Frame* frame, const Words& words)
      : call_(call),
        text_(text),
        frame_(frame),
        words_(words),
        ids_(tokens_of(text, framed(frame, words.text), !words.pictures.empty())) {
    look();
    place();
  }

  Tensor states() {
    if (text_.sees && words_.picture_first)
      keep_picture_first();
    else if (text_.sees)
      keep_turn();
    else
      keep_behind(frame_ ? frame_->crop : 0);
    if (batch_.tokens() == 0)
      throw Error(ErrorKind::Usage, call_.place(),
                  fmt::format("its frame leaves nothing of the prompt: it has {} tokens, and all "
                              "are cut away",
                              ids_.size()));
    return encode_tokens(*text_.words, batch_, call_.context<streaming::Engine>()).states;
  }

 private:
  /// The places that a picture takes in the text; 0 where there is none.
  std::int64_t each() const { return seen_.empty() ? 0 : seen_.front().size(0); }

  /// What the vision half makes of the pictures.
  void look() {
    if (words_.pictures.empty()) return;
    if (!text_.sees)
      throw Error(ErrorKind::Usage, call_.place(),
                  fmt::format("got a picture, and the text encoder in {} reads only text: load "
                              "xtuner/llava-llama-3-8b-v1_1-transformers for texts with pictures",
                              text_.folder.string()));
    if (!text_.vision.loaded)
      throw Error(ErrorKind::MissingWeight, text_.folder.string(),
                  "has no vision half (tensors 'vision_tower.*' and 'multi_modal_projector.*'), "
                  "which a prompt with a picture needs: put all files of "
                  "xtuner/llava-llama-3-8b-v1_1-transformers into this folder");
    const auto places = std::ranges::count(ids_, LlamaBpe::image_token);
    if (places != static_cast<std::ptrdiff_t>(words_.pictures.size()))
      throw Error(ErrorKind::Usage, call_.place(),
                  fmt::format("got {} pictures, and the prompt has \"<image>\" {} times: write it "
                              "once for each",
                              words_.pictures.size(), places));
    for (const auto& picture : words_.pictures)
      seen_.push_back(look_at(call_, text_.vision, cut(picture), true).shown.select(0, 0));
  }

  /// In the size that the encoder looks at, by Pillow's arithmetic on 8-bit pixels.
  Tensor cut(const Tensor& picture) const {
    const auto side = text_.vision.loaded->network->config().image_size;
    if (call_.context<streaming::Engine>().plan_only()) return at::zeros({1, side, side, 3});
    auto bytes = (match_channels(picture.narrow(0, 0, 1), 3).select(0, 0) * 255)
                     .round()
                     .clamp(0, 255)
                     .to(at::kByte)
                     .contiguous();
    const auto height = bytes.size(0), width = bytes.size(1), shorter = std::min(height, width);
    auto scaled = [&](std::int64_t size) { return size == shorter ? side : side * size / shorter; };
    auto sized = resize_bicubic_bytes(bytes, scaled(width), scaled(height));
    return sized.narrow(0, (sized.size(0) - side) / 2, side)
               .narrow(1, (sized.size(1) - side) / 2, side)
               .to(at::kFloat)
               .unsqueeze(0) /
           255;
  }

  /// Every picture's states in place of its token.
  void place() {
    std::vector<std::int64_t> ids;
    std::size_t next = 0;
    for (int id : ids_) {
      if (id != LlamaBpe::image_token || next == seen_.size()) {
        ids.push_back(id);
        continue;
      }
      const auto& states = seen_[next++];
      if (states.size(1) != text_.words->network->width())
        throw Error(
            ErrorKind::Shape, text_.folder.string(),
            fmt::format("shows pictures in {} numbers a place, and its language model takes "
                        "{}: its files belong to different models",
                        states.size(1), text_.words->network->width()));
      for (std::int64_t row = 0; row < states.size(0); ++row, ids.push_back(id))
        batch_.replacements.push_back({0, static_cast<std::int64_t>(ids.size()), states[row]});
    }
    total_ = static_cast<std::int64_t>(ids.size());
    batch_.ids = at::tensor(ids, at::kLong).unsqueeze(0);
  }

  void keep_behind(std::int64_t first) {
    batch_.kept = {{std::min(std::max<std::int64_t>(first, 0), total_), total_, 1}};
  }

  /// The user's turn, of each picture within it the chosen places.
  void keep_turn() {
    const std::array<int, 3> header = {LlamaBpe::header_token, LlamaBpe::user_token,
                                       LlamaBpe::header_end_token};
    const auto found = std::ranges::search(ids_, header);
    if (found.empty() ||
        !std::ranges::search(found.end(), ids_.end(), header.begin(), header.end()).empty())
      throw Error(ErrorKind::Usage, call_.place(),
                  "needs a frame with \"<|start_header_id|>user<|end_header_id|>\" once around the "
                  "prompt, as a LLaVA reads turns: choose the template 'video' or 'image'");
    const auto begin = found.end() - ids_.begin();
    const auto before = std::count(ids_.begin(), found.end(), LlamaBpe::image_token);
    const auto first = begin + (seen_.empty() ? 0 : before * (each() - 1));
    std::vector<bool> marked(static_cast<std::size_t>(total_ - first), true);
    const auto chosen = selected(words_.slices, each());
    // A second picture's places begin one behind its first, as in the original.
    std::int64_t moved = 0;
    for (auto at = found.end(); at != ids_.end() && !seen_.empty(); ++at) {
      if (*at != LlamaBpe::image_token) continue;
      const auto start = static_cast<std::size_t>((at - found.end()) + moved);
      for (std::size_t i = 0; i < chosen.size() && start + i < marked.size(); ++i)
        marked[start + i] = chosen[i];
      moved += each();
    }
    add_runs(marked, first, batch_.kept);
  }

  /// A picture at the start, then the words without the frame's last turn.
  void keep_picture_first() {
    if (seen_.empty()) return keep_turn();
    constexpr std::int64_t start = 5, of_turn = 4;
    const auto last = std::find(ids_.rbegin(), ids_.rend(), LlamaBpe::empty_line_token);
    if (!frame_ || last == ids_.rend())
      throw Error(ErrorKind::Usage, call_.place(),
                  "needs a frame with an empty line behind the last header for a prompt with a "
                  "picture: choose the template 'I2V_video' or 'I2V_image'");
    const auto line = static_cast<std::int64_t>(ids_.rend() - last) - 1;
    const auto more = each() - 1;
    const auto step = words_.every > 0 && words_.every < 6 ? words_.every : 1;
    batch_.kept = {{start, start + each(), step},
                   {frame_->crop + more, line - of_turn + more, 1},
                   {line + more, total_, 1}};
  }

  Call& call_;
  const HyText& text_;
  const Frame* frame_;
  const Words& words_;
  std::vector<int> ids_;
  std::vector<Tensor> seen_;  // [places, width] of each picture
  TokenBatch batch_;
  std::int64_t total_ = 0;
};

}  // namespace

Frame named_frame(const std::string& name) {
  // What the models were trained with, to the letter.
  const std::string
      system = "<|start_header_id|>system<|end_header_id|>\n\n",
      user = "<|start_header_id|>user<|end_header_id|>\n\n{}<|eot_id|>",
      assistant = "<|start_header_id|>assistant<|end_header_id|>\n\n",
      picture =
          "Describe the image by detailing the color, shape, size, texture, quantity, "
          "text, spatial relationships of the objects and background:<|eot_id|>",
      points =
          "1. The main content and theme of the video.2. The color, shape, size, "
          "texture, quantity, text, and spatial relationships of the objects.3. "
          "Actions, events, behaviors temporal relationships, physical movement "
          "changes of the objects.4. background environment, light, style and "
          "atmosphere.5. camera angles, movements, and transitions used in the "
          "video:<|eot_id|>";
  static const std::map<std::string, Frame> frames = {
      {"video",
       {system + "Describe the video by detailing the following aspects: " + points + user, 95}},
      {"image", {system + picture + user, 36}},
      {"I2V_video",
       {system +
            "<image>\nDescribe the video by detailing the following aspects according to the "
            "reference image: " +
            points + "\n\n" + user + assistant,
        103}},
      {"I2V_image", {system + "<image>\n" + picture + user + assistant, 36}}};
  const auto found = frames.find(name);
  if (found == frames.end())
    throw Error(ErrorKind::Usage, "prompt_template",
                fmt::format("\"{}\" is no template that is known", name));
  return found->second;
}

std::vector<bool> selected(const std::string& slices, std::int64_t length) {
  std::vector<bool> marked(static_cast<std::size_t>(length));
  if (slices.empty()) return marked;
  for (const auto& one : split(slices, ',')) {
    const auto parts = split(trimmed(one), ':');
    if (parts.size() > 1) {
      mark_slice(parts, slices, marked);
      continue;
    }
    auto index = whole(parts.front());
    if (!index) no_slices(slices);
    if (*index < 0) *index += length;
    if (*index >= 0 && *index < length) marked[static_cast<std::size_t>(*index)] = true;
  }
  return marked;
}

Tensor encoded_words(Call& call, const HyText& text, const Frame* frame, const Words& words) {
  if (frame && frame->text.find("{}") == std::string::npos)
    throw Error(ErrorKind::Usage, call.place(),
                "has a prompt template without \"{}\", where the prompt is to stand");
  return Encoding(call, text, frame, words).states();
}

Tensor pooled_words(Call& call, LoadedEncoder& clip, const std::string& prompt) {
  const auto& settings = call.context<Settings>();
  models::Vocabularies vocabularies(settings.tokenizer_folder, settings.more_tokenizers);
  auto words = vocabularies.clip()->encode(prompt);
  words.resize(std::min(words.size(), kClipTokens - 2));
  std::vector<std::int64_t> ids = {ClipBpe::start_token};
  ids.insert(ids.end(), words.begin(), words.end());
  ids.resize(kClipTokens, ClipBpe::end_token);
  TokenBatch batch;
  batch.ids = at::tensor(ids, at::kLong).unsqueeze(0);
  return encode_tokens(clip, batch, call.context<streaming::Engine>()).pooled;
}

}  // namespace distorch::nodes::hyvideo
