"""pulid.*, pulid/*.onnx, nodes_pulid.*: PuLID for SDXL and the networks that look at faces for it, by the code of their packs on the CPU in
float32.

    COMFYUI_DIR=... (0.3.64) PULID_DIR=... FACEXLIB_DIR=... INSIGHTFACE_DIR=... python tests/parity/make_pulid.py

PULID_DIR is a checkout of cubiq/PuLID_ComfyUI (4e1fd40), FACEXLIB_DIR of xinntao/facexlib (0.3.0), INSIGHTFACE_DIR the folder
python-package/insightface of deepinsight/insightface (574729ab, the version of the pack's time: newer ones ignore the sizes that it asks
for). Needs onnx, onnxruntime, scikit-image, opencv. The packs know their networks by the published sizes: narrow ones are put in their
place here, and the picture encoder is given faces by bicubic steps as on CUDA, where the pack takes nearest neighbours on the CPU. The
attentions in the middle of the UNet are patched under the name that ComfyUI has for them, where the pack misses them by one.

Weights are seeded by their names as everywhere; variances of norms are 1 + |value|, and the heads that find faces are set so that they
find some (`weights`). pulid_weights.h has the same rules. The ONNX files are exported from networks of the same make as insightface's.
"""
import os
import sys
import types

import comfy_nodes
from comfy_nodes import Graph, comfy_env, slot
from make_nodes import Cases

import cv2
import numpy as np
import onnx
import onnxruntime
import safetensors.torch
import torch
import torchvision
from onnx import TensorProto, helper
from torch import nn
from torch.nn import functional as F

import tiny_models as tiny

torch.use_deterministic_algorithms(False)
WIDTH, GRID, PATCH, LAYERS, PROJECTION, IDENTITY, CONTEXT = 128, 3, 14, 21, 24, 16, 32
FOLDER = os.path.join(comfy_env.HERE, "pulid")
# Where landmarks lie in a face of 512 pixels (facexlib) or 112 (insightface), from its middle, by half its width.
TEMPLATE = [-0.25, -0.06, 0.25, -0.06, 0.0, 0.23, -0.21, 0.45, 0.22, 0.45]


def weight(name, shape):
    value = tiny.weight(name, shape)
    if name.endswith("running_var"):
        return 1 + value.abs()
    if name.startswith("LandmarkHead"):
        return value * 0.05 if name.endswith("weight") else torch.tensor([10.0 * v * s for s in (0.5, 0.5) for v in TEMPLATE])
    if name.startswith("BboxHead"):
        return value * 0.1
    if name.startswith("ClassHead"):
        if name.endswith("weight"):
            return value * 0.08
        high = 3.0 if "Head.1." in name else -6.0
        return torch.tensor([-high, high, -high, high]) * 0.5
    return value


def seeded(module, prefix="", keep=()):
    state = {k: weight(prefix + k, list(v.shape)) for k, v in module.state_dict().items() if "num_batches" not in k}
    module.load_state_dict({**{k: v for k, v in module.state_dict().items() if "num_batches" in k or k in keep}, **state}, strict=True)
    return module.eval()


def packs():
    timm = types.ModuleType("timm.layers")
    timm.drop_path, timm.to_2tuple, timm.trunc_normal_ = None, lambda v: (v, v), nn.init.trunc_normal_
    sys.modules.update({"timm": types.ModuleType("timm"), "timm.layers": timm})
    app = types.ModuleType("insightface.app")
    app.FaceAnalysis = None
    here = os.environ["INSIGHTFACE_DIR"]
    library = os.environ["FACEXLIB_DIR"] + "/facexlib"
    for name, path in (("facexlib", library), ("facexlib.utils", library + "/utils"), ("insightface", here), ("insightface.utils", here + "/utils"), ("insightface.model_zoo", here + "/model_zoo")):
        sys.modules[name] = types.ModuleType(name)
        sys.modules[name].__path__ = [path]
    sys.modules["insightface.app"] = app
    sys.modules["facexlib.utils"].load_file_from_url = None
    for name, path in (("pulid_pack", ""), ("pulid_pack.eva_clip", "/eva_clip")):
        sys.modules[name] = types.ModuleType(name)
        sys.modules[name].__path__ = [os.environ["PULID_DIR"] + path]
    import importlib
    pulid = importlib.import_module("pulid_pack.pulid")
    modes = torchvision.transforms.InterpolationMode
    replace = pulid.set_model_patch_replace
    pulid.set_model_patch_replace = lambda model, patch, key: replace(model, patch, ("middle", 0, key[2]) if key[0] == "middle" else key)
    pulid.T = types.SimpleNamespace(functional=torchvision.transforms.functional,
                                    InterpolationMode=types.SimpleNamespace(BICUBIC=modes.BICUBIC, NEAREST=modes.BICUBIC))
    return pulid, importlib.import_module("pulid_pack.eva_clip.eva_vit_model")


