"""One block of each family of transformers in diffusers or transformers (bfloat16) between calls of ours: same machine, same
minutes, same threads, same sizes, random weights everywhere.

    python bench/peers/block_step.py --ours build/release/bin/bench_block_step --out build/bench [--rounds 3] [--only flux_double ...]
        [--processor-time]

--processor-time: seconds that one thread computes, which another load of the machine changes less than those of the clock.
Adds the comparison to FOLDER/block_step.json (made by bench_block_step, which is asked for our calls: --serve).
"""
import argparse
import json
import os
import statistics
import subprocess
import time

import torch
from diffusers.models.attention import BasicTransformerBlock, JointTransformerBlock
from diffusers.models.transformers.transformer_flux import FluxSingleTransformerBlock, FluxTransformerBlock
from diffusers.models.transformers.transformer_lumina2 import Lumina2TransformerBlock
from diffusers.models.transformers.transformer_qwenimage import QwenImageTransformerBlock
from transformers import Qwen2Config, Qwen2Model, Qwen3Config, Qwen3Model, T5Config, T5EncoderModel

TYPE = torch.bfloat16
SIDE = 64
PICTURE = SIDE * SIDE
WORDS = 256


def tokens(count, width, batch=1):
    return torch.randn(batch, count, width, dtype=TYPE)


def angles(count, width):
    """The angles of one head's pairs; which numbers they are makes no difference to the time."""
    return torch.outer(torch.arange(count, dtype=torch.float32), 10000 ** (-torch.arange(0, width, 2) / width))


def real_rope(count, width):
    turned = angles(count, width).repeat_interleave(2, dim=1)
    return turned.cos(), turned.sin()


def complex_rope(count, width):
    turned = angles(count, width)
    return torch.polar(torch.ones_like(turned), turned)


def with_numbers(make):
    """The block that make() makes, with weights as ours has them."""
    with torch.device("meta"):
        block = make()
    block = block.to(TYPE).to_empty(device="cpu").eval()
    with torch.no_grad():
        for name, weight in block.named_parameters():
            if weight.dim() > 1:
                weight.normal_(0, 0.02)
            else:
                weight.fill_(0.0 if name.endswith("bias") else 1.0)
    return block


