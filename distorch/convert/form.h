#pragma once
#include <ATen/core/Tensor.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "distorch/convert/output.h"
#include "distorch/weights/checkpoint.h"

namespace distorch::convert {

/// A weight of the file that is read.
struct Source {
  std::string name;
  weights::Stored stored;

  bool is_float() const;
  /// Rows that it can be cut into: dimension 0; 1 for a scalar.
  std::int64_t rows() const { return stored.shape.empty() ? 1 : stored.shape[0]; }
  std::int64_t numbers_of_a_row() const;
};

/// One weight on its way into another form. Its rows pass in order, in pieces: look() at each where
/// looks() says so, then encode() each.
class Encoder {
 public:
  virtual ~Encoder() = default;
  /// The type that pieces [rows, ...] are wanted in.
  virtual at::ScalarType reads() const = 0;
  virtual bool looks() const { return false; }
  virtual void look(const at::Tensor& piece) {}
  /// The tensors that the weight becomes. Before the looking is done: the most that they may be.
  virtual std::vector<NewTensor> outputs() const = 0;
  /// What to append to each of outputs() (undefined: nothing), for the piece from row `first` on.
  virtual std::vector<at::Tensor> encode(const at::Tensor& piece, std::int64_t first) = 0;
};

/// What weights can become.
struct Form {
  std::string name;    // as --type has it: "fp8_scaled"
  std::string what;    // for people
  bool plain = false;  // takes every floating-point tensor; others take matrices and kernels only
  bool gguf = false;   // a block type of GGUF
  /// Null where the weight cannot be in this form (it is then kept as it is).
  std::function<std::unique_ptr<Encoder>(const Source& source)> make;
};

/// The list.
const std::vector<Form>& forms();
/// Error(Usage) that lists all of them for an unknown name.
const Form& form_named(const std::string& name);

/// Numbers of `dtype` as they are, every weight.
std::unique_ptr<Encoder> plain_encoder(const Source& source, formats::DType dtype);

/// Rows `first` .. `first + count - 1` of the weight in `dtype` on the CPU: [count, ...]; where
/// nothing has to be converted, a view of the mapped file. A scalar is [1].
at::Tensor read_rows(const Source& source, std::int64_t first, std::int64_t count,
                     at::ScalarType dtype);

/// torch's word for a type of files that has one there.
at::ScalarType torch_type(formats::DType dtype);

}  // namespace distorch::convert
