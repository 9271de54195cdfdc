#include <fmt/format.h>

#include <cstring>
#include <nlohmann/json.hpp>
#include <optional>

#include "distorch/base/error.h"
#include "distorch/tokenizers/base64.h"
#include "distorch/tokenizers/unigram.h"

namespace distorch::tokenizers {

namespace {

constexpr std::size_t most_pieces = 4'000'000;  // the largest vocabularies have 262,144

/// Fields of a protocol buffer, in order. A message that is cut short ends the reading: `broken`.
class Fields {
 public:
  explicit Fields(std::string_view bytes) : rest_(bytes) {}

  struct Field {
    std::uint64_t number = 0;
    std::uint64_t value = 0;  // of numbers; the bits of a float
    std::string_view bytes;   // of texts and messages
  };
  std::optional<Field> next() {
    if (rest_.empty() || broken_) return {};
    Field field;
    auto key = varint();
    field.number = key >> 3;
    switch (key & 7) {
      case 0: field.value = varint(); break;
      case 1: field.value = fixed(8); break;
      case 2: field.bytes = take(varint()); break;
      case 5: field.value = fixed(4); break;
      default: broken_ = true;
    }
    if (broken_) return {};
    return field;
  }
  bool broken() const { return broken_; }

 private:
  std::uint64_t varint() {
    std::uint64_t value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      auto byte = take(1);
      if (byte.empty()) break;
      auto bits = static_cast<unsigned char>(byte[0]);
      value |= static_cast<std::uint64_t>(bits & 0x7f) << shift;
      if (bits < 0x80) return value;
    }
    broken_ = true;
    return 0;
  }
  std::uint64_t fixed(std::size_t size) {
    std::uint64_t value = 0;
    auto bytes = take(size);
    if (!broken_) std::memcpy(&value, bytes.data(), size);
    return value;
  }
  std::string_view take(std::uint64_t size) {
    if (size > rest_.size()) {
      broken_ = true;
      return {};
    }
    auto bytes = rest_.substr(0, size);
    rest_.remove_prefix(size);
    return bytes;
  }

  std::string_view rest_;
  bool broken_ = false;
};

/// Kinds of pieces, as SentencePiece numbers them.
enum PieceKind : std::uint64_t { Normal = 1, Unknown = 2, Control = 3, UserDefined = 4 };

struct StoredPiece {
  UnigramData::Piece piece;
  std::uint64_t kind = Normal;
};

bool read_piece(std::string_view bytes, StoredPiece& stored) {
  Fields fields(bytes);
  while (auto field = fields.next()) {
    if (field->number == 1) stored.piece.text = field->bytes;
    if (field->number == 2) {
      float score = 0;
      auto bits = static_cast<std::uint32_t>(field->value);
      std::memcpy(&score, &bits, sizeof(score));
      stored.piece.score = score;
    }
    if (field->number == 3) stored.kind = field->value;
  }
  return !fields.broken();
}

/// A number of a message within the model: `fallback` where it has none.
std::uint64_t number_of(std::string_view bytes, std::uint64_t number, std::uint64_t fallback) {
  Fields fields(bytes);
  while (auto field = fields.next())
    if (field->number == number) fallback = field->value;
  return fallback;
}

std::string_view bytes_of(std::string_view bytes, std::uint64_t number) {
  std::string_view found;
  Fields fields(bytes);
  while (auto field = fields.next())
    if (field->number == number) found = field->bytes;
  return found;
}

/// T5 names 100 tokens more than its SentencePiece model has: <extra_id_99> to <extra_id_0>.
void add_sentinels(UnigramData& data) {
  constexpr std::size_t t5_pieces = 32000;
  if (data.pieces.size() != t5_pieces) return;
  for (int i = 99; i >= 0; --i) data.pieces.push_back({fmt::format("<extra_id_{}>", i), 0.0, true});
}

using Json = nlohmann::json;

/// The table of characters, wherever the normalizers are nested.
std::string charsmap_of(const Json& normalizer, const std::string& where) {
  if (!normalizer.is_object()) return {};
  if (auto at = normalizer.find("precompiled_charsmap");
      at != normalizer.end() && at->is_string()) {
    auto bytes = decoded_base64(at->get_ref<const std::string&>());
    if (!bytes)
      throw Error(ErrorKind::Format, where, "holds a table of characters that is no base64");
    return *bytes;
  }
  if (auto at = normalizer.find("normalizers"); at != normalizer.end() && at->is_array())
    for (const auto& part : *at)
      if (part.is_object() && part.contains("precompiled_charsmap"))
        return charsmap_of(part, where);
  return {};
}

UnigramData from_json(const Json& file, const std::string& where) {
  UnigramData data;
  const auto& model = file.at("model");
  if (model.value("type", "Unigram") != "Unigram")
    throw Error(ErrorKind::Format, where,
                fmt::format("is a tokenizer of the kind {}, a text encoder T5 needs Unigram",
                            model.value("type", "?")));
  for (const auto& entry : model.at("vocab"))
    data.pieces.push_back({entry.at(0).get<std::string>(), entry.at(1).get<double>()});
  if (auto at = model.find("unk_id"); at != model.end() && at->is_number_integer())
    data.unknown = at->get<int>();
  data.charsmap = charsmap_of(file.value("normalizer", Json()), where);
  for (const auto& token : file.value("added_tokens", Json::array())) {
    auto id = token.at("id").get<std::int64_t>();
    if (id < 0 || id > static_cast<std::int64_t>(most_pieces)) continue;
    if (static_cast<std::size_t>(id) >= data.pieces.size()) data.pieces.resize(id + 1);
    auto& piece = data.pieces[static_cast<std::size_t>(id)];
    piece.text = token.at("content").get<std::string>();
    piece.special = true;
  }
  return data;
}

}  // namespace

UnigramData read_sentencepiece(std::string_view bytes, const std::string& where) {
  UnigramData data;
  Fields fields(bytes);
  std::uint64_t kind = 1;  // 1 unigram, 2 byte pairs, 3 words, 4 characters
  while (auto field = fields.next()) {
    if (field->number == 1) {
      StoredPiece stored;
      if (!read_piece(field->bytes, stored) || data.pieces.size() >= most_pieces)
        throw Error(ErrorKind::Format, where, "holds a broken SentencePiece vocabulary");
      stored.piece.special =
          stored.kind == Unknown || stored.kind == Control || stored.kind == UserDefined;
      if (stored.kind == Unknown) data.unknown = static_cast<int>(data.pieces.size());
      data.pieces.push_back(std::move(stored.piece));
    }
    if (field->number == 2) kind = number_of(field->bytes, 3, kind);
    if (field->number == 3) data.charsmap = bytes_of(field->bytes, 2);
  }
  if (fields.broken() || data.pieces.empty())
    throw Error(ErrorKind::Format, where, "holds no SentencePiece model, or one that is cut short");
  if (kind != 1)
    throw Error(ErrorKind::Format, where,
                "holds a SentencePiece model of another kind than unigram, which T5 uses");
  add_sentinels(data);
  return data;
}

UnigramData read_tokenizer_json(std::string_view text, const std::string& where) {
  try {
    return from_json(Json::parse(text), where);
  } catch (const Json::exception&) {
    throw Error(ErrorKind::Format, where,
                "is no tokenizer.json with a unigram vocabulary (broken, or of another model)");
  }
}

}  // namespace distorch::tokenizers