def sdxl(width, cells):
    block = with_numbers(lambda: BasicTransformerBlock(width, width // 64, 64, cross_attention_dim=2048))
    x, text = tokens(cells, width, 2), tokens(77, 2048, 2)
    return lambda: block(x, encoder_hidden_states=text)


def sd35(width, dual):
    block = with_numbers(lambda: JointTransformerBlock(width, width // 64, 64, qk_norm="rms_norm", use_dual_attention=dual))
    x, text, c = tokens(PICTURE, width), tokens(154, width), torch.randn(1, width, dtype=TYPE)
    return lambda: block(x, text, c)


def flux(kind):
    block = with_numbers(lambda: kind(3072, 24, 128))
    x, text, vec, rope = tokens(PICTURE, 3072), tokens(512, 3072), torch.randn(1, 3072, dtype=TYPE), real_rope(512 + PICTURE, 128)
    return lambda: block(hidden_states=x, encoder_hidden_states=text, temb=vec, image_rotary_emb=rope)


def qwen_image():
    block = with_numbers(lambda: QwenImageTransformerBlock(3072, 24, 128))
    x, text, c = tokens(PICTURE, 3072), tokens(256, 3072), torch.randn(1, 3072, dtype=TYPE)
    rope = complex_rope(PICTURE, 128), complex_rope(256, 128)
    return lambda: block(hidden_states=x, encoder_hidden_states=text, encoder_hidden_states_mask=None, temb=c, image_rotary_emb=rope)


def z_image():
    """diffusers 0.35 has no Z-Image; the layer is Lumina 2's with other widths."""
    block = with_numbers(lambda: Lumina2TransformerBlock(3840, 30, 30, 256, 10240 / (4 * 3840), 1e-5))
    x, c, rope = tokens(128 + PICTURE, 3840), torch.randn(1, 1024, dtype=TYPE), complex_rope(128 + PICTURE, 128)[None]
    return lambda: block(x, None, rope, c)


def text_model(kind, config):
    model = with_numbers(lambda: kind(config))
    if hasattr(model, "rotary_emb"):  # Its table is no parameter: to_empty() left it without numbers.
        model.rotary_emb = type(model.rotary_emb)(config)
    ids = torch.randint(WORDS, (1, 512))
    return lambda: model(input_ids=ids)


def t5_xxl():
    return text_model(T5EncoderModel, T5Config(d_model=4096, d_kv=64, d_ff=10240, num_heads=64, num_layers=1, vocab_size=WORDS,
                                               feed_forward_proj="gated-gelu"))


def qwen(kind, config, **sizes):
    return text_model(kind, config(num_hidden_layers=1, vocab_size=WORDS, use_cache=False, rope_theta=1e6, **sizes))


CASES = {
    "sdxl_640": lambda: sdxl(640, PICTURE),
    "sdxl_1280": lambda: sdxl(1280, PICTURE // 4),
    "sd35_medium": lambda: sd35(1536, True),
    "sd35_large": lambda: sd35(2432, False),
    "flux_double": lambda: flux(FluxTransformerBlock),
    "flux_single": lambda: flux(FluxSingleTransformerBlock),
    "qwen_image": qwen_image,
    "z_image": z_image,
    "t5_xxl": t5_xxl,
    "qwen25_7b": lambda: qwen(Qwen2Model, Qwen2Config, hidden_size=3584, intermediate_size=18944, num_attention_heads=28,
                              num_key_value_heads=4),
    "qwen3_4b": lambda: qwen(Qwen3Model, Qwen3Config, hidden_size=2560, intermediate_size=9728, num_attention_heads=32,
                             num_key_value_heads=8, head_dim=128),
}


class Ours:
    def __init__(self, program, processor_time):
        self.processor_time = processor_time
        self.process = subprocess.Popen([program, "--serve"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        if self.process.stdout.readline().strip() != "ready":
            raise SystemExit("bench_block_step did not start")

    def processor_seconds(self):
        with open(f"/proc/{self.process.pid}/stat") as file:
            fields = file.read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def call(self, name):
        before = self.processor_seconds()
        self.process.stdin.write(name + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise SystemExit(f"bench_block_step ended at {name}")
        return self.processor_seconds() - before if self.processor_time else float(answer)

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def timed(peer, clock):
    start = clock()
    with torch.inference_mode():
        peer()
    return clock() - start


def compared(ours, name, rounds):
    peer = CASES[name]()
    turns = {"ours": [], "peer": []}
    for turn in range(-1, rounds):  # the first turn warms up
        pair = {"ours": ours.call(name), "peer": timed(peer, time.process_time if ours.processor_time else time.perf_counter)}
        if turn >= 0:
            for who, seconds in pair.items():
                turns[who].append(seconds)
    ratio = statistics.median(a / b for a, b in zip(turns["ours"], turns["peer"]))
    row = {"name": f"one block, 1024x1024, CPU, bf16: {name}, ours beside the peer{', processor time' * ours.processor_time}", "ours": statistics.median(turns["ours"]),
           "peer": statistics.median(turns["peer"]), "unit": "s", "ratio": ratio, "turns": turns, "load": os.getloadavg()[0],
           "threads": torch.get_num_threads()}
    print(f"{row['name']:<66}{row['ours']:>10.4f}{row['peer']:>11.4f}{ratio:>9.4f}  s", flush=True)
    return row


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--ours", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="*", default=list(CASES))
    parser.add_argument("--processor-time", action="store_true")
    options = parser.parse_args()

    if options.processor_time:
        os.environ["OMP_NUM_THREADS"] = "1"
        torch.set_num_threads(1)
    ours = Ours(options.ours, options.processor_time)
    new = [compared(ours, name, options.rounds) for name in options.only]
    ours.close()

    path = os.path.join(options.out, "block_step.json")
    rows = json.load(open(path)) if os.path.exists(path) else []
    names = {row["name"] for row in new}
    with open(path, "w") as file:
        json.dump([r for r in rows if r["name"] not in names] + new, file, indent=1)


if __name__ == "__main__":
    main()