def make_eva(module):
    from functools import partial
    os.environ["RoPE"] = "1"
    model = module.EVAVisionTransformer(
        img_size=GRID * PATCH, patch_size=PATCH, num_classes=PROJECTION, use_mean_pooling=False, embed_dim=WIDTH, depth=LAYERS,
        num_heads=WIDTH // 64, mlp_ratio=2.6667, qkv_bias=True, norm_layer=partial(nn.LayerNorm, eps=1e-6), rope=True, pt_hw_seq_len=16,
        intp_freq=True, naiveswiglu=True, subln=True)
    state = {k: v if "freqs" in k else weight("visual." + k, list(v.shape)) for k, v in model.state_dict().items()}
    model.load_state_dict(state)
    from pulid_pack.eva_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
    model.image_mean, model.image_std = OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
    return model.eval()


def adapter_file(pulid):
    """The file's dictionary: the pack's class with the narrow EVA's width, and heads for the tiny SDXL's layers by its own numbers."""
    linear, norm = nn.Linear, nn.LayerNorm
    encoders = sys.modules["pulid_pack.encoders"]
    narrow = lambda n: WIDTH if n == 1024 else n
    encoders.nn = types.SimpleNamespace(**{**vars(nn), "Linear": lambda a, b: linear(narrow(a), narrow(b)), "LayerNorm": lambda a: norm(narrow(a))})
    original = encoders.IDEncoder
    make = lambda: original(width=IDENTITY + PROJECTION, context_dim=CONTEXT)
    pulid.IDEncoder = make
    channels = [128] * 4 + [256] * 50 + [128] * 6 + [256] * 10
    heads = {f"{2 * i + 1}.to_{k}_ip.weight": [c, CONTEXT] for i, c in enumerate(channels) for k in "kv"}
    return {"image_proj": {k: weight("image_proj." + k, list(v.shape)) for k, v in make().state_dict().items()},
            "ip_adapter": {k: weight("ip_adapter." + k, s) for k, s in heads.items()}}


def make_facexlib():
    from facexlib.detection import retinaface
    from facexlib.parsing.bisenet import BiSeNet
    from torchvision.models.resnet import Bottleneck, ResNet
    resnet50 = torchvision.models.resnet50
    torchvision.models.resnet50 = lambda pretrained: ResNet(Bottleneck, [1, 1, 1, 1])
    cutter = retinaface.RetinaFace(network_name="resnet50", device=torch.device("cpu"))
    torchvision.models.resnet50 = resnet50
    # A quarter of the channels.
    quarter = lambda n: n if n in (3, 19) else n // 4
    narrow = types.SimpleNamespace(**{**vars(nn), "Conv2d": lambda a, b, *more, **settings: nn.Conv2d(quarter(a), quarter(b), *more, **settings),
                                      "BatchNorm2d": lambda a: nn.BatchNorm2d(quarter(a))})
    sys.modules["facexlib.parsing.bisenet"].nn = sys.modules["facexlib.parsing.resnet"].nn = narrow
    return seeded(cutter), seeded(BiSeNet(num_class=19))


