"""text_llama.*: prompts through ComfyUI's text encoder class of HunyuanVideo, tiny widths. The vocabulary is that of tools/make_random_model
(llama_vocabulary.h): bytes, "us", "er", "user" and two line ends. COMFYUI_DIR: ComfyUI 0.3.64."""
import re
import types

import comfy_env

comfy_env.import_comfy()
import torch
from comfy import sd1_clip
from comfy.text_encoders import hunyuan_video
from comfy_extras.nodes_hunyuan import PROMPT_TEMPLATE_ENCODE_VIDEO_I2V

import tiny_models as tiny
from comfy_env import save

PREFIX = "text_encoders.llama.transformer."
START, PAD, IMAGE = 128000, 128258, 128257
SPECIAL = {"<|begin_of_text|>": START, "<|start_header_id|>": 128006, "<|end_header_id|>": 128007, "<|eot_id|>": 128009, "<image>": IMAGE, "<pad>": PAD}
MERGES = [((ord("u"), ord("s")), 256), ((ord("e"), ord("r")), 257), ((10, 10), 271), ((256, 257), 882)]


def language(prefix, vocabulary, layers, width=32, heads=2, mlp=48):
    n = tiny.Names(prefix)
    n.add("model.embed_tokens.weight", vocabulary, width)
    for i in range(layers):
        layer = f"model.layers.{i}."
        n.add(layer + "input_layernorm.weight", width)
        n.add(layer + "post_attention_layernorm.weight", width)
        for part, count in (("q", heads), ("k", 1), ("v", 1)):
            n.linear(layer + f"self_attn.{part}_proj", count * 128, width, False)
        n.linear(layer + "self_attn.o_proj", width, heads * 128, False)
        n.linear(layer + "mlp.gate_proj", mlp, width, False)
        n.linear(layer + "mlp.up_proj", mlp, width, False)
        n.linear(layer + "mlp.down_proj", width, mlp, False)
    n.add("model.norm.weight", width)
    return n.shapes


def encode(text):
    ids = []
    for part in re.split("(" + "|".join(map(re.escape, SPECIAL)) + ")", text):
        if part in SPECIAL:
            ids.append(SPECIAL[part])
            continue
        tokens = list(part.encode())
        for (a, b), merged in MERGES:
            at = 0
            while at + 1 < len(tokens):
                if tokens[at:at + 2] == [a, b]:
                    tokens[at:at + 2] = [merged]
                at += 1
        ids += tokens
    return ids


def tokens_of(text, frame, seen=None, every=1):
    """As HunyuanVideoTokenizer makes them, but for the vocabulary."""
    row = [(START, 1.0)]
    for segment, weight in sd1_clip.token_weights(sd1_clip.escape_important(frame.replace("{}", text)), 1.0):
        row += [(token, weight) for token in encode(sd1_clip.unescape_important(segment))]
    count = 0
    for i, (token, weight) in enumerate(row):
        if token == IMAGE and seen is not None and count < len(seen):
            row[i] = ({"type": "embedding", "data": seen[count], "original_type": "image", "image_interleave": every}, weight)
            count += 1
    return [row]


CASES = [
    {"key": "plain", "text": "a cat, used by the user"},
    {"key": "empty", "text": ""},
    {"key": "weights", "text": "a (red:1.4) cat (in [the] snow)"},
    {"key": "picture", "text": "it moves", "every": 2, "seen": 1},
    {"key": "custom", "text": "no turn of a user", "frame": "<|start_header_id|>system<|end_header_id|>\n\n{}"},
    {"key": "open", "text": "no end", "frame": "<|start_header_id|>user<|end_header_id|>\n\n{}"},
]


def main():
    config = {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 2, "num_key_value_heads": 1, "num_hidden_layers": 5}
    shapes = language(PREFIX, 128320, layers=5)
    llama = hunyuan_video.LLAMAModel(dtype=torch.float32, model_options={"llama_model_config": config})
    state = {name[len(PREFIX):]: tiny.weight(name, shape) for name, shape in shapes.items()}
    missing, unexpected = llama.transformer.load_state_dict(state, strict=False)
    assert not missing and not unexpected, (missing[:4], unexpected[:4])
    clip = types.SimpleNamespace(encode_token_weights=lambda tokens: (None, torch.zeros(1, 768)))
    model = types.SimpleNamespace(llama=llama, clip_l=clip)
    own = hunyuan_video.HunyuanVideoTokenizer.__init__.__code__.co_consts
    own = next(c for c in own if isinstance(c, str) and c.startswith("<|start_header_id|>"))
    out = {}
    with torch.no_grad():
        for case in CASES:
            seen = None
            if "seen" in case:
                seen = tiny.weight("seen", [1, 7, 32])
                case["frame"] = PROMPT_TEMPLATE_ENCODE_VIDEO_I2V
            tokens = {"llama": tokens_of(case["text"], case.get("frame", own), seen, case.get("every", 1)), "l": []}
            states, _, extra = hunyuan_video.HunyuanVideoClipModel.encode_token_weights(model, tokens)
            assert "attention_mask" not in extra
            out[case["key"]] = states[:, ::3]
            case["tokens"] = states.shape[1]
            if "seen" in case:
                del case["frame"]
    save("text_llama", out, {**tiny.manifest(shapes), "cases": CASES})


if __name__ == "__main__":
    main()
