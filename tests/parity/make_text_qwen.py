"""text_qwen3.*: prompts through ComfyUI's tokenizers and text encoder classes of Z-Image and FLUX.2 klein, tiny widths; the same states
of transformers' Qwen3Model. text_qwen25.*: those of Qwen-Image and its edit models with pictures; the vision tower of transformers.
COMFYUI_DIR: ComfyUI 0.33 (the newer file of token names, the states of a picture's tokens in the picture's order)."""
import math

import comfy_env

comfy_env.import_comfy()
import torch
from transformers import Qwen3Config, Qwen3Model
from transformers.models.qwen2_5_vl.configuration_qwen2_5_vl import Qwen2_5_VLVisionConfig
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VisionTransformerPretrainedModel
from comfy.text_encoders import flux, llama, qwen_image, qwen_vl, z_image

import tiny_models as tiny
from comfy_env import save

WIDTH, HEADS, KEYS, MLP, LAYERS = 32, 2, 1, 48, 28
VISION = {"hidden_size": 64, "intermediate_size": 40, "num_heads": 16, "num_layers": 9}


def language(prefix, vocabulary, head_norms, layers=LAYERS):
    n = tiny.Names(prefix)
    n.add("model.embed_tokens.weight", vocabulary, WIDTH)
    for i in range(layers):
        layer = f"model.layers.{i}."
        n.add(layer + "input_layernorm.weight", WIDTH)
        n.add(layer + "post_attention_layernorm.weight", WIDTH)
        for part, heads in (("q", HEADS), ("k", KEYS), ("v", KEYS)):
            n.linear(layer + f"self_attn.{part}_proj", heads * 128, WIDTH, not head_norms)
            if head_norms and part != "v":
                n.add(layer + f"self_attn.{part}_norm.weight", 128)
        n.linear(layer + "self_attn.o_proj", WIDTH, HEADS * 128, False)
        n.linear(layer + "mlp.gate_proj", MLP, WIDTH, False)
        n.linear(layer + "mlp.up_proj", MLP, WIDTH, False)
        n.linear(layer + "mlp.down_proj", WIDTH, MLP, False)
    n.add("model.norm.weight", WIDTH)
    return n.shapes


def tower(prefix):
    n = tiny.Names(prefix + "visual.")
    width, mlp = VISION["hidden_size"], VISION["intermediate_size"]
    n.add("patch_embed.proj.weight", width, 3, 2, 14, 14)
    for i in range(VISION["num_layers"]):
        block = f"blocks.{i}."
        n.add(block + "norm1.weight", width)
        n.add(block + "norm2.weight", width)
        n.linear(block + "attn.qkv", 3 * width, width)
        n.linear(block + "attn.proj", width, width)
        n.linear(block + "mlp.gate_proj", mlp, width)
        n.linear(block + "mlp.up_proj", mlp, width)
        n.linear(block + "mlp.down_proj", width, mlp)
    n.add("merger.ln_q.weight", width)
    n.linear("merger.mlp.0", 4 * width, 4 * width)
    n.linear("merger.mlp.2", WIDTH, 4 * width)
    return n.shapes


def load(module, shapes, prefix):
    state = {k[len(prefix):]: tiny.weight(k, s) for k, s in shapes.items()}
    missing, unexpected = module.load_state_dict(state, strict=False)
    assert not missing and not unexpected, (missing[:4], unexpected[:4])
    return module.eval()


CONFIG = {"hidden_size": WIDTH, "intermediate_size": MLP, "num_attention_heads": HEADS, "num_key_value_heads": KEYS, "num_hidden_layers": LAYERS}
PROMPTS = ["a photo of a (cat:1.4) on a [mat], \\(really\\)", "", "eine  schöne\nKatze 猫 😀 <|im_end|> <think>" + " long" * 40]


