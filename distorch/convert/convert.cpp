#include "distorch/convert/convert.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>

#include "distorch/base/error.h"
#include "distorch/base/run_token.h"
#include "distorch/base/text.h"
#include "distorch/convert/write_behind.h"
#include "distorch/weights/shards.h"

namespace distorch::convert {

using at::Tensor;
using formats::DType;

const char* const kLeftAlone =
    R"(norm|embed|_in\.|_out\.\d+\.weight$|final_layer|proj_out|patch|\btime|modulation)";

Rule parse_rule(const std::string& text) {
  const auto at = text.rfind('=');
  if (at == std::string::npos || at == 0)
    throw Error(ErrorKind::Usage, text, "is no rule; one is EXPRESSION=TYPE, 'norm|embed=bf16'");
  Rule rule{text, {}, nullptr};
  try {
    rule.names = std::regex(text.substr(0, at));
  } catch (const std::regex_error& error) {
    throw Error(ErrorKind::Usage, text, fmt::format("is no regular expression: {}", error.what()));
  }
  if (const auto type = text.substr(at + 1); type != "keep") rule.form = &form_named(type);
  return rule;
}

namespace {

/// Numbers of a piece: large enough for all threads, small beside what a process needs anyway.
constexpr std::int64_t kPiece = std::int64_t{4} << 20;
constexpr std::int64_t kAhead = 4;  // pieces

struct Job {
  Source source;
  std::unique_ptr<Encoder> encoder;  // null: its bytes as they are
  bool converted = false;            // into the form that was asked for

  std::vector<NewTensor> outputs() const {
    if (encoder) return encoder->outputs();
    return {{source.name, source.stored.dtype, source.stored.shape, {}}};
  }
};

/// How a weight stays that is not converted: as it is, or, where it is packed, as numbers.
std::unique_ptr<Encoder> kept(const Source& source) {
  return source.stored.encoding ? plain_encoder(source, DType::BF16) : nullptr;
}

/// Matrices and kernels that are called weights; what is left alone is not.
bool is_worth_converting(const Source& source) {
  static const std::regex left_alone(kLeftAlone);
  return source.stored.shape.size() >= 2 && source.name.ends_with("weight") &&
         !std::regex_search(source.name, left_alone);
}

bool writes_gguf(const Request& request) {
  return lower(request.to.extension().string()) == ".gguf";
}

/// What GGUF files have beside their blocks: float32 for vectors and what is tiny.
std::unique_ptr<Encoder> kept_in_gguf(const Source& source) {
  constexpr std::int64_t tiny = 1024;
  const auto& stored = source.stored;
  if (stored.shape.size() < 2 || c10::multiply_integers(stored.shape) <= tiny)
    return plain_encoder(source, DType::F32);
  const bool half = !stored.encoding && stored.dtype == DType::F16;
  return plain_encoder(source, half ? DType::F16 : DType::BF16);
}

Job job_of(Source source, const Request& request) {
  Job job{std::move(source), nullptr, false};
  if (!job.source.is_float()) return job;
  const auto* form = request.form;
  const auto rule = std::ranges::find_if(request.rules, [&](const Rule& one) {
    return std::regex_search(job.source.name, one.names);
  });
  const bool lossless = form->name == "packed";
  if (rule != request.rules.end())
    form = rule->form;
  else if (!form->plain && !lossless && !is_worth_converting(job.source))
    form = nullptr;
  // Names of companions are told by the weight's.
  if (form && !form->plain && !job.source.name.ends_with("weight")) form = nullptr;
  if (form) job.encoder = form->make(job.source);
  job.converted = job.encoder != nullptr;
  if (!job.encoder)
    job.encoder = writes_gguf(request) ? kept_in_gguf(job.source) : kept(job.source);
  return job;
}

/// Wide types first, as the official writer has them; what is converted last, for its tensors may
/// have any number of bytes.
void sort(std::vector<Job>& jobs) {
  auto place = [](const Job& job) {
    const auto first = job.outputs().front();
    return std::tuple(job.converted && first.dtype <= DType::F8_E8M0,
                      -static_cast<int>(first.dtype));
  };
  std::ranges::stable_sort(jobs, [&](const Job& a, const Job& b) { return place(a) < place(b); });
}

class Converting {
 public:
  Converting(const Request& request, Report& report, Output& output, std::int64_t all)
      : request_(request), report_(report), output_(output), all_(all), behind_(output) {}

