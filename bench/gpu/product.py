"""The product path on a file of full size: `distorch run` with UNETLoader and KSampler, twice in one process (--waterfall), cold and warm.
product.py FLUX.safetensors FOLDER --distorch PROGRAM [--out FOLDER] [--steps 4] [--side 1024] [--text-layers 24] [--tiny] [-- OPTIONS]
FLUX.safetensors: FLUX.1's weights of random numbers, as peer_network.py leaves them. FOLDER gets a model folder with that file and text
encoders and an autoencoder of random numbers beside it. Everything behind -- goes to `distorch run`. Writes OUT/product_LABEL.json."""
import argparse
import json
import os
import subprocess
import sys
import time

import make_checkpoint as random_files

T5 = dict(width=4096, inner=4096, mlp=10240, heads=64, vocabulary=32128)
# As wide as a narrow FLUX still takes it.
TINY_T5 = dict(width=4096, inner=64, mlp=128, heads=4, vocabulary=32128)


def t5(layers, c):
    names = random_files.Names()
    names.shapes["shared.weight"] = (c["vocabulary"], c["width"])
    for i in range(layers):
        s = f"encoder.block.{i}.layer"
        for part, shape in (("q", (c["inner"], c["width"])), ("k", (c["inner"], c["width"])), ("v", (c["inner"], c["width"])),
                            ("o", (c["width"], c["inner"]))):
            names.shapes[f"{s}.0.SelfAttention.{part}.weight"] = shape
        if i == 0:
            names.shapes[f"{s}.0.SelfAttention.relative_attention_bias.weight"] = (32, c["heads"])
        names.shapes[f"{s}.0.layer_norm.weight"] = names.shapes[f"{s}.1.layer_norm.weight"] = (c["width"],)
        for part in ("wi_0", "wi_1"):
            names.shapes[f"{s}.1.DenseReluDense.{part}.weight"] = (c["mlp"], c["width"])
        names.shapes[f"{s}.1.DenseReluDense.wo.weight"] = (c["width"], c["mlp"])
    names.shapes["encoder.final_layer_norm.weight"] = (c["width"],)
    return names.shapes


def clip(widths):
    names = random_files.Names()
    random_files.text(names, "text_model", widths)
    return names.shapes


def autoencoder(widths):
    """FLUX.1's: SD's with 16 channels and nothing between them and the pictures' side."""
    names = random_files.Names()
    random_files.vae(names, "", widths)
    shapes = {name.removeprefix("."): shape for name, shape in names.shapes.items() if "quant_conv" not in name}
    width = widths.vae[-1]
    shapes["encoder.conv_out.weight"], shapes["encoder.conv_out.bias"] = (32, width, 3, 3), (32,)
    shapes["decoder.conv_in.weight"] = (width, 16, 3, 3)
    return shapes


def write(path, shapes):
    if os.path.exists(path):
        return
    os.makedirs(os.path.dirname(path), exist_ok=True)
    random_files.write_shapes(path, 15, shapes)


def prompt(steps, side):
    node = lambda name, **inputs: {"class_type": name, "inputs": inputs}
    return {"unet": node("UNETLoader", unet_name="flux.safetensors", weight_dtype="default"),
            "clip": node("DualCLIPLoader", clip_name1="t5xxl.safetensors", clip_name2="clip_l.safetensors", type="flux"),
            "vae": node("VAELoader", vae_name="ae.safetensors"),
            "text": node("CLIPTextEncode", clip=["clip", 0], text="a lighthouse in the storm, oil on canvas"),
            "empty": node("CLIPTextEncode", clip=["clip", 0], text=""),
            "guidance": node("FluxGuidance", conditioning=["text", 0], guidance=3.5),
            "latent": node("EmptySD3LatentImage", width=side, height=side, batch_size=1),
            "sampler": node("KSampler", model=["unet", 0], positive=["guidance", 0], negative=["empty", 0], latent_image=["latent", 0],
                            seed=1, steps=steps, cfg=1.0, sampler_name="euler", scheduler="simple", denoise=1.0),
            "picture": node("VAEDecode", samples=["sampler", 0], vae=["vae", 0]),
            "saved": node("SaveImage", images=["picture", 0], filename_prefix="product")}


def main():
    mine, _, options = " ".join(sys.argv[1:]).partition(" -- ")
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file")
    parser.add_argument("folder")
    parser.add_argument("--distorch", required=True)
    parser.add_argument("--out", default=".")
    parser.add_argument("--label", default="flux")
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--side", type=int, default=1024)
    parser.add_argument("--text-layers", type=int, default=24)
    parser.add_argument("--tiny", action="store_true")
    args = parser.parse_args(mine.split())
    models = os.path.join(args.folder, "models")
    widths = random_files.Widths(text_layers=2, vae=random_files.TINY.vae) if args.tiny else random_files.Widths()
    write(os.path.join(models, "text_encoders", "t5xxl.safetensors"), t5(2 if args.tiny else args.text_layers, TINY_T5 if args.tiny else T5))
    write(os.path.join(models, "text_encoders", "clip_l.safetensors"), clip(widths))
    write(os.path.join(models, "vae", "ae.safetensors"), autoencoder(widths))
    link = os.path.join(models, "diffusion_models", "flux.safetensors")
    os.makedirs(os.path.dirname(link), exist_ok=True)
    if not os.path.lexists(link):
        os.symlink(os.path.abspath(args.file), link)
    workflow, parts = os.path.join(args.folder, "product.json"), os.path.join(args.folder, "parts.json")
    with open(workflow, "w") as file:
        json.dump(prompt(args.steps, args.side), file)
    begin = time.time()
    subprocess.run([args.distorch, "run", workflow, "--models", models, "--output", os.path.join(args.folder, "output"), "--waterfall", parts,
                    *options.split()], check=True)
    seconds = time.time() - begin
    with open(parts) as file:
        runs = json.load(file)
    results = []
    for which, run in runs.items():
        for part in run:
            limit = part.get("limit_s")
            results.append({"name": f"{args.label}, {args.side} px, {which}: {part['part']}", "ours": part["seconds"], "peer": limit, "unit": "s",
                            "ratio": part["seconds"] / limit if limit else None})
        total = sum(part["seconds"] for part in run)
        results.append({"name": f"{args.label}, {args.side} px, {which}: in all, {args.steps} steps", "ours": total, "peer": None, "unit": "s", "ratio": None})
    with open(os.path.join(args.out, f"product_{args.label}.json"), "w") as file:
        json.dump(results, file, indent=1)
    print(f"{args.label}: both runs {seconds:.1f} s")


if __name__ == "__main__":
    main()
