#pragma once
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

namespace distorch::media {

/// The content of a PNG's IDAT chunks: rows of `row_bytes` bytes one behind the other, each filtered as
/// promises the smallest file and all of them in one zlib stream of level `compression` (0..9).
/// `pixel_bytes`: of one pixel. Pieces of the rows are compressed at once by so many threads (0: as many
/// as the machine runs); the bytes do not depend on how many there are. Source: the PNG
/// specification, sections 9 (filters) and 10; RFC 1950.
std::string deflate_rows(std::span<const std::uint8_t> rows, std::size_t row_bytes,
                         std::size_t pixel_bytes, int compression, unsigned threads = 0);

}  // namespace distorch::media
