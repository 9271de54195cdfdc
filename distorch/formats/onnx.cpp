#include "distorch/formats/onnx.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <set>

#include "distorch/base/error.h"
#include "distorch/formats/gguf_cursor.h"

namespace distorch::formats {

namespace {

constexpr std::uint64_t kMostTextBytes = 65535;
constexpr std::uint64_t kMostIntegers = 65536;
constexpr std::size_t kMostDimensions = 8;
/// Values of one node, and nodes, values and tensors of a graph: empty ones take two bytes of a file.
constexpr std::size_t kMostValues = 4096, kMostParts = 1 << 20;

/// Kinds of fields of a message.
enum class Wire : std::uint64_t { Varint, Fixed64, Bytes, StartGroup, EndGroup, Fixed32 };
struct Field {
  std::uint64_t number = 0;
  Wire wire = Wire::Varint;
};

/// One message of a file, field by field. Messages within it are read from the same cursor before
/// its next field.
class Message {
 public:
  Message(GgufCursor& cursor, std::size_t end, std::string what)
      : cursor_(cursor), end_(end), what_(std::move(what)) {}

  /// The next field, whose value is taken then; nothing at the end.
  bool next(Field& field) {
    if (cursor_.position() == end_) return false;
    const auto key = varint();
    field = {key >> 3, static_cast<Wire>(key & 7)};
    return true;
  }
  std::uint64_t varint() {
    const auto at = cursor_.position();
    std::uint64_t value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      const std::uint64_t byte = take<std::uint8_t>();
      value |= (byte & 0x7f) << shift;
      if (byte < 0x80) return value;
    }
    cursor_.fail(fmt::format("{} holds a number that does not end", what_), at);
  }
  std::int64_t integer() { return static_cast<std::int64_t>(varint()); }
  template <class Number>
  Number take() {
    need(sizeof(Number));
    return cursor_.number<Number>(what_);
  }
  /// The length of bytes that follow, which lie within the message.
  std::size_t length() {
    const auto bytes = varint();
    need(bytes);
    return static_cast<std::size_t>(bytes);
  }
  std::string text() {
    const auto bytes = length();
    if (bytes > kMostTextBytes)
      fail(fmt::format("{} holds a text of {} bytes, more than {}", what_, bytes, kMostTextBytes));
    std::string text(bytes, '\0');
    for (auto& letter : text) letter = cursor_.number<char>(what_);
    return text;
  }
  Message message(const std::string& what) {
    const auto bytes = length();
    return {cursor_, cursor_.position() + bytes, what};
  }
  ByteRange bytes() {
    const auto count = length();
    const ByteRange range{cursor_.position(), count};
    cursor_.skip(count, what_);
    return range;
  }
  /// Of a repeated field: one more number, or many at once. `read` takes one of them.
  template <class Read>
  void repeated(const Field& field, Read read) {
    if (field.wire != Wire::Bytes) return read(*this);
    auto many = message(what_);
    while (many.cursor_.position() != many.end_) read(many);
  }
  void skip(const Field& field) {
    switch (field.wire) {
      case Wire::Varint: varint(); break;
      case Wire::Fixed64: take<std::uint64_t>(); break;
      case Wire::Fixed32: take<std::uint32_t>(); break;
      case Wire::Bytes: bytes(); break;
      default: fail(fmt::format("{} holds a field of a kind that is not known", what_));
    }
  }
  /// Error where a field has another kind than it should.
  void expect(const Field& field, Wire wire) const {
    if (field.wire != wire)
      fail(fmt::format("field {} of {} is of another kind than ONNX has it", field.number, what_));
  }
  [[noreturn]] void fail(const std::string& sentence) const {
    cursor_.fail(sentence, cursor_.position());
  }
  const std::string& what() const { return what_; }
  void call(std::string what) { what_ = std::move(what); }

