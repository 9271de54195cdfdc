#include "distorch/server/node_listing.h"

#include <algorithm>
#include <string_view>

namespace distorch::server {

namespace {

using namespace listing;

const ListedType* find(const std::string& name) {
  const auto& list = listed_types();
  auto found = std::lower_bound(
      list.begin(), list.end(), name,
      [](const ListedType& entry, const std::string& wanted) { return entry.type < wanted; });
  return found != list.end() && found->type == name ? &*found : nullptr;
}

template <class Use>
void each_word(std::string_view words, const Use& use) {
  while (!words.empty()) {
    auto end = std::min(words.find('|'), words.size());
    use(std::string(words.substr(0, end)));
    words.remove_prefix(std::min(end + 1, words.size()));
  }
}

Json words_of(const char* words) {
  if (!words) return nullptr;
  Json list = Json::array();
  each_word(words, [&](std::string word) { list.push_back(std::move(word)); });
  return list;
}

Json text_or_null(const char* text) { return text ? Json(text) : Json(); }

void mark_advanced(Json& inputs, const char* names) {
  each_word(names, [&](const std::string& name) {
    for (const char* section : {"required", "optional"}) {
      auto part = inputs.find(section);
      if (part == inputs.end()) continue;
      auto input = part->find(name);
      if (input == part->end()) continue;
      if (input->size() < 2) input->push_back(Json::object());
      (*input)[1]["advanced"] = true;
    }
  });
}

/// The fields that only types of the newer schema state; `entry` may be missing.
void state_all(Json& info, const ListedType* entry) {
  for (const char* flag : {"deprecated", "experimental", "dev_only", "api_node"})
    if (!info.contains(flag)) info[flag] = false;
  for (const char* field : {"output_matchtypes", "price_badge"})
    if (!info.contains(field)) info[field] = nullptr;
  info["essentials_category"] = text_or_null(entry ? entry->essentials : nullptr);
}

}  // namespace

Json listed_definition(const graph::NodeType& type) {
  const auto* entry = find(type.name);
  unsigned flags = entry ? entry->flags : type.newer_schema ? kNewer : 0;
  auto info = graph::definition_of(type);
  if ((flags & kNewer) && !type.newer_schema) {
    // Of the older schema when distorch took it over.
    auto newer = type;
    newer.newer_schema = true;
    info = graph::definition_of(newer);
  }
  info["is_input_list"] = type.input_is_list;
  info["has_intermediate_output"] = (flags & kIntermediate) != 0;
  info["search_aliases"] = entry ? words_of(entry->aliases) : Json::array();
  if (flags & kDeprecated) info["deprecated"] = true;
  if (flags & kExperimental) info["experimental"] = true;
  if (flags & kNewer)
    state_all(info, entry);
  else if (entry && entry->essentials)
    info["essentials_category"] = entry->essentials;
  if (!entry) return info;
  info["category"] = entry->category;
  info["display_name"] = text_or_null(entry->display_name);
  mark_advanced(info["input"], entry->advanced);
  return info;
}

}  // namespace distorch::server
