"""t5.*, t5_old.*: transformers T5EncoderModel, tiny. text_flux.*, text_sd3.*: prompts through ComfyUI's own tokenizers and text encoder
classes (FluxClipModel, SD3ClipModel) with tiny widths; names as in whole checkpoints. COMFYUI_DIR: ComfyUI 0.3.64."""
import inspect

import comfy_env

comfy_env.import_comfy()
import torch
from transformers import T5Config, T5EncoderModel
from comfy.text_encoders import flux, sd3_clip

import tiny_models as tiny
from comfy_env import save

T5_WIDTH = 128


def t5_names(prefix, width, inner, heads, mlp, layers, vocabulary, gated=True):
    n = tiny.Names(prefix)
    n.add("shared.weight", vocabulary, width)
    for i in range(layers):
        block = f"encoder.block.{i}.layer."
        for part in "qkv":
            n.linear(block + f"0.SelfAttention.{part}", inner, width, False)
        n.linear(block + "0.SelfAttention.o", width, inner, False)
        if i == 0:
            n.add(block + "0.SelfAttention.relative_attention_bias.weight", 32, heads)
        n.add(block + "0.layer_norm.weight", width)
        for part in (["wi_0", "wi_1"] if gated else ["wi"]):
            n.linear(block + f"1.DenseReluDense.{part}", mlp, width, False)
        n.linear(block + "1.DenseReluDense.wo", width, mlp, False)
        n.add(block + "1.layer_norm.weight", width)
    n.add("encoder.final_layer_norm.weight", width)
    return n.shapes


def dump_t5(name, gated):
    shapes = t5_names("", 32, 24, 3, 40, 3, 64, gated)
    config = T5Config(vocab_size=64, d_model=32, d_kv=8, d_ff=40, num_layers=3, num_heads=3, feed_forward_proj="gated-gelu" if gated else "relu")
    model = T5EncoderModel(config)
    state = tiny.weights(shapes)
    state["encoder.embed_tokens.weight"] = state["shared.weight"]
    model.load_state_dict(state)
    model.eval()
    # Long enough for every bucket of distances.
    ids = torch.randint(0, 64, [2, 150], generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        out = model(input_ids=ids, output_hidden_states=True)
        last = out.last_hidden_state
        middle = model.encoder.final_layer_norm(out.hidden_states[2])
    print(name, float(last.std()))
    save(name, {"ids": ids.int(), "last": last, "layers.1": middle}, tiny.manifest(shapes))


def clip_names(prefix, layers, projection):
    shapes = tiny.clip_l(64, layers, prefix + "text_model.")
    if projection:
        shapes[prefix + "text_projection.weight"] = [64, 64]
    return shapes


def clip_config(layers, act):
    return {"hidden_size": 64, "num_attention_heads": 1, "intermediate_size": 256, "num_hidden_layers": layers, "hidden_act": act}


T5_CONFIG = {"d_model": T5_WIDTH, "d_kv": 8, "num_heads": 2, "d_ff": 48, "num_layers": 2, "vocab_size": 32128}
OPTIONS = {"clip_l_model_config": clip_config(3, "quick_gelu"), "clip_g_model_config": clip_config(31, "gelu"), "t5xxl_model_config": T5_CONFIG}


def load(model, shapes):
    for part in ("clip_l", "clip_g", "t5xxl"):
        below = f"text_encoders.{part}.transformer."
        state = {k[len(below):]: tiny.weight(k, s) for k, s in shapes.items() if k.startswith(below)}
        if state:
            missing, unexpected = getattr(model, part).transformer.load_state_dict(state, strict=False)
            missing = [m for m in missing if "text_projection" not in m]
            assert not missing and not unexpected, (missing, unexpected)
    return model.eval()


def flux_shapes():
    return {**clip_names("text_encoders.clip_l.transformer.", 3, True), **t5_names("text_encoders.t5xxl.transformer.", T5_WIDTH, 16, 2, 48, 2, 32128)}


PROMPTS = ["a photo of a (cat:1.4) on a [mat], \\(really\\)", "", "eine  schöne\nKatze 猫 😀 </s> (rest)" + " long" * 300]


def dump_flux():
    shapes = flux_shapes()
    model = load(flux.FluxClipModel(dtype=torch.float32, dtype_t5=torch.float32, model_options=OPTIONS), shapes)
    tokenizer = flux.FluxTokenizer()
    out, cases = {}, []
    with torch.no_grad():
        for i, prompt in enumerate(PROMPTS):
            cond, pooled = model.encode_token_weights(tokenizer.tokenize_with_weights(prompt))
            # Every third token is enough.
            out[f"cond.{i}"], out[f"pooled.{i}"] = cond[:, ::7], pooled
            cases.append({"prompt": prompt, "tokens": cond.shape[1]})
    save("text_flux", out, {"cases": cases, **tiny.manifest(shapes)})


def dump_sd3():
    """The real width of T5 stands in the class as a number; here it is T5_WIDTH."""
    source = inspect.getsource(sd3_clip.SD3ClipModel).replace("4096", str(T5_WIDTH)).replace("768", "64").replace("1280", "64")
    exec(source, sd3_clip.__dict__)
    shapes = {**flux_shapes(), **clip_names("text_encoders.clip_g.transformer.", 31, True)}
    tokenizer = sd3_clip.SD3Tokenizer()
    out, cases = {}, []
    with torch.no_grad():
        for i, (parts, prompt) in enumerate([("lg5", PROMPTS[0]), ("lg", PROMPTS[0]), ("g5", PROMPTS[0]), ("l", PROMPTS[0]), ("lg5", PROMPTS[2])]):
            model = sd3_clip.SD3ClipModel(clip_l="l" in parts, clip_g="g" in parts, t5="5" in parts, dtype=torch.float32, dtype_t5=torch.float32, model_options=OPTIONS)
            present = {"l": "clip_l", "g": "clip_g", "5": "t5xxl"}
            load(model, {k: s for k, s in shapes.items() if any(f".{present[p]}." in k for p in parts)})
            cond, pooled, _ = model.encode_token_weights(tokenizer.tokenize_with_weights(prompt))
            out[f"cond.{i}"], out[f"pooled.{i}"] = cond[:, ::7], pooled
            cases.append({"encoders": [present[p] for p in parts], "prompt": prompt, "tokens": cond.shape[1]})
    save("text_sd3", out, {"cases": cases, **tiny.manifest(shapes)})


if __name__ == "__main__":
    dump_t5("t5", True)
    dump_t5("t5_old", False)
    dump_flux()
    dump_sd3()