class Unit(nn.Sequential):
    def __init__(self, into, out, stride=1, kernel=3):
        super().__init__(nn.Conv2d(into, out, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(out), nn.ReLU())


class Scrfd(nn.Module):
    """A backbone with pooled shortcuts, levels that are joined from above, and heads with a scale of their own, as SCRFD's."""

    def __init__(self, c=6):
        super().__init__()
        self.stem = nn.Sequential(Unit(3, c, 2), nn.MaxPool2d(3, 2, 1))
        self.stages = nn.ModuleList(Unit(c, c, 2) for _ in range(3))
        self.shortcuts = nn.ModuleList(nn.Sequential(nn.AvgPool2d(2, 2, ceil_mode=True, count_include_pad=False), nn.Conv2d(c, c, 1)) for _ in range(3))
        self.laterals = nn.ModuleList(nn.Conv2d(c, c, 1) for _ in range(3))
        self.outs = nn.ModuleList(nn.Conv2d(c, c, 3, padding=1) for _ in range(3))
        self.head = Unit(c, c)
        self.score, self.box, self.marks = nn.Conv2d(c, 2, 1), nn.Conv2d(c, 8, 1), nn.Conv2d(c, 20, 1)
        self.scales = nn.ParameterList(nn.Parameter(torch.tensor(1.0 + 0.3 * i)) for i in range(3))

    def forward(self, x):
        h, levels = self.stem(x), []
        for stage, shortcut in zip(self.stages, self.shortcuts):
            h = F.relu(stage(h) + shortcut(h))
            levels.append(h)
        levels = [l(h) for l, h in zip(self.laterals, levels)]
        for i in (1, 0):
            levels[i] = levels[i] + F.interpolate(levels[i + 1], size=levels[i].shape[2:], mode="nearest")
        levels = [self.head(o(h)) for o, h in zip(self.outs, levels)]
        flat = lambda y, n: y.permute(2, 3, 1, 0).reshape(-1, n)
        return (*(flat(self.score(h), 1).sigmoid() for h in levels), *(flat(self.box(h) * s, 4) for h, s in zip(levels, self.scales)),
                *(flat(self.marks(h), 10) for h in levels))


class Arc(nn.Module):
    """iResNet with one block a stage."""

    class Block(nn.Module):
        def __init__(self, c):
            super().__init__()
            self.body = nn.Sequential(nn.BatchNorm2d(c), nn.Conv2d(c, c, 3, 1, 1, bias=False), nn.BatchNorm2d(c), nn.PReLU(c),
                                      nn.Conv2d(c, c, 3, 2, 1, bias=False), nn.BatchNorm2d(c))
            self.shortcut = nn.Sequential(nn.Conv2d(c, c, 1, 2, bias=False), nn.BatchNorm2d(c))

        def forward(self, x):
            return self.body(x) + self.shortcut(x)

    def __init__(self, c=6):
        super().__init__()
        self.start = nn.Sequential(nn.Conv2d(3, c, 3, 1, 1, bias=False), nn.BatchNorm2d(c), nn.PReLU(c))
        self.layers = nn.Sequential(*(Arc.Block(c) for _ in range(4)))
        self.norm, self.fc, self.features = nn.BatchNorm2d(c), nn.Linear(c * 49, IDENTITY), nn.BatchNorm1d(IDENTITY)

    def forward(self, x):
        return self.features(self.fc(torch.flatten(self.norm(self.layers(self.start(x))), 1)))


def export_onnx():
    os.makedirs(FOLDER, exist_ok=True)
    scrfd = seeded(Scrfd(), "scrfd.")
    with torch.no_grad():
        scrfd.score.weight.mul_(8)
        scrfd.score.bias.fill_(-2.0)
        scrfd.box.weight.mul_(0.2)
        scrfd.box.bias.fill_(2.5)
        scrfd.marks.weight.mul_(0.1)
        scrfd.marks.bias.copy_(torch.tensor([2.5 * v for _ in range(2) for v in TEMPLATE]))
        for i, scale in enumerate(scrfd.scales):
            scale.fill_(1.0 + 0.3 * i)
    torch.onnx.export(scrfd, torch.zeros(1, 3, 64, 64), os.path.join(FOLDER, "det.onnx"), opset_version=11, dynamo=False,
                      input_names=["input.1"], dynamic_axes={"input.1": {2: "h", 3: "w"}})
    torch.onnx.export(seeded(Arc(), "arc."), torch.zeros(1, 3, 112, 112), os.path.join(FOLDER, "arc.onnx"), opset_version=11, dynamo=False,
                      input_names=["input.1"], do_constant_folding=False)
    onnx.save(operators(), os.path.join(FOLDER, "operators.onnx"))


def operators():
    """The operators that the two exported ones do not hold, or not so."""
    ints = lambda name, values: helper.make_tensor(name, TensorProto.INT64, [len(values)], values)
    values = lambda name, shape: helper.make_tensor(name, TensorProto.FLOAT, shape, tiny.weight(name, shape).flatten().tolist())
    node = helper.make_node
    nodes = [
        node("Constant", [], ["half"], value=helper.make_tensor("half", TensorProto.FLOAT, [], [0.5])),
        node("Sub", ["x", "half"], ["a"]), node("Mul", ["a", "two"], ["b"]), node("Div", ["b", "by"], ["c"]),
        node("Conv", ["c", "w1"], ["d"], kernel_shape=[3, 3], pads=[0, 1, 2, 1], strides=[1, 2], group=2),
        node("MaxPool", ["d"], ["e"], kernel_shape=[2, 3], strides=[1, 1], pads=[1, 0, 0, 1]),
        node("AveragePool", ["e"], ["f"], kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1], count_include_pad=1),
        node("Resize", ["f", "roi", "scales"], ["g"], mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor"),
        node("Shape", ["g"], ["shape"]), node("Gather", ["shape", "second"], ["channels"]), node("Unsqueeze", ["channels"], ["many"], axes=[0]),
        node("Cast", ["many"], ["real"], to=TensorProto.FLOAT), node("Mul", ["real", "half"], ["halved"]),
        node("Cast", ["halved"], ["count"], to=TensorProto.INT64),
        node("ConstantOfShape", ["count"], ["ones"], value=helper.make_tensor("v", TensorProto.FLOAT, [1], [1.5])),
        node("Slice", ["g", "from", "to", "axis", "step"], ["h"]), node("Reshape", ["ones", "shaped"], ["ones4"]),
        node("Mul", ["h", "ones4"], ["i"]), node("PRelu", ["i", "slope"], ["j"]), node("Concat", ["j", "h"], ["k"], axis=1),
        node("Transpose", ["k"], ["l"], perm=[0, 2, 3, 1]), node("Flatten", ["l"], ["m"], axis=3),
        node("Gemm", ["m", "w2", "b2"], ["n"], alpha=0.7, beta=1.3, transB=1),
        node("GlobalAveragePool", ["k"], ["o"]), node("Squeeze", ["o"], ["p"], axes=[2, 3]), node("Sigmoid", ["p"], ["q"]),
        node("Identity", ["q"], ["r"]), node("Reshape", ["n", "rows"], ["s"]),
    ]
    tensors = [values("w1", [4, 2, 3, 3]), values("w2", [5, 4]), values("b2", [5]), values("slope", [2, 1, 1]),
               helper.make_tensor("two", TensorProto.FLOAT, [4, 1, 1], [2.0, 1.5, 1.0, 0.5]), helper.make_tensor("by", TensorProto.FLOAT, [1], [3.0]),
               helper.make_tensor("scales", TensorProto.FLOAT, [4], [1.0, 1.0, 2.0, 3.0]), helper.make_tensor("second", TensorProto.INT64, [], [1]),
               helper.make_tensor("roi", TensorProto.FLOAT, [0], []), ints("from", [1, -6]), ints("to", [3, 9223372036854775807]), ints("axis", [1, 3]), ints("step", [1, 2]), ints("shaped", [1, -1, 1, 1]),
               ints("rows", [-1, 1, 5])]
    graph = helper.make_graph(nodes, "operators", [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4, "h", "w"])],
                              [helper.make_tensor_value_info("r", TensorProto.FLOAT, [1, "c"]), helper.make_tensor_value_info("s", TensorProto.FLOAT, ["n", 1, 5])], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=6)
    onnx.checker.check_model(model)
    return model


