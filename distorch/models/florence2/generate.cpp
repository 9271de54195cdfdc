#include "distorch/models/florence2/generate.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <nlohmann/json.hpp>

#include "distorch/base/error.h"

namespace distorch::models::florence2 {

using at::Tensor;
using Ids = std::vector<std::int64_t>;
using Json = nlohmann::json;

namespace {

constexpr double kNever = -1e9;  // less than the score of any text
constexpr auto kImpossible = -std::numeric_limits<float>::infinity();

/// An entry that is a whole number or null; `otherwise` where it is missing.
std::int64_t number_in(const Json& json, const char* entry, std::int64_t otherwise,
                       const std::string& where) {
  const auto found = json.find(entry);
  if (found == json.end()) return otherwise;
  if (found->is_null()) return -1;
  if (!found->is_number_integer() || found->get<double>() < -1 || found->get<double>() > 1e9)
    throw Error(
        ErrorKind::Format, where,
        fmt::format("'{}' holds {}, which is no token and no number", entry, found->dump()));
  return found->get<std::int64_t>();
}

/// What both ways of writing share.
class Writer {
 public:
  Writer(const Language& language, const Tensor& encoded, const GenerationConfig& config,
         const GenerateOptions& options, at::Generator& generator,
         const std::function<void(std::int64_t)>& written)
      : language_(language),
        config_(config),
        options_(options),
        limit_(1 + options.new_tokens),
        device_(encoded.device()),
        state_(language.begin(encoded)),
        generator_(generator),
        written_(written) {}

  Ids one();
  Ids beams();

 private:
  /// Scores of what may follow the last tokens of these rows, which are as many as before: [N, V] on
  /// the CPU.
  Tensor next(const std::vector<Ids>& rows) {
    if (written_) written_(static_cast<std::int64_t>(rows[0].size()) - 1);
    Ids last;
    for (const auto& row : rows) last.push_back(row.back());
    auto ids = at::tensor(last, at::kLong).unsqueeze(1).to(device_);
    return language_.next(ids, state_).to(at::kCPU, at::kFloat);
  }

  void forbid_repeats(Tensor& scores, const std::vector<Ids>& rows) const;
  /// The scores without those that may not be taken.
  Tensor allowed(const Tensor& scores, const std::vector<Ids>& rows) const;
  bool ends(const Ids& ids) const {
    return ids.back() == config_.end || static_cast<std::int64_t>(ids.size()) >= limit_;
  }

  const Language& language_;
  const GenerationConfig& config_;
  const GenerateOptions& options_;
  std::int64_t limit_;  // tokens, the first one too
  at::Device device_;
  DecoderState state_;
  at::Generator& generator_;
  const std::function<void(std::int64_t)>& written_;
};

/// A token that would end a row of tokens which the text has already.
void Writer::forbid_repeats(Tensor& scores, const std::vector<Ids>& rows) const {
  auto values = scores.accessor<float, 2>();
  const auto before = config_.no_repeat - 1;
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const auto& ids = rows[i];
    const auto length = static_cast<std::int64_t>(ids.size());
    for (std::int64_t at = 0; at + before < length; ++at)
      if (std::equal(ids.begin() + at, ids.begin() + at + before, ids.end() - before))
        values[static_cast<std::int64_t>(i)][ids[static_cast<std::size_t>(at + before)]] =
            kImpossible;
  }
}

Tensor Writer::allowed(const Tensor& all, const std::vector<Ids>& rows) const {
  auto scores = all.clone();
  const auto length = static_cast<std::int64_t>(rows[0].size());
  auto only = [&](std::int64_t token) {
    scores.fill_(kImpossible);
    scores.select(1, token).zero_();
  };
  if (config_.no_repeat > 0 && length + 1 >= config_.no_repeat) forbid_repeats(scores, rows);
  if (config_.forced_first >= 0 && length == 1) only(config_.forced_first);
  if (config_.forced_last >= 0 && length == limit_ - 1) only(config_.forced_last);
  if (options_.draws && config_.top_k > 0) {
    // Beams need a token that goes on beside the one that ends.
    const std::int64_t least = options_.beams > 1 ? 2 : 1;
    const auto count = std::min(std::max(config_.top_k, least), scores.size(1));
    auto lowest = std::get<0>(scores.topk(count)).narrow(1, count - 1, 1);
    scores.masked_fill_(scores < lowest, kImpossible);
  }
  return scores;
}

Ids Writer::one() {
  std::vector<Ids> rows = {{config_.start}};
  do {
    auto scores = allowed(next(rows), rows);
    auto token = options_.draws ? at::multinomial(scores.softmax(-1), 1, false, generator_)
                                : scores.argmax(-1);
    rows[0].push_back(token.item<std::int64_t>());
  } while (!ends(rows[0]));
  return rows[0];
}

/// So many texts with their scores [1, n].
struct Beams {
  Beams(std::size_t count, std::int64_t start)
      : texts(count, Ids{start}),
        ended(count, false),
        scores(at::full({1, static_cast<std::int64_t>(count)}, kNever, at::kFloat)) {}

