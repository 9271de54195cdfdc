#include "distorch/formats/onnx.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstring>

#include "distorch/base/error.h"
#include "tests/support/source_dir.h"

using namespace distorch;
using namespace distorch::formats;

namespace {

/// A message as protocol buffers write it.
class Bytes {
 public:
  Bytes& number(std::uint64_t field, std::uint64_t value) {
    return varint(field << 3).varint(value);
  }
  Bytes& bytes(std::uint64_t field, const std::string& value) {
    varint(field << 3 | 2).varint(value.size());
    text += value;
    return *this;
  }
  Bytes& bytes(std::uint64_t field, const Bytes& value) { return bytes(field, value.text); }
  Bytes& varint(std::uint64_t value) {
    for (; value >= 0x80; value >>= 7) text += static_cast<char>(value | 0x80);
    text += static_cast<char>(value);
    return *this;
  }
  std::string text;
};

Bytes floats(const std::string& name, std::int64_t rows, const std::vector<float>& values) {
  std::string raw(values.size() * 4, '\0');
  std::memcpy(raw.data(), values.data(), raw.size());
  return Bytes()
      .number(1, static_cast<std::uint64_t>(rows))
      .number(2, 1)
      .bytes(8, name)
      .bytes(9, raw);
}

Bytes relu() {
  return Bytes()
      .bytes(1, std::string("x"))
      .bytes(2, std::string("y"))
      .bytes(4, std::string("Relu"));
}

/// A model of one node and those tensors.
std::string model_of(const Bytes& node, const std::vector<Bytes>& tensors) {
  const auto named = [](const char* name) { return Bytes().bytes(1, std::string(name)); };
  Bytes graph;
  graph.bytes(1, node);
  for (const auto& tensor : tensors) graph.bytes(5, tensor);
  graph.bytes(11, named("x")).bytes(12, named("y"));
  return Bytes().bytes(8, Bytes().number(2, 11)).bytes(7, graph).text;
}

OnnxGraph parse(const std::string& file) {
  return parse_onnx(
      [&](std::size_t offset, std::span<std::byte> to) {
        REQUIRE(offset + to.size() <= file.size());
        std::memcpy(to.data(), file.data() + offset, to.size());
      },
      file.size(), "net.onnx");
}

std::string refusal(const std::string& file) {
  try {
    parse(file);
  } catch (const Error& error) {
    CHECK(error.kind() == ErrorKind::Format);
    return error.what();
  }
  return "";
}

}  // namespace

TEST_CASE("ONNX: a network's operations, and its tensors where they lie") {
  const auto file = read_onnx(test::parity_dir() / "pulid" / "arc.onnx");
  CHECK(file.graph.opset == 11);
  REQUIRE(file.graph.inputs.size() == 1);
  CHECK(file.graph.inputs[0].shape == std::vector<std::int64_t>{1, 3, 112, 112});
  CHECK(file.graph.outputs.size() == 1);
  const auto conv = std::ranges::find(file.graph.nodes, "Conv", &OnnxNode::type);
  REQUIRE(conv != file.graph.nodes.end());
  CHECK(conv->attributes.at("pads").numbers == std::vector<std::int64_t>{1, 1, 1, 1});
  const auto* weight = file.tensors->find("fc.weight");
  REQUIRE(weight);
  CHECK(weight->shape == std::vector<std::int64_t>{16, 294});
  CHECK(weight->size_bytes == 16 * 294 * 4);

  const auto graph = parse(model_of(
      relu(), {floats("few", 3, {1, 2, 3}), floats("many", 17, std::vector<float>(17, 0.5f))}));
  CHECK(graph.tensors[0].reals == std::vector<float>{1, 2, 3});
  CHECK(graph.tensors[0].is_small());
  CHECK(!graph.tensors[1].is_small());
  CHECK(graph.tensors[1].range.size == 17 * 4);
}

TEST_CASE("ONNX: what lies is told by name, what is cut is told by its byte") {
  auto says = [](const std::string& file, const char* part) {
    const auto told = refusal(file);
    CAPTURE(told);
    CHECK(told.starts_with("net.onnx"));
    CHECK(told.find(part) != std::string::npos);
  };
  says(model_of(relu(), {floats("w", 4, {1, 2, 3})}),
       "tensor 'w' has 4 numbers of 4 bytes, and 12 bytes of them");
  says(model_of(relu(), {floats("w", 1, {1}), floats("w", 1, {2})}), "tensor 'w' is there twice");
  says(model_of(relu(), {floats("w", std::int64_t{1} << 60, {1})}), "a shape that no file holds");
  says(model_of(relu(), {floats("w", -1, {1})}), "a shape that no file holds");
  says(model_of(relu(), {Bytes().number(2, 11).bytes(8, std::string("w"))}),
       "numbers of ONNX's type 11");
  says(model_of(relu(), {Bytes().number(1, 2).number(2, 7).bytes(8, std::string("w"))}),
       "tensor 'w' has 2 numbers by its shape, and 0 of them");
  says(model_of(relu(), {floats("w", 1, {1}).bytes(13, std::string())}), "lies in another file");
  says(model_of(relu().bytes(7, std::string("other.domain")), {}), "is of 'other.domain'");
  says(model_of(relu().bytes(5, Bytes().bytes(6, std::string())), {}), "has a graph within it");
  says(model_of(relu().number(1, 5), {}), "is of another kind than ONNX has it");
  says("", "holds no ONNX graph");
  says("\x3a\x7f", "says 127 bytes follow, it has 0 left");
  const auto whole = model_of(relu(), {floats("w", 3, {1, 2, 3})});
  for (std::size_t size = 1; size + 1 < whole.size(); ++size)
    CHECK(refusal(whole.substr(0, size)).starts_with("net.onnx"));
}
