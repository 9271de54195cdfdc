#include "distorch/models/audio/wav2vec2.h"

#include "distorch/base/error.h"
#include "tests/models/tiny.h"

using namespace distorch;
using namespace distorch::test;
using namespace distorch::models::audio;
using at::Tensor;

namespace {

struct Loaded {
  explicit Loaded(const std::map<std::string, Tensor>& tensors)
      : file(tensors),
        part(wav2vec2_part(*file)),
        net(wav2vec2_config(part)),
        source(net.manifest(), part, at::kFloat) {
    check_complete(net.manifest(), part, "audio encoder");
  }
  TemporaryCheckpoint file;
  weights::Checkpoint part;
  Wav2Vec2 net;
  TwiceSource source;
};

Tensor sound() { return tiny_weight("sound", {1, 2, 4000}) * 30; }

}  // namespace

TEST_CASE("wav2vec 2.0: both forms hear what ComfyUI's and transformers' hear") {
  for (std::string form : {"wav2vec2", "wav2vec2_base"}) {
    CAPTURE(form);
    Loaded l(tiny_tensors({form}));
    CHECK(l.net.config().large == (form == "wav2vec2"));
    CHECK(l.net.config().position_kernel == 128);
    auto states = l.net.hear(sound());
    REQUIRE(states.size() == 3);
    CHECK(Wav2Vec2::states(4000) == states[0].size(1));
    Dump dump(form);
    for (std::size_t i = 0; i < states.size(); ++i)
      CHECK(difference(states[i], dump["states/" + std::to_string(i)]) < 1e-4);
    CHECK(l.source.runs.size() == l.net.manifest().blocks().size());
  }
}

TEST_CASE("wav2vec 2.0: older names, and a sound that is too short") {
  auto tensors = tiny_tensors({"wav2vec2"});
  std::map<std::string, Tensor> older;
  for (const auto& [name, tensor] : tensors) {
    auto text = "wav2vec2." + name;
    for (auto [from, to] : {std::pair("parametrizations.weight.original0", "weight_g"),
                            std::pair("parametrizations.weight.original1", "weight_v")})
      if (auto at = text.find(from); at != std::string::npos)
        text.replace(at, std::string(from).size(), to);
    older[text] = tensor;
  }
  Loaded l(older);
  CHECK(difference(l.net.hear(sound()).back(), Dump("wav2vec2")["states/2"]) < 1e-4);
  CHECK_THROWS_WITH_AS(l.net.hear(at::zeros({1, 1, 399})), doctest::Contains("got 399"), Error);
  CHECK(wav2vec2_part(*TemporaryCheckpoint(tiny_tensors({"wan_t2v"}))).empty());
}
