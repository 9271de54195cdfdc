#pragma once
#include <ATen/core/Tensor.h>

#include <functional>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "distorch/formats/onnx.h"
#include "distorch/weights/manifest.h"

namespace distorch::models::pulid_faces {

/// A network of an ONNX file (formats/onnx.h), of the operators that networks for faces are made of;
/// onnx_network.cpp lists them. Its float tensors are its weights, under their names in the file;
/// blocks are runs of nodes with about `part_bytes` of them. Whole numbers and small constants (shapes,
/// scales) are computed with on the host. Source: onnx/docs/Operators.md.
class OnnxNetwork {
 public:
  /// Error(Format) naming `where`, the node and what is not supported.
  OnnxNetwork(formats::OnnxGraph graph, std::string where,
              std::int64_t part_bytes = std::int64_t{8} << 20);

  weights::Manifest& manifest() { return manifest_; }
  const formats::OnnxGraph& graph() const { return graph_; }

  /// The graph's one input, [B, C, H, W] float32 -> its outputs in order, on the compute device.
  /// Error(Format) naming the node where its sizes do not go together.
  weights::Tensors forward(const at::Tensor& x) const;

 private:
  /// Nodes [first, last), what they take from others and what others take of them.
  struct Part {
    weights::Block block;
    std::size_t first = 0, last = 0;
    std::vector<std::string> takes, gives;
  };
  struct Run;

  void split(std::int64_t part_bytes);
  weights::Tensors run_part(const Part& part, const weights::Tensors& in, Run& run) const;

  formats::OnnxGraph graph_;
  std::string where_;
  weights::Manifest manifest_;
  struct Owned {
    weights::Weight weight;
    std::size_t part = 0;
  };
  std::map<std::string, Owned> weights_;
  std::map<std::string, at::Tensor> constants_;  // on the host
  std::set<std::string> host_;                   // values that no picture's content decides
  std::vector<Part> parts_;
};

}  // namespace distorch::models::pulid_faces
