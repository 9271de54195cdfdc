"""upscale_*.*: tiny models that enlarge pictures, computed by spandrel (0.4) from seeded weights."""
import comfy_env
import torch
from spandrel import ModelLoader
from spandrel.architectures.Compact import Compact
from spandrel.architectures.DAT import DAT
from spandrel.architectures.ESRGAN import ESRGAN
from spandrel.architectures.HAT import HAT
from spandrel.architectures.SwinIR import SwinIR

import tiny_models as tiny

torch.set_num_threads(1)


def dump(name, model, cases, rename=lambda n: n, fixed=()):
    """Seeds a model by its names in the file, runs it, writes the dump. fixed: tensors that are no weights."""
    state = {rename(n): t for n, t in model.state_dict().items()}
    shapes = {n: list(t.shape) for n, t in state.items() if not any(n.endswith(f) for f in fixed)}
    values = {**state, **tiny.weights(shapes)}
    values.update({n: v.abs() + 0.5 for n, v in values.items() if n.endswith("running_var")})
    described = ModelLoader().load_from_state_dict({n: v.clone() for n, v in values.items()})
    described.eval()
    tensors = {}
    with torch.no_grad():
        for case, (height, width) in cases.items():
            g = torch.Generator().manual_seed(height * 100 + width)
            x = torch.rand(1, described.input_channels, height, width, generator=g)
            tensors[case + "/x"], tensors[case + "/upscaled"] = x, described(x.clone())
            if case == "main":
                tensors[case + "/out"] = described.model(x.clone())
    print(name, described.architecture.id, described.scale, described.tags, float(tensors["main/out"].std()))
    first = sorted(shapes)[:3]
    comfy_env.save(name, tensors, {
        "tensors": shapes, "scale": described.scale,
        "first_values": {n: values[n].flatten()[:4].tolist() for n in first}})


def esrgan_new(blocks, doublings):
    last = 2 + 3 * doublings + 2

    def rename(n):
        p = n.split(".")  # model.1.sub.N.RDBk.convM.0.weight
        if p[1] == "1" and len(p) > 5:
            return f"body.{p[3]}.rdb{p[4][3:]}.{p[5]}.{p[-1]}"
        if p[1] == "1":
            return f"conv_body.{p[-1]}"
        k = int(p[1])
        part = {0: "conv_first", last: "conv_last", last - 2: "conv_hr"}.get(k, f"conv_up{k // 3}")
        return f"{part}.{p[-1]}"

    return rename


if __name__ == "__main__":
    dump("upscale_esrgan", ESRGAN(num_filters=16, num_blocks=2, scale=4), {"main": (6, 7), "tiny": (1, 3)})
    dump("upscale_esrgan_plus", ESRGAN(num_filters=8, num_blocks=2, scale=2, plus=True), {"main": (6, 7)})
    dump("upscale_realesrgan", ESRGAN(in_nc=12, num_filters=16, num_blocks=2, scale=4, shuffle_factor=2),
         {"main": (8, 12), "odd": (7, 5)}, rename=esrgan_new(2, 2))
    dump("upscale_compact", Compact(num_feat=16, num_conv=3, upscale=4), {"main": (6, 7)})
    buffers = ("relative_position_index", "attn_mask")
    sizes = dict(img_size=16, embed_dim=16, depths=[2, 1], num_heads=[2, 4], mlp_ratio=2, window_size=4)
    for name, more in (("shuffle", dict(upscale=2, upsampler="pixelshuffle")),
                       ("nearest", dict(upscale=4, upsampler="nearest+conv", resi_connection="3conv")),
                       ("direct", dict(upscale=3, upsampler="pixelshuffledirect")),
                       ("repair", dict(upscale=1, upsampler="", window_size=7, img_size=21))):
        dump("upscale_swinir_" + name, SwinIR(**{**sizes, **more}), {"main": (16, 20), "odd": (9, 13)}, fixed=buffers)
    # Groups of both parities, blocks of every kind; the last of the buffers tell the sizes of windows.
    buffers = ("relative_position_index_SA", "relative_position_index_OCA")
    sizes = dict(img_size=16, embed_dim=24, depths=[2, 1], num_heads=[2, 4], window_size=4, compress_ratio=3, squeeze_factor=6,
                 mlp_ratio=2, upscale=2, num_feat=16)
    dump("upscale_hat", HAT(**sizes), {"main": (16, 20), "odd": (17, 13)}, fixed=buffers)
    dump("upscale_hat_plain", HAT(**{**sizes, "resi_connection": "identity", "upscale": 3, "overlap_ratio": 1, "qkv_bias": False}),
         {"main": (16, 16)}, fixed=buffers)
    buffers = ("relative_position_index", "attn_mask_0", "attn_mask_1", "rpe_biases", "num_batches_tracked")
    sizes = dict(img_size=16, embed_dim=32, depth=[3, 2], num_heads=[4, 2], split_size=[2, 4], expansion_factor=2.0, upscale=2)
    dump("upscale_dat", DAT(**sizes), {"main": (16, 20), "odd": (9, 13)}, fixed=buffers)
    dump("upscale_dat_direct", DAT(**{**sizes, "img_size": 64, "depth": [1, 1], "upsampler": "pixelshuffledirect", "resi_connection": "3conv", "upscale": 3}),
         {"main": (16, 17)}, fixed=buffers)
