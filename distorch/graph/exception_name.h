#pragma once
#include <string_view>

#include "distorch/base/error.h"

namespace distorch::graph {

/// What an error is called as `exception_type` of a message.
const char* exception_name(ErrorKind kind);
/// Whether the text of a foreign exception is about memory.
bool says_out_of_memory(std::string_view text);

}  // namespace distorch::graph
