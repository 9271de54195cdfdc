"""nodes_hyvideo_text.*: prompts through the HunyuanVideoWrapper's own nodes (3ce9640, May 2025) on tiny encoders: Llama 3 and LLaVA of
transformers and the pack, CLIP-L of transformers, on the CPU in float32.

    COMFYUI_DIR=... HYVIDEOWRAPPER_DIR=... python tests/parity/make_nodes_hyvideo_text.py

Words are tokenized with the tiny vocabulary of make_text_llama.py, as tests/nodes/hyvideo_text_test.cpp writes it into the encoders' folders.
"""
import os

import comfy_env

comfy_env.import_comfy()

import torch  # noqa: E402

torch.use_deterministic_algorithms(False)

import transformers  # noqa: E402

import make_nodes_hyvideo_wrapper  # noqa: E402
import tiny_models as tiny  # noqa: E402
from make_text_llama import IMAGE, PAD, START, encode, language  # noqa: E402

WIDTH, MLP, LAYERS, VOCABULARY, HEADS = 32, 48, 5, 128320, 2
SIDE, VISION, VISION_LAYERS, VISION_MLP = 28, 128, 3, 64
PREFIX = "text_encoders.llama.transformer."
TEXT_CONFIG = dict(hidden_size=WIDTH, intermediate_size=MLP, num_hidden_layers=LAYERS, num_attention_heads=HEADS, num_key_value_heads=1, head_dim=128,
                   vocab_size=VOCABULARY, rms_norm_eps=1e-5, rope_theta=500000.0, max_position_embeddings=8192, pad_token_id=PAD)


def words():
    return {name[len(PREFIX):]: tiny.weight(name, shape) for name, shape in language(PREFIX, VOCABULARY, LAYERS, WIDTH, HEADS, MLP).items()}


class Tokenizer:
    """As transformers' would be, of the tiny vocabulary."""

    def __call__(self, text, truncation=False, max_length=None, padding=None, add_special_tokens=True, **_):
        ids = [START] * add_special_tokens + encode(text[0] if isinstance(text, list) else text)
        ids = ids[:max_length] if truncation else ids
        mask = [1] * len(ids)
        if padding == "max_length":
            missing = max_length - len(ids)
            ids, mask = ids + [PAD] * missing, mask + [0] * missing
        return {"input_ids": torch.tensor([ids]), "attention_mask": torch.tensor([mask])}


class Prepared(dict):
    def to(self, *_):
        return self


def encoder(pack, kind, model, **more):
    made = pack.TextEncoder.__new__(pack.TextEncoder)
    torch.nn.Module.__init__(made)
    settings = dict(text_encoder_type=kind, max_length=256, use_attention_mask=True, hidden_state_skip_layer=2, apply_final_norm=False, reproduce=False,
                    is_fp8=False, dtype=torch.float32, device=torch.device("cpu"), tokenizer=Tokenizer(), output_key="last_hidden_state")
    for name, value in (settings | more).items():
        setattr(made, name, value)
    made.model = model.eval()
    return made


def llama():
    model = transformers.LlamaModel(transformers.LlamaConfig(**TEXT_CONFIG))
    state = {name.removeprefix("model."): value for name, value in words().items()}
    model.load_state_dict(state)
    model.final_layer_norm = model.norm
    return model


def llava(pack):
    module = __import__("hyvideo_wrapper.hyvideo.text_encoder.modeling_llava", fromlist=["x"])
    configuration = __import__("hyvideo_wrapper.hyvideo.text_encoder.configuration_llava", fromlist=["x"])
    vision = transformers.CLIPVisionConfig(hidden_size=VISION, intermediate_size=VISION_MLP, num_hidden_layers=VISION_LAYERS, num_attention_heads=16,
                                           image_size=SIDE, patch_size=14)
    config = configuration.LlavaConfig(vision_config=vision, text_config=transformers.LlamaConfig(**TEXT_CONFIG), image_token_index=IMAGE,
                                       vision_feature_layer=-2, vision_feature_select_strategy="default", projector_hidden_act="gelu",
                                       pad_token_id=PAD)
    config.pad_token_id = PAD
    model = module.LlavaForConditionalGeneration(config)
    state, shapes = {}, {}
    language_state = words()
    for name, value in model.state_dict().items():
        inner = name[name.find("language_model.") + len("language_model."):] if "language_model." in name else name
        inner = inner if inner.startswith("model.") or "language_model." not in name else "model." + inner
        if inner in language_state:
            state[name] = language_state[inner]
        elif "lm_head" in name:
            state[name] = torch.zeros_like(value)
        elif "position_ids" in name:
            state[name] = value
        else:
            shapes[name] = list(value.shape)
            state[name] = tiny.weight(name, shapes[name])
    model.load_state_dict(state)
    return model, shapes


