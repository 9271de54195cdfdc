"""The three networks of an SD 1.x checkpoint, with the original all-in-one file's tensor names.

Every size is a constructor argument and can be read back from tensor shapes (`config_of`), so a
narrow model made here and the full SD 1.5 differ in numbers only.
"""

import math

import torch
import torch.nn.functional as F
from torch import nn

UNET_PREFIX = "model.diffusion_model."
VAE_PREFIX = "first_stage_model."
TEXT_PREFIX = "cond_stage_model.transformer.text_model."

HEADS = 8  # SD 1.x: the number of heads is fixed, their width follows from the channels
LATENT_SCALE = 0.18215
TEXT_LENGTH = 77
VOCABULARY = 49408
TRAIN_STEPS = 1000


def alphas_cumprod():
    """The SD 1.x noise schedule: square roots of the betas are evenly spaced."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, TRAIN_STEPS, dtype=torch.float64) ** 2
    return torch.cumprod(1 - betas, 0).float()


class GroupNorm(nn.GroupNorm):
    """32 groups; works in the dtype of its input, so that autocast does not widen activations."""

    def __init__(self, channels, eps):
        super().__init__(32, channels, eps)

    def forward(self, x):
        with torch.autocast(x.device.type, enabled=False):
            weight, bias = self.weight.to(x.dtype), self.bias.to(x.dtype)
            return F.group_norm(x, self.num_groups, weight, bias, self.eps)


class LayerNorm(nn.LayerNorm):
    def forward(self, x):
        with torch.autocast(x.device.type, enabled=False):
            weight, bias = self.weight.to(x.dtype), self.bias.to(x.dtype)
            return F.layer_norm(x, self.normalized_shape, weight, bias, self.eps)


def conv3(in_channels, out_channels, stride=1, padding=1):
    return nn.Conv2d(in_channels, out_channels, 3, stride, padding)


def conv1(in_channels, out_channels):
    return nn.Conv2d(in_channels, out_channels, 1)


def zeroed(layer):
    """A layer that starts as "no change" on its residual branch."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


class Named(nn.Module):
    """Children under given names: gives tensor names like `mlp.fc1` without a class for each."""

    def __init__(self, **children):
        super().__init__()
        for name, child in children.items():
            self.add_module(name, child)


def attend(q, k, v, heads, causal=False):
    """q [B, N, C], k and v [B, M, C] -> [B, N, C]."""
    split = lambda x: x.unflatten(-1, (heads, -1)).transpose(1, 2)
    out = F.scaled_dot_product_attention(split(q), split(k), split(v), is_causal=causal)
    return out.transpose(1, 2).flatten(2)


# ---------------------------------------------------------------------------------- text encoder


