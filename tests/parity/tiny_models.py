"""Names, shapes and seeded weights of the tiny SD 1.x, 2.x and XL models, in original checkpoint names.

README.md, 'Tiny models', states the rule; C++ tests make the same weights from the manifests.
"""
import math
import zlib

import torch


def weight(name, shape):
    """The value of one tensor, from its name and shape alone."""
    g = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    value = torch.randn(shape, generator=g)
    if len(shape) >= 2:
        return value * (1.0 / math.sqrt(math.prod(shape[1:])))
    value = value * 0.1
    return value + 1.0 if name.endswith("weight") else value


def weights(shapes):
    return {name: weight(name, shape) for name, shape in shapes.items()}


class Names:
    """Collects names and shapes under prefixes."""

    def __init__(self, prefix=""):
        self.shapes, self.prefix = {}, prefix

    def add(self, name, *shape):
        self.shapes[self.prefix + name] = list(shape)

    def linear(self, name, out, into, bias=True):
        self.add(name + ".weight", out, into)
        if bias:
            self.add(name + ".bias", out)

    def conv(self, name, out, into, k):
        self.add(name + ".weight", out, into, k, k)
        self.add(name + ".bias", out)

    def norm(self, name, n):
        self.add(name + ".weight", n)
        self.add(name + ".bias", n)


def unet(channels, mult, context, linear_projection, depth=(1, 1, 1, 0), middle=1, vector=0, in_channels=4,
         prefix="model.diffusion_model."):
    """depth: transformer blocks by level; vector: width of the second conditioning."""
    n = Names(prefix)
    time = channels * 4
    if vector:
        n.linear("label_emb.0.0", time, vector)
        n.linear("label_emb.0.2", time, time)
    n.linear("time_embed.0", time, channels)
    n.linear("time_embed.2", time, time)

    def res(name, into, out):
        n.norm(name + ".in_layers.0", into)
        n.conv(name + ".in_layers.2", out, into, 3)
        n.linear(name + ".emb_layers.1", out, time)
        n.norm(name + ".out_layers.0", out)
        n.conv(name + ".out_layers.3", out, out, 3)
        if into != out:
            n.conv(name + ".skip_connection", out, into, 1)

    def transformer(name, c, blocks):
        n.norm(name + ".norm", c)
        for proj in (".proj_in", ".proj_out"):
            n.linear(name + proj, c, c) if linear_projection else n.conv(name + proj, c, c, 1)
        for b in (f"{name}.transformer_blocks.{i}" for i in range(blocks)):
            for attn, kv in ((".attn1", c), (".attn2", context)):
                n.linear(b + attn + ".to_q", c, c, bias=False)
                n.linear(b + attn + ".to_k", c, kv, bias=False)
                n.linear(b + attn + ".to_v", c, kv, bias=False)
                n.linear(b + attn + ".to_out.0", c, c)
            n.linear(b + ".ff.net.0.proj", c * 8, c)
            n.linear(b + ".ff.net.2", c, c * 4)
            for i in (1, 2, 3):
                n.norm(f"{b}.norm{i}", c)

    n.conv("input_blocks.0.0", channels, in_channels, 3)
    skips, c, block = [channels], channels, 1
    for level, m in enumerate(mult):
        for _ in range(2):
            res(f"input_blocks.{block}.0", c, channels * m)
            c = channels * m
            if depth[level]:
                transformer(f"input_blocks.{block}.1", c, depth[level])
            skips.append(c)
            block += 1
        if level < len(mult) - 1:
            n.conv(f"input_blocks.{block}.0.op", c, c, 3)
            skips.append(c)
            block += 1
    res("middle_block.0", c, c)
    transformer("middle_block.1", c, middle)
    res("middle_block.2", c, c)
    block = 0
    for level in reversed(range(len(mult))):
        for i in range(3):
            res(f"output_blocks.{block}.0", c + skips.pop(), channels * mult[level])
            c = channels * mult[level]
            if depth[level]:
                transformer(f"output_blocks.{block}.1", c, depth[level])
            if level and i == 2:
                n.conv(f"output_blocks.{block}.{2 if depth[level] else 1}.conv", c, c, 3)
            block += 1
    n.norm("out.0", channels)
    n.conv("out.2", 4, channels, 3)
    return n.shapes