class Analysis:
    """insightface's FaceAnalysis, as far as the pack uses it, with its own classes for the two networks."""

    def __init__(self):
        import importlib
        session = lambda name: onnxruntime.InferenceSession(os.path.join(FOLDER, name), None)
        self.det_model = importlib.import_module("insightface.model_zoo.retinaface").RetinaFace(session=session("det.onnx"))
        arcface = importlib.import_module("insightface.model_zoo.arcface_onnx").ArcFaceONNX
        self.arc = arcface(model_file=os.path.join(FOLDER, "arc.onnx"), session=session("arc.onnx"))
        self.det_model.prepare(0, input_size=(640, 640), det_thresh=0.5)

    def get(self, image):
        boxes, marks = self.det_model.detect(image, max_num=0, metric="default")
        faces = []
        for box, kps in zip(boxes, marks):
            face = types.SimpleNamespace(bbox=box[:4], kps=kps)
            self.arc.get(image, face)
            faces.append(face)
        self.found = faces
        return faces


def picture(name, height, width, batch=1):
    """Smooth, of 8 bits."""
    low = tiny.weight(name, [batch * 3 * 6 * 7]).view(batch, 3, 6, 7) * 4 + 0.5
    return ((F.interpolate(low, (height, width), mode="bicubic", align_corners=True).clamp(0, 1) * 255).round() / 255).permute(0, 2, 3, 1).contiguous()