 private:
  void need(std::uint64_t bytes) const {
    if (bytes > end_ - cursor_.position())
      fail(fmt::format("{} says {} bytes follow, it has {} left", what_, bytes,
                       end_ - cursor_.position()));
  }
  GgufCursor& cursor_;
  std::size_t end_;
  std::string what_;
};

/// The types of numbers that are read.
enum OnnxType : std::int64_t {
  kFloat = 1,
  kUint8 = 2,
  kInt8 = 3,
  kInt32 = 6,
  kInt64 = 7,
  kBool = 9,
  kHalf = 10,
};

std::size_t bytes_of(std::int64_t type) {
  switch (type) {
    case kFloat:
    case kInt32: return 4;
    case kInt64: return 8;
    case kHalf: return 2;
    default: return 1;
  }
}

struct Raw {
  std::int64_t type = 0;
  ByteRange range;  // of raw_data, or of packed floats
  bool has_range = false;
};

std::uint64_t checked_elements(const Message& m, const OnnxTensor& tensor) {
  constexpr std::uint64_t most = std::uint64_t{1} << 48;
  std::uint64_t count = 1;
  for (auto size : tensor.shape) {
    if (size < 0 || static_cast<std::uint64_t>(size) > most ||
        (size > 0 && count > most / static_cast<std::uint64_t>(size)))
      m.fail(fmt::format("tensor '{}' has a shape that no file holds", tensor.name));
    count *= static_cast<std::uint64_t>(size);
  }
  return count;
}

/// Numbers that lie as bytes become values where they are whole or few.
void read_raw(const ByteReader& read, const Message& m, const Raw& raw, std::uint64_t count,
              OnnxTensor& tensor) {
  const auto width = bytes_of(raw.type);
  if (raw.range.size != count * width)
    m.fail(fmt::format("tensor '{}' has {} numbers of {} bytes, and {} bytes of them", tensor.name,
                       count, width, raw.range.size));
  tensor.range = raw.range;
  const bool whole = tensor.dtype == DType::I64;
  if (whole && count > kMostIntegers)
    m.fail(fmt::format("tensor '{}' has {} whole numbers, more than {}", tensor.name, count,
                       kMostIntegers));
  if (!whole && (count > kOnnxSmall || raw.type == kHalf)) return;
  std::vector<std::byte> bytes(raw.range.size);
  read(raw.range.offset, bytes);
  auto number = [&]<class Number>(std::size_t i, Number value) {
    std::memcpy(&value, bytes.data() + i * sizeof value, sizeof value);
    return value;
  };
  for (std::size_t i = 0; i < count; ++i) {
    switch (raw.type) {
      case kFloat: tensor.reals.push_back(number(i, float{})); break;
      case kInt32: tensor.integers.push_back(number(i, std::int32_t{})); break;
      case kInt64: tensor.integers.push_back(number(i, std::int64_t{})); break;
      case kInt8: tensor.integers.push_back(number(i, std::int8_t{})); break;
      default: tensor.integers.push_back(number(i, std::uint8_t{})); break;
    }
  }
}

/// Fields of a tensor: 1 dims, 2 data_type, 4 float_data, 5 int32_data, 7 int64_data, 8 name,
/// 9 raw_data, 13 external_data.
OnnxTensor read_tensor(const ByteReader& read, Message m) {
  OnnxTensor tensor;
  Raw raw;
  std::vector<std::int64_t> integers;
  Field field;
  while (m.next(field)) {
    switch (field.number) {
      case 1:
        m.repeated(field, [&](Message& part) { tensor.shape.push_back(part.integer()); });
        if (tensor.shape.size() > kMostDimensions)
          m.fail(fmt::format("{} has more than {} dimensions", m.what(), kMostDimensions));
        break;
      case 2: m.expect(field, Wire::Varint), raw.type = m.integer(); break;
      case 4:
        if (field.wire == Wire::Bytes && !raw.has_range) {
          raw.range = m.bytes();
          raw.has_range = true;
        } else {
          m.fail(fmt::format("{} holds its floats in pieces", m.what()));
        }
        break;
      case 5:
      case 7:
        m.repeated(field, [&](Message& part) {
          integers.push_back(part.integer());
          if (integers.size() > kMostIntegers)
            m.fail(fmt::format("{} has more than {} whole numbers", m.what(), kMostIntegers));
        });
        break;
      case 8:
        m.expect(field, Wire::Bytes), tensor.name = m.text();
        m.call(fmt::format("tensor '{}'", tensor.name));
        break;
      case 9:
        m.expect(field, Wire::Bytes), raw.range = m.bytes();
        raw.has_range = true;
        break;
      case 13: m.fail(fmt::format("{} lies in another file", m.what())); break;
      default: m.skip(field);
    }
  }
  constexpr std::array known = {kFloat, kUint8, kInt8, kInt32, kInt64, kBool, kHalf};
  if (std::ranges::find(known, raw.type) == known.end())
    m.fail(fmt::format("tensor '{}' has numbers of ONNX's type {}, which is not supported",
                       tensor.name, raw.type));
  tensor.dtype = raw.type == kFloat ? DType::F32 : raw.type == kHalf ? DType::F16 : DType::I64;
  const auto count = checked_elements(m, tensor);
  if (raw.has_range) {
    read_raw(read, m, raw, count, tensor);
  } else {
    if (tensor.dtype != DType::I64 ? count != 0 : integers.size() != count)
      m.fail(fmt::format("tensor '{}' has {} numbers by its shape, and {} of them", tensor.name,
                         count, integers.size()));
    tensor.integers = std::move(integers);
  }
  return tensor;
}

/// Fields: 1 name, 2 f, 3 i, 4 s, 5 t, 6 g, 7 floats, 8 ints.
std::pair<std::string, OnnxAttribute> read_attribute(const ByteReader& read, Message m) {
  std::string name;
  OnnxAttribute attribute;
  Field field;
  auto bounded = [&](std::size_t count) {
    if (count > kMostIntegers) m.fail(fmt::format("{} has too many numbers", m.what()));
  };
  while (m.next(field)) {
    switch (field.number) {
      case 1: m.expect(field, Wire::Bytes), name = m.text(); break;
      case 2: m.expect(field, Wire::Fixed32), attribute.real = m.take<float>(); break;
      case 3: m.expect(field, Wire::Varint), attribute.number = m.integer(); break;
      case 4: m.expect(field, Wire::Bytes), attribute.text = m.text(); break;
      case 5:
        m.expect(field, Wire::Bytes);
        attribute.tensors = {read_tensor(read, m.message("the tensor of " + m.what()))};
        break;
      case 6:
      case 11: m.fail(fmt::format("{} has a graph within it, which is not supported", m.what()));
      case 7:
        m.repeated(field, [&](Message& part) {
          attribute.reals.push_back(part.take<float>());
          bounded(attribute.reals.size());
        });
        break;
      case 8:
        m.repeated(field, [&](Message& part) {
          attribute.numbers.push_back(part.integer());
          bounded(attribute.numbers.size());
        });
        break;
      default: m.skip(field);
    }
  }
  return {std::move(name), std::move(attribute)};
}

/// Fields: 1 input, 2 output, 3 name, 4 op_type, 5 attribute, 7 domain.
OnnxNode read_node(const ByteReader& read, Message m) {
  OnnxNode node;
  Field field;
  while (m.next(field)) {
    if (field.number <= 7) m.expect(field, Wire::Bytes);
    if (node.inputs.size() + node.outputs.size() > kMostValues)
      m.fail(fmt::format("node '{}' has more than {} values", node.name, kMostValues));
    switch (field.number) {
      case 1: node.inputs.push_back(m.text()); break;
      case 2: node.outputs.push_back(m.text()); break;
      case 3: node.name = m.text(); break;
      case 4: node.type = m.text(); break;
      case 5: {
        auto attribute =
            read_attribute(read, m.message(fmt::format("an attribute of node '{}'", node.name)));
        node.attributes[attribute.first] = std::move(attribute.second);
        break;
      }
      case 7:
        if (const auto domain = m.text(); !domain.empty() && domain != "ai.onnx")
          m.fail(fmt::format("node '{}' is of '{}', and ONNX's own are supported only", node.name,
                             domain));
        break;
      default: m.skip(field);
    }
  }
  return node;
}

/// Fields: 1 name, 2 type {1 tensor_type {2 shape {1 dim {1 dim_value}}}}.
OnnxValue read_value_info(Message m) {
  OnnxValue value;
  Field field;
  auto inside = [](Message& outer, std::uint64_t number, auto&& then) {
    Field field;
    while (outer.next(field)) {
      if (field.number == number && field.wire == Wire::Bytes) {
        auto inner = outer.message(outer.what());
        then(inner);
      } else {
        outer.skip(field);
      }
    }
  };
  while (m.next(field)) {
    if (field.number == 1) {
      m.expect(field, Wire::Bytes), value.name = m.text();
    } else if (field.number == 2 && field.wire == Wire::Bytes) {
      auto type = m.message("the type of a value");
      inside(type, 1, [&](Message& tensor) {
        inside(tensor, 2, [&](Message& shape) {
          inside(shape, 1, [&](Message& dimension) {
            if (value.shape.size() >= kMostDimensions)
              dimension.fail("a value has too many dimensions");
            value.shape.push_back(-1);
            Field field;
            while (dimension.next(field))
              if (field.number == 1 && field.wire == Wire::Varint)
                value.shape.back() = dimension.integer();
              else
                dimension.skip(field);
          });
        });
      });
    } else {
      m.skip(field);
    }
  }
  return value;
}

/// Fields: 1 node, 5 initializer, 11 input, 12 output, 15 sparse_initializer.
void read_graph(const ByteReader& read, Message m, OnnxGraph& graph) {
  Field field;
  std::set<std::string> names;
  std::size_t parts = 0;
  while (m.next(field)) {
    const auto number = field.number;
    if (++parts > kMostParts) m.fail(fmt::format("the graph has more than {} parts", kMostParts));
    if (number == 1 || number == 5 || number == 11 || number == 12) m.expect(field, Wire::Bytes);
    if (number == 1) {
      graph.nodes.push_back(read_node(read, m.message(fmt::format("node {}", graph.nodes.size()))));
      parts += graph.nodes.back().inputs.size() + graph.nodes.back().outputs.size();
    } else if (number == 5) {
      graph.tensors.push_back(read_tensor(read, m.message("a tensor")));
      if (!names.insert(graph.tensors.back().name).second)
        m.fail(fmt::format("tensor '{}' is there twice", graph.tensors.back().name));
    } else if (number == 11) {
      graph.inputs.push_back(read_value_info(m.message("an input")));
    } else if (number == 12) {
      graph.outputs.push_back(read_value_info(m.message("an output")));
    } else if (number == 15) {
      m.fail("the graph holds sparse tensors, which are not supported");
    } else {
      m.skip(field);
    }
  }
  // Older files list the tensors among the inputs.
  std::erase_if(graph.inputs, [&](const OnnxValue& input) { return names.count(input.name) != 0; });
}

}  // namespace

