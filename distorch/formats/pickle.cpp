#include "distorch/formats/pickle.h"

#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <map>
#include <optional>
#include <set>

#include "distorch/base/error.h"
#include "distorch/formats/unpickler.h"
#include "distorch/formats/zip_directory.h"

namespace distorch::formats {

namespace {

constexpr std::size_t kLargestPickle = 256u << 20;
constexpr std::size_t kDeepest = 32;  // dictionaries within dictionaries

bool is_zip(std::string_view head) { return head.starts_with("PK\x03\x04"); }

bool is_pickle(std::string_view head) {
  // A zip archive (torch 1.6 and later) or a bare pickle of protocol 2 to 5.
  return is_zip(head) || (head.size() >= 2 && head[0] == '\x80' && head[1] >= 2 && head[1] <= 5 &&
                          head.find("{\"") != 8);
}

/// The numbers of a torch class or type: "torch.FloatStorage", "torch.float16".
std::optional<DType> dtype_of(const std::string& name) {
  static const std::map<std::string, DType> types = {
      {"torch.FloatStorage", DType::F32},
      {"torch.DoubleStorage", DType::F64},
      {"torch.HalfStorage", DType::F16},
      {"torch.BFloat16Storage", DType::BF16},
      {"torch.LongStorage", DType::I64},
      {"torch.IntStorage", DType::I32},
      {"torch.ShortStorage", DType::I16},
      {"torch.CharStorage", DType::I8},
      {"torch.ByteStorage", DType::U8},
      {"torch.BoolStorage", DType::BOOL},
      {"torch.float32", DType::F32},
      {"torch.float64", DType::F64},
      {"torch.float16", DType::F16},
      {"torch.bfloat16", DType::BF16},
      {"torch.int64", DType::I64},
      {"torch.int32", DType::I32},
      {"torch.int16", DType::I16},
      {"torch.int8", DType::I8},
      {"torch.uint8", DType::U8},
      {"torch.bool", DType::BOOL},
      {"torch.float8_e4m3fn", DType::F8_E4M3},
      {"torch.float8_e5m2", DType::F8_E5M2},
  };
  auto found = types.find(name);
  return found == types.end() ? std::nullopt : std::optional(found->second);
}

std::optional<DType> dtype_of(const PickleRef& value) {
  const auto* name = value->as<PickleName>();
  return name ? dtype_of(name->name) : std::nullopt;
}

/// The numbers behind tensors: which, of what type (where a class says so), how many.
struct Storage {
  std::string key;
  std::optional<DType> dtype;
  std::int64_t count = 0;
};

/// A tensor as the pickle describes it, before it is known where its numbers lie.
struct Described {
  std::string name;
  Storage storage;
  DType dtype = DType::F32;
  std::int64_t offset = 0;  // in elements
  std::vector<std::int64_t> shape;
};

class Describer {
 public:
  explicit Describer(std::string where) : where_(std::move(where)) {}

  std::vector<Described> run(PickleRef root) {
    std::size_t steps = 0;
    for (auto inner = chosen(root); inner && ++steps < kDeepest; inner = chosen(root)) root = inner;
    if (const auto* dict = root->as<PickleDict>()) add(*dict, "", 0);
    if (found_.empty())
      throw Error(ErrorKind::Format, where_, "holds no tensors with names that could be read");
    return std::move(found_);
  }

 private:
  [[noreturn]] void fail(const std::string& name, const std::string& what) const {
    throw Error(ErrorKind::Format, where_, "tensor '" + name + "' " + what);
  }

  /// The dictionary within a dictionary that counts alone, or null.
  static PickleRef chosen(const PickleRef& root) {
    const auto* dict = root->as<PickleDict>();
    if (!dict) return nullptr;
    for (const auto& [key, value] : dict->entries) {
      const auto* text = key->as<std::string>();
      bool alone = dict->entries.size() == 1 || (text && *text == "state_dict");
      if (alone && value->as<PickleDict>()) return value;
    }
    return nullptr;
  }

  void add(const PickleDict& dict, const std::string& prefix, std::size_t depth) {
    if (depth > kDeepest)
      throw Error(ErrorKind::Format, where_, "holds dictionaries nested too deep");
    for (const auto& [key, value] : dict.entries) {
      const auto* text = key->as<std::string>();
      if (!text) continue;
      if (const auto* inner = value->as<PickleDict>())
        add(*inner, prefix + *text + ".", depth + 1);
      else if (auto tensor = described(value, prefix + *text))
        put(std::move(*tensor));
    }
  }

