"""nodes_wan_speech.*: FantasyTalking of the WanVideoWrapper on the tiny models, by the pack's own code (October 2025) on the CPU in float32:
what its nodes make of a sound (transformers' Wav2Vec2Model in the base form, and in the form with stable layer norms), and runs of its sampler that hear it.

    COMFYUI_DIR=... WANVIDEOWRAPPER_DIR=... python tests/parity/make_nodes_wan_speech.py

The weights of all parts follow the rule of the tiny models; tests/nodes/wan_speech_test.cpp makes the same. The pack knows the projection
by the widths of the published one; it is made with the tiny ones instead.
"""
import json
import os
import tempfile

import make_nodes_wan_wrapper as wrapper  # imports ComfyUI first

import torch

import comfy_env
import folder_paths
import tiny_models as tiny
from make_models import load
from make_nodes_wan import shapes
from safetensors.torch import save_file
from transformers import Wav2Vec2Config, Wav2Vec2CTCTokenizer, Wav2Vec2FeatureExtractor, Wav2Vec2Model, Wav2Vec2Processor

HEARD, SPEECH, WIDTH, LAYERS, TEXT = 128, 32, 256, 2, wrapper.TEXT
FRAMES = 9
NAME = "facebook/wav2vec2-base-960h"
SPEECH_SHAPES = {"proj_model.proj.weight": [SPEECH, HEARD], "proj_model.norm.weight": [SPEECH], "proj_model.norm.bias": [SPEECH],
                 **{f"blocks.{i}.cross_attn.{p}_proj.weight": [WIDTH, SPEECH] for i in range(LAYERS) for p in "kv"}}
ENCODERS = {"wav2vec2_base": dict(num_attention_heads=2, do_stable_layer_norm=False, feat_extract_norm="group", conv_bias=False),
            "wav2vec2": dict(num_attention_heads=2, do_stable_layer_norm=True, feat_extract_norm="layer", conv_bias=True)}


def write_encoder(folder, dump):
    """A published folder of an encoder; returns its config.json."""
    os.makedirs(folder)
    model = Wav2Vec2Model(Wav2Vec2Config(hidden_size=HEARD, num_hidden_layers=LAYERS, intermediate_size=4 * HEARD, conv_dim=(512,) * 7, **ENCODERS[dump]))
    load(model, {n: tiny.weight(n, s) for n, s in shapes(dump).items()})
    model.save_pretrained(folder)
    with open(os.path.join(folder, "vocab.json"), "w", encoding="utf-8") as f:
        json.dump({"<pad>": 0, "<s>": 1, "</s>": 2, "<unk>": 3, "|": 4, "A": 5}, f)
    Wav2Vec2Processor(Wav2Vec2FeatureExtractor(do_normalize=True), Wav2Vec2CTCTokenizer(os.path.join(folder, "vocab.json"))).save_pretrained(folder)
    with open(os.path.join(folder, "config.json"), encoding="utf-8") as f:
        return json.load(f)


