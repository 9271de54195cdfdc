#!/usr/bin/env python3
"""Trains the demo model: first the autoencoder, then UNet and text encoder together, then exports.

Each stage runs for a number of minutes, saves its state in --work and goes on from it when called
again. The same code runs on a GPU and, slowly, on a CPU.
"""

import argparse
import contextlib
import copy
import json
import math
import os
import time
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F

import export
from data import ANY_WORD, NAMED, Emoji, caption_bank
from model import LATENT_SCALE, TRAIN_STEPS, Checkpoint, alphas_cumprod
from sample import decode, load, prompt_sheet, sample, sheet


class Run:
    """What both stages share: options, device, data, model, figures, clock."""

    def __init__(self, options):
        self.options = options
        self.device = torch.device(options.device)
        self.cuda = self.device.type == "cuda"
        self.start = time.monotonic()
        torch.manual_seed(options.seed)
        if self.cuda:
            torch.backends.cudnn.benchmark = True
            torch.set_float32_matmul_precision("high")
        self.data = Emoji(options.cache, options.limit)
        self.pictures = self.data.pictures.to(self.device)
        self.weights = self.data.weights.to(self.device)
        self.model = Checkpoint()
        self.metrics = dict(seed=options.seed, emoji=len(self.data.entries),
                            torch=torch.__version__,
                            device=torch.cuda.get_device_name() if self.cuda else "cpu")
        self.say(f"{len(self.data.entries)} emoji on {self.metrics['device']}")

    def say(self, text):
        print(f"[{time.monotonic() - self.start:6.1f} s] {text}", flush=True)

    def autocast(self):
        return torch.autocast("cuda", torch.bfloat16) if self.cuda else contextlib.nullcontext()

    def draw(self, count):
        return torch.multinomial(self.weights, count, replacement=True)

    def time_left(self):
        """Seconds until the whole run has to be over, with room for the export."""
        end = 60 * self.options.deadline_minutes - self.options.export_seconds
        return end - (time.monotonic() - self.start)

    def save(self, stage, **state):
        folder = Path(self.options.work)
        folder.mkdir(parents=True, exist_ok=True)
        torch.save(state, folder / f"{stage}.tmp")
        (folder / f"{stage}.tmp").replace(folder / f"{stage}.pt")

    def restore(self, stage):
        path = Path(self.options.work) / f"{stage}.pt"
        if self.options.init or not path.exists():
            return None
        return torch.load(path, map_location=self.device)


def step_sizes(progress, peak, warm):
    """Learning rate at `progress` (0..1): linear rise over `warm`, cosine to 2 % of the peak."""
    if progress < warm:
        return peak * (0.02 + 0.98 * progress / warm)
    part = (progress - warm) / (1 - warm)
    return peak * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(part, 1))))


@torch.no_grad()
def follow(average, module, decay):
    """Exponential moving average of the weights."""
    theirs = [p.detach() for p in module.parameters()]
    torch._foreach_lerp_(list(average.parameters()), theirs, 1 - decay)


@dataclass
class Stage:
    name: str
    minutes: float
    batch: int
    rate: float  # peak learning rate
    decay: float  # of the averaged weights