def install(pulid, eva, analysis, nets):
    """The pack's nodes in ComfyUI's list, and what gives them their links."""
    helper_module = sys.modules["facexlib.utils.face_restoration_helper"]
    helper_module.init_detection_model = lambda *a, **k: nets[0]
    helper_module.init_parsing_model = lambda *a, **k: None
    pulid.init_parsing_model = lambda **k: nets[1]
    classes = comfy_nodes.nodes.NODE_CLASS_MAPPINGS
    classes.update(pulid.NODE_CLASS_MAPPINGS)
    model = pulid.PulidModel(adapter_file(pulid))

    def maker(function):
        return type("Maker", (), {"FUNCTION": "make", "make": lambda self, **inputs: (function(**inputs),)})

    classes["PulidModelLoader"] = maker(lambda pulid_file: model)
    classes["PulidInsightFaceLoader"] = maker(lambda provider: analysis)
    classes["PulidEvaClipLoader"] = maker(lambda: eva)
    classes["TinyFacePicture"] = maker(picture)
    classes["TinyFaceMask"] = maker(lambda height, width, batch: torch.stack([(torch.arange(width) > width * (b + 1) / 4).float().expand(height, width) for b in range(batch)]))
    return model


class PulidGraph(Graph):
    def __init__(self):
        super().__init__()
        self.model = self.add("CheckpointLoaderSimple", ckpt_name="tiny_sdxl.safetensors")
        self.links = dict(pulid=self.add("PulidModelLoader", pulid_file="pulid.safetensors"), eva_clip=self.add("PulidEvaClipLoader"),
                          face_analysis=self.add("PulidInsightFaceLoader", provider="CPU"))

    def face(self, name="face", height=180, width=150, batch=1):
        return self.add("TinyFacePicture", name=name, height=height, width=width, batch=batch)

    def apply(self, model=None, image=None, method="fidelity", weight=1.0, start_at=0.0, end_at=1.0, **more):
        return self.add("ApplyPulid", model=model or self.model, image=image or self.face(), method=method, weight=weight, start_at=start_at,
                        end_at=end_at, **self.links, **more)

    def advanced(self, projection, fidelity, weight=1.0, **more):
        return self.add("ApplyPulidAdvanced", model=self.model, image=self.face(), projection=projection, fidelity=fidelity, noise=0.0, weight=weight,
                        start_at=0.0, end_at=1.0, **self.links, **more)

    def sample(self, model, width=64, height=96, batch=1):
        clip = slot(self.model, 1)
        text = lambda words: self.add("CLIPTextEncode", text=words, clip=clip)
        return self.add("KSampler", model=model, positive=text("a photo of a cat"), negative=text("blurry"), seed=5, steps=3, cfg=3.0,
                        sampler_name="euler", scheduler="normal", denoise=1.0,
                        latent_image=self.add("EmptyLatentImage", width=width, height=height, batch_size=batch))