def main():
    loading, sampling, nodes, caches = wrapper.pack()
    import importlib
    talking = importlib.import_module("wrapper.fantasytalking.nodes")
    module = importlib.import_module("wrapper.fantasytalking.model")
    plain_projection, plain_model = module.FantasyTalkingAudioConditionModel, loading.WanModel
    module.FantasyTalkingAudioConditionModel = lambda **_: plain_projection(audio_in_dim=HEARD, audio_proj_dim=SPEECH)
    loading.WanModel = lambda **config: plain_model(**{**config, "num_heads": wrapper.HEADS, "num_layers": LAYERS, "text_dim": TEXT})
    sampling.args.preview_method = sampling.LatentPreviewMethod.Latent2RGB
    folder = tempfile.mkdtemp()
    folder_paths.folder_names_and_paths["diffusion_models"] = ([folder], {".safetensors"})
    for name in ("wan_t2v", "wan_i2v"):
        save_file({n: tiny.weight(n, s) for n, s in shapes(name).items()}, os.path.join(folder, name + ".safetensors"))
    save_file({n: tiny.weight(n, s) for n, s in SPEECH_SHAPES.items()}, os.path.join(folder, "speech.safetensors"))
    speech = talking.FantasyTalkingModelLoader().loadmodel("speech.safetensors", "fp32")[0]

    def sound(samples, rate):
        return {"waveform": tiny.weight("sound", [1, 2, samples]) * 30, "sample_rate": rate}

    out, encoders = {}, {}
    for dump, audio in (("wav2vec2", sound(5000, 16000)), ("wav2vec2_base", sound(9000, 22050))):
        folder_paths.models_dir = tempfile.mkdtemp()
        config = write_encoder(os.path.join(folder_paths.models_dir, "transformers", NAME), dump)
        hearing = talking.DownloadAndLoadWav2VecModel().loadmodel(NAME, "fp32", "main_device")[0]
        kept = ("model_type", "hidden_size", "conv_kernel", "conv_stride", "hidden_act", "feat_extract_activation", "layer_norm_eps", "add_adapter")
        encoders[dump] = {"config": {k: config[k] for k in (*kept, *ENCODERS[dump])}, "samples": audio["waveform"].shape[2], "rate": audio["sample_rate"]}

        def heard(frames=FRAMES, scale=1.0, cfg=1.0, hearing=hearing, audio=audio):
            with torch.inference_mode():
                return talking.FantasyTalkingWav2VecEmbeds().process(hearing, speech, 23.0, frames, scale, cfg, audio)[0]

        out["tokens " + dump] = heard()["audio_proj"].float()
    cases = []

    def run(title, model="wan_t2v", frames=FRAMES, scale=1.0, audio_cfg=1.0, image=None, prompts=(("cat", 9),), node=None, **options):
        given = {"steps": 3, "cfg": 2.5, "shift": 5.0, "seed": 7, "scheduler": "euler", "riflex_freq_index": 0, **options}
        links = {}
        for name, (module, cls, values) in (node or {}).items():
            made = getattr(module, cls)()
            links[name] = getattr(made, made.FUNCTION)(**values)[0]
        opened = loading.WanVideoModelLoader().loadmodel(model + ".safetensors", "fp32", "main_device", "disabled", fantasytalking_model=speech)[0]
        embeds = {"prompt_embeds": [tiny.weight(n, [t, TEXT]) for n, t in prompts], "negative_prompt_embeds": [tiny.weight("dog", [6, TEXT])]}
        with torch.inference_mode():
            result = sampling.WanVideoSampler().process(
                opened, image or nodes.WanVideoEmptyEmbeds().process(frames, wrapper.WIDTH, wrapper.HEIGHT)[0], text_embeds=embeds, force_offload=False,
                rope_function="comfy", fantasytalking_embeds=heard(frames, scale, audio_cfg), **given, **links)
        out[title] = result[0]["samples"].float().contiguous().clone()
        cases.append({"name": title, "model": model, "frames": frames, "prompts": [list(p) for p in prompts], "audio_scale": scale,
                      "audio_cfg_scale": audio_cfg, "inputs": given,
                      "links": {n: {"class_type": c, "inputs": v} for n, (_, c, v) in (node or {}).items()}})

    run("heard", scale=1.5)
    run("without guidance", cfg=1.0, audio_cfg=3.0)
    run("guided by speech", audio_cfg=[3.0, 1.0, 2.0])
    run("several prompts", prompts=(("cat", 9), ("bird", 5)))
    run("skipped layers", audio_cfg=2.0, node={"slg_args": (nodes, "WanVideoSLG", dict(blocks="1", start_percent=0.0, end_percent=0.8))})
    run("tea", steps=5, audio_cfg=2.0, node={"cache_args": (caches, "WanVideoTeaCache", dict(
        rel_l1_thresh=0.25, start_step=1, end_step=-1, cache_device="offload_device", use_coefficients=True, mode="e"))})
    run("windows", frames=37, steps=2, audio_cfg=2.0, node={"context_options": (nodes, "WanVideoContextOptions", dict(
        context_schedule="uniform_standard", context_frames=17, context_stride=4, context_overlap=8, freenoise=True, verbose=False))})
    latent = [(FRAMES - 1) // 4 + 1, wrapper.HEIGHT // 8, wrapper.WIDTH // 8]
    mask = torch.zeros(4, *latent)
    mask[:, 0] = 1
    run("picture", model="wan_i2v", audio_cfg=2.0, image={
        "image_embeds": tiny.weight("picture", [16, *latent]), "mask": mask, "clip_context": tiny.weight("seen", [1, 7, 1280]),
        "negative_clip_context": tiny.weight("unseen", [1, 7, 1280]), "max_seq_len": latent[0] * wrapper.HEIGHT * wrapper.WIDTH // 256, "num_frames": FRAMES,
        "lat_h": latent[1], "lat_w": latent[2], "control_embeds": None, "end_image": None, "fun_or_fl2v_model": True, "has_ref": False,
        "add_cond_latents": None})
    comfy_env.save("nodes_wan_speech", out, {**tiny.manifest(SPEECH_SHAPES), "encoders": encoders, "cases": cases})


if __name__ == "__main__":
    main()
