#include "distorch/server/compression.h"

#include <zlib.h>

#include <algorithm>

#include "distorch/base/error.h"
#include "distorch/base/text.h"

namespace distorch::server {
namespace {

// 15 bits of window, and 16 more for gzip's frame instead of zlib's.
constexpr int kGzipWindow = 15 + 16;
constexpr int kMemoryLevel = 8;

std::string_view trimmed(std::string_view text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\t')) text.remove_suffix(1);
  return text;
}

// "q=0", "q=0.0", "q=0.000": the client refuses.
bool is_refused(std::string_view parameters) {
  const std::size_t at = parameters.find("q=");
  return at != std::string_view::npos &&
         trimmed(parameters.substr(at + 2)).find_first_not_of("0.") == std::string_view::npos;
}

}  // namespace

std::string gzip(std::string_view content, int level) {
  z_stream stream{};
  if (deflateInit2(&stream, level, Z_DEFLATED, kGzipWindow, kMemoryLevel, Z_DEFAULT_STRATEGY) !=
      Z_OK)
    throw Error(ErrorKind::OutOfMemory, "host", "there is no memory to compress an answer");
  std::string result(deflateBound(&stream, content.size()), '\0');
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(content.data()));
  stream.avail_in = static_cast<uInt>(content.size());
  stream.next_out = reinterpret_cast<Bytef*>(result.data());
  stream.avail_out = static_cast<uInt>(result.size());
  const int status = deflate(&stream, Z_FINISH);
  result.resize(stream.total_out);
  deflateEnd(&stream);
  if (status != Z_STREAM_END) throw Error(ErrorKind::Internal, "answer", "could not be compressed");
  return result;
}

bool accepts_gzip(std::string_view accept_encoding) {
  while (!accept_encoding.empty()) {
    const std::string_view piece = accept_encoding.substr(0, accept_encoding.find(','));
    accept_encoding.remove_prefix(std::min(accept_encoding.size(), piece.size() + 1));
    const std::size_t semicolon = piece.find(';');
    const std::string name = lower(trimmed(piece.substr(0, semicolon)));
    if (name != "gzip" && name != "*") continue;
    return semicolon == std::string_view::npos || !is_refused(lower(piece.substr(semicolon)));
  }
  return false;
}

bool is_compressible(std::string_view content_type) {
  const std::string type = lower(trimmed(content_type.substr(0, content_type.find(';'))));
  return type.starts_with("text/") || type.ends_with("/json") || type.ends_with("+json") ||
         type.ends_with("/javascript") || type.ends_with("+xml") || type.ends_with("/xml") ||
         type == "application/wasm" || type == "font/ttf" || type == "font/otf" ||
         type == "application/manifest+json";
}

}  // namespace distorch::server
