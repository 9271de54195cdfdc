#include "distorch/media/png_rows.h"

#include <zlib.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdlib>
#include <functional>
#include <future>
#include <memory>
#include <thread>
#include <vector>

#include "distorch/base/error.h"

namespace distorch::media {

namespace {

using Bytes = std::vector<std::uint8_t>;

constexpr int kFilters = 5;  // none, left, above, their mean, Paeth's choice

/// What the filter foretells of a byte by those to the left, above, and above to the left.
std::uint8_t foretold(int filter, int left, int above, int corner) {
  switch (filter) {
    case 1: return static_cast<std::uint8_t>(left);
    case 2: return static_cast<std::uint8_t>(above);
    case 3: return static_cast<std::uint8_t>((left + above) / 2);
    case 4: {
      const int p = left + above - corner;
      const int a = std::abs(p - left), b = std::abs(p - above), c = std::abs(p - corner);
      return static_cast<std::uint8_t>(a <= b && a <= c ? left : b <= c ? above : corner);
    }
    default: return 0;
  }
}

/// A row as filter FILTER leaves it, behind the filter's number; and the sum of its sizes as signed
/// numbers, which tells well enough how it will compress.
template <int FILTER>
std::uint64_t filter_row(const std::uint8_t* row, const std::uint8_t* above, std::size_t bytes,
                         std::size_t pixel, std::uint8_t* to) {
  to[0] = FILTER;
  std::uint64_t sum = 0;
  const auto one = [&](std::size_t i, int left, int corner) {
    const auto rest = static_cast<std::uint8_t>(row[i] - foretold(FILTER, left, above[i], corner));
    to[i + 1] = rest;
    sum += rest < 128 ? rest : 256u - rest;
  };
  for (std::size_t i = 0; i < std::min(pixel, bytes); ++i) one(i, 0, 0);
  for (std::size_t i = pixel; i < bytes; ++i) one(i, row[i - pixel], above[i - pixel]);
  return sum;
}

/// Rows `first` .. `last` - 1, each by the filter whose sum is the smallest.
void filter_rows(std::span<const std::uint8_t> rows, std::size_t bytes, std::size_t pixel,
                 std::size_t first, std::size_t last, Bytes& to) {
  const Bytes nothing(bytes);
  std::array<Bytes, kFilters> tried;
  for (auto& one : tried) one.resize(bytes + 1);
  for (auto y = first; y < last; ++y) {
    const auto* row = rows.data() + y * bytes;
    const auto* above = y > 0 ? row - bytes : nothing.data();
    const std::array<std::uint64_t, kFilters> sums = {
        filter_row<0>(row, above, bytes, pixel, tried[0].data()),
        filter_row<1>(row, above, bytes, pixel, tried[1].data()),
        filter_row<2>(row, above, bytes, pixel, tried[2].data()),
        filter_row<3>(row, above, bytes, pixel, tried[3].data()),
        filter_row<4>(row, above, bytes, pixel, tried[4].data())};
    const auto best = std::min_element(sums.begin(), sums.end()) - sums.begin();
    std::copy(tried[best].begin(), tried[best].end(), to.begin() + y * (bytes + 1));
  }
}

/// A piece of a raw deflate stream that goes on behind `before`: whole bytes, which the next piece
/// follows; the last one ends the stream.
std::string deflate_piece(std::span<const std::uint8_t> piece, std::span<const std::uint8_t> before,
                          int compression, bool last) {
  z_stream stream{};
  constexpr int raw = -15, memory = 8;
  // As libpng has it for filtered rows.
  if (deflateInit2(&stream, compression, Z_DEFLATED, raw, memory, Z_FILTERED) != Z_OK)
    throw Error(ErrorKind::OutOfMemory, "PNG", "no memory for compressing");
  const std::unique_ptr<z_stream, int (*)(z_stream*)> freed(&stream, deflateEnd);
  if (!before.empty())
    deflateSetDictionary(&stream, before.data(), static_cast<uInt>(before.size()));
  constexpr std::size_t flush_bytes = 16;  // of the empty block that makes whole bytes
  std::string out(deflateBound(&stream, piece.size()) + flush_bytes, '\0');
  stream.next_in = const_cast<Bytef*>(piece.data());
  stream.avail_in = static_cast<uInt>(piece.size());
  stream.next_out = reinterpret_cast<Bytef*>(out.data());
  stream.avail_out = static_cast<uInt>(out.size());
  const int code = deflate(&stream, last ? Z_FINISH : Z_SYNC_FLUSH);
  out.resize(out.size() - stream.avail_out);
  const bool whole = stream.avail_in == 0 && code == (last ? Z_STREAM_END : Z_OK);
  if (!whole) throw Error(ErrorKind::Internal, "PNG", "a piece of rows is not compressed whole");
  return out;
}

void append_big_endian(std::string& to, unsigned number, int bytes) {
  for (int i = bytes - 1; i >= 0; --i) to.push_back(static_cast<char>(number >> 8 * i & 255));
}

/// work(i) for each of `count` on so many threads, of which this one is the first.
void on_threads(std::size_t count, unsigned threads, const std::function<void(std::size_t)>& work) {
  std::atomic<std::size_t> next{0};
  const auto some = [&] {
    for (std::size_t i = next++; i < count; i = next++) work(i);
  };
  std::vector<std::future<void>> others;
  for (std::size_t i = 1; i < std::min<std::size_t>(threads, count); ++i)
    others.push_back(std::async(std::launch::async, some));
  some();
  for (auto& other : others) other.get();
}

}  // namespace

std::string deflate_rows(std::span<const std::uint8_t> rows, std::size_t row_bytes,
                         std::size_t pixel_bytes, int compression, unsigned threads) {
  if (threads == 0) threads = std::max(1u, std::thread::hardware_concurrency());
  constexpr std::size_t piece_bytes = std::size_t{1} << 18, window = std::size_t{1} << 15;
  const auto count = rows.size() / row_bytes, line = row_bytes + 1;
  const auto rows_each = std::max<std::size_t>(1, piece_bytes / line);
  const auto pieces = (count + rows_each - 1) / rows_each;
  Bytes filtered(count * line);
  on_threads(pieces, threads, [&](std::size_t i) {
    filter_rows(rows, row_bytes, pixel_bytes, i * rows_each, std::min(count, (i + 1) * rows_each),
                filtered);
  });
  std::vector<std::string> deflated(pieces);
  std::vector<uLong> sums(pieces);
  const std::span<const std::uint8_t> all(filtered);
  const auto piece = [&](std::size_t i) {
    const auto first = i * rows_each * line;
    return all.subspan(first, std::min(rows_each * line, all.size() - first));
  };
  on_threads(pieces, threads, [&](std::size_t i) {
    const auto bytes = piece(i);
    const auto first = i * rows_each * line, known = std::min(first, window);
    deflated[i] =
        deflate_piece(bytes, all.subspan(first - known, known), compression, i + 1 == pieces);
    sums[i] = adler32_z(1, bytes.data(), bytes.size());
  });
  // The two bytes before a zlib stream: deflate with a window of 32 KiB, and how hard it tried.
  const unsigned effort = compression < 2 ? 0 : compression < 6 ? 1 : compression == 6 ? 2 : 3;
  unsigned header = 0x7800 | effort << 6;
  header += 31 - header % 31;
  std::string out;
  append_big_endian(out, header, 2);
  uLong sum = 1;
  for (std::size_t i = 0; i < pieces; ++i) {
    out += deflated[i];
    sum = adler32_combine(sum, sums[i], static_cast<z_off_t>(piece(i).size()));
  }
  append_big_endian(out, static_cast<unsigned>(sum), 4);
  return out;
}

}  // namespace distorch::media
