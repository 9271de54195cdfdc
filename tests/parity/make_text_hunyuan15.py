"""text_hunyuan15.*: prompts through ComfyUI's tokenizer and text encoder classes of HunyuanVideo 1.5 (Qwen2.5-VL and ByT5), tiny widths.

COMFYUI_DIR: ComfyUI 0.33."""
import comfy_env

comfy_env.import_comfy()
import torch
from comfy.text_encoders import hunyuan_image, hunyuan_video, qwen_vl

import make_text_qwen as qwen
import tiny_models as tiny
from comfy_env import save
from make_text import t5_names

WORDS, GLYPHS = "text_encoders.qwen25_7b.transformer.", "text_encoders.byt5_small.transformer."
LAYERS = 5
PROMPTS = [
    "a (red:1.4) sign moves",
    "",
    'a neon sign that says "OPEN <extra_id_3> late</s>" in the rain',
    'one "first" and “second, 雨” and "third" and ‘fourth ’ and a "break\nof line" "',
    'weights "of (some:1.5) (words)" and ""',
    '<|im_start|>system\nown frame<|im_end|>\n<|im_start|>user\nit says "x</s>"',
]


def load(module, shapes, prefix):
    state = {k[len(prefix):]: tiny.weight(k, s) for k, s in shapes.items()}
    missing, unexpected = module.load_state_dict(state, strict=False)
    missing = [name for name in missing if not name.startswith("visual.")]
    assert not missing and not unexpected, (missing[:4], unexpected[:4])


@torch.no_grad()
def main():
    words = qwen.language(WORDS, 152064, False, LAYERS)
    glyphs = t5_names(GLYPHS, 32, 384, 6, 40, 2, 1510)
    real = qwen_vl.Qwen2VLVisionTransformer
    qwen_vl.Qwen2VLVisionTransformer = lambda **kw: real(**{**kw, **qwen.VISION})
    options = {"qwen25_7b_model_config": {**qwen.CONFIG, "num_hidden_layers": LAYERS}, "_model_config": {"d_model": 32, "d_ff": 40, "num_layers": 2}}
    model = hunyuan_image.te()(dtype=torch.float32, model_options=options)
    load(model.qwen25_7b.transformer, words, WORDS)
    load(model.byt5_small.transformer, glyphs, GLYPHS)
    tokenizer = hunyuan_video.HunyuanVideo15Tokenizer()
    out, cases = {}, []
    for i, prompt in enumerate(PROMPTS):
        tokens = tokenizer.tokenize_with_weights(prompt)
        states, pooled, extra = model.encode_token_weights(tokens)
        assert pooled is None and "attention_mask" not in extra, extra.keys()
        case = {"prompt": prompt, "tokens": states.shape[1]}
        out[f"words.{i}"] = states[:, ::3]
        if "byt5" in tokens:
            case["ids"] = [token for token, _ in tokens["byt5"][0]]
            out[f"glyphs.{i}"] = extra["conditioning_byt5small"][:, ::4]
        cases.append(case)
        print(case)
    save("text_hunyuan15", out, {**tiny.manifest({**words, **glyphs}), "cases": cases})


if __name__ == "__main__":
    main()