  void run(Job& job) {
    if (!job.encoder) return copy(job);
    auto& encoder = *job.encoder;
    const auto reads = encoder.reads();
    if (encoder.looks())
      for_pieces(job, 0.5, [&](std::int64_t first, std::int64_t count) {
        encoder.look(read_rows(job.source, first, count, reads));
      });
    const auto outputs = encoder.outputs();
    std::vector<std::int64_t> places;
    for (const auto& tensor : outputs) places.push_back(output_.place(tensor));
    for_pieces(job, encoder.looks() ? 0.5 : 1, [&](std::int64_t first, std::int64_t count) {
      auto pieces = encoder.encode(read_rows(job.source, first, count, reads), first);
      for (std::size_t i = 0; i < pieces.size(); ++i) {
        if (!pieces[i].defined()) continue;
        const auto bytes = pieces[i].contiguous();
        write(*job.source.stored.file->mapping(), places[i], bytes);
        places[i] += static_cast<std::int64_t>(bytes.nbytes());
      }
    });
    if (!job.converted) return;
    report_.numbers += c10::multiply_integers(job.source.stored.shape);
    for (const auto& tensor : outputs) report_.converted_bytes += tensor.size_bytes();
  }

  /// Returns when all has been written.
  void finish() { behind_.finish(); }

 private:
  /// What lies in the mapped file has to be written before its pages are given back; the rest in
  /// its own time.
  void write(const formats::MappedFile& file, std::int64_t offset, const Tensor& bytes) {
    const auto* begin = static_cast<const std::byte*>(bytes.const_data_ptr());
    const auto all = file.bytes();
    if (begin >= all.data() && begin < all.data() + all.size())
      output_.write(offset, {reinterpret_cast<const char*>(begin), bytes.nbytes()});
    else
      behind_.write(offset, bytes);
  }

  /// Calls work(first row, rows) for all pieces of the weight; `share` of its bytes are done then.
  template <class Work>
  void for_pieces(const Job& job, double share, const Work& work) {
    const auto rows = job.source.rows();
    const auto row_bytes = rows ? job.source.stored.size_bytes / rows : 0;
    const auto step = std::max<std::int64_t>(
        1, kPiece / std::max<std::int64_t>(1, job.source.numbers_of_a_row()));
    for (std::int64_t first = 0; first < rows; first += step) {
      throw_if_interrupted();
      const auto count = std::min(step, rows - first);
      const auto& stored = job.source.stored;
      const auto& file = *stored.file->mapping();
      auto stretch = [&](std::int64_t row, std::int64_t some) {
        const auto begin = stored.offset_bytes + row * row_bytes;
        const auto end =
            std::min(begin + some * row_bytes, stored.offset_bytes + stored.size_bytes);
        return formats::ByteRange{static_cast<std::size_t>(begin),
                                  static_cast<std::size_t>(std::max(begin, end) - begin)};
      };
      // The disk is to be a few pieces ahead.
      if (first == 0) file.will_need(stretch(0, std::min(kAhead * step, rows)));
      if (const auto next = first + kAhead * step; next < rows)
        file.will_need(stretch(next, std::min(step, rows - next)));
      work(first, count);
      file.check();
      file.dont_need(stretch(first, count));
      done_ += share * static_cast<double>(count * row_bytes);
      if (request_.progress) request_.progress(static_cast<std::int64_t>(done_), all_);
    }
    for (const auto& part : job.source.stored.parts)
      if (part.file) part.file->mapping()->dont_need(part.range());
  }