def clip():
    folder = os.path.join(os.environ["COMFYUI_DIR"], "comfy", "sd1_tokenizer")
    tokenizer = transformers.CLIPTokenizer.from_pretrained(folder, max_length=77)
    shapes = tiny_clip_shapes()
    first = "cond_stage_model.transformer."
    width, mlp = shapes[first + "text_model.encoder.layers.0.mlp.fc1.weight"][1], shapes[first + "text_model.encoder.layers.0.mlp.fc1.weight"][0]
    layers = 1 + max(int(n.split(".layers.")[1].split(".")[0]) for n in shapes if ".layers." in n)
    config = transformers.CLIPTextConfig(hidden_size=width, intermediate_size=mlp, num_hidden_layers=layers, num_attention_heads=max(1, width // 64),
                                         eos_token_id=49407, bos_token_id=49406)
    model = transformers.CLIPTextModel(config)
    state = {n: tiny.weight(first + n, shapes[first + n]) if first + n in shapes else v for n, v in model.state_dict().items()}
    model.load_state_dict(state)
    return model, tokenizer


def tiny_clip_shapes():
    import json
    with open(os.path.join(comfy_env.HERE, "clip_l.json"), encoding="utf-8") as f:
        return json.load(f)["tensors"]


def picture(name, height, width):
    """8-bit pixels."""
    return torch.randint(0, 256, [1, height, width, 3], generator=torch.Generator().manual_seed(len(name))).float() / 255


def main():
    pack = make_nodes_hyvideo_wrapper.pack()
    llava_model, shapes = llava(pack)
    # A picture of this vision half takes four places, not 576.
    pack.PROMPT_TEMPLATE["dit-llm-encode-i2v"] |= {"image_emb_len": 4, "image_emb_end": 9}
    processor = transformers.CLIPImageProcessor(size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE})

    def both(images, text, **kwargs):
        return Prepared(Tokenizer()(text, **kwargs), pixel_values=processor(images, return_tensors="pt")["pixel_values"])

    clip_model, clip_tokenizer = clip()
    encoders = {"llm": lambda **more: encoder(pack, "llm", llama(), **more),
                "vlm": lambda **more: encoder(pack, "vlm", llava_model, processor=processor, processor_ip2v=both, **more)}
    second = encoder(pack, "clipL", clip_model, max_length=77, hidden_state_skip_layer=None, tokenizer=clip_tokenizer, output_key="pooler_output")
    out, cases = {}, []

    def run(title, node, kind, prompt, pictures=(), guidance=None, skip=2, normed=False, with_clip=False, frame=None, **inputs):
        made = {"text_encoder": encoders[kind](hidden_state_skip_layer=skip, apply_final_norm=normed), "text_encoder_2": second if with_clip else None}
        given = {**inputs, **{name: picture(title, *size) for name, size in pictures}}
        if guidance:
            given["hyvid_cfg"] = {"negative_prompt": guidance, "cfg": 2.0, "start_percent": 0.0, "end_percent": 1.0, "batched_cfg": True}
        if frame:
            given["custom_prompt_template"] = {"template": frame[0], "crop_start": frame[1]}
        with torch.no_grad():
            result = getattr(pack, node)().process(made, prompt, force_offload=False, **given)[0]
        case = {"name": title, "node": node, "kind": kind, "prompt": prompt, "pictures": pictures, "guidance": guidance, "skip": skip, "normed": normed,
                "clip": with_clip, "frame": frame, "inputs": inputs, "tokens": {}}
        for key, name in (("prompt_embeds", "states"), ("negative_prompt_embeds", "negative"), ("prompt_embeds_2", "pooled"),
                          ("negative_prompt_embeds_2", "negative pooled")):
            if result[key] is None:
                continue
            value = result[key]
            case["tokens"][name] = value.shape[-2]
            out[f"{title}/{name}"] = value[:, ::5] if value.dim() == 3 and value.shape[1] > 40 else value
        cases.append(case)
        print(title, case["tokens"])

    text, long = "a cat, used by the user", "a red cat sits on a mat and looks at us " * 12
    run("video", "HyVideoTextEncode", "llm", text)
    run("long", "HyVideoTextEncode", "llm", long, prompt_template="image")
    run("negative", "HyVideoTextEncode", "llm", text, prompt_template="image", guidance="bad, with few words", with_clip=True)
    run("no frame", "HyVideoTextEncode", "llm", text, prompt_template="disabled", skip=0)
    run("own frame", "HyVideoTextEncode", "llm", text, prompt_template="custom", frame=["about {} and us", 4], normed=True)
    run("picture", "HyVideoTextImageEncode", "vlm", "the animal in <image> moves", pictures=[("image1", [40, 60])], image_token_selection_expr="::2",
        prompt_template="image")
    run("two pictures", "HyVideoTextImageEncode", "vlm", "<image> beside <image>, both of us", pictures=[("image1", [28, 28]), ("image2", [50, 31])],
        image_token_selection_expr="0,-1", prompt_template="image")
    run("without its places", "HyVideoTextImageEncode", "vlm", "what <image> shows", pictures=[("image1", [33, 29])], image_token_selection_expr="",
        clip_text_override="a cat", with_clip=True, prompt_template="custom",
        frame=["<|start_header_id|>user<|end_header_id|>\n\n{}<|eot_id|>", 0])
    run("first", "HyVideoI2VEncode", "vlm", "it moves", pictures=[("image", [30, 44])], prompt_template="I2V_image", image_embed_interleave=2)
    run("first whole", "HyVideoI2VEncode", "vlm", "it moves", pictures=[("image", [30, 44])], prompt_template="I2V_image", image_embed_interleave=0,
        guidance="bad")
    comfy_env.save("nodes_hyvideo_text", out, {**tiny.manifest(shapes), "cases": cases})


if __name__ == "__main__":
    main()
