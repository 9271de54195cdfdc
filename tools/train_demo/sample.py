#!/usr/bin/env python3
"""Pictures from a checkpoint file, read by shapes only; also the sampler that train.py uses."""

import argparse
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from safetensors.torch import load_file

from model import LATENT_SCALE, TRAIN_STEPS, Checkpoint, alphas_cumprod, config_of

PROMPTS = ("red heart", "smiling face with sunglasses", "pizza",
           "dog face", "sunflower", "rocket", "strawberry", "ghost", "fire", "soccer ball",
           "octopus", "birthday cake", "crying face", "maple leaf", "guitar",
           "a purple dinosaur playing chess", "an angry robot eating spaghetti",
           "qwertz zebra castle 42")


def sigmas_of(steps):
    """`steps` noise levels from the noisiest down, even in time, then zero; and the times."""
    levels = alphas_cumprod().double()
    log_sigmas = ((1 - levels) / levels).sqrt().log()
    at = torch.linspace(TRAIN_STEPS - 1, 0, steps, dtype=torch.float64)
    low = at.floor().long().clamp(max=TRAIN_STEPS - 2)
    part = at - low
    sigmas = (log_sigmas[low] * (1 - part) + log_sigmas[low + 1] * part).exp()
    return torch.cat([sigmas, sigmas.new_zeros(1)]).tolist(), at.tolist()


@torch.no_grad()
def sample(model, tokens, empty, *, steps=20, cfg=6.0, sampler="euler", seed=0):
    """Tokens [B, 77] -> pictures uint8 [B, 3, 128, 128] (on the CPU).

    `seed` gives the noise, always drawn on the CPU in float32. Works in the dtype of the weights.
    """
    device, dtype = next(model.parameters()).device, next(model.parameters()).dtype
    count = len(tokens)
    context = model.text(torch.cat([tokens, empty.expand(count, -1)]).to(device))
    noise = torch.randn(count, 4, 16, 16, generator=torch.Generator().manual_seed(seed))
    sigmas, times = sigmas_of(steps)
    x = noise.to(device) * (1 + sigmas[0] ** 2) ** 0.5  # the loop works in float32
    before = None
    for index, (now, then) in enumerate(zip(sigmas, sigmas[1:])):
        scaled = (x / (now * now + 1) ** 0.5).to(dtype)
        time = torch.full((2 * count,), times[index], device=device)
        cond, uncond = model.unet(torch.cat([scaled, scaled]), time, context).float().chunk(2)
        clean = x - now * (uncond + cfg * (cond - uncond))
        if then == 0:
            x = clean
        elif sampler == "euler":
            x = x + (x - clean) / now * (then - now)
        else:  # dpmpp_2m: second order in log sigma, from the previous prediction
            guess = clean
            if before is not None:
                ratio = np.log(now / then) / np.log(before[1] / now)
                guess = clean + (clean - before[0]) * ratio / 2
            x = then / now * x + (1 - then / now) * guess
        before = (clean, now)
    return decode(model, x)


@torch.no_grad()
def decode(model, latents, batch=64):
    """Scaled latents -> uint8 pictures on the CPU."""
    dtype = next(model.parameters()).dtype
    pictures = [model.vae.decode((part / LATENT_SCALE).to(dtype)).float()
                for part in latents.split(batch)]
    return ((torch.cat(pictures) + 1) * 127.5).clamp(0, 255).round().byte().cpu()


def sheet(rows, labels):
    """Rows of pictures uint8 [B, 3, 128, 128], each row with its label below."""
    height, width = 128 + 16, 128
    columns = max(len(row) for row in rows)
    page = Image.new("RGB", (columns * width, len(rows) * height), "white")
    pen = ImageDraw.Draw(page)
    for y, (row, label) in enumerate(zip(rows, labels)):
        for x, picture in enumerate(row):
            tile = Image.fromarray(picture.permute(1, 2, 0).contiguous().numpy())
            page.paste(tile, (x * width, y * height))
        pen.text((4, y * height + 130), label, fill="black")
    return page


def side_by_side(pages):
    page = Image.new("RGB", (sum(p.width for p in pages), max(p.height for p in pages)), "white")
    left = 0
    for part in pages:
        page.paste(part, (left, 0))
        left += part.width
    return page


def prompt_sheet(model, tokenizer, prompts=PROMPTS, per_prompt=3, **settings):
    """One row for each prompt, in two halves beside each other."""
    tokens = tokenizer([prompt for prompt in prompts for _ in range(per_prompt)])
    pictures = sample(model, tokens, tokenizer([""]), **settings).split(per_prompt)
    half = (len(prompts) + 1) // 2
    return side_by_side([sheet(pictures[:half], prompts[:half]),
                         sheet(pictures[half:], prompts[half:])]
                        if len(prompts) > 1 else [sheet(pictures, prompts)])


def load(path, device="cpu", dtype=torch.float32):
    tensors = load_file(path)
    return Checkpoint(**config_of(tensors)).load(tensors).eval().to(device, dtype)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint")
    parser.add_argument("prompts", nargs="*", default=PROMPTS)
    parser.add_argument("--cache", type=Path, default=Path(".train_demo"))
    parser.add_argument("--output", default="samples.png")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16", "float16"))
    parser.add_argument("--sampler", default="euler", choices=("euler", "dpmpp_2m"))
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--cfg", type=float, default=6.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--per-prompt", type=int, default=3)
    options = parser.parse_args()

    from data import Tokenizer
    tokenizer = Tokenizer(options.cache / "bpe_simple_vocab_16e6.txt.gz")
    model = load(options.checkpoint, options.device, getattr(torch, options.dtype))
    prompt_sheet(model, tokenizer, tuple(options.prompts), options.per_prompt, steps=options.steps,
                 cfg=options.cfg, sampler=options.sampler, seed=options.seed).save(options.output)
    print(options.output)


if __name__ == "__main__":
    main()
