"""The model of flux_like.h in torch, for the peers: same names, same operations in the same order."""
import torch
import torch.nn.functional as F
from torch import nn

HEAD_WIDTH = 128


def modulate(x, shift, scale):
    return torch.addcmul(shift, F.layer_norm(x, x.shape[-1:], eps=1e-6), scale + 1)


def attend(q, k, v):
    heads = q.shape[-1] // HEAD_WIDTH
    q, k, v = (t.view(*t.shape[:2], heads, HEAD_WIDTH).transpose(1, 2) for t in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


class Modulation(nn.Module):
    def __init__(self, width, parts):
        super().__init__()
        self.lin = nn.Linear(width, parts * width)
        self.parts = parts

    def forward(self, vector):
        return self.lin(F.silu(vector)).unsqueeze(1).chunk(self.parts, -1)


class Attention(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)


class DoubleBlock(nn.Module):
    def __init__(self, width):
        super().__init__()
        for name in ("img", "txt"):
            self.add_module(f"{name}_mod", Modulation(width, 6))
            self.add_module(f"{name}_attn", Attention(width))
            self.add_module(f"{name}_mlp", nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)))

    def forward(self, hidden_states, encoder_hidden_states, vector):
        image, text = hidden_states, encoder_hidden_states
        a, b = self.img_mod(vector), self.txt_mod(vector)
        qkv = torch.cat([self.txt_attn.qkv(modulate(text, b[0], b[1])), self.img_attn.qkv(modulate(image, a[0], a[1]))], 1)
        attended = attend(*qkv.chunk(3, -1))
        length = text.shape[1]
        image = torch.addcmul(image, a[2], self.img_attn.proj(attended[:, length:]))
        image = torch.addcmul(image, a[5], self.img_mlp(modulate(image, a[3], a[4])))
        text = torch.addcmul(text, b[2], self.txt_attn.proj(attended[:, :length]))
        text = torch.addcmul(text, b[5], self.txt_mlp(modulate(text, b[3], b[4])))
        return image, text


class SingleBlock(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.width = width
        self.modulation = Modulation(width, 3)
        self.linear1 = nn.Linear(width, 7 * width)
        self.linear2 = nn.Linear(5 * width, width)

    def forward(self, hidden_states, vector):
        m = self.modulation(vector)
        qkv, mlp = self.linear1(modulate(hidden_states, m[0], m[1])).split([3 * self.width, 4 * self.width], -1)
        return torch.addcmul(hidden_states, m[2], self.linear2(torch.cat([attend(*qkv.chunk(3, -1)), F.gelu(mlp)], -1)))


class FluxLike(nn.Module):
    def __init__(self, width, doubles, singles):
        super().__init__()
        self.double_blocks = nn.ModuleList(DoubleBlock(width) for _ in range(doubles))
        self.single_blocks = nn.ModuleList(SingleBlock(width) for _ in range(singles))

    def forward(self, image, text, vector):
        for block in self.double_blocks:
            image, text = block(image, text, vector)
        x = torch.cat([text, image], 1)
        for block in self.single_blocks:
            x = block(x, vector)
        return x[:, text.shape[1]:]


def empty_model(width, doubles, singles):
    with torch.device("meta"):
        return FluxLike(width, doubles, singles).to(torch.bfloat16).eval().requires_grad_(False)


def shape_of(tensors):
    """(width, doubles, singles) from the names and shapes of a file."""
    width = tensors["single_blocks.0.linear2.weight"].shape[0]
    count = lambda kind: 1 + max(int(n.split(".")[1]) for n in tensors if n.startswith(kind))
    return width, count("double_blocks"), count("single_blocks")


def make_inputs(width, image, text, device):
    """The same numbers as in the C++ programs."""
    def seeded(shape, seed):
        return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(torch.bfloat16).to(device)
    return seeded((1, image, width), 11), seeded((1, text, width), 12), seeded((1, width), 13)


SIZES = {"512": (1024, 512), "1024": (4096, 512), "2048": (16384, 512)}
TINY_SIZES = {"512": (48, 16), "1024": (96, 16), "2048": (160, 16)}