  bool all_ended() const { return std::find(ended.begin(), ended.end(), false) == ended.end(); }

  std::vector<Ids> texts;
  std::vector<bool> ended;
  Tensor scores;
};

/// What may come next: twice as many texts as there are beams, so that enough go on where all of the
/// best ones end.
struct Candidates {
  std::vector<Ids> texts;
  Ids beams;                // which beam each goes on from
  std::vector<float> ends;  // 1 or 0
  Tensor scores;            // [1, 2 n]

  Tensor mask(const std::vector<float>& values) const { return at::tensor(values).unsqueeze(0); }
};

/// The numbers of the best of scores [1, N].
Ids best_of(const Tensor& scores, std::int64_t count) {
  auto which = std::get<1>(scores.topk(count)).squeeze(0).contiguous();
  return {which.const_data_ptr<std::int64_t>(), which.const_data_ptr<std::int64_t>() + count};
}

Tensor scores_at(const Tensor& scores, const Ids& which) {
  return scores.index_select(1, at::tensor(which, at::kLong));
}

/// The best candidates that go on become the beams; from which beams they came.
Ids go_on(Beams& running, const Candidates& candidates) {
  auto scores = candidates.scores + candidates.mask(candidates.ends) * kNever;
  const auto best = best_of(scores, static_cast<std::int64_t>(running.texts.size()));
  Ids from;
  for (std::size_t i = 0; i < best.size(); ++i) {
    const auto which = static_cast<std::size_t>(best[i]);
    running.texts[i] = candidates.texts[which];
    from.push_back(candidates.beams[which]);
  }
  running.scores = scores_at(scores, best);
  return from;
}

/// Candidates that end and are among the best take the places of finished texts that are worse.
/// `full`: no more are wanted; `improvable`: what goes on could still be better than they are.
void finish(Beams& finished, const Candidates& candidates, bool full, bool improvable) {
  const auto count = finished.texts.size();
  const auto length = static_cast<double>(candidates.texts[0].size() - 1);
  std::vector<float> going_on, ends;
  for (std::size_t i = 0; i < candidates.texts.size(); ++i) {
    ends.push_back(i < count ? candidates.ends[i] : 0.0f);
    going_on.push_back(1.0f - ends.back());
  }
  auto scores = candidates.scores / length;
  if (full) scores = scores + kNever;
  if (!improvable) scores = scores + kNever;
  scores = scores + candidates.mask(going_on) * kNever;
  auto merged = at::cat({finished.scores, scores}, 1);
  const auto best = best_of(merged, static_cast<std::int64_t>(count));
  auto before = finished;
  for (std::size_t i = 0; i < count; ++i) {
    const auto which = static_cast<std::size_t>(best[i]);
    const bool kept = which < count;
    finished.texts[i] = kept ? before.texts[which] : candidates.texts[which - count];
    finished.ended[i] = kept ? before.ended[which] : ends[which - count] > 0;
  }
  finished.scores = scores_at(merged, best);
}

/// Whether the best text that goes on could still be better than a finished one.
bool could_improve(const Beams& running, const Beams& finished) {
  const auto length = static_cast<double>(running.texts[0].size() - 1);
  const auto best = running.scores.select(1, 0) / length;
  const auto worst = finished.scores.min();
  for (bool ended : finished.ended)
    if ((best > (ended ? worst : at::full({}, kNever, at::kFloat))).item<bool>()) return true;
  return false;
}

Ids Writer::beams() {
  const auto count = options_.beams;
  const auto places = static_cast<std::size_t>(count);
  Beams running(places, config_.start), finished(places, config_.start);
  // The first beam alone counts at first, or all would write the same.
  running.scores.select(1, 0).zero_();
  bool improvable = true;
  for (;;) {
    auto scores = allowed(next(running.texts).log_softmax(-1), running.texts);
    const auto words = scores.size(1);
    scores = (scores.unsqueeze(0) + running.scores.unsqueeze(2)).view({1, count * words});
    Candidates candidates;
    Tensor which;
    if (options_.draws) {
      which = at::multinomial(scores.softmax(-1), 2 * count, false, generator_);
      candidates.scores = scores.gather(1, which);
    } else {
      std::tie(candidates.scores, which) = scores.topk(2 * count);
    }
    for (std::int64_t i = 0; i < 2 * count; ++i) {
      const auto place = which[0][i].item<std::int64_t>();
      candidates.beams.push_back(place / words);
      candidates.texts.push_back(running.texts[static_cast<std::size_t>(place / words)]);
      candidates.texts.back().push_back(place % words);
      candidates.ends.push_back(ends(candidates.texts.back()) ? 1.0f : 0.0f);
    }
    const auto from = go_on(running, candidates);
    finish(finished, candidates, finished.all_ended() && config_.early_stopping, improvable);
    improvable = improvable && could_improve(running, finished);
    const bool none_goes_on =
        std::find(candidates.ends.begin(), candidates.ends.end(), 0.0f) == candidates.ends.end();
    if (!improvable || (finished.all_ended() && config_.early_stopping) || none_goes_on)
      return finished.texts[0];
    state_ = state_.rows(at::tensor(from, at::kLong));
  }
}

}  // namespace

