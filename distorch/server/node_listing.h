#pragma once
#include <vector>

#include "distorch/graph/catalog.h"
#include "distorch/server/http.h"

namespace distorch::server {

namespace listing {
/// The type is of the newer schema, which states every field.
inline constexpr unsigned kNewer = 1;
inline constexpr unsigned kDeprecated = 2;
inline constexpr unsigned kExperimental = 4;
/// Its outputs can be looked at before the run is over.
inline constexpr unsigned kIntermediate = 8;
}  // namespace listing

/// What ComfyUI 0.33 says about a node type beyond its signature: under which category and name a
/// page lists it and by which words it is found. Several words are separated by '|'.
struct ListedType {
  const char* type;
  const char* category;
  const char* display_name;  // nullptr: the page shows the type
  unsigned flags;
  const char* essentials;  // its place among the few that a beginner needs, or nullptr
  const char* aliases;     // words to search by; nullptr where the type states none
  const char* advanced;    // inputs that are shown on request only
};

/// By name, sorted. Types that ComfyUI does not have are missing.
const std::vector<ListedType>& listed_types();

/// The definition of a type as GET /object_info answers it: graph::definition_of, listed as a page
/// of today lists it, with the fields that it knows since 0.3.64.
Json listed_definition(const graph::NodeType& type);

}  // namespace distorch::server