def train_stage(run, stage, modules, loss_of, midway=None):
    """Runs `loss_of(batch) -> loss` for the stage's minutes; leaves averaged weights in `modules`.

    `midway(average)` is called once, after 60 % of the time.
    """
    name, batch, peak = stage.name, stage.batch, stage.rate
    modules.train()
    average = copy.deepcopy(modules)
    optimizer = torch.optim.AdamW(modules.parameters(), lr=peak, betas=(0.9, 0.99), eps=1e-8,
                                  weight_decay=0.0, fused=True)
    state, spent, step = run.restore(name), 0.0, 0
    if state:
        modules.load_state_dict(state["weights"])
        average.load_state_dict(state["average"])
        optimizer.load_state_dict(state["optimizer"])
        spent, step = state["spent"], state["step"]
        run.say(f"{name}: goes on at step {step} after {spent:.0f} s")
    budget = min(60 * stage.minutes - spent, run.time_left())
    begin, shown, running, half_done = time.monotonic(), 0.0, None, False
    bad = torch.zeros((), device=run.device)
    while (now := time.monotonic() - begin) < budget:
        # Progress ends at 1 when time ends, also where the deadline cuts the stage short.
        progress = (spent + now) / max(spent + budget, 1e-6)
        for group in optimizer.param_groups:
            group["lr"] = step_sizes(progress, peak, 0.03)
        try:
            loss = loss_of(batch)
            loss.backward()
        except torch.cuda.OutOfMemoryError:
            if batch < 16:
                raise
            batch //= 2
            run.say(f"{name}: out of memory, batch is now {batch}")
            optimizer.zero_grad(set_to_none=True)
            torch.cuda.empty_cache()
            continue
        norm = torch.nn.utils.clip_grad_norm_(modules.parameters(), 1.0)
        # The fused optimizer leaves a step out on the device itself, without a wait for the value.
        optimizer.found_inf = (~torch.isfinite(norm)).float()
        bad += optimizer.found_inf
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        follow(average, modules, min(stage.decay, (1 + step) / (10 + step)))
        value = loss.detach()
        value = torch.where(torch.isfinite(value), value, value if running is None else running)
        running = value if running is None else running.lerp(value, 0.02)
        step += 1
        if now - shown > run.options.report_seconds:
            shown = now
            speed = batch * step / (spent + now + 1e-9)
            run.say(f"{name}: step {step}, loss {running.item():.4f}, {speed:.0f} pictures/s, "
                    f"{budget - now:.0f} s left"
                    + (f", {int(bad)} steps left out" if bad else ""))
        if midway and not half_done and progress > 0.6:
            half_done = True
            midway(average)
    spent += time.monotonic() - begin
    run.save(name, weights=modules.state_dict(), average=average.state_dict(),
             optimizer=optimizer.state_dict(), spent=spent, step=step)
    modules.load_state_dict(average.state_dict())
    modules.eval()
    loss = None if running is None else round(running.item(), 5)
    run.metrics[name] = dict(minutes=round(spent / 60, 2), steps=step, batch=batch, loss=loss)
    run.say(f"{name}: {run.metrics[name]}")


# ---------------------------------------------------------------------------------- autoencoder