GenerationConfig read_generation_config(const std::string& text, const std::string& where) {
  const auto json = Json::parse(text, nullptr, false);
  const auto entries = json.is_object() ? json.value("text_config", Json()) : Json();
  if (!entries.is_object()) throw Error(ErrorKind::Format, where, "has no object 'text_config'");
  auto number = [&](const char* entry, std::int64_t otherwise) {
    return number_in(entries, entry, otherwise, where);
  };
  GenerationConfig config;
  config.start = number("decoder_start_token_id", 2);
  config.end = number("eos_token_id", 2);
  config.forced_first = number("forced_bos_token_id", -1);
  config.forced_last = number("forced_eos_token_id", 2);
  config.no_repeat = std::max<std::int64_t>(0, number("no_repeat_ngram_size", 0));
  config.top_k = std::max<std::int64_t>(0, number("top_k", 50));
  const auto early = entries.find("early_stopping");
  config.early_stopping = early != entries.end() && early->is_boolean() && early->get<bool>();
  return config;
}

std::vector<std::int64_t> generate(const Language& language, const Tensor& encoded,
                                   const GenerationConfig& config, const GenerateOptions& options,
                                   at::Generator& generator,
                                   const std::function<void(std::int64_t)>& written) {
  Writer writer(language, encoded, config, options, generator, written);
  return options.beams > 1 ? writer.beams() : writer.one();
}

}  // namespace distorch::models::florence2