std::int64_t OnnxTensor::elements() const {
  std::int64_t count = 1;
  for (auto size : shape) count *= size;
  return count;
}

OnnxGraph parse_onnx(const ByteReader& read, std::size_t file_size, const std::string& where) {
  GgufCursor cursor(read, file_size, where);
  OnnxGraph graph;
  Message m(cursor, file_size, "the model");
  bool found = false;
  Field field;
  // Fields: 7 graph, 8 opset_import {1 domain, 2 version}.
  while (m.next(field)) {
    if (field.number == 7 && field.wire == Wire::Bytes && !found) {
      read_graph(read, m.message("the graph"), graph);
      found = true;
    } else if (field.number == 8 && field.wire == Wire::Bytes) {
      auto import = m.message("the version of the operators");
      std::string domain;
      std::int64_t version = 0;
      Field part;
      while (import.next(part))
        if (part.number == 1 && part.wire == Wire::Bytes)
          domain = import.text();
        else if (part.number == 2 && part.wire == Wire::Varint)
          version = import.integer();
        else
          import.skip(part);
      if (domain.empty() || domain == "ai.onnx") graph.opset = version;
    } else {
      m.skip(field);
    }
  }
  if (!found || graph.nodes.empty() || graph.inputs.empty() || graph.outputs.empty())
    throw Error(ErrorKind::Format, where, "holds no ONNX graph with nodes, inputs and outputs");
  return graph;
}

OnnxFile read_onnx(const std::filesystem::path& path) {
  auto file = MappedFile::open(path);
  const ByteReader read = [&file](std::size_t offset, std::span<std::byte> to) {
    file->read(offset, to);
  };
  OnnxFile result{parse_onnx(read, file->size(), path.string()), nullptr};
  std::vector<TensorInfo> tensors;
  for (const auto& tensor : result.graph.tensors)
    if (!tensor.is_small())
      tensors.push_back({.name = tensor.name,
                         .dtype = tensor.dtype,
                         .shape = tensor.shape,
                         .offset_bytes = tensor.range.offset,
                         .size_bytes = tensor.range.size});
  result.tensors = std::make_shared<const TensorFile>(std::move(file), "onnx", std::move(tensors),
                                                      TensorFile::Metadata{});
  return result;
}

}  // namespace distorch::formats