def warped(image, matrix, size, borderMode=None, borderValue=0.0):
    """OpenCV's warpAffine (5.0, bilinear, constant border) without its own ways of rounding: a pixel in some thousands differs by one."""
    border = np.array(borderValue if isinstance(borderValue, tuple) else (borderValue,) * 3, np.float32)
    back, (y, x) = cv2.invertAffineTransform(np.asarray(matrix, np.float64)), np.mgrid[:size[1], :size[0]]
    u, v = ((row[0] * x + row[1] * y + row[2]).astype(np.float32) for row in back)
    left, top = np.floor(u).astype(int), np.floor(v).astype(int)
    across, down = (u - left)[..., None].astype(np.float32), (v - top)[..., None].astype(np.float32)

    def at(row, column):
        inside = (row >= 0) & (column >= 0) & (row < image.shape[0]) & (column < image.shape[1])
        pixels = image[row.clip(0, image.shape[0] - 1), column.clip(0, image.shape[1] - 1)].astype(np.float32)
        return np.where(inside[..., None], pixels, border)

    upper = at(top, left) + (at(top, left + 1) - at(top, left)) * across
    lower = at(top + 1, left) + (at(top + 1, left + 1) - at(top + 1, left)) * across
    return np.rint(upper + (lower - upper) * down).clip(0, 255).astype(np.uint8)


def resized(image, size):
    """OpenCV's resize (bilinear, 8 bits) as its plain code does it, in parts of 2048."""
    def taps(length, source):
        place = ((np.arange(length) + 0.5) * (source / length) - 0.5).astype(np.float32)
        first = np.floor(place).astype(int)
        share = np.where((first < 0) | (first >= source - 1), 0, place - first)
        first = first.clip(0, source - 1)
        return first, np.minimum(first + 1, source - 1), np.rint((1 - share) * 2048).astype(int), np.rint(share * 2048).astype(int)

    (y0, y1, b0, b1), (x0, x1, a0, a1) = taps(size[1], image.shape[0]), taps(size[0], image.shape[1])
    rows = image.astype(np.int64)[:, x0] * a0[None, :, None] + image.astype(np.int64)[:, x1] * a1[None, :, None]
    parts = ((b[:, None, None] * (rows[y] >> 4)) >> 16 for b, y in ((b0, y0), (b1, y1)))
    return ((sum(parts) + 2) >> 2).clip(0, 255).astype(np.uint8)


def fitted(points, template, method, estimate=cv2.estimateAffinePartial2D):
    """The least squares over the landmarks that OpenCV keeps, which its own fit stops some 1e-4 pixels before."""
    kept = estimate(points, template, method=method)[1].ravel().astype(bool)
    rows = [row for x, y in points[kept].astype(float) for row in ((x, -y, 1, 0), (y, x, 0, 1))]
    a, b, c, d = np.linalg.lstsq(np.array(rows), template[kept].ravel(), rcond=None)[0]
    return np.array([[a, -b, c], [b, a, d]]), kept


def workflow_cases():
    # Random networks make much of a pixel that OpenCV rounds otherwise; how much its own pixels differ, face_steps shows.
    cv2.warpAffine, cv2.resize, cv2.estimateAffinePartial2D = warped, resized, fitted
    cases = Cases("nodes_pulid")

    def case(name, build, **sizes):
        g = PulidGraph()
        cases.add(name, g, latent=(g.sample(build(g), **sizes), "latent"))

    case("fidelity", lambda g: g.apply())
    case("style", lambda g: g.apply(method="style", weight=0.8))
    case("neutral", lambda g: g.apply(method="neutral", weight=0.6), batch=2)
    case("ortho", lambda g: g.advanced("ortho", 3, 1.4))
    case("none", lambda g: g.advanced("none", 12, -0.5))
    case("window", lambda g: g.apply(start_at=0.2, end_at=0.7))
    case("masked", lambda g: g.apply(attn_mask=g.add("TinyFaceMask", height=40, width=60, batch=2)), batch=3, width=72, height=40)
    case("faces", lambda g: g.apply(image=g.face("people", 170, 200, 2)))
    case("twice", lambda g: g.apply(model=g.apply(method="style"), image=g.face("other"), weight=0.7))
    cases.save()


