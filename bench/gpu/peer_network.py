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
    """A network of this file: `config` of diffusers' class, what it is called with (`given`), and the same under our names (`ours`).
    `sizes`: what a size is called (pixels: "1024", or width x height x frames) and the latent's cells, those of its channels."""
    title, dtype, batch = "SD 1.5", torch.float16, 2
    config = dict(sample_size=64, in_channels=4, out_channels=4, layers_per_block=2, block_out_channels=(320, 640, 1280, 1280),
                  down_block_types=("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
                  up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3, cross_attention_dim=768, attention_head_dim=8)
    tiny = dict(config, block_out_channels=(32, 64, 64, 64))
    sizes = {"512": (64, 64), "1024": (128, 128)}

    def make(self, config):
        from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
        return UNet2DConditionModel(**config)

    def ours(self, cells, config):
        return {"x": torch.randn(self.batch, 4, *cells), "timestep": torch.full((self.batch,), 601.0),
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
    sizes = {"1024": (128, 128)}

    def ours(self, cells, config):
        from diffusers.models.embeddings import get_timestep_embedding
        self.pooled = torch.randn(self.batch, 1280)
        height, width = (8.0 * count for count in cells)
        self.numbers = torch.tensor([[height, width, 0, 0, height, width]]).repeat(self.batch, 1)
        embedded = get_timestep_embedding(self.numbers.flatten(), 256, flip_sin_to_cos=True, downscale_freq_shift=0)
        return dict(super().ours(cells, config), vector=torch.cat([self.pooled, embedded.reshape(self.batch, -1)], 1))

    def given(self, ours):
        vector = ours["vector"]
        conditions = {"text_embeds": vector[:, :1280], "time_ids": self.numbers.to(vector)}
        return dict(super().given(ours), added_cond_kwargs=conditions)


class Transformer(UNet):
    """Latents of 16 channels in 2 x 2 patches, one picture."""
    dtype, batch, sizes, tokens = torch.bfloat16, 1, {"1024": (128, 128)}, 512

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
    sizes = {"512": (64, 64), "1024": (128, 128)}

    def make(self, config):
        from diffusers import FluxTransformer2DModel
        return FluxTransformer2DModel(**config)

    def ours(self, cells, config):
        # Diffusers rounds the level to bfloat16 and multiplies by 1000 in that type: 0.6 becomes 600 there too.
        return {"x": torch.randn(1, 16, *cells), "timestep": torch.tensor([0.6]), "context": torch.randn(1, self.tokens, 4096),
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

    # Diffusers' names and the original ones: beside the blocks, in them, and what is one tensor there.
    outside = {"x_embedder.": "img_in.", "context_embedder.": "txt_in.", "time_text_embed.timestep_embedder.linear_1.": "time_in.in_layer.",
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
    double_fused = {"img_attn.qkv.": ("attn.to_q.", "attn.to_k.", "attn.to_v."),
                    "txt_attn.qkv.": ("attn.add_q_proj.", "attn.add_k_proj.", "attn.add_v_proj.")}
    single_fused = {"linear1.": ("attn.to_q.", "attn.to_k.", "attn.to_v.", "proj_mlp.")}

    def blocks(self):
        """(original name of a list of blocks, diffusers', names in a block, what is one tensor)"""
        return [("double_blocks", "transformer_blocks", self.double, self.double_fused),
                ("single_blocks", "single_transformer_blocks", self.single, self.single_fused)]

    def saved(self, state):
        out = {new + end: state[old + end] for old, new in self.outside.items() for end in ("weight", "bias")}
        for ours, theirs, parts, fused in self.blocks():
            count = 1 + max(int(name[len(theirs) + 1:].split(".")[0]) for name in state if name.startswith(theirs + "."))
            for i in range(count):
                for old, new in parts.items():
                    for end in ("weight", "bias") if old.endswith(".") else ("",):
                        out[f"{ours}.{i}.{new}{end}"] = state[f"{theirs}.{i}.{old}{end}"]
                for new, olds in fused.items():
                    for end in ("weight", "bias"):
                        out[f"{ours}.{i}.{new}{end}"] = torch.cat([state[f"{theirs}.{i}.{old}{end}"] for old in olds])
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

    def ours(self, cells, config):
        return {"x": torch.randn(self.batch, 16, 1, *cells), "timestep": torch.full((self.batch,), 0.625),
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

    def ours(self, cells, config):
        return {"x": torch.randn(self.batch, 16, *cells), "timestep": torch.full((self.batch,), 600.0),
                "context": torch.randn(self.batch, self.tokens, 4096), "vector": torch.randn(self.batch, 2048)}

    def given(self, ours):
        return dict(hidden_states=ours["x"], encoder_hidden_states=ours["context"], pooled_projections=ours["vector"],
                    timestep=ours["timestep"].to(ours["x"]))


class Wan(Transformer):
    """Wan 2.2's 14B for text to video: one of its two, which are alike."""
    title, sizes = "Wan 2.2 14B", {"832x480x81": (21, 60, 104)}
    config = dict(patch_size=(1, 2, 2), num_attention_heads=40, attention_head_dim=128, in_channels=16, out_channels=16, text_dim=4096,
                  freq_dim=256, ffn_dim=13824, num_layers=40, cross_attn_norm=True, qk_norm="rms_norm_across_heads", eps=1e-6)
    tiny = dict(config, num_layers=2, num_attention_heads=2, ffn_dim=384)

    def make(self, config):
        from diffusers import WanTransformer3DModel
        return WanTransformer3DModel(**config)

    def ours(self, cells, config):
        return {"x": torch.randn(1, 16, *cells), "timestep": torch.tensor([601.0]), "context": torch.randn(1, self.tokens, 4096)}

    def given(self, ours):
        return dict(hidden_states=ours["x"], encoder_hidden_states=ours["context"], timestep=ours["timestep"])

    outside = {"scale_shift_table": "head.modulation", "proj_out.": "head.head.", "condition_embedder.time_embedder.linear_1.": "time_embedding.0.",
               "condition_embedder.time_embedder.linear_2.": "time_embedding.2.", "condition_embedder.time_proj.": "time_projection.1.",
               "condition_embedder.text_embedder.linear_1.": "text_embedding.0.",
               "condition_embedder.text_embedder.linear_2.": "text_embedding.2."}
    # In this order: norm1 and what was norm2 there have no weights.
    inside = {"attn1.": "self_attn.", "attn2.": "cross_attn.", "attn.to_out.0.": "attn.o.", "attn.to_": "attn.", "norm2.": "norm3.",
              "ffn.net.0.proj.": "ffn.0.", "ffn.net.2.": "ffn.2.", "scale_shift_table": "modulation"}

    def saved(self, state):
        def original(name):
            for old, new in (self.inside if name.startswith("blocks.") else self.outside).items():
                name = name.replace(old, new)
            return name
        return {original(name): value for name, value in state.items()}


class HunyuanVideo(Flux):
    """Its blocks are FLUX's, their names the same in diffusers and nearly so in Tencent's files."""
    title, tokens, sizes = "HunyuanVideo", 256, {"960x544x61": (16, 68, 120)}
    config = dict(in_channels=16, out_channels=16, num_attention_heads=24, attention_head_dim=128, num_layers=20, num_single_layers=40,
                  num_refiner_layers=2, patch_size=2, patch_size_t=1, guidance_embeds=True, text_embed_dim=4096, pooled_projection_dim=768)
    tiny = dict(config, num_layers=2, num_single_layers=2, num_attention_heads=2)

    def make(self, config):
        from diffusers import HunyuanVideoTransformer3DModel
        return HunyuanVideoTransformer3DModel(**config)

    def ours(self, cells, config):
        # No mask: one that lets every token count is left out, by ComfyUI too. 4000 is a number of bfloat16, 6000 is not.
        return {"x": torch.randn(1, 16, *cells), "timestep": torch.tensor([601.0]), "context": torch.randn(1, self.tokens, 4096),
                "vector": torch.randn(1, 768), "guidance": torch.tensor([4.0])}

    def given(self, ours):
        x = ours["x"]
        return dict(hidden_states=x, encoder_hidden_states=ours["context"], pooled_projections=ours["vector"], timestep=ours["timestep"],
                    encoder_attention_mask=torch.ones(1, self.tokens, dtype=x.dtype, device=x.device), guidance=ours["guidance"] * 1000)

    def out(self, result, ours):
        return result

    text_embed = "context_embedder.time_text_embed."
    outside = {name: new for name, new in Flux.outside.items() if not name.endswith("_embedder.")} | {
        "x_embedder.proj.": "img_in.proj.", "context_embedder.proj_in.": "txt_in.input_embedder.",
        text_embed + "timestep_embedder.linear_1.": "txt_in.t_embedder.mlp.0.", text_embed + "timestep_embedder.linear_2.": "txt_in.t_embedder.mlp.2.",
        text_embed + "text_embedder.linear_1.": "txt_in.c_embedder.linear_1.",
        text_embed + "text_embedder.linear_2.": "txt_in.c_embedder.linear_2."}
    refiner = {"norm1.": "norm1.", "norm2.": "norm2.", "attn.to_out.0.": "self_attn.proj.", "ff.net.0.proj.": "mlp.0.", "ff.net.2.": "mlp.2.",
               "norm_out.linear.": "adaLN_modulation.1."}
    refiner_fused = {"self_attn.qkv.": ("attn.to_q.", "attn.to_k.", "attn.to_v.")}
    # FLUX's parts of names and Tencent's, in the order of replacing.
    tencent = {"time_in.in_layer.": "time_in.mlp.0.", "time_in.out_layer.": "time_in.mlp.2.", "guidance_in.in_layer.": "guidance_in.mlp.0.",
               "guidance_in.out_layer.": "guidance_in.mlp.2.", "_mod.lin.": "_mod.linear.", "modulation.lin.": "modulation.linear.",
               "attn.norm.query_norm.scale": "attn_q_norm.weight", "attn.norm.key_norm.scale": "attn_k_norm.weight",
               "norm.query_norm.scale": "q_norm.weight", "norm.key_norm.scale": "k_norm.weight", "_attn.": "_attn_"}

    def blocks(self):
        return super().blocks() + [("txt_in.individual_token_refiner.blocks", "context_embedder.token_refiner.refiner_blocks", self.refiner,
                                    self.refiner_fused)]

    def saved(self, state):
        def tencents(name):
            if "_blocks." in name or "refiner.blocks." in name:
                name = name.replace("mlp.0.", "mlp.fc1.").replace("mlp.2.", "mlp.fc2.")
            for old, new in self.tencent.items():
                name = name.replace(old, new)
            return name
        return {tencents(name): value for name, value in super().saved(state).items()}


MODELS = {"sd15": UNet, "sdxl": SDXL, "flux": Flux, "qwen_image": QwenImage, "sd35": SD35, "wan": Wan, "hunyuan_video": HunyuanVideo}


def shrunk(cells):
    """A toy latent of about an eighth of the cells each way, rows and columns in whole patches."""
    *frames, rows, columns = cells
    return [max(1, count // 8) for count in frames] + [rows // 16 * 2, columns // 16 * 2]


def fewer(warm_ups, rounds, calls, step_s, most_s=25):
    """As many of each as take about `most_s`, at least a warm-up and two calls: bench/gpu/harness.h's Rounds::within."""
    total, fit = warm_ups + rounds * calls, int(most_s / step_s)
    if total <= fit:
        return warm_ups, rounds, calls
    warm_ups = max(1, warm_ups * fit // total)
    calls = max(1, (fit - warm_ups) // rounds)
    return warm_ups, max(2, min(rounds, (fit - warm_ups) // calls)), calls


def time_step(step, device, warm_ups=3, rounds=5, calls=6):
    """The step has been run before. Of long ones fewer are timed."""
    synchronize = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    synchronize()
    start = time.time()
    step()
    synchronize()
    warm_ups, rounds, calls = fewer(warm_ups, rounds, calls, time.time() - start)
    for _ in range(warm_ups - 1):
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
    for name, cells in model.sizes.items():
        ours = on_device(model, model.ours(shrunk(cells) if args.tiny else cells, config), device)
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
    cells = model.sizes[args.compile_size]
    model.ours(shrunk(cells) if args.tiny else cells, model.tiny if args.tiny else model.config)
    case = load_file(os.path.join(args.folder, f"case_{args.compile_size}.safetensors"), device=str(device))
    out = case.pop("out")
    given = model.given(case)
    compiled = torch.compile(network, dynamic=False)
    step = lambda: compiled(**given, return_dict=False)[0]
    start = time.time()
    difference = (model.out(step(), case).float() - out).abs().max() / out.abs().max()
    seconds = time.time() - start
    timed = time_step(step, device)  # before the profiler has been at work
    if args.kernels:
        write_kernels(os.path.join(args.kernels, f"kernels_{args.model}_{args.compile_size}_compiled.json"), step)
    print(json.dumps({"step": timed, "compile_s": seconds, "difference": float(difference)}))


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
