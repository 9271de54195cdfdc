"""mmaudio.*, mmaudio_*.json: MMAudio's networks on tiny seeded weights, part by part, and runs of its sampler, by the pack's own code on the
CPU in float32.

    COMFYUI_DIR=... (0.3.64) MMAUDIO_DIR=... python tests/parity/make_mmaudio.py

MMAUDIO_DIR is a checkout of kijai/ComfyUI-MMAudio (8eaeb72), which wants open_clip_torch 3.3, timm and omegaconf. The nodes know models by the
sizes of the published ones, and cannot run those of 16 kHz: the pack's classes are made of the tiny sizes here and given to its sampler.
"""
import importlib
import os
import sys
import types

import comfy_env

comfy_env.import_comfy()

import torch  # noqa: E402

torch.use_deterministic_algorithms(False)
torch.Tensor.cuda = lambda self: self  # the autoencoder makes its numbers there

import open_clip  # noqa: E402

import tiny_models as tiny  # noqa: E402

WIDTH, CLIP, TEXT, SYNC = 128, 32, 64, 128


def pack():
    """The pack as a package, without what only training and another solver need."""
    for name in ("librosa", "librosa.filters", "torchdiffeq"):
        sys.modules[name] = types.ModuleType(name)
    sys.modules["librosa.filters"].mel = lambda sr, n_fft, n_mels, fmin, fmax: torch.zeros(n_mels, n_fft // 2 + 1).numpy()
    sys.modules["torchdiffeq"].odeint = None
    package = types.ModuleType("mmaudio_pack")
    package.__path__ = [os.environ["MMAUDIO_DIR"]]
    sys.modules["mmaudio_pack"] = package
    return importlib.import_module("mmaudio_pack.nodes")


nodes = pack()


def part(name):
    return importlib.import_module("mmaudio_pack.mmaudio." + name)


def filled(module, files, name):
    """The module with seeded weights; its file's names and shapes. What is computed, not trained, stays."""
    own = {n: v for n, v in module.state_dict().items() if not n.endswith("filter")}
    shapes = {n: list(v.shape) for n, v in own.items()}
    left = module.load_state_dict(tiny.weights(shapes), strict=False)
    assert not left.unexpected_keys and all(n.endswith("filter") for n in left.missing_keys)
    unused = ("encoder.", "vfeat_extractor.patch_embed.")  # nobody encodes sound, or looks at single pictures
    files[name] = {n: s for n, s in shapes.items() if not n.startswith(unused)}
    return module.eval()


def network(second, latent):
    return part("model.networks").MMAudio(latent_dim=latent, clip_dim=CLIP, sync_dim=SYNC, text_dim=TEXT, hidden_dim=WIDTH, depth=3,
                                          fused_depth=1, num_heads=2, latent_seq_len=44, clip_seq_len=8, sync_seq_len=16, v2=second)


def synchformer():
    """Of the published form, narrow and flat: the pack reads its sizes from a file."""
    former = part("ext.synchformer.motionformer")
    read = former.OmegaConf.load

    def narrow(path):
        config = read(path)
        config.VIT.EMBED_DIM, config.VIT.NUM_HEADS, config.VIT.DEPTH = SYNC, 2, 2
        return config

    former.OmegaConf = types.SimpleNamespace(load=narrow)
    return part("ext.synchformer").Synchformer()


def vocoder_44k():
    from_json = part("ext.bigvgan_v2.env").AttrDict
    return part("ext.bigvgan_v2.bigvgan").BigVGAN(from_json(
        num_mels=128, resblock="1", upsample_rates=[4, 2], upsample_kernel_sizes=[10, 4], upsample_initial_channel=16,
        resblock_kernel_sizes=[3, 7], resblock_dilation_sizes=[[1, 3, 5], [1, 2, 4]], activation="snakebeta", snake_logscale=True,
        use_tanh_at_final=False, use_bias_at_final=False))


def vocoder_16k():
    config = types.SimpleNamespace(num_mels=80, resblock="1", upsample_rates=[4, 2], upsample_kernel_sizes=[8, 4], upsample_initial_channel=16,
                                   resblock_kernel_sizes=[3], resblock_dilation_sizes=[[1, 3, 5]], activation="snakebeta", snake_logscale=True)
    return part("ext.bigvgan.models").BigVGANVocoder(config)


class Sound(torch.nn.Module):
    """What the pack calls the autoencoder: decoder and vocoder, whose weights are made ready for use."""

    def __init__(self, files, mode, bands, latent):
        super().__init__()
        vae = part("ext.autoencoder.vae").VAE(data_dim=bands, embed_dim=latent, hidden_dim=16)
        self.vae = filled(vae, files, "mmaudio_vae_" + mode).remove_weight_norm()
        self.vocoder = filled(vocoder_44k() if mode == "44k" else vocoder_16k(), files, "mmaudio_vocoder_" + mode)
        self.vocoder.remove_weight_norm()

    def decode(self, z):
        return self.vae.decode(z)

    def vocode(self, mel):
        return self.vocoder(mel)


def clip():
    return open_clip.CLIP(embed_dim=CLIP, quick_gelu=True,
                          vision_cfg=dict(image_size=378, layers=2, width=64, head_width=4, patch_size=63),
                          text_cfg=dict(context_length=77, vocab_size=49408, width=TEXT, heads=1, layers=2))


def frames(name, count, height, width):
    """Away from black and white: what bicubic takes beyond them the pack wraps around."""
    values = tiny.weight(name, [count * height * width * 3]).view(count, height, width, 3)
    return ((values + 0.5).clamp(0.25, 0.75) * 255).round() / 255


@torch.inference_mode()
def parts(models, utils, out):
    for name, net in models.items():
        net.update_seq_lengths(net.latent_seq_len if net.latent_dim == 40 else 32, 8, 16)
        features = [tiny.weight(f"in.{n}", [1, length, width]) for n, length, width in (("clip", 8, CLIP), ("sync", 16, SYNC), ("text", 77, TEXT))]
        conditions = net.preprocess_conditions(*features)
        empty = net.get_empty_conditions(1, negative_text_features=features[2] * 0.5)
        x = tiny.weight("in.latent", [1, net.latent_seq_len, net.latent_dim]) * 10
        for time in (0.0, 0.62):
            t = torch.full([1], time)
            out[f"{name}/flow {time}"] = torch.cat([net.predict_flow(x, t, c) for c in (conditions, empty)])
    for mode, util in utils.items():
        out[f"mel {mode}"] = util.decode(tiny.weight("in.z", [1, 5, util.tod.vae.embed_dim]) * 10)
        mel = tiny.weight("in.mel", [1, 9, 128])[..., :128 if mode == "44k" else 80].transpose(1, 2) * 10
        out[f"vocoded {mode}"] = util.vocode(mel)
    util = utils["44k"]
    video = tiny.weight("in.segments", [1, 16, 3, 224, 224]) * 30
    out["synchformer"] = util.encode_video_with_sync(video)
    pictures = tiny.weight("in.pictures", [1, 2, 3, 384, 384]) * 30
    out["pictures"] = util.encode_video_with_clip(pictures)
    texts = ["rain on a tin roof", "Two DOGS bark; " + "a very long tale of thunder, " * 14]
    out["texts"] = util.encode_text(texts)[:, ::7]


CASES = {
    "video": dict(images=(27, 40, 56), duration=1.0, prompt="a dog barks", negative="music"),
    "short video": dict(images=(20, 72, 48), duration=2.0, prompt="", negative="", cfg=1.0),
    "text": dict(duration=0.8, prompt="waves", negative="wind", cfg=4.5),
    "conditional": dict(images=(18, 384, 384), duration=0.7, prompt="a bell", negative="noise", cfg=0.5),
    "masked": dict(images=(25, 224, 300), duration=0.9, prompt="steps", negative="", mask=True),
    "first version, 16 kHz": dict(images=(25, 36, 36), duration=1.0, prompt="glass breaks", negative="voices", mode="16k"),
}


def run(case, models, utils):
    mode = case.get("mode", "44k")
    net = models["second" if mode == "44k" else "first"]
    config = part("model.sequence_config")
    net.seq_cfg = config.CONFIG_44K if mode == "44k" else config.CONFIG_16K
    images = frames("frames", *case["images"]) if "images" in case else None
    with torch.inference_mode():
        audio, = nodes.MMAudioSampler().sample(net, 7, utils[mode], case["duration"], 3, case.get("cfg", 4.5), case["prompt"], case["negative"],
                                               case.get("mask", False), True, images)
    return audio["waveform"]


def main():
    files, out = {}, {}
    models = {"second": filled(network(True, 40), files, "mmaudio_network"), "first": filled(network(False, 20), files, "mmaudio_network_16k")}
    seeing, reading = filled(synchformer(), files, "mmaudio_synchformer"), filled(clip(), files, "mmaudio_clip")
    utils = {mode: part("model.utils.features_utils").FeaturesUtils(vae=Sound(files, mode, *sizes), synchformer=seeing, clip_model=reading)
             for mode, sizes in (("44k", (128, 40)), ("16k", (80, 20)))}
    parts(models, utils, out)
    for name, case in CASES.items():
        out["sound/" + name] = run(case, models, utils)
        print(name, list(out["sound/" + name].shape), out["sound/" + name].abs().mean(), (out["sound/" + name].abs() >= 1).float().mean())
    for name, value in out.items():
        print(name, list(value.shape), value.abs().max())
    comfy_env.save("mmaudio", out, {"cases": [dict(case, name=name) for name, case in CASES.items()]})
    for name, shapes in files.items():
        comfy_env.save(name, None, tiny.manifest(shapes))


if __name__ == "__main__":
    main()
