#pragma once
#include "distorch/base/error.h"

namespace distorch::server {

/// A name that was asked for is not there: the answer is 404.
class NotFound : public Error {
 public:
  NotFound(std::string where, const std::string& sentence)
      : Error(ErrorKind::MissingFile, std::move(where), sentence) {}
};

}  // namespace distorch::server
