#pragma once
#include <stdexcept>
#include <string>

namespace distorch {

/// What went wrong, coarse enough for an exit code or an HTTP status.
enum class ErrorKind {
  Usage,          // a request that makes no sense: option, allocation string, node input
  Format,         // a file that is not what it claims to be
  MissingFile,    // a file that is not there
  MissingWeight,  // a checkpoint that lacks tensors
  Shape,          // tensors that do not fit together
  OutOfMemory,    // a device, the host or a disk is full
  Interrupted,    // the user stopped the run
  Internal        // our bug
};

/// "usage", "format", ...: the kind as one lower-case word, for JSON events and logs.
const char* name_of(ErrorKind kind);

/// The one exception distorch throws. `where` is something the user can open or change (a file, a
/// node id, a device, an option), never a source line; what() reads "<where>: <sentence>".
class Error : public std::runtime_error {
 public:
  Error(ErrorKind kind, std::string where, const std::string& what);

  ErrorKind kind() const { return kind_; }
  const std::string& where() const { return where_; }
  /// The sentence without the place.
  const std::string& sentence() const { return sentence_; }

 private:
  ErrorKind kind_;
  std::string where_;
  std::string sentence_;
};

}  // namespace distorch
