// How fast weights become another form, on the CPU:
//   types   gigabytes of bf16 a second and thread for each type, from memory
//   file    a model of some gigabytes converted from disk to disk, beside the longer of what the disk
//           needs to read it and write the result, and of what all cores need to pack as much; the
//           page cache dropped before, the result on the disk at the end; and the peak of memory
//   bench_convert [--out FOLDER] [--only types|file] [--gb 5] [--type Q4_K]
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <fcntl.h>
#include <unistd.h>

#include <memory>

#include "bench/bench.h"
#include "distorch/convert/convert.h"
#include "distorch/formats/safetensors.h"

namespace {

using namespace distorch;
namespace fs = std::filesystem;

constexpr double giga = 1e9;
constexpr std::int64_t kWide = 12288, kHigh = 3072;  // of FLUX's larger matrices

/// So many random matrices of 75 MB in bf16; all tensors show the same numbers.
void write_model(const fs::path& path, int matrices) {
  const auto numbers = (at::randn({kHigh, kWide}) * 0.02).to(at::kBFloat16);
  std::vector<formats::TensorToWrite> list;
  for (int i = 0; i < matrices; ++i)
    list.push_back({fmt::format("blocks.{}.linear.weight", i),
                    formats::DType::BF16,
                    {kHigh, kWide},
                    {static_cast<const std::byte*>(numbers.const_data_ptr()), numbers.nbytes()}});
  formats::write_safetensors(path, list);
}

convert::Source first_weight(const fs::path& path) {
  auto file = std::make_shared<formats::TensorFile>(formats::open_tensor_file(path));
  const weights::Checkpoint checkpoint(file);
  const auto& [name, stored] = *checkpoint.tensors().begin();
  return {name, stored};
}

/// Seconds to pack a weight that lies in the page cache once, in pieces of some rows; nothing is
/// written. The best of several.
double packing_seconds(const convert::Source& source, const std::string& type) {
  constexpr std::int64_t piece = 341;  // rows, 4 million numbers
  double best = 1e9;
  for (int round = 0; round < 4; ++round) {
    const auto start = bench::now_s();
    const auto encoder = convert::form_named(type).make(source);
    for (bool look : {true, false}) {
      if (look && !encoder->looks()) continue;
      for (std::int64_t first = 0; first < source.rows(); first += piece) {
        const auto rows =
            read_rows(source, first, std::min(piece, source.rows() - first), encoder->reads());
        if (look)
          encoder->look(rows);
        else
          encoder->encode(rows, first);
      }
    }
    if (round > 0) best = std::min(best, bench::now_s() - start);
  }
  return best;
}

void types(bench::Results& results, const fs::path& folder) {
  const auto path = folder / "convert_types.safetensors";
  write_model(path, 1);
  const auto source = first_weight(path);
  const auto threads = at::get_num_threads();
  at::set_num_threads(1);
  for (const char* type : {"Q4_K", "Q5_K", "Q6_K", "Q3_K", "Q2_K", "Q8_0", "Q4_0", "int8", "nvfp4",
                           "fp8_scaled", "packed", "f16"})
    results.add(
        fmt::format("bf16 to {}, one thread", type),
        static_cast<double>(source.stored.size_bytes) / packing_seconds(source, type) / giga, NAN,
        "GB/s of bf16");
  at::set_num_threads(threads);
  fs::remove(path);
}

/// A file whose content is on the disk and no more in memory.
void evict(const fs::path& path) {
  const int file = ::open(path.c_str(), O_RDONLY);
  ::fdatasync(file);
  ::posix_fadvise(file, 0, 0, POSIX_FADV_DONTNEED);
  ::close(file);
}

void to_disk(const fs::path& path) {
  const int file = ::open(path.c_str(), O_WRONLY);
  ::fdatasync(file);
  ::close(file);
}

/// What the disk takes to read one file and to write another of `bytes` bytes, one after the other.
double disk_seconds(const fs::path& from, const fs::path& to, std::int64_t bytes) {
  constexpr std::size_t piece = std::size_t{8} << 20;
  std::vector<char> buffer(piece, 7);
  evict(from);
  const auto start = bench::now_s();
  int file = ::open(from.c_str(), O_RDONLY);
  while (::read(file, buffer.data(), piece) > 0) continue;
  ::close(file);
  file = ::open(to.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0644);
  for (std::int64_t done = 0; done < bytes; done += piece)
    if (::write(file, buffer.data(), piece) < 0) throw std::runtime_error("the disk is full");
  ::fdatasync(file);
  ::close(file);
  const auto seconds = bench::now_s() - start;
  fs::remove(to);
  return seconds;
}

struct Paths {
  fs::path from, to;
};

/// Run in a process of its own: seconds, bytes of the result, peak of memory.
void convert_once(const Paths& paths, const std::string& type) {
  convert::Request request{.from = paths.from, .to = paths.to};
  request.form = &convert::form_named(type);
  evict(paths.from);
  const auto start = bench::now_s();
  const auto report = convert::convert(request);
  to_disk(paths.to);
  fmt::print("{} {} {}\n", bench::now_s() - start, report.bytes_after,
             bench::process_bytes("VmHWM"));
}

void file(bench::Results& results, const fs::path& folder, double gigabytes,
          const std::string& type) {
  const Paths paths{
      folder / "convert_in.safetensors",
      folder / (convert::form_named(type).gguf ? "convert_out.gguf" : "convert_out.safetensors")};
  const auto matrices =
      std::max(1, static_cast<int>(gigabytes * giga / (2.0 * kHigh * kWide) + 0.5));
  write_model(paths.from, matrices);
  std::vector<double> ours, disk;
  double bytes = 0, peak = 0;
  for (int round = 0; round < 3; ++round) {
    const auto text =
        bench::run_self({"--part", type, "--from", paths.from.string(), "--to", paths.to.string()});
    double seconds = 0, memory = 0;
    std::sscanf(text.c_str(), "%lf %lf %lf", &seconds, &bytes, &memory);
    ours.push_back(seconds);
    peak = std::max(peak, memory);
    fs::remove(paths.to);
    disk.push_back(disk_seconds(paths.from, paths.to, static_cast<std::int64_t>(bytes)));
  }
  const double packing = packing_seconds(first_weight(paths.from), type) * matrices;
  const double bound = std::max(bench::median(disk), packing);
  results.add(fmt::format("{:.1f} GB of bf16 to {}", gigabytes, type), bench::median(ours), bound,
              "s, beside the longer of disk and packing",
              {{"disk_s", bench::median(disk)},
               {"packing_s", packing},
               {"threads", at::get_num_threads()},
               {"bytes_after", bytes}});
  constexpr double mb = 1e6, most_mb = 500;
  results.add(fmt::format("{:.1f} GB of bf16 to {}: peak of memory", gigabytes, type), peak / mb,
              most_mb, "MB, beside the limit");
  fs::remove(paths.from);
}

}  // namespace

int main(int argc, char** argv) {
  auto word = [&](const char* key, const char* fallback) {
    return bench::option(argc, argv, key, fallback);
  };
  if (const auto part = word("--part", ""); !part.empty()) {
    convert_once({word("--from", ""), word("--to", "")}, part);
    return 0;
  }
  const auto folder = bench::out_folder(argc, argv);
  const auto only = word("--only", "");
  bench::Results results("convert", folder);
  bench::Results::head();
  if (only != "file") types(results, folder);
  if (only != "types") file(results, folder, std::stod(word("--gb", "5")), word("--type", "Q4_K"));
  results.write();
  return 0;
}
