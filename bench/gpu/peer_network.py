"""Diffusers' network of a model with random weights: writes weights, inputs and results for bench_gpu_network and times a step.
peer_network.py MODEL FOLDER [--tiny] [--device cuda] [--compile SECONDS] [--kernels FOLDER]     MODEL: one of the classes below
With --compile only torch.compile is timed, on the weights that are there, and added to peer.json: each size in a process of its own
that has so many seconds; a size that needs longer is said and left out. --kernels: which kernels a step consists of goes there too."""
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


class UNet:
    """A network of this file: `config` of diffusers' class, what it is called with (`given`), and the same under our names (`ours`)."""
    title, dtype, batch = "SD 1.5", torch.float16, 2
    config = dict(sample_size=64, in_channels=4, out_channels=4, layers_per_block=2, block_out_channels=(320, 640, 1280, 1280),
                  down_block_types=("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
                  up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3, cross_attention_dim=768, attention_head_dim=8)
    tiny = dict(config, block_out_channels=(32, 64, 64, 64))
    sizes = {"512": 64, "1024": 128}

    def make(self, config):
        from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
        return UNet2DConditionModel(**config)

    def ours(self, side, config):
        return {"x": torch.randn(self.batch, 4, side, side), "timestep": torch.full((self.batch,), 601.0),
                "context": torch.randn(self.batch, 77, config["cross_attention_dim"])}

    def given(self, ours):
        return dict(sample=ours["x"], timestep=ours["timestep"].float(), encoder_hidden_states=ours["context"])

    def out(self, result, ours):
        return result

    def saved(self, state):
        """The weights as the files in circulation have them."""
        return state


class SDXL(UNet):
    title = "SDXL"
    config = dict(sample_size=128, in_channels=4, out_channels=4, layers_per_block=2, block_out_channels=(320, 640, 1280),
                  down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
                  up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"), cross_attention_dim=2048,
                  attention_head_dim=(5, 10, 20), transformer_layers_per_block=(1, 2, 10), use_linear_projection=True,
                  addition_embed_type="text_time", addition_time_embed_dim=256, projection_class_embeddings_input_dim=2816)
    tiny = dict(config, block_out_channels=(64, 128, 256), attention_head_dim=(1, 2, 4))
    sizes = {"1024": 128}

    def ours(self, side, config):
        from diffusers.models.embeddings import get_timestep_embedding
        self.pooled = torch.randn(self.batch, 1280)
        self.numbers = torch.tensor([[side * 8.0, side * 8.0, 0, 0, side * 8.0, side * 8.0]]).repeat(self.batch, 1)
        embedded = get_timestep_embedding(self.numbers.flatten(), 256, flip_sin_to_cos=True, downscale_freq_shift=0)
        return dict(super().ours(side, config), vector=torch.cat([self.pooled, embedded.reshape(self.batch, -1)], 1))

    def given(self, ours):
        vector = ours["vector"]
        conditions = {"text_embeds": vector[:, :1280], "time_ids": self.numbers.to(vector)}
        return dict(super().given(ours), added_cond_kwargs=conditions)


class Transformer(UNet):
    """Latents of 16 channels in 2 x 2 patches, one picture."""
    dtype, batch, sizes, tokens = torch.bfloat16, 1, {"1024": 128}, 512

    def packed(self, x):
        b, c, h, w = x.shape
        return x.reshape(b, c, h // 2, 2, w // 2, 2).permute(0, 2, 4, 1, 3, 5).reshape(b, h * w // 4, c * 4)

    def unpacked(self, tokens, x):
        b, c, h, w = x.shape
        return tokens.reshape(b, h // 2, w // 2, c, 2, 2).permute(0, 3, 1, 4, 2, 5).reshape(b, c, h, w)


class Flux(Transformer):
    title = "FLUX.1-dev"
    config = dict(patch_size=1, in_channels=64, num_layers=19, num_single_layers=38, attention_head_dim=128, num_attention_heads=24,
                  joint_attention_dim=4096, pooled_projection_dim=768, guidance_embeds=True)
    tiny = dict(config, num_layers=2, num_single_layers=2, num_attention_heads=2)
    sizes = {"512": 64, "1024": 128}

    def make(self, config):
        from diffusers import FluxTransformer2DModel
        return FluxTransformer2DModel(**config)

    def ours(self, side, config):
        # Diffusers rounds the level to bfloat16 and multiplies by 1000 in that type: 0.6 becomes 600 there too.
        return {"x": torch.randn(1, 16, side, side), "timestep": torch.tensor([0.6]), "context": torch.randn(1, self.tokens, 4096),
                "vector": torch.randn(1, 768), "guidance": torch.tensor([3.5])}

    def given(self, ours):
        x = ours["x"]
        rows, columns = x.shape[2] // 2, x.shape[3] // 2
        ids = torch.zeros(rows, columns, 3, device=x.device)
        ids[..., 1] += torch.arange(rows, device=x.device)[:, None]
        ids[..., 2] += torch.arange(columns, device=x.device)[None, :]
        return dict(hidden_states=self.packed(x), encoder_hidden_states=ours["context"], pooled_projections=ours["vector"],
                    timestep=ours["timestep"].to(x), guidance=ours["guidance"].to(x), img_ids=ids.reshape(-1, 3),
                    txt_ids=torch.zeros(self.tokens, 3, device=x.device))

    def out(self, result, ours):
        return self.unpacked(result, ours["x"])


    def saved(self, state):
        names = {"x_embedder.": "img_in.", "context_embedder.": "txt_in.", "time_text_embed.timestep_embedder.linear_1.": "time_in.in_layer.",
                 "time_text_embed.timestep_embedder.linear_2.": "time_in.out_layer.", "proj_out.": "final_layer.linear.",
                 "time_text_embed.guidance_embedder.linear_1.": "guidance_in.in_layer.",
                 "time_text_embed.guidance_embedder.linear_2.": "guidance_in.out_layer.",
                 "time_text_embed.text_embedder.linear_1.": "vector_in.in_layer.", "time_text_embed.text_embedder.linear_2.": "vector_in.out_layer."}
        double = {"norm1.linear.": "img_mod.lin.", "norm1_context.linear.": "txt_mod.lin.", "attn.norm_q.weight": "img_attn.norm.query_norm.scale",
                  "attn.norm_k.weight": "img_attn.norm.key_norm.scale", "attn.norm_added_q.weight": "txt_attn.norm.query_norm.scale",
                  "attn.norm_added_k.weight": "txt_attn.norm.key_norm.scale", "attn.to_out.0.": "img_attn.proj.", "attn.to_add_out.": "txt_attn.proj.",
                  "ff.net.0.proj.": "img_mlp.0.", "ff.net.2.": "img_mlp.2.", "ff_context.net.0.proj.": "txt_mlp.0.", "ff_context.net.2.": "txt_mlp.2."}
        single = {"norm.linear.": "modulation.lin.", "attn.norm_q.weight": "norm.query_norm.scale", "attn.norm_k.weight": "norm.key_norm.scale",
                  "proj_out.": "linear2."}
        fused = {"img_attn.qkv.": ("attn.to_q.", "attn.to_k.", "attn.to_v."), "txt_attn.qkv.": ("attn.add_q_proj.", "attn.add_k_proj.", "attn.add_v_proj."),
                 "linear1.": ("attn.to_q.", "attn.to_k.", "attn.to_v.", "proj_mlp.")}
        out = {new + end: state[old + end] for old, new in names.items() for end in ("weight", "bias")}
        for ours, theirs, parts, joined in (("double_blocks", "transformer_blocks", double, ("img_attn.qkv.", "txt_attn.qkv.")),
                                            ("single_blocks", "single_transformer_blocks", single, ("linear1.",))):
            for i in range(len({name.split(".")[1] for name in state if name.startswith(theirs + ".")})):
                for old, new in parts.items():
                    for end in ("weight", "bias") if old.endswith(".") else ("",):
                        out[f"{ours}.{i}.{new}{end}"] = state[f"{theirs}.{i}.{old}{end}"]
                for new in joined:
                    for end in ("weight", "bias"):
                        out[f"{ours}.{i}.{new}{end}"] = torch.cat([state[f"{theirs}.{i}.{old}{end}"] for old in fused[new]])
        for end in ("weight", "bias"):
            scale, shift = state["norm_out.linear." + end].chunk(2)
            out["final_layer.adaLN_modulation.1." + end] = torch.cat([shift, scale])
        return out


class QwenImage(Transformer):
    title, batch, tokens = "Qwen-Image", 2, 256
    config = dict(patch_size=2, in_channels=64, out_channels=16, num_layers=60, attention_head_dim=128, num_attention_heads=24,
                  joint_attention_dim=3584)
    tiny = dict(config, num_layers=2, num_attention_heads=2)

    def make(self, config):
        from diffusers import QwenImageTransformer2DModel
        return QwenImageTransformer2DModel(**config)

    def ours(self, side, config):
        return {"x": torch.randn(self.batch, 16, 1, side, side), "timestep": torch.full((self.batch,), 0.625),
                "context": torch.randn(self.batch, self.tokens, 3584)}

    def given(self, ours):
        x = ours["x"].squeeze(2)
        shapes = [[(1, x.shape[2] // 2, x.shape[3] // 2)]] * self.batch
        mask = torch.ones(self.batch, self.tokens, dtype=torch.bool, device=x.device)
        return dict(hidden_states=self.packed(x), encoder_hidden_states=ours["context"], encoder_hidden_states_mask=mask,
                    timestep=ours["timestep"].to(x), img_shapes=shapes, txt_seq_lens=[self.tokens] * self.batch)

    def out(self, result, ours):
        return self.unpacked(result, ours["x"].squeeze(2)).unsqueeze(2)


class SD35(Transformer):
    title, batch, tokens = "SD3.5-large", 2, 154 + 77
    config = dict(sample_size=128, patch_size=2, in_channels=16, num_layers=38, attention_head_dim=64, num_attention_heads=38,
                  joint_attention_dim=4096, caption_projection_dim=2432, pooled_projection_dim=2048, out_channels=16,
                  pos_embed_max_size=192, qk_norm="rms_norm")
    tiny = dict(config, num_layers=4, num_attention_heads=4, caption_projection_dim=256)

    def make(self, config):
        from diffusers import SD3Transformer2DModel
        return SD3Transformer2DModel(**config)

    def ours(self, side, config):
        return {"x": torch.randn(self.batch, 16, side, side), "timestep": torch.full((self.batch,), 600.0),
                "context": torch.randn(self.batch, self.tokens, 4096), "vector": torch.randn(self.batch, 2048)}

    def given(self, ours):
        return dict(hidden_states=ours["x"], encoder_hidden_states=ours["context"], pooled_projections=ours["vector"],
                    timestep=ours["timestep"].to(ours["x"]))


MODELS = {"sd15": UNet, "sdxl": SDXL, "flux": Flux, "qwen_image": QwenImage, "sd35": SD35}


def time_step(step, device, warm_ups=3, rounds=5, calls=6):
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


def write_kernels(path, step, calls=3):
    """A JSON list of {name, calls, seconds} of one step, the longest kernel first."""
    from torch.profiler import ProfilerActivity, profile
    with profile(activities=[ProfilerActivity.CUDA]) as found:
        for _ in range(calls):
            step()
        torch.cuda.synchronize()
    kernels = [{"name": event.key, "calls": event.count / calls, "seconds": event.self_device_time_total * 1e-6 / calls}
               for event in found.key_averages() if event.self_device_time_total]
    json.dump(sorted(kernels, key=lambda kernel: -kernel["seconds"]), open(path, "w"), indent=1)


def make_network(model, args, device):
    torch.manual_seed(5)
    # Made in its own type and place: the larger networks would not fit twice.
    torch.set_default_dtype(model.dtype)
    with device:
        network = model.make(model.tiny if args.tiny else model.config).eval().requires_grad_(False)
    torch.set_default_dtype(torch.float32)
    generator = torch.Generator(device).manual_seed(5)
    with torch.no_grad():
        for name, value in network.state_dict().items():
            if value.dim() > 1:
                value.normal_(0, value[0].numel() ** -0.5, generator=generator)
            else:
                value.fill_(1) if name.endswith("weight") else value.normal_(0, 0.02, generator=generator)
    return network


def paths(folder):
    return os.path.join(folder, "weights.safetensors"), os.path.join(folder, "peer.json")


def on_device(model, case, device):
    return {name: value.to(device, model.dtype) if name != "timestep" else value.to(device) for name, value in case.items()}


def time_eager(model, args, device):
    os.makedirs(args.folder, exist_ok=True)
    weights, facts_path = paths(args.folder)
    config = model.tiny if args.tiny else model.config
    network = make_network(model, args, device)
    save_file({k: v.contiguous().cpu() for k, v in model.saved(network.state_dict()).items()}, weights)
    facts = {"title": model.title, "dtype": str(model.dtype).split(".")[1], "batch": model.batch, "sizes": list(model.sizes),
             "eager": {}, "tiny": args.tiny}
    for name, side in model.sizes.items():
        ours = on_device(model, model.ours(side // 8 if args.tiny else side, config), device)
        given = model.given(ours)
        step = lambda: network(**given, return_dict=False)[0]
        out = model.out(step(), ours)
        facts["eager"][name] = time_step(step, device)
        if args.kernels:
            write_kernels(os.path.join(args.kernels, f"kernels_{args.model}_{name}_eager.json"), step)
        kept = {key: value.cpu().contiguous() for key, value in ours.items()}
        save_file(dict(kept, out=out.float().cpu().contiguous()), os.path.join(args.folder, f"case_{name}.safetensors"))
        print(f"diffusers eager {model.title} {name}: {facts['eager'][name]:.4f} s", flush=True)
    json.dump(facts, open(facts_path, "w"), indent=1)


def time_compiled(model, args, device):
    """One size, in this process: seconds of a step and of everything before it on standard output, as JSON."""
    network = make_network(model, args, device)
    side = model.sizes[args.compile_size]
    model.ours(side // 8 if args.tiny else side, model.tiny if args.tiny else model.config)
    case = load_file(os.path.join(args.folder, f"case_{args.compile_size}.safetensors"), device=str(device))
    out = case.pop("out")
    given = model.given(case)
    compiled = torch.compile(network, dynamic=False)
    step = lambda: compiled(**given, return_dict=False)[0]
    start = time.time()
    difference = (model.out(step(), case).float() - out).abs().max() / out.abs().max()
    seconds = time.time() - start
    if args.kernels:
        write_kernels(os.path.join(args.kernels, f"kernels_{args.model}_{args.compile_size}_compiled.json"), step)
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
        command = [sys.executable, os.path.abspath(__file__), args.model, args.folder, "--device", args.device, "--compile-size", name]
        command += ["--kernels", args.kernels] if args.kernels else []
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
    model = MODELS[args.model]()
    if device.type == "cpu":
        model.dtype = torch.float32
    with torch.no_grad():
        (time_compiled if args.compile_size else time_eager)(model, args, device)
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("model", choices=MODELS)
    parser.add_argument("folder")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--compile", type=float, default=0, metavar="SECONDS", help="of each size")
    parser.add_argument("--kernels", metavar="FOLDER", help="tell the kernels of a step")
    parser.add_argument("--compile-size", help=argparse.SUPPRESS)
    sys.exit(main(parser.parse_args()))
