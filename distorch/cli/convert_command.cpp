#include <fmt/format.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <map>
#include <memory>

#include "distorch/base/log.h"
#include "distorch/base/units.h"
#include "distorch/cli/commands.h"
#include "distorch/convert/convert.h"
#include "distorch/models/catalog.h"
#include "distorch/weights/shards.h"

namespace distorch::cli {
namespace {

struct Options {
  std::string from, to, type;
  std::vector<std::string> keep;
  bool quiet = false;
};

std::string types_text() {
  std::string text;
  for (const auto& form : convert::forms()) {
    const auto part = form.gguf ? form.name : fmt::format("{} ({})", form.name, form.what);
    text += (text.empty() ? "" : ", ") + part;
  }
  return text;
}

/// How ComfyUI-GGUF and stable-diffusion.cpp call the kind of model; empty where they have no word.
std::string architecture_of(const std::string& file) {
  static const std::map<std::string, std::string> names = {
      {"FLUX.1", "flux"},     {"FLUX.2", "flux"},       {"SD1.x", "sd1"},
      {"SDXL", "sdxl"},       {"SDXL refiner", "sdxl"}, {"SD3", "sd3"},
      {"Z-Image", "lumina2"}, {"Lumina 2", "lumina2"},  {"Qwen-Image", "qwen_image"}};
  std::vector<std::shared_ptr<const formats::TensorFile>> files;
  for (const auto& path : weights::complete_shards_of(file))
    files.push_back(std::make_shared<formats::TensorFile>(formats::open_tensor_file(path)));
  const auto family = models::find_family(weights::joined_shards(files));
  if (!family) return {};
  const auto at = names.find(family->name());
  return at == names.end() ? std::string() : at->second;
}

/// One line on a terminal, written anew as bytes are done.
class Bar {
 public:
  explicit Bar(bool quiet) : shown_(!quiet && ::isatty(STDERR_FILENO) != 0) {}
  ~Bar() {
    if (open_) fmt::print(stderr, "\r\x1b[K");
  }
  void show(std::int64_t done, std::int64_t all) {
    using namespace std::chrono;
    if (!shown_) return;
    const auto now = steady_clock::now();
    if (open_ && now - last_ < milliseconds(100)) return;
    last_ = now;
    open_ = true;
    constexpr int width = 30;
    const double share = all > 0 ? static_cast<double>(done) / static_cast<double>(all) : 1;
    const double elapsed = duration<double>(now - start_).count();
    const auto filled = static_cast<int>(share * width);
    fmt::print(stderr, "\r\x1b[K[{:#<{}}{:.<{}}] {} of {}, {}/s, {} left", "", filled, "",
               width - filled, human_bytes(static_cast<double>(done)),
               human_bytes(static_cast<double>(all)),
               human_bytes(static_cast<double>(done) / std::max(elapsed, 1e-3)),
               human_seconds(share > 0 ? elapsed / share - elapsed : 0));
    std::fflush(stderr);
  }

 private:
  bool shown_, open_ = false;
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now(), last_;
};

int convert_file(const Options& options) {
  // A file that grows beyond a limit is an error of the write, not the end of the process.
  std::signal(SIGXFSZ, SIG_IGN);
  convert::Request request{.from = options.from, .to = options.to};
  request.form = &convert::form_named(options.type);
  for (const auto& text : options.keep) request.rules.push_back(convert::parse_rule(text));
  if (request.to.extension() == ".gguf") {
    request.architecture = architecture_of(options.from);
    if (request.architecture.empty())
      log::warn("{} is of no kind that GGUF has a name for: other programs may not know it",
                options.from);
  }
  auto bar = std::make_unique<Bar>(options.quiet);
  request.progress = [&](std::int64_t done, std::int64_t all) { bar->show(done, all); };
  const auto report = convert::convert(request);
  bar.reset();
  if (options.quiet) return 0;
  fmt::print("{}: {} from {} of weights; {} weights are {}", options.to,
             human_bytes(static_cast<double>(report.bytes_after)),
             human_bytes(static_cast<double>(report.bytes_before)), report.converted, options.type);
  if (report.numbers > 0)
    fmt::print(" ({:.2f} bits a number)", 8.0 * static_cast<double>(report.converted_bytes) /
                                              static_cast<double>(report.numbers));
  fmt::print(", {} others\n", report.kept);
  return 0;
}

}  // namespace

void add_convert_command(CLI::App& app, Action& chosen) {
  auto options = std::make_shared<Options>();
  auto* command = app.add_subcommand("convert", "Write a model file in another form");
  command->fallthrough();
  command
      ->add_option("in", options->from,
                   "A .safetensors, .gguf, .pt, .pth, .ckpt or .bin file; of a model in several "
                   "files any one, or their index")
      ->required();
  command->add_option("out", options->to, "The file to write: .safetensors, or .gguf")->required();
  command->add_option("--type", options->type, types_text())->required();
  command->add_option("--keep", options->keep,
                      "EXPRESSION=TYPE: weights whose name the regular expression is found in "
                      "become TYPE, or stay with =keep. First rule that fits. Types of few bits "
                      "leave alone by themselves: vectors and " +
                          std::string(convert::kLeftAlone));
  command->add_flag("--quiet", options->quiet, "No progress bar, no summary");
  command->callback([options, &chosen] { chosen = [options] { return convert_file(*options); }; });
}

}  // namespace distorch::cli
