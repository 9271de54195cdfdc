#pragma once
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "distorch/formats/gguf.h"
#include "distorch/formats/tensor_file.h"

/// Networks as ONNX files hold them: a list of operations with named tensors between them, and the
/// tensors that they begin with. Source: onnx/onnx.proto (field numbers), the protocol buffers'
/// encoding. A network's operations mean nothing here; models/pulid_faces computes some of them.
namespace distorch::formats {

/// Numbers of a file: of an initializer, a Constant or an attribute.
struct OnnxTensor {
  std::string name;
  DType dtype = DType::F32;  // F32, F16 or I64, as which all whole numbers are read
  std::vector<std::int64_t> shape;
  /// The numbers themselves where they are whole, or floats and at most kOnnxSmall; else they lie in
  /// the file at `range`.
  std::vector<std::int64_t> integers;
  std::vector<float> reals;
  ByteRange range;

  std::int64_t elements() const;
  bool is_small() const { return dtype == DType::I64 || elements() == std::int64_t(reals.size()); }
};
/// Floats that are read with the graph.
inline constexpr std::int64_t kOnnxSmall = 16;

/// A setting of an operation: that of its kinds of value which the file gives.
struct OnnxAttribute {
  std::int64_t number = 0;
  float real = 0;
  std::string text;
  std::vector<std::int64_t> numbers;
  std::vector<float> reals;
  std::vector<OnnxTensor> tensors;  // at most one
};

struct OnnxNode {
  std::string name;
  std::string type;                          // "Conv"
  std::vector<std::string> inputs, outputs;  // "": an optional one that is not there
  std::map<std::string, OnnxAttribute> attributes;
};

struct OnnxValue {
  std::string name;
  std::vector<std::int64_t> shape;  // -1: not known before a run
};

struct OnnxGraph {
  std::int64_t opset = 0;
  std::vector<OnnxNode> nodes;  // in order of execution
  std::vector<OnnxTensor> tensors;
  std::vector<OnnxValue> inputs, outputs;  // inputs without those that are tensors of the file
};

/// Reads and checks a graph. Error(Format), naming `where`, the node or tensor and the byte: lengths
/// or counts beyond their surroundings, types of numbers that are not known, shapes that overflow or
/// do not match their bytes, tensors that occur twice or lie in other files, graphs within nodes.
/// Memory stays below a small multiple of the file.
OnnxGraph parse_onnx(const ByteReader& read, std::size_t file_size, const std::string& where);

/// A file's graph and, as weights, its floats that are not small.
struct OnnxFile {
  OnnxGraph graph;
  std::shared_ptr<const TensorFile> tensors;
};
OnnxFile read_onnx(const std::filesystem::path& path);

}  // namespace distorch::formats
