#pragma once
#include <cstdint>
#include <ctime>
#include <functional>
#include <optional>
#include <string>

namespace distorch::graph {

/// "yyyy-MM-dd hhmmss" and the like, zero-padded to the length given; every other letter stays.
std::string format_date(const std::string& format, const std::tm& time);

/// Replaces %date:FORMAT% and %Node.widget% in a file name. `widget` answers with the widget's
/// value as text, or nothing for an unknown one, which stays as it is; so do %width% and all the
/// rest.
std::string replace_placeholders(const std::string& text, const std::tm& time,
                                 const std::function<std::optional<std::string>(
                                     const std::string& node, const std::string& widget)>& widget);

/// Dynamic prompts: drops /* */ and // comments, replaces each {a|b|c} by one of its parts (nested
/// ones too), then unescapes \{ \} \|. `seed` decides; `chose` tells whether there was a choice
/// between several.
std::string choose_dynamic(const std::string& text, std::uint64_t seed, bool* chose = nullptr);

}  // namespace distorch::graph
