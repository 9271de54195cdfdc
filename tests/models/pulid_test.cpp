// PuLID's networks and those for faces beside the packs' own: tests/parity/pulid.safetensors.
#include "distorch/base/error.h"
#include "distorch/models/pulid_faces/onnx_network.h"
#include "distorch/models/pulid_faces/scrfd.h"
#include "tests/models/pulid_weights.h"

using namespace distorch;
using namespace distorch::test;
using at::Tensor;
using namespace distorch::models::pulid;
using namespace distorch::models::pulid_faces;

namespace {

formats::OnnxFile onnx_file(const std::string& name) {
  return formats::read_onnx(parity_dir() / "pulid" / (name + ".onnx"));
}

/// A network of an ONNX file with its weights.
struct Onnx {
  explicit Onnx(const std::string& name, std::int64_t part_bytes = std::int64_t{8} << 20)
      : file(onnx_file(name)),
        network(file.graph, name, part_bytes),
        source(network.manifest(), weights::Checkpoint(file.tensors), at::kFloat) {}
  formats::OnnxFile file;
  OnnxNetwork network;
  TwiceSource source;
};

/// A small graph of one node.
formats::OnnxGraph graph_of(formats::OnnxNode node) {
  formats::OnnxGraph graph;
  graph.opset = 11;
  node.inputs.insert(node.inputs.begin(), "x");
  node.outputs = {"y"};
  graph.nodes = {std::move(node)};
  graph.inputs = {{"x", {1, 2, -1, -1}}};
  graph.outputs = {{"y", {}}};
  return graph;
}

/// What a graph says when it is made or run.
std::string error_of(const formats::OnnxGraph& graph) {
  try {
    OnnxNetwork network(graph, "file.onnx");
    PlainSource source(network.manifest(), [](const auto& w) { return at::zeros(w.shape); });
    network.forward(at::zeros({1, 2, 4, 4}));
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

double apart(const Point& p, const Tensor& wanted, std::int64_t i) {
  return std::hypot(p.x - wanted[i][0].item<double>(), p.y - wanted[i][1].item<double>());
}

}  // namespace

TEST_CASE("PuLID: the picture encoder") {
  EvaVision made(tiny_eva());
  TemporaryCheckpoint file(pulid_tensors(made.manifest(), "module.visual.", "visual."));
  const auto part = eva_part(*file);
  const auto config = eva_config(part);
  CHECK(config.image_size() == 42);
  EvaVision model(config);
  check_complete(model.manifest(), part, "EVA");
  TwiceSource source(model.manifest(), part, at::kFloat);
  Dump dump("pulid");
  const auto states = model.forward(tiny_weight("pixels", {2, 3, 42, 42}));
  CHECK(difference(states.embeds, dump["eva.embeds"]) < 1e-4);
  CHECK(states.hidden.size() == 5);
  CHECK(difference(at::stack(states.hidden).narrow(2, 0, 3), dump["eva.hidden"]) < 1e-4);
  CHECK(source.runs.size() == 23);

  // The published one is told by its shapes.
  EvaVision published({});
  const auto told = eva_config(eva_part(shapes_only(published.manifest(), "visual.")));
  CHECK(told.image_size() == 336);
  CHECK(told.mlp_width == 2730);
  CHECK(told.heads == 16);
  CHECK_THROWS_WITH(eva_part(shapes_only(published.manifest(), "text.")),
                    doctest::Contains("EVA02_CLIP_L_336_psz14_s6B.pt"));
  auto few = tiny_eva();
  few.layers = 20;
  EvaVision shallow(few);
  CHECK_THROWS_WITH(eva_config(shapes_only(shallow.manifest())),
                    doctest::Contains("has 20 layers, and PuLID looks at layer 20"));
}

TEST_CASE("PuLID: the adapter") {
  Adapter made(tiny_pulid());
  TemporaryCheckpoint file(pulid_tensors(made.manifest()));
  const auto part = adapter_part(*file);
  const auto config = adapter_config(part);
  CHECK(config.layers.size() == 70);
  Adapter adapter(config);
  check_complete(adapter.manifest(), part, "PuLID");
  TwiceSource source(adapter.manifest(), part, at::kFloat);
  EvaVision eva(tiny_eva());
  PlainSource seeing(eva.manifest(), [](const weights::Declared& w) {
    return pulid_weight("visual." + w.name, w.shape);
  });
  const auto states = eva.forward(tiny_weight("pixels", {2, 3, 42, 42}));
  std::vector<Tensor> described = {tiny_weight("identity", {2, 40})};
  for (const auto& hidden : states.hidden) described.push_back(hidden.flatten(1));
  const auto tokens = adapter.tokens_of(at::cat(described, 1));
  Dump dump("pulid");
  CHECK(difference(tokens, dump["adapter.tokens"]) < 1e-4);
  const auto heads = adapter.heads_of(tokens);
  // Of layer 1 the values come behind 128 keys, layer 9 behind four layers of 256 numbers.
  CHECK(difference(heads.narrow(2, 128, 16), dump["adapter.value"]) < 1e-4);
  CHECK(difference(heads.narrow(2, 4 * 256, 16), dump["adapter.key"]) < 1e-4);
  CHECK_THROWS_WITH(adapter.tokens_of(at::zeros({1, 100})),
                    doctest::Contains("got 100 numbers in all"));
  auto wrong = pulid_tensors(made.manifest());
  wrong["image_proj.body.6.bias"] = at::zeros({150});
  wrong["image_proj.body.6.weight"] = at::zeros({150, 80});
  TemporaryCheckpoint uneven(wrong);
  CHECK_THROWS_WITH(adapter_config(adapter_part(*uneven)),
                    doctest::Contains("'image_proj.body.6.weight' has 150 rows"));
  CHECK_THROWS_WITH(adapter_part(shapes_only(eva.manifest())), doctest::Contains("holds no PuLID"));
}

TEST_CASE("PuLID: facexlib's networks") {
  Dump dump("pulid");
  RetinaFace made(tiny_retina());
  TemporaryCheckpoint cutter_file(pulid_tensors(made.manifest(), "module."));
  const auto cutter_part = retina_face_part(*cutter_file);
  RetinaFace cutter(retina_face_config(cutter_part));
  check_complete(cutter.manifest(), cutter_part, "RetinaFace");
  TwiceSource cutting(cutter.manifest(), cutter_part, at::kFloat);
  const auto found = cutter.forward(tiny_weight("cutter", {1, 3, 72, 88}) * 300);
  CHECK(difference(found[0].narrow(0, 0, 60), dump["cutter.boxes"]) < 1e-4);
  CHECK(difference(found[1], dump["cutter.scores"]) < 1e-4);
  CHECK(difference(found[2].narrow(0, 0, 60), dump["cutter.marks"]) < 1e-4);

  BiSeNet usual(tiny_bisenet());
  TemporaryCheckpoint parts_file(pulid_tensors(usual.manifest()));
  const auto part = bisenet_part(*parts_file);
  BiSeNet bisenet(bisenet_config(part));
  check_complete(bisenet.manifest(), part, "BiSeNet");
  TwiceSource seeing(bisenet.manifest(), part, at::kFloat);
  const auto parts = bisenet.forward(tiny_weight("parts", {1, 3, 64, 96}) * 20);
  CHECK(difference(parts.slice(2, 0, 64, 4).slice(3, 0, 96, 4), dump["parts"]) < 1e-4);
  CHECK_THROWS_WITH(bisenet_part(*cutter_file), doctest::Contains("parsing_bisenet.pth"));
  CHECK_THROWS_WITH(retina_face_part(*parts_file),
                    doctest::Contains("detection_Resnet50_Final.pth"));
}

TEST_CASE("PuLID: networks of ONNX files compute what onnxruntime does") {
  Dump dump("pulid");
  const std::vector<std::tuple<std::string, std::vector<std::int64_t>, double, std::size_t>> cases =
      {{"det", {1, 3, 64, 96}, 20, 9},
       {"arc", {1, 3, 112, 112}, 20, 1},
       {"operators", {1, 4, 7, 10}, 1, 2}};
  for (const auto& one : cases) {
    const auto& name = std::get<0>(one);
    const auto outputs = std::get<3>(one);
    CAPTURE(name);
    Onnx onnx(name);
    const auto results =
        onnx.network.forward(tiny_weight(name, std::get<1>(one)) * std::get<2>(one));
    REQUIRE(results.size() == outputs);
    // In many blocks too, which hand weights on to each other that several levels share.
    Onnx pieces(name, 1);
    CHECK(pieces.network.manifest().blocks().size() > 2);
    const auto same =
        pieces.network.forward(tiny_weight(name, std::get<1>(one)) * std::get<2>(one));
    for (std::size_t i = 0; i < outputs; ++i) CHECK(at::equal(same[i], results[i]));
    for (std::size_t i = 0; i < outputs; ++i)
      CHECK(difference(results[i], dump[name + "." + std::to_string(i)]) < 1e-4);
  }
  CHECK((task_of(onnx_file("det").graph) == FaceTask::Detection));
  CHECK((task_of(onnx_file("arc").graph) == FaceTask::Recognition));
  CHECK((task_of(onnx_file("operators").graph) == FaceTask::Other));
}

TEST_CASE("PuLID: what an ONNX file may not hold is said by name") {
  using formats::OnnxAttribute;
  CHECK(error_of(graph_of({.name = "loop", .type = "Loop"}))
            .find("node 'loop' is 'Loop', which is not supported") != std::string::npos);
  CHECK(error_of(graph_of({.name = "n", .type = "Add", .inputs = {"nowhere"}}))
            .find("node 'n' takes 'nowhere', which nothing before it gives") != std::string::npos);
  CHECK(error_of(graph_of({.name = "n",
                           .type = "Resize",
                           .attributes = {{"mode", OnnxAttribute{.text = "cubic"}}}}))
            .find("has mode 'cubic'; 'nearest' is supported") != std::string::npos);
  auto unequal = graph_of({.name = "sum", .type = "Add", .inputs = {"w"}});
  unequal.tensors = {{.name = "w", .shape = {3}, .reals = {1, 2, 3}}};
  CHECK(error_of(unequal).find("file.onnx: node 'sum' (Add) cannot be computed") !=
        std::string::npos);
  auto two = graph_of({.name = "n", .type = "Relu"});
  two.inputs.push_back({"z", {}});
  CHECK(error_of(two).find("has 2 inputs") != std::string::npos);
}

TEST_CASE("PuLID: a face is found, described and cut out as by insightface and facexlib") {
  Dump dump("pulid");
  const auto picture =
      (face_picture("face", 180, 150)[0] * 255).clamp(0, 255).to(at::kByte).contiguous();
  Onnx det("det"), arc("arc");
  const auto boxed = letterboxed(picture, 640);
  const auto faces = scrfd_faces(det.network.forward(boxed.pixels), 640, boxed.scale, "det");
  const auto* face = largest(faces);
  REQUIRE(face);
  CHECK(faces.size() == 10);
  const auto box = dump["face.box"];
  CHECK(std::abs(face->left - box[0].item<float>()) < 0.01);
  CHECK(std::abs(face->bottom - box[3].item<float>()) < 0.01);
  for (std::int64_t i = 0; i < 5; ++i)
    CHECK(apart(face->landmarks[static_cast<std::size_t>(i)], dump["face.marks"], i) < 0.01);
  // Single pixels are rounded otherwise by OpenCV.
  const auto identity =
      arc.network.forward(arcface_pixels(picture, face->landmarks, arc.file.graph))[0];
  CHECK(difference(identity[0], dump["face.identity"]) < 1e-3);

  RetinaFace cutter(tiny_retina());
  PlainSource cutting(cutter.manifest(),
                      [](const weights::Declared& w) { return pulid_weight(w.name, w.shape); });
  const auto found = retina_faces(cutter.forward(retina_pixels(picture)), 180, 150);
  const auto* middle = central(found, 180, 150);
  REQUIRE(middle);
  CHECK(found.size() == 3);
  for (std::int64_t i = 0; i < 5; ++i)
    CHECK(apart(middle->landmarks[static_cast<std::size_t>(i)], dump["face.central"], i) < 0.01);
  const auto crop = aligned_face(picture, middle->landmarks);
  const auto seen = crop.slice(0, 0, 512, 8).slice(1, 0, 512, 8).to(at::kFloat);
  const auto off = (seen - dump["face.crop"].to(at::kFloat)).abs();
  CHECK(off.max().item<float>() <= 1);
  CHECK(off.mean().item<float>() < 0.01);
  CHECK(largest({}) == nullptr);
  CHECK(central({}, 180, 150) == nullptr);
  CHECK_THROWS_WITH(scrfd_faces({at::zeros({1})}, 640, 1, "net.onnx"),
                    doctest::Contains("net.onnx: has 1 outputs"));
}