def vae(ch=32, mult=(1, 2, 4, 4), prefix="first_stage_model.", z=4, quant=True):
    n = Names(prefix)

    def res(name, into, out):
        n.norm(name + ".norm1", into)
        n.conv(name + ".conv1", out, into, 3)
        n.norm(name + ".norm2", out)
        n.conv(name + ".conv2", out, out, 3)
        if into != out:
            n.conv(name + ".nin_shortcut", out, into, 1)

    def middle(name, c):
        res(name + ".block_1", c, c)
        n.norm(name + ".attn_1.norm", c)
        for part in ("q", "k", "v", "proj_out"):
            n.conv(f"{name}.attn_1.{part}", c, c, 1)
        res(name + ".block_2", c, c)

    n.conv("encoder.conv_in", ch, 3, 3)
    c = ch
    for level, m in enumerate(mult):
        for i in range(2):
            res(f"encoder.down.{level}.block.{i}", c, ch * m)
            c = ch * m
        if level < len(mult) - 1:
            n.conv(f"encoder.down.{level}.downsample.conv", c, c, 3)
    middle("encoder.mid", c)
    n.norm("encoder.norm_out", c)
    n.conv("encoder.conv_out", 2 * z, c, 3)
    n.conv("decoder.conv_in", c, z, 3)
    middle("decoder.mid", c)
    for level in reversed(range(len(mult))):
        for i in range(3):
            res(f"decoder.up.{level}.block.{i}", c, ch * mult[level])
            c = ch * mult[level]
        if level:
            n.conv(f"decoder.up.{level}.upsample.conv", c, c, 3)
    n.norm("decoder.norm_out", ch)
    n.conv("decoder.conv_out", 3, ch, 3)
    if quant:
        n.conv("quant_conv", 2 * z, 2 * z, 1)
        n.conv("post_quant_conv", z, z, 1)
    return n.shapes


def clip_l(width=64, layers=3, prefix="cond_stage_model.transformer.text_model."):
    n = Names(prefix)
    n.add("embeddings.token_embedding.weight", 49408, width)
    n.add("embeddings.position_embedding.weight", 77, width)
    for i in range(layers):
        b = f"encoder.layers.{i}."
        n.norm(b + "layer_norm1", width)
        n.norm(b + "layer_norm2", width)
        for p in ("q_proj", "k_proj", "v_proj", "out_proj"):
            n.linear(b + "self_attn." + p, width, width)
        n.linear(b + "mlp.fc1", width * 4, width)
        n.linear(b + "mlp.fc2", width, width * 4)
    n.norm("final_layer_norm", width)
    return n.shapes


def clip_h(width=128, layers=3, prefix="cond_stage_model.model.", projection=None):
    """OpenCLIP names, as H of SD 2.x and G of SDXL have them."""
    n = Names(prefix)
    n.add("positional_embedding", 77, width)
    n.add("token_embedding.weight", 49408, width)
    for i in range(layers):
        b = f"transformer.resblocks.{i}."
        n.norm(b + "ln_1", width)
        n.norm(b + "ln_2", width)
        n.add(b + "attn.in_proj_weight", width * 3, width)
        n.add(b + "attn.in_proj_bias", width * 3)
        n.linear(b + "attn.out_proj", width, width)
        n.linear(b + "mlp.c_fc", width * 4, width)
        n.linear(b + "mlp.c_proj", width, width * 4)
    n.norm("ln_final", width)
    n.add("text_projection", width, projection or width)
    return n.shapes


UNET_SD1 = dict(channels=32, mult=(1, 2, 4, 4), context=64, linear_projection=False)
UNET_SD2 = dict(channels=64, mult=(1, 1, 2, 2), context=128, linear_projection=True)
# Vectors are as wide as the real ones: by their widths the two are told.
UNET_SDXL = dict(channels=64, mult=(1, 2, 4), context=128, linear_projection=True, depth=(0, 2, 3), middle=3,
                 vector=1280 + 6 * 256)
UNET_REFINER = dict(channels=64, mult=(1, 2, 2, 2), context=64, linear_projection=True, depth=(0, 2, 2, 0), middle=2,
                    vector=1280 + 5 * 256)


def sdxl_texts():
    """CLIP-L and OpenCLIP-G as an SDXL checkpoint has them."""
    return {**clip_l(prefix="conditioner.embedders.0.transformer.text_model."),
            **clip_h(64, prefix="conditioner.embedders.1.model.", projection=1280)}


def refiner_text():
    return clip_h(64, prefix="conditioner.embedders.0.model.", projection=1280)


def manifest(shapes):
    probe = list(shapes)[:2] + list(shapes)[-2:]
    first = {n: weight(n, shapes[n]).flatten()[:4].tolist() for n in probe}
    return {"tensors": shapes, "first_values": first}