def dump_qwen3():
    prefix = "text_encoders.qwen3_4b.transformer."
    shapes = language(prefix, 151936, True)
    options = {"qwen3_4b_model_config": CONFIG}
    out, cases = {}, []
    with torch.no_grad():
        for name, tokenizer, model in (("lumina2", z_image.ZImageTokenizer(), z_image.te()(dtype=torch.float32, model_options=options)),
                                       ("flux2", flux.KleinTokenizer(), flux.klein_te()(dtype=torch.float32, model_options=options))):
            load(model.qwen3_4b.transformer, shapes, prefix)
            for prompt in PROMPTS:
                tokens = tokenizer.tokenize_with_weights(prompt)
                states, pooled, extra = model.encode_token_weights(tokens)
                assert pooled is None
                key = f"{name}.{len(cases)}"
                out[key] = states[:, ::9]
                mask = extra["attention_mask"][0]
                cases.append({"type": name, "key": key, "prompt": prompt, "tokens": states.shape[1], "counted": int(mask.sum())})
        # The same states by transformers.
        theirs = Qwen3Model(Qwen3Config(vocab_size=151936, hidden_size=WIDTH, intermediate_size=MLP, num_hidden_layers=LAYERS, num_attention_heads=HEADS,
                                        num_key_value_heads=KEYS, head_dim=128, rms_norm_eps=1e-6, rope_theta=1e6, attention_bias=False))
        load(theirs, {k: s for k, s in shapes.items()}, prefix + "model.")
        ids = torch.tensor([[t for t, _ in z_image.ZImageTokenizer().tokenize_with_weights(PROMPTS[0])["qwen3_4b"][0]]])
        states = theirs(input_ids=ids, output_hidden_states=True)
        out["ids"], out["hidden"], out["last"] = ids.int(), states.hidden_states[LAYERS - 1], states.last_hidden_state
        print("against ComfyUI", float((out["hidden"][:, ::9] - out["lumina2.0"]).abs().max()))
    save("text_qwen3", out, {"cases": cases, **tiny.manifest(shapes)})


def picture(height, width, seed):
    """A smooth picture that the test makes again from the same numbers."""
    y, x = torch.meshgrid(torch.arange(height) / height, torch.arange(width) / width, indexing="ij")
    waves = [0.5 + 0.5 * torch.sin(x * (3 + seed + c) + y * (5 - c) + seed) for c in range(3)]
    return torch.stack(waves, -1).unsqueeze(0)


def tower_of_transformers(shapes, prefix):
    config = Qwen2_5_VLVisionConfig(depth=VISION["num_layers"], hidden_size=VISION["hidden_size"], intermediate_size=VISION["intermediate_size"],
                                    num_heads=VISION["num_heads"], out_hidden_size=WIDTH, window_size=112, fullatt_block_indexes=[7, 15, 23, 31], hidden_act="silu")
    config._attn_implementation = "eager"
    model = Qwen2_5_VisionTransformerPretrainedModel(config)
    return load(model, {k: s for k, s in shapes.items() if ".visual." in k}, prefix + "visual.")


def dump_qwen25():
    prefix = "text_encoders.qwen25_7b.transformer."
    words, eyes = language(prefix, 152064, False, 3), tower(prefix)
    shapes = {**words, **eyes}
    options = {"qwen25_7b_model_config": {**CONFIG, "num_hidden_layers": 3}}
    real = qwen_vl.Qwen2VLVisionTransformer
    qwen_vl.Qwen2VLVisionTransformer = lambda **kw: real(**{**kw, **VISION})
    tokenizer = qwen_image.QwenImageTokenizer()
    out, cases = {}, []
    with torch.no_grad():
        model = qwen_image.te()(dtype=torch.float32, model_options=options)
        load(model.qwen25_7b.transformer, shapes, prefix)
        frame = tokenizer.llama_template_images.replace("<|vision_start|><|image_pad|><|vision_end|>", "")
        two = "Picture 1: <|vision_start|><|image_pad|><|vision_end|>Picture 2: <|vision_start|><|image_pad|><|vision_end|>swap them"
        for prompt, sizes, own in ([PROMPTS[0], [], None], ["", [], None], ["<|im_start|>user\nmine<|im_end|>", [], None], ["make it blue", [(150, 330)], None],
                                   [two, [(30, 30), (260, 100)], frame]):
            images = [picture(h, w, i) for i, (h, w) in enumerate(sizes)]
            tokens = tokenizer.tokenize_with_weights(prompt, images=images, llama_template=own)
            states, pooled, extra = model.encode_token_weights(tokens)
            key = f"qwen_image.{len(cases)}"
            out[key] = states[:, ::5]
            cases.append({"type": "qwen_image", "key": key, "prompt": prompt, "pictures": sizes, "own_frame": own is not None, "tokens": states.shape[1], "masked": "attention_mask" in extra})
        pixels, grid = qwen_vl.process_qwen2vl_images(picture(150, 330, 0))
        tower_states = tower_of_transformers(eyes, prefix)(pixels, grid)
        if not torch.is_tensor(tower_states):
            tower_states = tower_states.pooler_output if hasattr(tower_states, "pooler_output") else tower_states.last_hidden_state
        out["patches"], out["seen"] = pixels[::11, ::37].contiguous(), tower_states
        ours = model.qwen25_7b.transformer.visual(pixels, grid)
        print("tower against ComfyUI", float((ours - tower_states).abs().max()), grid.tolist())
    save("text_qwen25", out, {"cases": cases, **tiny.manifest(shapes)})


if __name__ == "__main__":
    dump_qwen3()
    dump_qwen25()
