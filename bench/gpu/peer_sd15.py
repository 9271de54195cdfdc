"""Diffusers' UNet of Stable Diffusion 1.5 with random weights: writes weights, inputs and results for bench_gpu_sd15 and times
a step of batch 2. peer_sd15.py FOLDER [--tiny] [--device cuda] [--compile SECONDS]
With --compile only torch.compile is timed, on the weights that are there, and added to peer.json: each size in a process of its own
that has so many seconds; a size that needs longer is said and left out."""
import argparse
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import time

import torch
from safetensors.torch import load_file, save_file

CONFIG = dict(sample_size=64, in_channels=4, out_channels=4, layers_per_block=2, block_out_channels=(320, 640, 1280, 1280),
              down_block_types=("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
              up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3, cross_attention_dim=768, attention_head_dim=8)
TINY = dict(CONFIG, block_out_channels=(32, 64, 64, 64))


def time_step(step, device, warm_ups=4, rounds=5, calls=8):
    synchronize = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    for _ in range(warm_ups):
        step()
    synchronize()
    seconds = []
    for _ in range(rounds):
        start = time.time()
        for _ in range(calls):
            step()
        synchronize()
        seconds.append((time.time() - start) / calls)
    return statistics.median(seconds)


def make_unet(args, device, half):
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
    torch.manual_seed(5)
    with torch.device(device):
        return UNet2DConditionModel(**(TINY if args.tiny else CONFIG)).to(half).eval().requires_grad_(False)


def paths(folder):
    return os.path.join(folder, "unet.safetensors"), os.path.join(folder, "peer.json")


def time_eager(args, device, half):
    os.makedirs(args.folder, exist_ok=True)
    weights, facts_path = paths(args.folder)
    sizes = {"512": 8, "1024": 16} if args.tiny else {"512": 64, "1024": 128}
    unet = make_unet(args, device, half)
    save_file({k: v.contiguous().cpu() for k, v in unet.state_dict().items()}, weights)
    facts = {"sizes": list(sizes), "eager": {}, "dtype": str(half)}
    for name, side in sizes.items():
        x = torch.randn(2, 4, side, side).to(half)
        context = torch.randn(2, 77, 768).to(half)
        timestep = torch.tensor([601.0, 601.0])
        given = [t.to(device) for t in (x, timestep, context)]
        out = unet(*given).sample
        facts["eager"][name] = time_step(lambda: unet(*given), device)
        save_file({"x": x, "timestep": timestep, "context": context, "out": out.float().cpu().contiguous()},
                  os.path.join(args.folder, f"case_{name}.safetensors"))
        print(f"diffusers eager {name}: {facts['eager'][name]:.4f} s", flush=True)
    json.dump(facts, open(facts_path, "w"), indent=1)


def time_compiled(args, device, half):
    """One size, in this process: seconds of a step and of everything before it on standard output, as JSON."""
    unet = make_unet(args, device, half)
    unet.load_state_dict(load_file(paths(args.folder)[0], device=str(device)))
    case = load_file(os.path.join(args.folder, f"case_{args.compile_size}.safetensors"), device=str(device))
    compiled = torch.compile(unet, dynamic=False)
    step = lambda: compiled(case["x"], case["timestep"], case["context"]).sample
    start = time.time()
    difference = (step().float() - case["out"]).abs().max() / case["out"].abs().max()
    seconds = time.time() - start
    print(json.dumps({"step": time_step(step, device), "compile_s": seconds, "difference": float(difference)}))


def run_limited(command, seconds, environment):
    """Standard output of a command; None where it was not done in time. Its own children (compile workers) go with it."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment, start_new_session=True) as process:
        try:
            out, _ = process.communicate(timeout=seconds)
            return out if process.returncode == 0 else ""
        except subprocess.TimeoutExpired:
            return None
        finally:
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass


def compile_sizes(args):
    facts_path = paths(args.folder)[1]
    facts = json.load(open(facts_path))
    facts["compiled"], facts["compile_s"] = {}, {}
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that a child never outlives this process
    cache = os.path.abspath(os.path.join(args.folder, "inductor"))
    environment = dict(os.environ, TORCHINDUCTOR_CACHE_DIR=cache, TORCHINDUCTOR_COMPILE_THREADS=str(os.cpu_count()))
    failed = False
    for name in facts["sizes"]:
        command = [sys.executable, os.path.abspath(__file__), args.folder, "--device", args.device, "--compile-size", name]
        shutil.rmtree(cache, ignore_errors=True)  # a run that was cut off leaves half a library; and all compile from nothing
        out = run_limited(command + (["--tiny"] if args.tiny else []), args.compile, environment)
        if out is None:
            print(f"torch.compile {name}: did not finish within {args.compile:.0f} s", flush=True)
        elif not out:
            print(f"torch.compile {name}: FAILED", flush=True)
            failed = True
        else:
            found = json.loads(out.strip().splitlines()[-1])
            facts["compiled"][name], facts["compile_s"][name] = found["step"], found["compile_s"]
            print(f"torch.compile {name}: {found['step']:.4f} s after {found['compile_s']:.0f} s of compiling, "
                  f"{found['difference']:.1e} from eager", flush=True)
        json.dump(facts, open(facts_path, "w"), indent=1)
    return 1 if failed else 0


def main(args):
    if args.compile:
        return compile_sizes(args)
    device = torch.device(args.device)
    half = torch.float16 if device.type == "cuda" else torch.float32
    with torch.no_grad():
        (time_compiled if args.compile_size else time_eager)(args, device, half)
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--compile", type=float, default=0, metavar="SECONDS", help="of each size")
    parser.add_argument("--compile-size", help=argparse.SUPPRESS)
    sys.exit(main(parser.parse_args()))