  // Of two tensors of one name Python's dictionary keeps the last.
  void put(Described tensor) {
    auto [place, fresh] = places_.emplace(tensor.name, found_.size());
    if (fresh)
      found_.push_back(std::move(tensor));
    else
      found_[place->second] = std::move(tensor);
  }

  /// A call of a function of torch._utils whose name starts so, or null.
  static const PickleCall* call_of(const PickleRef& value, const std::string& start) {
    const auto* call = value->as<PickleCall>();
    const auto* callee = call ? call->callee->as<PickleName>() : nullptr;
    return callee && callee->name.starts_with("torch._utils." + start) ? call : nullptr;
  }

  std::optional<Described> described(PickleRef value, const std::string& name) const {
    if (const auto* parameter = call_of(value, "_rebuild_parameter");
        parameter && !parameter->arguments.empty())
      value = parameter->arguments[0];
    const auto* call = call_of(value, "_rebuild_tensor");
    if (!call || call->arguments.size() < 4) return std::nullopt;
    const auto& arguments = call->arguments;
    const auto* callee = call->callee->as<PickleName>();
    auto storage = storage_of(arguments[0]);
    if (!storage) fail(name, "has no numbers that could be found");
    auto dtype = storage->dtype;
    if (callee->name.ends_with("_v3") && arguments.size() > 6) dtype = dtype_of(arguments[6]);
    if (!dtype) fail(name, "is of a type that is not known");
    const auto* offset = arguments[1]->as<std::int64_t>();
    Described tensor{name, *storage, *dtype, offset ? *offset : -1, sizes(arguments[2], name)};
    check_rows(tensor, sizes(arguments[3], name));
    return tensor;
  }

  static std::optional<Storage> storage_of(const PickleRef& value) {
    const auto* external = value->as<PickleExternal>();
    const auto* id = external ? external->id->as<PickleList>() : nullptr;
    if (!id || id->items.size() < 5) return std::nullopt;
    const auto* key = id->items[2]->as<std::string>();
    const auto* count = id->items[4]->as<std::int64_t>();
    if (!key || !count) return std::nullopt;
    return Storage{*key, dtype_of(id->items[1]), *count};
  }

  std::vector<std::int64_t> sizes(const PickleRef& value, const std::string& name) const {
    std::vector<std::int64_t> result;
    const auto* list = value->as<PickleList>();
    if (!list) fail(name, "has no shape");
    for (const auto& item : list->items) {
      const auto* size = item->as<std::int64_t>();
      if (!size || *size < 0) fail(name, "has no shape");
      result.push_back(*size);
    }
    return result;
  }

  /// Error unless elements follow each other row by row.
  void check_rows(const Described& tensor, const std::vector<std::int64_t>& strides) const {
    if (strides.size() != tensor.shape.size() || tensor.offset < 0)
      fail(tensor.name, "has no shape");
    bool empty = std::find(tensor.shape.begin(), tensor.shape.end(), 0) != tensor.shape.end();
    std::int64_t step = 1;
    for (auto i = tensor.shape.size(); i-- > 0 && !empty;) {
      if (tensor.shape[i] != 1 && strides[i] != step)
        fail(tensor.name, "does not lie row by row in the file; save it again as it is used");
      if (__builtin_mul_overflow(step, tensor.shape[i], &step)) fail(tensor.name, "is too large");
    }
  }