def jitter(pictures, shift, scale, mirror=False):
    """uint8 [B, 3, H, W] -> float -1..1, moved by up to `shift` pixels and scaled on white."""
    count, device = len(pictures), pictures.device
    uniform = lambda size: (torch.rand(count, device=device) * 2 - 1) * size
    zoom = 1 + uniform(scale)
    theta = torch.zeros(count, 2, 3, device=device)
    flip = torch.where(torch.rand(count, device=device) < 0.5, -1.0, 1.0) if mirror else 1.0
    theta[:, 0, 0], theta[:, 1, 1] = zoom * flip, zoom
    theta[:, 0, 2], theta[:, 1, 2] = uniform(2 * shift / 128), uniform(2 * shift / 128)
    dark = 1 - pictures.float() / 255  # white is zero, which is what lies outside
    grid = F.affine_grid(theta, dark.shape, align_corners=False)
    moved = F.grid_sample(dark, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    return 1 - 2 * moved


def picture_loss(made, wanted):
    """L1 of values, of edges and of colour at three sizes: sharp outlines without a pretrained network.

    Colour, the distance of the channels from their mean, counts apart: outlines dominate the plain L1, and
    an autoencoder that is short of time would leave saturated reds and greens brown.
    """
    loss = 0.25 * F.mse_loss(made, wanted)
    for level in range(3):
        if level:
            made, wanted = F.avg_pool2d(made, 2), F.avg_pool2d(wanted, 2)
        difference = made - wanted
        edges = ((difference[..., 1:, :] - difference[..., :-1, :]).abs().mean()
                 + (difference[..., 1:] - difference[..., :-1]).abs().mean())
        colour = difference - difference.mean(1, keepdim=True)
        loss = loss + difference.abs().mean() + edges + 3 * colour.abs().mean()
    return loss


def train_vae(run):
    options, vae = run.options, run.model.vae.to(run.device)

    def loss_of(batch):
        rows = run.draw(batch)
        wanted = jitter(run.pictures[rows], 8, 0.10, mirror=True)
        # Sometimes other colours, so that the autoencoder learns pictures and not only this font.
        turned = wanted[:, torch.randperm(3).tolist()]
        wanted = torch.where(torch.rand(batch, 1, 1, 1, device=run.device) < 0.15, turned, wanted)
        with run.autocast():
            mean, log_variance = vae.moments(wanted)
        mean, log_variance = mean.float(), log_variance.float()
        spread = (0.5 * log_variance).exp()
        # The UNet will not be exact: noise relative to the latents, so that a larger scale does
        # not help against it.
        extra = 0.15 * torch.rand(batch, 1, 1, 1, device=run.device)
        extra = extra * mean.detach().std((0, 2, 3), keepdim=True)
        z = mean + spread * torch.randn_like(mean) + extra * torch.randn_like(mean)
        with run.autocast():
            made = vae.decode(z)
        kl = 0.5 * (mean**2 + spread**2 - 1 - log_variance).mean()
        return picture_loss(made.float(), wanted) + options.kl * kl

    stage = Stage("vae", options.vae_minutes, options.vae_batch, options.vae_rate, 0.998)
    train_stage(run, stage, vae, loss_of)
    normalize(run)


@torch.no_grad()
def moments_of(run, rows, shift=0.0, scale=0.0, batch=128):
    """Mean and standard deviation of the latents of `rows`, each moved a little."""
    means, spreads = [], []
    for part in rows.split(batch):
        mean, log_variance = run.model.vae.moments(jitter(run.pictures[part], shift, scale))
        means.append(mean)
        spreads.append((0.5 * log_variance).exp())
    return torch.cat(means), torch.cat(spreads)


@torch.no_grad()
def normalize(run):
    """Moves each latent channel's mean and size into the 1x1 convolutions around the latents.

    SD 1.x multiplies by a fixed number, so the latents themselves must come out with zero mean and
    a standard deviation of 1 / LATENT_SCALE.
    """
    vae, every = run.model.vae, torch.arange(len(run.pictures), device=run.device)
    mean, _ = moments_of(run, every)
    center, size = mean.mean((0, 2, 3)), mean.std((0, 2, 3)).clamp_min(1e-4)
    factor = 1 / (LATENT_SCALE * size)
    before, after = vae.quant_conv, vae.post_quant_conv
    before.weight[:4] *= factor[:, None, None, None]
    before.bias[:4] = (before.bias[:4] - center) * factor
    before.bias[4:] += 2 * factor.log()
    after.bias += after.weight[:, :, 0, 0] @ center
    after.weight /= factor[None, :, None, None]

    mean, spread = moments_of(run, every)
    scaled = mean * LATENT_SCALE
    made = decode(run.model, scaled)
    error = (made.float() - run.data.pictures.float()).square().mean((1, 2, 3)).clamp_min(1e-3)
    psnr = (10 * torch.log10(255**2 / error)).mean().item()
    run.metrics["latents"] = dict(
        mean=[round(v, 4) for v in scaled.mean((0, 2, 3)).tolist()],
        std=[round(v, 4) for v in scaled.std((0, 2, 3)).tolist()],
        posterior_std=round((spread * LATENT_SCALE).mean().item(), 4),
        largest=round(scaled.abs().max().item(), 2))
    run.metrics["vae_psnr_db"] = round(psnr, 2)
    run.say(f"vae: {psnr:.2f} dB, {run.metrics['latents']}")


# ------------------------------------------------------------------------- UNet and text encoder


class LatentBank:
    """Latents of every emoji in a few slightly moved versions; the first one is not moved."""

    def __init__(self, run, versions):
        every = torch.arange(len(run.pictures), device=run.device)
        amounts = [(0.0, 0.0)] + [(1.5, 0.02)] * (versions - 1)
        banks = [moments_of(run, every, shift, scale) for shift, scale in amounts]
        self.mean = torch.stack([mean for mean, _ in banks], 1) * LATENT_SCALE
        self.spread = torch.stack([spread for _, spread in banks], 1) * LATENT_SCALE

    def draw(self, rows):
        version = torch.randint(self.mean.shape[1], rows.shape, device=rows.device)
        version = torch.where(torch.rand(rows.shape, device=rows.device) < 0.3, 0, version)
        mean = self.mean[rows, version]
        return mean + self.spread[rows, version] * torch.randn_like(mean)


def draw_captions(run, bank, empty, rows):
    """One caption for each row: random words filled in, 12 % of the captions left out."""
    tokens = bank[rows, torch.randint(bank.shape[1], rows.shape, device=run.device)].long()
    anything = torch.randint_like(tokens, 0, 49406)
    tokens = torch.where(tokens == ANY_WORD, anything, tokens)
    left_out = torch.rand(len(rows), 1, device=run.device) < 0.12
    return torch.where(left_out, empty, tokens)


def train_unet(run):
    options = run.options
    run.model.vae.to(run.device).eval()
    unet, text = run.model.unet.to(run.device), run.model.text.to(run.device)
    latents = LatentBank(run, options.versions)
    bank = caption_bank(run.data.entries, run.data.tokenizer, options.captions, options.seed)
    bank, empty = bank.to(run.device), run.data.tokenizer([""]).to(run.device)
    kept = alphas_cumprod().to(run.device)
    ratio = kept / (1 - kept)
    importance = ratio.clamp(max=5) / ratio  # min-SNR weights for noise prediction
    importance = importance / importance.mean()

    def loss_of(batch):
        rows = run.draw(batch)
        clean, tokens = latents.draw(rows), draw_captions(run, bank, empty, rows)
        when = torch.randint(TRAIN_STEPS, (batch,), device=run.device)
        level, noise = kept[when][:, None, None, None], torch.randn_like(clean)
        noisy = level.sqrt() * clean + (1 - level).sqrt() * noise
        with run.autocast():
            made = unet(noisy, when, text(tokens))
        error = (made.float() - noise).square().mean((1, 2, 3))
        return (error * importance[when]).mean()

    both = torch.nn.ModuleDict(dict(unet=unet, text=text))
    stage = Stage("unet", options.unet_minutes, options.unet_batch, options.unet_rate, 0.9993)
    train_stage(run, stage, both, loss_of, lambda average: write_results(run, average))


# --------------------------------------------------------------------------------------- results


@torch.no_grad()
def found_again(run, model, prompts_rows, batch=256, **settings):
    """Share of names whose picture is nearest to their own emoji (top 1, top 5)."""
    tokenizer = run.data.tokenizer
    names = [run.data.entries[row]["name"] for row in prompts_rows]
    shrink = lambda x: F.avg_pool2d(x.float(), 4).flatten(1) / 255
    known, first, five = shrink(run.data.pictures), 0, 0
    for start in range(0, len(names), batch):
        made = sample(model, tokenizer(names[start:start + batch]), tokenizer([""]), seed=start,
                      **settings)
        order = torch.cdist(shrink(made), known).argsort(1)[:, :5]
        wanted = torch.tensor(prompts_rows[start:start + batch])[:, None]
        first += (order[:, :1] == wanted).sum().item()
        five += (order == wanted).any(1).sum().item()
    return round(first / len(names), 4), round(five / len(names), 4)


def alike(a, b):
    """PSNR in dB between two sets of uint8 pictures."""
    error = (a.float() - b.float()).square().mean().clamp_min(1e-3)
    return round((10 * torch.log10(255**2 / error)).item(), 2)


def precision_check(run, exported):
    """Pictures from unrounded weights and in each dtype, against rounded weights in float32."""
    tokenizer = run.data.tokenizer
    tokens, empty = tokenizer(sorted(NAMED) + ["a purple dinosaur playing chess"]), tokenizer([""])
    wanted = sample(exported, tokens, empty)
    result = dict(unrounded_db=alike(sample(run.model, tokens, empty), wanted))
    for dtype in (torch.bfloat16, torch.float16):
        made = sample(copy.deepcopy(exported).to(dtype), tokens, empty)
        result[f"{str(dtype)[6:]}_db"] = alike(made, wanted)
    return result


def write_results(run, unfinished=None):
    """Checkpoint into --work and, in parts, into --out; then pictures and figures.

    With `unfinished` averages of UNet and text encoder it writes those, without pictures: so that
    something is there if the run is cut off.
    """
    options, out, model = run.options, Path(run.options.out), run.model
    if unfinished is not None:
        model = copy.copy(model)  # a second set of children, the same VAE
        model._modules = dict(model._modules, unet=unfinished["unet"], text=unfinished["text"])
    out.mkdir(parents=True, exist_ok=True)
    metadata = dict(title="distorch emoji v1", seed=options.seed, format="pt",
                    license="see the model card",
                    data="Noto Color Emoji (OFL 1.1), Unicode CLDR names")
    path, digest = export.write(model, options.work, metadata)
    parts = export.split(path, out)
    run.metrics["file"] = dict(name=path.name, bytes=path.stat().st_size, sha256=digest,
                               parts=parts)
    run.say(f"wrote {path} ({path.stat().st_size} bytes)")
    if unfinished is None:
        try:
            show(run, path, out)
        except RuntimeError as error:  # the weights are safe: say what failed, keep them
            run.metrics["failed"] = str(error)[:500]
            run.say(f"results are incomplete: {error}")
    run.metrics["wall_minutes"] = round((time.monotonic() - run.start) / 60, 2)
    (out / "metrics.json").write_text(json.dumps(run.metrics, indent=1) + "\n")


def show(run, path, out):
    """Sample sheets and figures, all from the file that was just written."""
    run.model.to(run.device).eval()
    exported = load(path, run.device)
    tokenizer = run.data.tokenizer
    prompt_sheet(exported, tokenizer).save(out / "samples_euler.png", optimize=True)
    prompt_sheet(exported, tokenizer, per_prompt=2, sampler="dpmpp_2m").save(
        out / "samples_dpmpp_2m.png", optimize=True)
    every = torch.arange(0, len(run.pictures), max(1, len(run.pictures) // 12), device=run.device)
    mean, _ = moments_of(run, every)
    pages = [run.data.pictures[every.cpu()], decode(run.model, mean * LATENT_SCALE)]
    labels = ["originals", "after the autoencoder"]
    sheet(pages, labels).save(out / "autoencoder.png", optimize=True)
    run.say("sheets written")
    run.metrics["precision"] = precision_check(run, exported)
    run.say(f"precision: {run.metrics['precision']}")
    rows = [i for i, e in enumerate(run.data.entries) if e["group"] != "Flags"]
    named = [i for i, e in enumerate(run.data.entries) if e["name"] in NAMED]
    count = min(run.options.check, len(rows))
    chosen = rows[::max(1, len(rows) // max(count, 1))][:count]
    if chosen:
        first, five = found_again(run, exported, chosen)
        run.metrics["found_again"] = dict(names=len(chosen), top1=first, top5=five,
                                          named=found_again(run, exported, named * 8)[0])
        run.say(f"found again: {run.metrics['found_again']}")


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("stage", choices=("all", "vae", "unet", "export"))
    add("--cache", default=".train_demo", help="the folder that prepare.py made")
    add("--work", default="build/train_demo", help="resume state and the whole checkpoint")
    add("--out", default=os.environ.get("OUT", "build/train_demo/out"), help="results to keep")
    add("--init", help="a checkpoint file to start from instead of random weights")
    add("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    add("--seed", type=int, default=20)
    add("--vae-minutes", type=float, default=2.5)
    add("--unet-minutes", type=float, default=5.5)
    add("--deadline-minutes", type=float, default=9.5, help="end of the whole run")
    add("--export-seconds", type=float, default=45, help="kept free for the results")
    add("--vae-batch", type=int, default=96)
    add("--unet-batch", type=int, default=1024)
    add("--vae-rate", type=float, default=1e-3)
    add("--unet-rate", type=float, default=1e-3)
    add("--kl", type=float, default=3e-4)
    add("--versions", type=int, default=8, help="slightly moved copies of each picture")
    add("--captions", type=int, default=64, help="caption variants of each emoji")
    add("--check", type=int, default=512, help="names to sample for the found-again figure")
    add("--limit", type=int, help="use only so many emoji (to try the code)")
    add("--report-seconds", type=float, default=15)
    return parser.parse_args()


def main():
    run = Run(arguments())
    options = run.options
    if options.init:
        run.model = load(options.init)
    run.model.to(run.device)
    if options.stage in ("all", "vae"):
        train_vae(run)
    elif not options.init:
        state = run.restore("vae")
        if not state:
            raise SystemExit("no autoencoder: run the stage vae first, or give --init FILE")
        run.model.vae.load_state_dict(state["average"])
        normalize(run)
    if options.stage in ("all", "unet"):
        train_unet(run)
    elif options.stage == "export" and not options.init:
        state = run.restore("unet")
        if not state:
            raise SystemExit("nothing to export: run the stage unet first, or give --init FILE")
        both = torch.nn.ModuleDict(dict(unet=run.model.unet, text=run.model.text))
        both.load_state_dict(state["average"])
    if options.stage != "vae":
        write_results(run)


if __name__ == "__main__":
    main()
