#include "distorch/base/error.h"

namespace distorch {

const char* name_of(ErrorKind kind) {
  switch (kind) {
    case ErrorKind::Usage: return "usage";
    case ErrorKind::Format: return "format";
    case ErrorKind::MissingFile: return "missing_file";
    case ErrorKind::MissingWeight: return "missing_weight";
    case ErrorKind::Shape: return "shape";
    case ErrorKind::OutOfMemory: return "out_of_memory";
    case ErrorKind::Interrupted: return "interrupted";
    case ErrorKind::Internal: return "internal";
  }
  return "internal";
}

Error::Error(ErrorKind kind, std::string where, const std::string& what)
    : std::runtime_error(where.empty() ? what : where + ": " + what),
      kind_(kind),
      where_(std::move(where)),
      sentence_(what) {}

}  // namespace distorch