  void copy(const Job& job) {
    constexpr std::size_t piece = std::size_t{16} << 20;
    const auto& stored = job.source.stored;
    const auto& file = *stored.file->mapping();
    auto place = output_.place(job.outputs().front());
    for (std::size_t at = 0; at < stored.range().size; at += piece) {
      throw_if_interrupted();
      const formats::ByteRange range{stored.range().offset + at,
                                     std::min(piece, stored.range().size - at)};
      const auto bytes = file.bytes(range);
      output_.write(place, {reinterpret_cast<const char*>(bytes.data()), bytes.size()});
      file.check();
      file.dont_need(range);
      place += static_cast<std::int64_t>(bytes.size());
      done_ += static_cast<double>(bytes.size());
      if (request_.progress) request_.progress(static_cast<std::int64_t>(done_), all_);
    }
  }

  const Request& request_;
  Report& report_;
  Output& output_;
  std::int64_t all_;
  double done_ = 0;
  WriteBehind behind_;
};

std::vector<const Form*> forms_of(const Request& request) {
  std::vector<const Form*> forms{request.form};
  for (const auto& rule : request.rules)
    if (rule.form) forms.push_back(rule.form);
  return forms;
}

std::vector<std::shared_ptr<const formats::TensorFile>> open_all(const Request& request) {
  std::vector<std::shared_ptr<const formats::TensorFile>> files;
  for (const auto& path : weights::complete_shards_of(request.from)) {
    std::error_code ignored;
    if (std::filesystem::equivalent(path, request.to, ignored))
      throw Error(ErrorKind::Usage, request.to.string(), "is read and cannot be written as well");
    files.push_back(std::make_shared<formats::TensorFile>(formats::open_tensor_file(path)));
  }
  return files;
}

}  // namespace

namespace {

/// GGUF holds one network, whose names have no prefix: of a checkpoint, the diffusion model.
weights::Checkpoint network_of(const weights::Checkpoint& all) {
  const std::string prefix = "model.diffusion_model.";
  return all.has_prefix(prefix) ? all.part(prefix) : all;
}

void check(const Request& request) {
  const bool gguf = writes_gguf(request);
  if (request.form->gguf && !gguf)
    throw Error(ErrorKind::Usage, request.to.string(),
                fmt::format("must end in .gguf for type {}", request.form->name));
  for (const auto* form : forms_of(request)) {
    if (gguf && !form->gguf && !form->plain)
      throw Error(ErrorKind::Usage, request.to.string(),
                  fmt::format("is to be GGUF, which has no type {}", form->name));
    if (!gguf && form->gguf)
      throw Error(ErrorKind::Usage, request.to.string(),
                  fmt::format("must end in .gguf: a rule wants type {}", form->name));
  }
}

}  // namespace

Report convert(const Request& request) {
  check(request);
  Report report;
  const auto files = open_all(request);
  const bool gguf = writes_gguf(request);
  auto checkpoint = weights::joined_shards(files);
  if (gguf) checkpoint = network_of(checkpoint);
  auto metadata = files.front()->metadata();
  // It says how the source's weights are packed.
  metadata.erase("_quantization_metadata");

  std::vector<Job> jobs;
  for (const auto& [name, stored] : checkpoint.tensors()) {
    auto& job = jobs.emplace_back(job_of({name, stored}, request));
    for (const auto& part : weights::tensors_of(stored)) report.bytes_before += part.size_bytes;
    (job.converted ? report.converted : report.kept) += 1;
  }
  sort(jobs);
  std::vector<NewTensor> most;
  for (const auto& job : jobs)
    for (auto& tensor : job.outputs()) most.push_back(std::move(tensor));
  if (gguf && !request.architecture.empty())
    metadata["general.architecture"] = request.architecture;
  auto output = gguf ? gguf_output(request.to, most, metadata)
                     : safetensors_output(request.to, most, metadata);
  Converting converting(request, report, *output, report.bytes_before);
  for (auto& job : jobs) {
    converting.run(job);
    job.encoder.reset();
  }
  converting.finish();
  report.bytes_after = output->finish();
  return report;
}

}  // namespace distorch::convert
