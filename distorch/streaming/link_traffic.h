#pragma once
#include <cstdint>
#include <map>
#include <string>

namespace distorch::streaming {

/// Bytes of weights that were sent over the links of this machine since the process began, by lane
/// ("cpu -> cuda:0", as traces and plans name it): blocks that stream, and what is loaded to rest on
/// a device. What "disk -> cpu" counts may have come from the system's cache of the file. Activations
/// are not counted. From any thread.
void count_link_bytes(const std::string& from, const std::string& to, std::int64_t bytes);
void count_link_bytes(const std::string& lane, std::int64_t bytes);
std::map<std::string, std::int64_t> link_bytes();

}  // namespace distorch::streaming