class TextLayer(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.heads = max(1, width // 64)
        linear = nn.Linear
        self.layer_norm1 = LayerNorm(width)
        self.self_attn = Named(q_proj=linear(width, width), k_proj=linear(width, width),
                               v_proj=linear(width, width), out_proj=linear(width, width))
        self.layer_norm2 = LayerNorm(width)
        self.mlp = Named(fc1=linear(width, 4 * width), fc2=linear(4 * width, width))

    def forward(self, x):
        h, a = self.layer_norm1(x), self.self_attn
        x = x + a.out_proj(attend(a.q_proj(h), a.k_proj(h), a.v_proj(h), self.heads, causal=True))
        h = self.mlp.fc1(self.layer_norm2(x))
        return x + self.mlp.fc2(h * torch.sigmoid(1.702 * h))


class TextEncoder(nn.Module):
    """Tokens [B, 77] -> conditioning [B, 77, width]: last layer, after the final norm."""

    def __init__(self, width=64, layers=6):
        super().__init__()
        self.embeddings = Named(token_embedding=nn.Embedding(VOCABULARY, width),
                                position_embedding=nn.Embedding(TEXT_LENGTH, width))
        self.encoder = Named(layers=nn.ModuleList([TextLayer(width) for _ in range(layers)]))
        self.final_layer_norm = LayerNorm(width)
        # Tokens start smaller than positions: a word that training never meets stays a faint noise.
        nn.init.normal_(self.embeddings.token_embedding.weight, std=0.01)
        nn.init.normal_(self.embeddings.position_embedding.weight, std=0.02)

    def forward(self, tokens):
        x = self.embeddings.token_embedding(tokens) + self.embeddings.position_embedding.weight
        for layer in self.encoder.layers:
            x = layer(x)
        return self.final_layer_norm(x)


# ------------------------------------------------------------------------------------------ UNet


class TimeResBlock(nn.Module):
    def __init__(self, in_channels, out_channels, time_width):
        super().__init__()
        self.in_layers = nn.Sequential(GroupNorm(in_channels, 1e-5), nn.SiLU(),
                                       conv3(in_channels, out_channels))
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(time_width, out_channels))
        self.out_layers = nn.Sequential(GroupNorm(out_channels, 1e-5), nn.SiLU(), nn.Identity(),
                                        zeroed(conv3(out_channels, out_channels)))
        same = in_channels == out_channels
        self.skip_connection = nn.Identity() if same else conv1(in_channels, out_channels)

    def forward(self, x, time):
        h = self.in_layers(x) + self.emb_layers(time)[:, :, None, None]
        return self.skip_connection(x) + self.out_layers(h)


class CrossAttention(nn.Module):
    def __init__(self, width, context_width):
        super().__init__()
        self.to_q = nn.Linear(width, width, bias=False)
        self.to_k = nn.Linear(context_width, width, bias=False)
        self.to_v = nn.Linear(context_width, width, bias=False)
        self.to_out = nn.Sequential(nn.Linear(width, width))

    def forward(self, x, context):
        return self.to_out(attend(self.to_q(x), self.to_k(context), self.to_v(context), HEADS))


class GatedGelu(nn.Module):
    def __init__(self, width, hidden):
        super().__init__()
        self.proj = nn.Linear(width, 2 * hidden)

    def forward(self, x):
        value, gate = self.proj(x).chunk(2, -1)
        return value * F.gelu(gate)


class TransformerBlock(nn.Module):
    def __init__(self, width, context_width):
        super().__init__()
        self.attn1 = CrossAttention(width, width)
        self.attn2 = CrossAttention(width, context_width)
        feed = [GatedGelu(width, 4 * width), nn.Identity(), nn.Linear(4 * width, width)]
        self.ff = Named(net=nn.Sequential(*feed))
        self.norm1, self.norm2, self.norm3 = LayerNorm(width), LayerNorm(width), LayerNorm(width)

    def forward(self, x, context):
        h = self.norm1(x)
        x = x + self.attn1(h, h)
        x = x + self.attn2(self.norm2(x), context)
        return x + self.ff.net(self.norm3(x))


class SpatialTransformer(nn.Module):
    def __init__(self, channels, context_width):
        super().__init__()
        self.norm = GroupNorm(channels, 1e-6)
        self.proj_in = conv1(channels, channels)
        self.transformer_blocks = nn.ModuleList([TransformerBlock(channels, context_width)])
        self.proj_out = zeroed(conv1(channels, channels))

    def forward(self, x, context):
        height = x.shape[2]
        h = self.proj_in(self.norm(x)).flatten(2).transpose(1, 2)
        for block in self.transformer_blocks:
            h = block(h, context)
        h = h.transpose(1, 2).unflatten(2, (height, -1)).contiguous()
        return x + self.proj_out(h)


class Upsample(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.conv = conv3(channels, channels)

    def forward(self, x):
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class UNet(nn.Module):
    """Predicts noise: latents [B, 4, H, W], timesteps [B], conditioning [B, 77, C]."""

    def __init__(self, channels=(64, 96, 64, 64), context_width=64):
        super().__init__()
        base, time_width = channels[0], 4 * channels[0]
        self.base = base
        self.time_embed = nn.Sequential(nn.Linear(base, time_width), nn.SiLU(),
                                        nn.Linear(time_width, time_width))
        last = len(channels) - 1

        def block(in_channels, out_channels, level):
            parts = [TimeResBlock(in_channels, out_channels, time_width)]
            if level < last:
                parts.append(SpatialTransformer(out_channels, context_width))
            return parts

        self.input_blocks = nn.ModuleList([nn.ModuleList([conv3(4, base)])])
        skips, now = [base], base
        for level, width in enumerate(channels):
            for _ in range(2):
                self.input_blocks.append(nn.ModuleList(block(now, width, level)))
                now = width
                skips.append(now)
            if level < last:
                self.input_blocks.append(nn.ModuleList([Named(op=conv3(now, now, stride=2))]))
                skips.append(now)
        self.middle_block = nn.ModuleList([TimeResBlock(now, now, time_width),
                                           SpatialTransformer(now, context_width),
                                           TimeResBlock(now, now, time_width)])
        self.output_blocks = nn.ModuleList()
        for level in range(last, -1, -1):
            for index in range(3):
                parts = block(now + skips.pop(), channels[level], level)
                now = channels[level]
                if level > 0 and index == 2:
                    parts.append(Upsample(now))
                self.output_blocks.append(nn.ModuleList(parts))
        self.out = nn.Sequential(GroupNorm(now, 1e-5), nn.SiLU(), zeroed(conv3(now, 4)))

    def time_features(self, timesteps):
        half = self.base // 2
        steps = torch.arange(half, device=timesteps.device, dtype=torch.float32)
        angles = timesteps.float()[:, None] * torch.exp(-math.log(10000) / half * steps)
        return torch.cat([angles.cos(), angles.sin()], -1)

    @staticmethod
    def run(parts, x, time, context):
        for part in parts:
            if isinstance(part, TimeResBlock):
                x = part(x, time)
            elif isinstance(part, SpatialTransformer):
                x = part(x, context)
            elif isinstance(part, Named):
                x = part.op(x)
            else:
                x = part(x)
        return x

    def forward(self, x, timesteps, context):
        features = self.time_features(timesteps)
        time = self.time_embed(features.to(self.time_embed[0].weight.dtype))
        kept = []
        for parts in self.input_blocks:
            x = self.run(parts, x, time, context)
            kept.append(x)
        x = self.run(self.middle_block, x, time, context)
        for parts in self.output_blocks:
            x = self.run(parts, torch.cat([x, kept.pop()], 1), time, context)
        return self.out(x)


# ------------------------------------------------------------------------------------------- VAE


class PlainResBlock(nn.Module):
    def __init__(self, in_channels, out_channels):
        super().__init__()
        self.norm1 = GroupNorm(in_channels, 1e-6)
        self.conv1 = conv3(in_channels, out_channels)
        self.norm2 = GroupNorm(out_channels, 1e-6)
        self.conv2 = conv3(out_channels, out_channels)
        if in_channels != out_channels:
            self.nin_shortcut = conv1(in_channels, out_channels)

    def forward(self, x):
        h = self.conv1(F.silu(self.norm1(x)))
        h = self.conv2(F.silu(self.norm2(h)))
        return h + (self.nin_shortcut(x) if hasattr(self, "nin_shortcut") else x)


class PixelAttention(nn.Module):
    """One head over all pixels of the smallest level."""

    def __init__(self, channels):
        super().__init__()
        self.norm = GroupNorm(channels, 1e-6)
        self.q, self.k, self.v = (conv1(channels, channels) for _ in range(3))
        self.proj_out = conv1(channels, channels)

    def forward(self, x):
        h = self.norm(x)
        flat = lambda y: y.flatten(2).transpose(1, 2)
        h = attend(flat(self.q(h)), flat(self.k(h)), flat(self.v(h)), 1)
        return x + self.proj_out(h.transpose(1, 2).unflatten(2, x.shape[2:]).contiguous())


class Middle(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.block_1 = PlainResBlock(channels, channels)
        self.attn_1 = PixelAttention(channels)
        self.block_2 = PlainResBlock(channels, channels)

    def forward(self, x):
        return self.block_2(self.attn_1(self.block_1(x)))


class Encoder(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.conv_in = conv3(3, channels[0])
        self.down = nn.ModuleList()
        now = channels[0]
        for level, width in enumerate(channels):
            blocks = nn.ModuleList([PlainResBlock(now, width), PlainResBlock(width, width)])
            stage = Named(block=blocks)
            if level < len(channels) - 1:
                stage.downsample = Named(conv=conv3(width, width, stride=2, padding=0))
            self.down.append(stage)
            now = width
        self.mid = Middle(now)
        self.norm_out = GroupNorm(now, 1e-6)
        self.conv_out = conv3(now, 8)

    def forward(self, x):
        x = self.conv_in(x)
        for stage in self.down:
            for block in stage.block:
                x = block(x)
            if hasattr(stage, "downsample"):
                x = stage.downsample.conv(F.pad(x, (0, 1, 0, 1)))
        return self.conv_out(F.silu(self.norm_out(self.mid(x))))


class Decoder(nn.Module):
    def __init__(self, channels):
        super().__init__()
        now = channels[-1]
        self.conv_in = conv3(4, now)
        self.mid = Middle(now)
        stages = []
        for level in range(len(channels) - 1, -1, -1):
            width = channels[level]
            blocks = [PlainResBlock(now if i == 0 else width, width) for i in range(3)]
            stage = Named(block=nn.ModuleList(blocks))
            if level > 0:
                stage.upsample = Upsample(width)
            stages.insert(0, stage)  # the file counts levels from the largest picture
            now = width
        self.up = nn.ModuleList(stages)
        self.norm_out = GroupNorm(now, 1e-6)
        self.conv_out = conv3(now, 3)

    def forward(self, z):
        x = self.mid(self.conv_in(z))
        for stage in reversed(self.up):
            for block in stage.block:
                x = block(x)
            if hasattr(stage, "upsample"):
                x = stage.upsample(x)
        return self.conv_out(F.silu(self.norm_out(x)))


class Vae(nn.Module):
    """Pictures [B, 3, H, W] in -1..1 <-> latents [B, 4, H/8, W/8] (before LATENT_SCALE)."""

    def __init__(self, channels=(32, 64, 64, 64)):
        super().__init__()
        self.encoder, self.decoder = Encoder(channels), Decoder(channels)
        self.quant_conv, self.post_quant_conv = conv1(8, 8), conv1(4, 4)

    def moments(self, x):
        mean, log_variance = self.quant_conv(self.encoder(x)).chunk(2, 1)
        return mean, log_variance.clamp(-30, 20)

    def decode(self, z):
        return self.decoder(self.post_quant_conv(z))


# ------------------------------------------------------------------------------ whole checkpoints


class Checkpoint(nn.Module):
    """The three networks; `state` and `load` speak the names of the all-in-one file."""

    def __init__(self, unet=(64, 96, 64, 64), vae=(32, 64, 64, 64), text_width=64, text_layers=6):
        super().__init__()
        self.unet = UNet(unet, text_width)
        self.vae = Vae(vae)
        self.text = TextEncoder(text_width, text_layers)

    def parts(self):
        return ((UNET_PREFIX, self.unet), (VAE_PREFIX, self.vae), (TEXT_PREFIX, self.text))

    def state(self, dtype=torch.float16):
        tensors = {}
        for prefix, module in self.parts():
            for name, tensor in module.state_dict().items():
                tensors[prefix + name] = tensor.detach().to("cpu", dtype).contiguous()
        return tensors

    def load(self, tensors):
        for prefix, module in self.parts():
            own = {n[len(prefix):]: t for n, t in tensors.items() if n.startswith(prefix)}
            module.load_state_dict({n: t.float() for n, t in own.items()})
        return self


def config_of(tensors):
    """The arguments of `Checkpoint`, from tensor shapes alone."""
    rows = lambda name: tensors[name].shape[0]
    unet = [rows(f"{UNET_PREFIX}input_blocks.{i}.0.out_layers.3.weight") for i in (1, 4, 7, 10)]
    vae = [rows(f"{VAE_PREFIX}encoder.down.{i}.block.0.conv2.weight") for i in range(4)]
    layers = {n.split(".")[5] for n in tensors if n.startswith(TEXT_PREFIX + "encoder.layers.")}
    width = tensors[TEXT_PREFIX + "final_layer_norm.weight"].shape[0]
    return dict(unet=tuple(unet), vae=tuple(vae), text_width=width, text_layers=len(layers))