def main():
    export_onnx()
    pulid, vit = packs()
    eva, nets, analysis = make_eva(vit), make_facexlib(), Analysis()
    model = install(pulid, eva, analysis, nets)
    dump = {}
    with torch.no_grad():
        pixels = tiny.weight("pixels", [2, 3, GRID * PATCH, GRID * PATCH])
        embeds, hidden = eva(pixels, return_hidden=True)
        dump["eva.embeds"], dump["eva.hidden"] = embeds, torch.stack(hidden)[:, :, :3]
        identity = tiny.weight("identity", [2, IDENTITY + PROJECTION])
        tokens = model.get_image_embeds(identity, hidden)
        dump["adapter.tokens"] = tokens
        dump["adapter.key"] = model.ip_layers.to_kvs["9_to_k_ip"](tokens)[:, :, :16]
        dump["adapter.value"] = model.ip_layers.to_kvs["1_to_v_ip"](tokens)[:, :, :16]
        x = tiny.weight("cutter", [1, 3, 72, 88]) * 300
        for name, value in zip(("boxes", "scores", "marks"), nets[0](x)):
            dump["cutter." + name] = value[0, :60].contiguous() if name != "scores" else value[0, :, 1].contiguous()
        dump["parts"] = nets[1](tiny.weight("parts", [1, 3, 64, 96]) * 20)[0][:, :, ::4, ::4]
        face_steps(pulid, analysis, nets, dump)
    for name, x in (("det", tiny.weight("det", [1, 3, 64, 96]) * 20), ("arc", tiny.weight("arc", [1, 3, 112, 112]) * 20),
                    ("operators", tiny.weight("operators", [1, 4, 7, 10]))):
        session = onnxruntime.InferenceSession(os.path.join(FOLDER, name + ".onnx"), None)
        for i, value in enumerate(session.run(None, {session.get_inputs()[0].name: x.numpy()})):
            dump[f"{name}.{i}"] = torch.from_numpy(value)
    safetensors.torch.save_file({k: v.contiguous() for k, v in dump.items()}, os.path.join(comfy_env.HERE, "pulid.safetensors"))
    workflow_cases()


def face_steps(pulid, analysis, nets, dump):
    """What the packs see in a picture before any network of PuLID."""
    from facexlib.utils.face_restoration_helper import FaceRestoreHelper
    image = pulid.tensor_to_image(picture("face", 180, 150))[0]
    faces = sorted(analysis.get(image), key=lambda f: (f.bbox[2] - f.bbox[0]) * (f.bbox[3] - f.bbox[1]))
    print("insightface finds", len(faces), "the largest", faces[-1].bbox)
    dump["face.box"], dump["face.marks"] = torch.from_numpy(faces[-1].bbox), torch.from_numpy(faces[-1].kps)
    dump["face.identity"] = torch.from_numpy(faces[-1].embedding)
    helper = FaceRestoreHelper(upscale_factor=1, face_size=512, device=torch.device("cpu"))
    helper.read_image(image)
    helper.get_face_landmarks_5(only_center_face=True)
    helper.align_warp_face()
    print("facexlib finds", len(nets[0].detect_faces(image, 0.97)), "the central", helper.all_landmarks_5[0].tolist())
    dump["face.central"] = torch.from_numpy(helper.all_landmarks_5[0]).float()
    dump["face.matrix"] = torch.from_numpy(helper.affine_matrices[0]).float()
    dump["face.crop"] = torch.from_numpy(helper.cropped_faces[0][::8, ::8, ::-1].copy())


if __name__ == "__main__":
    main()
