#include "distorch/formats/pickle.h"

#include "distorch/base/error.h"

namespace distorch::formats {

namespace {

bool is_pickle(std::string_view head) {
  // A zip archive (torch 1.6 and later) or a bare pickle of protocol 2 to 5.
  return head.starts_with("PK\x03\x04") || (head.size() >= 2 && head[0] == '\x80' && head[1] >= 2 &&
                                            head[1] <= 5 && head.find("{\"") != 8);
}

[[noreturn]] TensorFile refuse(const std::filesystem::path& path) {
  throw Error(ErrorKind::Format, path.string(),
              "is a PyTorch pickle, which is not read here; convert it to safetensors first, for "
              "example in Python: "
              "safetensors.torch.save_file(torch.load(old, weights_only=True)['state_dict'], new)");
}

}  // namespace

Format pickle_format() { return {"pickle", {".ckpt", ".pt", ".pth", ".bin"}, is_pickle, refuse}; }

}  // namespace distorch::formats
