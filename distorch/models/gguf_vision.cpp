#include "distorch/models/gguf_vision.h"

#include <algorithm>
#include <cctype>
#include <map>
#include <regex>
#include <string>
#include <vector>

#include "distorch/models/gguf_names.h"
#include "distorch/quant/gguf.h"

namespace distorch::models {

namespace {

namespace fs = std::filesystem;

const Replacements& vision_replacements() {
  static const Replacements list = {
      {"mm.", "visual.merger.mlp."},
      {"v.post_ln.", "visual.merger.ln_q."},
      {"v.patch_embd", "visual.patch_embed.proj"},
      {"v.blk.", "visual.blocks."},
      {"ffn_up", "mlp.up_proj"},
      {"ffn_down", "mlp.down_proj"},
      {"ffn_gate", "mlp.gate_proj"},
      {"attn_out.", "attn.proj."},
      {"attn_qkv.", "attn.qkv."},
      {"ln1.", "norm1."},
      {"ln2.", "norm2."},
  };
  return list;
}

std::string lower(std::string text) {
  std::ranges::transform(text, text.begin(), [](unsigned char c) { return std::tolower(c); });
  return text;
}

/// "qwen2.5-vl-7b-instruct" of "Qwen2.5-VL-7B-Instruct-UD-Q4_K_XL".
std::string without_packing(const std::string& name) {
  static const std::regex ending("[-_]?(ud-)?i?q[0-9]_[a-z0-9_-]{1,8}$");
  return std::regex_replace(lower(name), ending, "");
}

}  // namespace

std::optional<fs::path> vision_file_of(const weights::Checkpoint& encoder, const fs::path& path) {
  if (gguf_architecture(encoder) != "qwen2vl" || encoder.has_prefix("visual.")) return {};
  return vision_file_beside(path);
}

std::optional<fs::path> vision_file_beside(const fs::path& path) {
  const auto name = without_packing(path.stem().string());
  std::vector<fs::path> found;
  std::error_code code;
  for (const auto& entry : fs::directory_iterator(path.parent_path(), code)) {
    const auto other = lower(entry.path().stem().string());
    if (lower(entry.path().extension().string()) == ".gguf" &&
        other.find("mmproj") != std::string::npos && other.find(name) != std::string::npos)
      found.push_back(entry.path());
  }
  if (found.empty()) return {};
  return *std::ranges::min_element(found);
}

weights::Checkpoint with_vision(weights::Checkpoint encoder, const weights::Checkpoint& tower) {
  // The parts of "visual.blocks.N.attn.qkv.weight", by their order in it.
  std::map<std::string, std::map<int, weights::Stored>> fused;
  for (const auto& [theirs, stored] : tower.tensors()) {
    const auto name = renamed(theirs, vision_replacements());
    bool is_part = false;
    auto decoded = stored;
    const auto decode = [&](std::optional<at::ScalarType> then) {
      if (const auto* so = quant::gguf_in_half(stored.encoding, then)) decoded.encoding = so;
    };
    for (int i = 0; const std::string part : {".attn_q.", ".attn_k.", ".attn_v."}) {
      if (const auto at = name.find(part); at != std::string::npos) {
        decode(at::kBFloat16);
        fused[name.substr(0, at) + ".attn.qkv." + name.substr(at + part.size())][i] = decoded;
        is_part = true;
      }
      ++i;
    }
    if (is_part) continue;
    decode({});
    encoder.add(name, decoded);
  }
  for (const auto& [name, parts] : fused) {
    std::vector<weights::Stored> pieces;
    for (const auto& [place, stored] : parts) pieces.push_back(stored);
    encoder.add_joined(name, pieces);
  }
  return encoder;
}

}  // namespace distorch::models
