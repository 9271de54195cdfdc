"""From a cold process to the first sampling step of the demo workflow: `distorch run` beside a Python process that imports
torch and diffusers, builds the same models from the shapes in the demo file, loads their weights and does one step. In
turn, page cache warm for both.

    python bench/peers/startup.py --ours build/release/bin/distorch --out build/bench [--rounds 5]
    python bench/peers/startup.py --peer        the Python process itself
"""
import sys
import time

MODEL = "assets/demo/models/checkpoints/distorch-emoji-v1.safetensors"
WORKFLOW = "assets/demo/workflow.json"


def peer():
    """Same sizes, same work: text encoder on two prompts, one UNet step for cond + uncond, the VAE only built."""
    import torch
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from safetensors.torch import load_file
    from transformers import CLIPTextConfig, CLIPTextModel

    weights = load_file(MODEL)
    unet = {k[len("model.diffusion_model."):]: v for k, v in weights.items() if k.startswith("model.diffusion_model.")}
    text = {k[len("cond_stage_model.transformer."):]: v for k, v in weights.items() if k.startswith("cond_stage_model.transformer.")}
    vae = {k[len("first_stage_model."):]: v for k, v in weights.items() if k.startswith("first_stage_model.")}

    levels, width = [unet["input_blocks.0.0.weight"].shape[0]], 0
    for i in range(1, 100):
        if f"input_blocks.{i}.0.op.weight" in unet:
            levels.append(0)
        elif f"input_blocks.{i}.0.out_layers.3.weight" in unet:
            levels[-1] = unet[f"input_blocks.{i}.0.out_layers.3.weight"].shape[0]
    width = next(v for k, v in unet.items() if k.endswith("attn2.to_k.weight")).shape[1]
    blocks = len([k for k in unet if k.startswith("input_blocks") and k.endswith(".0.out_layers.3.weight")]) // len(levels)
    attention = [f"input_blocks.{1 + i * (blocks + 1)}.1.proj_in.weight" in unet for i in range(len(levels))]
    down = tuple("CrossAttnDownBlock2D" if a else "DownBlock2D" for a in attention)
    up = tuple("CrossAttnUpBlock2D" if a else "UpBlock2D" for a in reversed(attention))

    tokens = text["text_model.embeddings.token_embedding.weight"]
    layers = 1 + max(int(k.split("layers.")[1].split(".")[0]) for k in text if "layers." in k)
    vae_levels = sorted({int(k.split("decoder.up.")[1].split(".")[0]) for k in vae if k.startswith("decoder.up.")})
    vae_channels = tuple(vae[f"encoder.down.{i}.block.0.conv1.weight"].shape[0] for i in vae_levels)

    with torch.device("meta"):
        network = UNet2DConditionModel(block_out_channels=tuple(levels), layers_per_block=blocks, cross_attention_dim=width,
                                       attention_head_dim=8, down_block_types=down, up_block_types=up, sample_size=16)
        encoder = CLIPTextModel(CLIPTextConfig(vocab_size=tokens.shape[0], hidden_size=tokens.shape[1], num_hidden_layers=layers,
                                               intermediate_size=text["text_model.encoder.layers.0.mlp.fc1.weight"].shape[0],
                                               num_attention_heads=max(1, tokens.shape[1] // 64)))
        decoder = AutoencoderKL(block_out_channels=vae_channels, down_block_types=("DownEncoderBlock2D",) * len(vae_channels),
                                up_block_types=("UpDecoderBlock2D",) * len(vae_channels), layers_per_block=2)
    generator = iter(weights.values())
    for module in (network, encoder, decoder):
        module.to_empty(device="cpu").eval()
        with torch.no_grad():  # any of the file's numbers will do: what counts is that they are read and converted
            for weight in module.parameters():
                source = next(generator, None)
                if source is None:
                    generator = iter(weights.values())
                    source = next(generator)
                flat = source.flatten()[: weight.numel()].float()
                weight.flatten()[: flat.numel()].copy_(flat)
    encoder.text_model.embeddings.position_ids = torch.arange(77)[None]  # the one buffer that to_empty() lost
    with torch.inference_mode():
        context = encoder(torch.zeros(2, 77, dtype=torch.long)).last_hidden_state
        network(torch.randn(2, 4, 16, 16), 999, context)
    print("step", flush=True)


def ours_once(program, out):
    import json
    import signal
    import subprocess
    start = time.perf_counter()
    process = subprocess.Popen([program, "run", WORKFLOW, "--models", "assets/demo/models", "--output", out, "--json"],
                               stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    taken = None
    for line in process.stdout:
        event = json.loads(line)
        if event.get("type") == "progress" and event["data"]["value"] >= 1 and event["data"]["max"] > 1:
            taken = time.perf_counter() - start
            break
    process.send_signal(signal.SIGINT)
    process.stdout.read()
    process.wait()
    if taken is None:
        raise SystemExit("distorch run made no progress")
    return taken


def peer_once():
    import subprocess
    start = time.perf_counter()
    process = subprocess.Popen([sys.executable, __file__, "--peer"], stdout=subprocess.PIPE, text=True)
    line = process.stdout.readline()
    taken = time.perf_counter() - start
    process.wait()
    if line.strip() != "step":
        raise SystemExit("the peer failed")
    return taken


def main():
    import argparse
    import json
    import os
    import statistics
    import tempfile
    parser = argparse.ArgumentParser()
    parser.add_argument("--ours", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    ours, theirs = [], []
    with tempfile.TemporaryDirectory() as pictures:
        for turn in range(-1, options.rounds):
            pair = ours_once(options.ours, pictures), peer_once()
            if turn >= 0:
                ours.append(pair[0])
                theirs.append(pair[1])
    row = {"name": "start-up: demo, cold process to first step done, beside torch + diffusers", "ours": statistics.median(ours),
           "peer": statistics.median(theirs), "unit": "s", "ratio": statistics.median(a / b for a, b in zip(ours, theirs)),
           "turns": {"ours": ours, "peer": theirs}, "load": os.getloadavg()[0]}
    print(f"{row['name']:<75}{row['ours']:>8.3f}{row['peer']:>9.3f}{row['ratio']:>9.4f}  s")
    with open(os.path.join(options.out, "startup.json"), "w") as file:
        json.dump([row], file, indent=1)


if __name__ == "__main__":
    peer() if "--peer" in sys.argv else main()
