// Products of whole numbers of 8 bits: every kernel of ours against exact sums, and how fast each is
// beside torch's _int_mm and products in bfloat16. Shapes and counts are those of a step of FLUX.1.
//   bench_gpu_int8_product [--device cuda:0] [--out FOLDER] [--patience 120] [--only PART_OF_NAME]
// Each kernel runs in a process of its own, which is ended after `patience` seconds: one that is
// wrong, crashes or hangs is told and the next one tried. Writes FOLDER/int8_product.json.
#include <ATen/ATen.h>
#include <fmt/format.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <map>
#include <optional>

#include "bench/gpu/harness.h"
#include "distorch/base/atomic_file.h"
#include "distorch/quant/int8_cuda.h"
#include "distorch/quant/int8_product.h"

namespace {

using namespace distorch;
using namespace distorch::bench;
using at::Tensor;
using quant::cuda::Int8Product;
using quant::cuda::Tile;

struct Shape {
  std::int64_t m, n, k;
  int calls = 0;  // in a step at 1024 px
  std::string name() const { return fmt::format("{}x{}x{}", m, n, k); }
  double operations() const {
    return 2.0 * static_cast<double>(m) * static_cast<double>(n) * static_cast<double>(k);
  }
};
constexpr Shape kShapes[] = {
    {4608, 21504, 3072, 38}, {4608, 3072, 15360, 38}, {4096, 9216, 3072, 19},
    {4096, 3072, 3072, 19},  {4096, 12288, 3072, 19}, {4096, 3072, 12288, 19},
    {512, 9216, 3072, 19},   {512, 3072, 3072, 19},   {512, 12288, 3072, 19},
    {512, 3072, 12288, 19},  {1, 18432, 3072, 38},    {1, 9216, 3072, 38},
    {1536, 21504, 3072},     {1536, 3072, 15360},     {1024, 9216, 3072},
    {1024, 12288, 3072},     {1024, 3072, 12288}};
/// Rests in every direction, few rows, more tiles than blocks.
constexpr Shape kOddShapes[] = {{256, 512, 256},  {1, 64, 16},        {33, 260, 208},
                                {300, 516, 656},  {1000, 1004, 1200}, {2500, 5004, 400},
                                {200, 1004, 4800}};

/// What runs in a process of its own.
struct Contestant {
  std::string name;
  std::optional<Tile> tile;
};

std::vector<Contestant> contestants() {
  std::vector<Contestant> all = {{"bf16", {}}, {"torch", {}}, {"rows", {}}};
  std::vector<Tile> tiles = {{128, 128, 4}, {128, 256, 4}};
  for (const auto& tile : quant::cuda::tiles_for(90)) tiles.push_back(tile);
  tiles.push_back({128, 256, 4, 1, true, 2});
  tiles.push_back({192, 192, 4, 1, true, 1});
  for (const auto& tile : tiles) all.push_back({quant::cuda::name_of(tile), tile});
  return all;
}

Int8Product random_product(const Shape& shape, c10::Device device, at::ScalarType dtype) {
  const auto bytes = at::TensorOptions().dtype(at::kChar).device(device);
  const auto floats = bytes.dtype(at::kFloat);
  auto some = [&](std::int64_t n) { return at::rand({n}, floats).mul_(0.01).add_(0.001); };
  return {.a = at::randint(-128, 128, {shape.m, shape.k}, bytes),
          .b = at::randint(-128, 128, {shape.n, shape.k}, bytes),
          .rows = some(shape.m),
          .scales = some(shape.n),
          .bias = at::randn({shape.n}, floats).to(dtype)};
}

/// Exact sums, then the same roundings one after the other, [columns] of them.
Tensor reference(const Int8Product& p, at::ScalarType dtype, std::int64_t first,
                 std::int64_t count) {
  auto sums = at::matmul(p.a.to(at::kDouble), p.b.narrow(0, first, count).to(at::kDouble).t());
  auto by = p.scales.numel() == 1 ? p.scales : p.scales.narrow(0, first, count);
  auto y = sums.to(at::kInt).to(at::kFloat).mul_(p.rows.unsqueeze(1) * by.unsqueeze(0));
  if (p.bias.defined()) y.add_(p.bias.narrow(0, first, count).to(at::kFloat));
  return y.to(dtype);
}

/// Empty, or which elements are wrong.
std::string difference(const Tensor& y, const Int8Product& product) {
  constexpr std::int64_t most = 4096;
  for (std::int64_t first = 0; first < y.size(1); first += most) {
    const auto count = std::min(most, y.size(1) - first);
    auto wanted = reference(product, y.scalar_type(), first, count);
    auto got = y.narrow(1, first, count);
    auto wrong = got.ne(wanted).nonzero().cpu();  // [n, 2]
    if (wrong.size(0) == 0) continue;
    auto rows = wrong.select(1, 0), columns = wrong.select(1, 1);
    const auto r = rows[0].item<std::int64_t>(), c = columns[0].item<std::int64_t>();
    return fmt::format(
        "{} of {} wrong in columns {} to {}: first [{}, {}] {} wanted {}; rows {} to {} ({} of "
        "them), "
        "columns {} to {} ({} of them)",
        wrong.size(0), got.numel(), first, first + count - 1, r, first + c,
        got[r][c].item<double>(), wanted[r][c].item<double>(), rows.min().item<std::int64_t>(),
        rows.max().item<std::int64_t>(), std::get<0>(at::_unique(rows)).numel(),
        first + columns.min().item<std::int64_t>(), first + columns.max().item<std::int64_t>(),
        std::get<0>(at::_unique(columns)).numel());
  }
  return {};
}

/// Odd shapes, types, slices; tells each that is wrong. How many were.
int check_odd(const Tile& tile, c10::Device device) {
  int wrong = 0;
  for (const auto& shape : kOddShapes)
    for (auto dtype : {at::kBFloat16, at::kHalf, at::kFloat}) {
      auto product = random_product(shape, device, dtype);
      const bool plain = dtype == at::kHalf;
      if (plain) {
        product.bias = Tensor();
        product.scales = product.scales.narrow(0, 0, 1).clone();
      }
      // Columns 8 to 8 + n - 1 of rows that are 16 longer.
      auto whole = at::full({shape.m, shape.n + 16}, -77, product.rows.options().dtype(dtype));
      auto y = whole.narrow(1, 8, shape.n);
      std::string fault;
      if (!quant::cuda::multiply(y, product, tile)) fault = "refused";
      if (fault.empty()) fault = difference(y, product);
      auto beside = at::cat({whole.narrow(1, 0, 8), whole.narrow(1, shape.n + 8, 8)}, 1);
      if (fault.empty() && !beside.eq(-77).all().item<bool>()) fault = "wrote beside its slice";
      if (fault.empty()) continue;
      ++wrong;
      fmt::print("  WRONG {} {}: {}\n", shape.name(), c10::toString(dtype), fault);
      std::fflush(stdout);
    }
  return wrong;
}

/// About a twentieth of a second each.
double seconds_of(c10::Device device, const std::function<void()>& call) {
  const double once = time_calls(device, {2, 2, 1}, call);
  const int calls = std::clamp(static_cast<int>(0.01 / once), 2, 400);
  return time_calls(device, {1, calls, 5}, call);
}

void told(Json& list, const std::string& name, const Shape& shape, double seconds,
          const std::string& more) {
  list.push_back({{"kernel", name}, {"shape", shape.name()}, {"seconds", seconds}});
  fmt::print("  {:<18} {:>9.1f} us {:>8.1f} TOPS  {}\n", shape.name(), 1e6 * seconds,
             shape.operations() / seconds * 1e-12, more);
  std::fflush(stdout);
}

/// The tile's kernel on every shape. False where something was wrong.
bool run_tile(const Contestant& own, c10::Device device, Json& list) {
  bool right = check_odd(*own.tile, device) == 0;
  for (const auto& shape : kShapes) {
    auto product = random_product(shape, device, at::kBFloat16);
    auto y = at::zeros({shape.m, shape.n}, product.bias.options());
    const bool taken = quant::cuda::multiply(y, product, *own.tile);
    const auto fault = taken ? difference(y, product) : "refused";
    right = right && fault.empty();
    if (!taken) {
      fmt::print("  {}: {}\n", shape.name(), fault);
      continue;
    }
    std::string groups = fault.empty() ? "" : "WRONG: " + fault;
    const double usual = seconds_of(device, [&] { quant::cuda::multiply(y, product, *own.tile); });
    // For the largest, other orders of tiles, as the usual one's time over theirs.
    for (int group : {4, 8, 12, 32}) {
      if (shape.calls == 0 || shape.m < 4096) break;
      const double other = seconds_of(
          device, [&] { quant::cuda::multiply(y, product, *own.tile, {.group = group}); });
      groups += fmt::format(" {}:{:.3f}", group, usual / other);
    }
    if (own.tile->is_hopper)
      groups += fmt::format(" whole tiles:{:.3f}", usual / seconds_of(device, [&] {
                                                     quant::cuda::multiply(y, product, *own.tile,
                                                                           {.parts = 1});
                                                   }));
    told(list, own.name, shape, usual, groups);
  }
  return right;
}

bool run_torch(c10::Device device, Json& list) {
  for (const auto& shape : kShapes) {
    auto p = random_product(shape, device, at::kBFloat16);
    // cuBLASLt wants more rows than one.
    if (shape.m < 32) p.a = at::constant_pad_nd(p.a, {0, 0, 0, 32 - shape.m});
    const double sums = seconds_of(device, [&] { at::_int_mm(p.a, p.b.t()); });
    auto all = [&] {
      return quant::cuda::scaled(at::_int_mm(p.a, p.b.t()), p.rows, p.scales, p.bias,
                                 at::kBFloat16);
    };
    const double seconds = seconds_of(device, all);
    told(list, "torch", shape, seconds,
         fmt::format("the product alone {:.1f} us; {}", 1e6 * sums,
                     shape.m < 32 ? "" : difference(all(), p)));
  }
  return true;
}

bool run_bf16(c10::Device device, Json& list) {
  for (const auto& shape : kShapes) {
    const auto options = at::TensorOptions().dtype(at::kBFloat16).device(device);
    auto x = at::randn({shape.m, shape.k}, options), w = at::randn({shape.n, shape.k}, options);
    auto bias = at::randn({shape.n}, options);
    told(list, "bf16", shape, seconds_of(device, [&] { at::linear(x, w, bias); }), "");
  }
  return true;
}

/// Rows into whole numbers: the old kernel beside the new one, which is to give the same.
bool run_rows(c10::Device device, Json& list) {
  bool right = true;
  const quant::Levels levels = quant::kEightBits;
  for (std::int64_t width : {256, 3072, 12288, 15360, 20480})
    for (int rotated : {0, 256})
      for (auto dtype : {at::kBFloat16, at::kHalf, at::kFloat}) {
        auto x = at::randn({4608, width}, at::TensorOptions().dtype(at::kFloat).device(device));
        x[3].zero_();
        x[5][7] = INFINITY;
        x[6].mul_(1e-20);
        x = x.to(dtype);
        auto before = quant::cuda::whole_rows(x, 4608, rotated, levels);
        auto after = quant::cuda::int8_rows(x, 4640, rotated, levels);
        if (!after.first.defined()) {
          fmt::print("  {} {} {}: refused\n", width, rotated, c10::toString(dtype));
          right = false;
          continue;
        }
        const auto numbers = after.first.narrow(0, 0, 4608).ne(before.first).sum();
        const auto scales = at::nan_to_num(after.second, -1).ne(at::nan_to_num(before.second, -1));
        const auto rest = after.first.narrow(0, 4608, 32).ne(0).sum();
        const auto wrong = (numbers + scales.sum() + rest).item<std::int64_t>();
        right = right && wrong == 0;
        const double old =
            seconds_of(device, [&] { quant::cuda::whole_rows(x, 4608, rotated, levels); });
        const double now =
            seconds_of(device, [&] { quant::cuda::int8_rows(x, 4608, rotated, levels); });
        if (rotated && dtype == at::kBFloat16)
          list.push_back({{"kernel", "rows"}, {"width", width}, {"before", old}, {"seconds", now}});
        fmt::print("  4608x{} rotated {} {}: before {:.1f} us, now {:.1f} us ({:.0f} GB/s){}\n",
                   width, rotated, c10::toString(dtype), 1e6 * old, 1e6 * now,
                   static_cast<double>(x.numel() * (x.element_size() + 1)) / now * 1e-9,
                   wrong ? fmt::format("  WRONG: {} numbers, {} scales, {} of the rest",
                                       numbers.item<std::int64_t>(),
                                       scales.sum().item<std::int64_t>(), rest.item<std::int64_t>())
                         : "");
        std::fflush(stdout);
      }
  return right;
}

int run_one(const Contestant& one, c10::Device device, const std::string& path) {
  at::globalContext().lazyInitDevice(device.type());
  auto list = Json::array();
  const bool right = one.name == "bf16"    ? run_bf16(device, list)
                     : one.name == "torch" ? run_torch(device, list)
                     : one.name == "rows"  ? run_rows(device, list)
                                           : run_tile(one, device, list);
  write_file(path, list.dump(1));
  return right ? 0 : 2;
}

/// This program again for one contestant. What it had to say of its end.
std::string run_child(const std::vector<std::string>& words, double patience) {
  std::vector<char*> arguments;
  for (const auto& word : words) arguments.push_back(const_cast<char*>(word.c_str()));
  arguments.push_back(nullptr);
  const auto child = fork();
  if (child == 0) {
    execv("/proc/self/exe", arguments.data());
    _exit(127);
  }
  int status = 0;
  const double end = now_s() + patience;
  while (waitpid(child, &status, WNOHANG) == 0) {
    if (now_s() < end) {
      usleep(20000);
      continue;
    }
    kill(child, SIGKILL);
    waitpid(child, &status, 0);
    return fmt::format("HUNG: ended after {:.0f} s", patience);
  }
  if (WIFSIGNALED(status)) return fmt::format("DIED of signal {}", WTERMSIG(status));
  if (WEXITSTATUS(status) == 2) return "WRONG (see above)";
  return WEXITSTATUS(status) ? fmt::format("FAILED with {}", WEXITSTATUS(status)) : "right";
}

/// Of a step: every shape by each kernel, and by the fastest of ours.
void tell_step(const Json& all, const std::map<std::string, std::string>& ends) {
  std::map<std::string, std::map<std::string, double>> seconds;
  for (const auto& entry : all)
    if (entry.contains("shape"))
      seconds[entry["kernel"]][entry["shape"]] = entry["seconds"].get<double>();
  std::map<std::string, double> steps;
  double best = 0;
  fmt::print("\nfastest of ours that are right, and the same in TOPS\n");
  for (const auto& shape : kShapes) {
    double fastest = INFINITY;
    std::string who = "none";
    for (const auto& [name, of] : seconds) {
      const auto at = of.find(shape.name());
      if (at == of.end()) continue;
      steps[name] += shape.calls * at->second;
      const bool ours = name.find("mma") != std::string::npos && ends.at(name) == "right";
      if (ours && at->second < fastest) {
        fastest = at->second;
        who = name;
      }
    }
    best += shape.calls * fastest;
    fmt::print("  {:<18} {:>8.1f}  {}\n", shape.name(), shape.operations() / fastest * 1e-12, who);
  }
  fmt::print("\nproducts of a step of FLUX.1 at 1024 px, ms\n");
  for (const auto& [name, step] : steps) fmt::print("  {:<28} {:>7.2f}\n", name, 1e3 * step);
  fmt::print("  {:<28} {:>7.2f}\n\n", "the fastest of ours", 1e3 * best);
  for (const auto& [name, end] : ends) fmt::print("  {:<28} {}\n", name, end);
}

int run(const Args& args) {
  const auto device_name = args.get("--device", "cuda:0");
  const std::filesystem::path folder = args.get("--out", ".");
  const auto only = args.get("--only"), child = args.get("--child");
  const auto all = contestants();
  if (!child.empty())
    return run_one(all.at(std::stoul(child)), c10::Device(device_name), args.get("--results"));
  std::filesystem::create_directories(folder);
  auto list = Json::array();
  std::map<std::string, std::string> ends;
  for (std::size_t i = 0; i < all.size(); ++i) {
    if (all[i].name.find(only) == std::string::npos) continue;
    fmt::print("{}\n", all[i].name);
    std::fflush(stdout);
    const auto path = folder / "int8_product_child.json";
    std::filesystem::remove(path);
    ends[all[i].name] = run_child({"bench_gpu_int8_product", "--child", std::to_string(i),
                                   "--device", device_name, "--results", path.string()},
                                  args.number("--patience", 120));
    fmt::print("  {}\n", ends[all[i].name]);
    if (std::ifstream file(path); file)
      for (const auto& entry : Json::parse(file)) list.push_back(entry);
    std::filesystem::remove(path);
    write_file(folder / "int8_product.json", list.dump(1) + "\n");
  }
  tell_step(list, ends);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  return bench::run_program("bench_gpu_int8_product", argc, argv, run);
}