  std::string where_;
  std::vector<Described> found_;
  std::map<std::string, std::size_t> places_;
};

/// The tensors where their numbers lie: `ranges` by the storages' keys.
TensorFile placed(std::shared_ptr<const MappedFile> file, const std::vector<Described>& tensors,
                  const std::function<ByteRange(const Storage&, DType)>& range_of) {
  std::vector<TensorInfo> infos;
  for (const auto& tensor : tensors) {
    TensorInfo info{tensor.name, tensor.dtype, tensor.shape, 0, 0};
    auto range = range_of(tensor.storage, tensor.dtype);
    auto element = static_cast<std::size_t>(bits_of(tensor.dtype)) / 8;
    auto first = static_cast<std::size_t>(tensor.offset), count = range.size / element;
    auto wanted = static_cast<std::size_t>(info.elements());
    if (first > count || wanted > count - first)
      throw Error(ErrorKind::Format, file->path().string(),
                  fmt::format("tensor '{}' needs {} numbers behind the first {}, the file has {}",
                              tensor.name, wanted, first, count));
    info.offset_bytes = range.offset + first * element;
    info.size_bytes = wanted * element;
    infos.push_back(std::move(info));
  }
  std::sort(infos.begin(), infos.end(), [](const TensorInfo& a, const TensorInfo& b) {
    return std::pair(a.offset_bytes, a.name) < std::pair(b.offset_bytes, b.name);
  });
  return TensorFile(std::move(file), "pickle", std::move(infos), {});
}

std::string read_range(const MappedFile& file, ByteRange range) {
  if (range.size > kLargestPickle)
    throw Error(ErrorKind::Format, file.path().string(), "describes itself in too many bytes");
  std::string bytes(range.size, '\0');
  file.read(range.offset, std::as_writable_bytes(std::span(bytes)));
  return bytes;
}

TensorFile read_zip(const std::shared_ptr<const MappedFile>& file) {
  auto where = file->path().string();
  auto entries = zip_directory(*file);
  auto pickle = std::find_if(entries.begin(), entries.end(), [](const auto& entry) {
    return entry.first == "data.pkl" || entry.first.ends_with("/data.pkl");
  });
  if (pickle == entries.end())
    throw Error(ErrorKind::Format, where, "is a zip archive without weights (data.pkl) in it");
  auto folder = pickle->first.substr(0, pickle->first.size() - std::string("data.pkl").size());
  if (auto order = entries.find(folder + "byteorder");
      order != entries.end() && read_range(*file, order->second) != "little")
    throw Error(ErrorKind::Format, where, "holds big-endian numbers, which are not read");
  std::size_t used = 0;
  auto content = read_pickle(read_range(*file, pickle->second), where, used);
  auto tensors = Describer(where).run(content.root);
  return placed(file, tensors, [&](const Storage& storage, DType) {
    auto found = entries.find(folder + "data/" + storage.key);
    if (found == entries.end())
      throw Error(ErrorKind::Format, where, "lacks the numbers of '" + storage.key + "'");
    return found->second;
  });
}

/// Before torch 1.6: a magic number, a version and facts about the machine, each a pickle of its own,
/// then the tensors' description, the storages' keys in their order, and for each its length and
/// numbers.
TensorFile read_row(const std::shared_ptr<const MappedFile>& file) {
  auto where = file->path().string();
  std::size_t at = 0;
  auto next = [&] {
    auto rest = file->bytes({at, file->size() - at});
    std::string_view head(reinterpret_cast<const char*>(rest.data()),
                          std::min(kLargestPickle, rest.size()));
    std::size_t used = 0;
    auto value = read_pickle(head, where, used);
    at += used;
    return value;
  };
  static constexpr std::string_view magic = "\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19";
  const auto first = next();
  const auto* number = first.root->as<std::string>();
  if (!number || *number != magic)
    throw Error(ErrorKind::Format, where, "is a pickle, but not one that torch.save wrote");
  next();
  next();
  auto content = next();
  auto tensors = Describer(where).run(content.root);
  file->check();
  std::map<std::string, DType> types;
  for (const auto& tensor : tensors) types.emplace(tensor.storage.key, tensor.dtype);
  const auto keys = next();
  std::map<std::string, ByteRange> ranges;
  if (const auto* list = keys.root->as<PickleList>())
    for (const auto& item : list->items) {
      const auto* key = item->as<std::string>();
      std::int64_t count = 0;
      if (!key || file->size() - at < sizeof(count))
        throw Error(ErrorKind::Format, where, "is cut short");
      file->read(at, std::as_writable_bytes(std::span(&count, 1)));
      at += sizeof(count);
      // A storage that belongs to no tensor has no known type; nothing behind it can be found.
      auto type = types.find(*key);
      if (type == types.end())
        throw Error(ErrorKind::Format, where,
                    "holds numbers that belong to no tensor; convert it to safetensors first");
      auto element = static_cast<std::size_t>(bits_of(type->second)) / 8;
      if (count < 0 || static_cast<std::size_t>(count) > (file->size() - at) / element)
        throw Error(ErrorKind::Format, where, "is cut short");
      ranges[*key] = {at, static_cast<std::size_t>(count) * element};
      at += ranges[*key].size;
    }
  return placed(file, tensors, [&](const Storage& storage, DType) {
    auto found = ranges.find(storage.key);
    if (found == ranges.end())
      throw Error(ErrorKind::Format, where, "lacks the numbers of '" + storage.key + "'");
    return found->second;
  });
}

TensorFile read(const std::filesystem::path& path) {
  auto file = MappedFile::open(path);
  std::string head(std::min<std::size_t>(4, file->size()), '\0');
  file->read(0, std::as_writable_bytes(std::span(head)));
  return is_zip(head) ? read_zip(file) : read_row(file);
}

}  // namespace

Format pickle_format() { return {"pickle", {".ckpt", ".pt", ".pth", ".bin"}, is_pickle, read}; }

}  // namespace distorch::formats
