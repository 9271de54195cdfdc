#include "distorch/weights/packed_layers.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <optional>
#include <vector>

#include "distorch/base/error.h"
#include "distorch/quant/marker.h"

namespace distorch::weights {
namespace {

using quant::Encoding;
using quant::FileTensor;
using NamedTensors = std::map<std::string, Stored>;

constexpr std::string_view weight_ending = "weight";
constexpr const char* marker_ending = "comfy_quant";
constexpr std::string_view old_mark = "scaled_fp8";

bool is_old_mark(const std::string& name) {
  return name == old_mark ||
         (name.ends_with(old_mark) && name[name.size() - old_mark.size() - 1] == '.');
}

class Gathering {
 public:
  Gathering(NamedTensors& tensors, const formats::TensorFile& file)
      : tensors_(tensors), file_(file), path_(file.path().string()) {
    read_metadata();
  }

  void run() {
    for (auto& [name, stored] : tensors_) {
      if (stored.encoding) continue;
      if (is_old_mark(name)) taken_.push_back(name);
      refuse_nunchaku(name);
      if (name.ends_with(weight_ending)) pack(name, stored);
    }
    for (const auto& name : taken_) tensors_.erase(name);
  }

 private:
  void read_metadata() {
    constexpr const char* key = "_quantization_metadata";
    auto at = file_.metadata().find(key);
    if (at == file_.metadata().end()) return;
    auto json = nlohmann::json::parse(at->second, nullptr, false);
    if (!json.is_object() || !json.contains("layers") || !json["layers"].is_object())
      throw Error(ErrorKind::Format, path_,
                  fmt::format("has a '{}' that is no list of layers", key));
    layers_ = std::move(json["layers"]);
  }

  const Stored* find(const std::string& name) const {
    auto at = tensors_.find(name);
    return at == tensors_.end() ? nullptr : &at->second;
  }

  /// "x.qweight" beside "x.wscales".
  void refuse_nunchaku(const std::string& name) const {
    constexpr std::string_view ending = ".qweight";
    if (!name.ends_with(ending)) return;
    const auto base = name.substr(0, name.size() - ending.size());
    if (find(base + ".wscales") || find(base + ".wtscale") || find(base + ".proj_down"))
      throw Error(ErrorKind::Format, path_,
                  fmt::format("is a file for Nunchaku: '{}' is packed as 'svdquant', which is not "
                              "supported; the same model as int8, fp8, nvfp4 or GGUF is",
                              name));
  }

  /// What the file says of a weight; null: nothing.
  const Encoding* described(const std::string& name, const std::string& base) {
    if (const auto* marker = find(base + marker_ending)) {
      taken_.push_back(base + marker_ending);
      const auto bytes = marker->file->mapping()->bytes(marker->range());
      return &quant::encoding_of_marker({reinterpret_cast<const char*>(bytes.data()), bytes.size()},
                                        path_, name);
    }
    const auto layer = base.empty() ? base : base.substr(0, base.size() - 1);
    if (auto at = layers_.find(layer); at != layers_.end())
      return &quant::encoding_of_marker(at->dump(), path_, name);
    return nullptr;
  }

  /// Whether the mark of older files says that the weight is to be decoded: it has two elements.
  bool is_exact(const std::string& name) const {
    std::size_t end = 0;
    do {
      if (const auto* mark = find(name.substr(0, end) + std::string(old_mark)))
        return c10::multiply_integers(mark->shape) == 2;
      end = name.find('.', end) + 1;
    } while (end != 0);
    return false;
  }

  static FileTensor seen(const Stored& stored, std::string name) {
    if (!stored.file) return {.name = std::move(name)};
    return {std::move(name), stored.dtype, stored.shape,
            stored.file->mapping()->bytes(stored.range())};
  }

  void pack(const std::string& name, Stored& stored) {
    const auto base = name.substr(0, name.size() - weight_ending.size());
    if (const auto* only = described(name, base)) return give(name, base, stored, *only);
    for (const auto* encoding : quant::encodings()) {
      std::vector<bool> present;
      for (const auto& companion : encoding->companions())
        present.push_back(companion_of(base, companion).second != nullptr);
      if (!encoding->matches(stored.dtype, present)) continue;
      return give(name, base, stored, is_exact(name) ? *encoding->decoded() : *encoding);
    }
  }

  /// The last of the names that the file has; the first and null where it has none.
  std::pair<std::string, const Stored*> companion_of(const std::string& base,
                                                     const quant::Companion& companion) const {
    std::pair<std::string, const Stored*> result{companion.names.front(), nullptr};
    for (const auto& ending : companion.names)
      if (const auto* found = find(base + ending)) result = {ending, found};
    return result;
  }

  void give(const std::string& name, const std::string& base, Stored& stored,
            const Encoding& encoding) {
    std::vector<FileTensor> facts;
    std::vector<Stored> parts;
    for (const auto& companion : encoding.companions()) {
      const auto [ending, found] = companion_of(base, companion);
      parts.push_back(found ? *found : Stored());
      facts.push_back(seen(parts.back(), ending));
      if (!found && !companion.optional)
        throw Error(ErrorKind::Format, path_,
                    fmt::format("'{}' is packed as '{}' and lacks its '{}'", name, encoding.name(),
                                ending));
      if (found)
        for (const auto& each : companion.names) taken_.push_back(base + each);
    }
    const auto own = seen(stored, std::string(weight_ending));
    if (auto fault = encoding.fault(own, facts); !fault.empty())
      throw Error(ErrorKind::Format, path_,
                  fmt::format("'{}', packed as '{}', {}", name, encoding.name(), fault));
    auto reading = encoding.reading(own, facts, fmt::format("{}: '{}'", path_, name));
    stored.encoding = reading.encoding;
    if (reading.shape != stored.shape || reading.values != stored.shape)
      stored.value_shape = std::move(reading.values);
    stored.shape = std::move(reading.shape);
    for (std::size_t i = 0; i < parts.size(); ++i) {
      if (reading.parts[i])
        parts[i].shape = *std::move(reading.parts[i]);
      else
        parts[i] = {};
    }
    stored.parts = std::move(parts);
  }

  NamedTensors& tensors_;
  const formats::TensorFile& file_;
  std::string path_;
  nlohmann::json layers_ = nlohmann::json::object();
  std::vector<std::string> taken_;
};

}  // namespace

void gather_packed(NamedTensors& tensors, const formats::TensorFile& file) {
  Gathering(tensors, file).run();
}

}  // namespace distorch::weights
