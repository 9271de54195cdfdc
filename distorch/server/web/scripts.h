#pragma once
#include <string>

namespace distorch::server {

/// The content of web/placement.js, put into the program when it is built.
extern const std::string kPlacementScript;

}  // namespace distorch::server
