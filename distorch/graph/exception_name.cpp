#include "distorch/graph/exception_name.h"

#include "distorch/base/text.h"

namespace distorch::graph {

const char* exception_name(ErrorKind kind) {
  switch (kind) {
    case ErrorKind::Usage: return "ValueError";
    case ErrorKind::Format: return "FormatError";
    case ErrorKind::MissingFile: return "FileNotFoundError";
    case ErrorKind::MissingWeight: return "MissingWeightError";
    case ErrorKind::Shape: return "ShapeError";
    case ErrorKind::OutOfMemory: return "OOMError";
    case ErrorKind::Interrupted: return "Interrupted";
    case ErrorKind::Internal: return "RuntimeError";
  }
  return "RuntimeError";
}

bool says_out_of_memory(std::string_view text) {
  return lower(text).find("out of memory") != std::string::npos;
}

}  // namespace distorch::graph
