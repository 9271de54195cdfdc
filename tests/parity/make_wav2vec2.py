"""wav2vec2, wav2vec2_base: ComfyUI's audio encoder in both forms, narrow, checked against transformers' Wav2Vec2Model."""
import torch

import comfy_env

comfy_env.import_comfy()

import comfy.ops  # noqa: E402
from comfy.audio_encoders.wav2vec2 import Wav2Vec2Model  # noqa: E402

import tiny_models as tiny  # noqa: E402
from make_models import load  # noqa: E402

WIDTH, LAYERS, CONV = 128, 2, 512


@torch.inference_mode()
def make(name, large):
    model = Wav2Vec2Model(embed_dim=WIDTH, num_heads=WIDTH // 64, num_layers=LAYERS, conv_norm=large, conv_bias=large, do_normalize=large,
                          do_stable_layer_norm=large, operations=comfy.ops.disable_weight_init)
    shapes = {n: list(p.shape) for n, p in model.state_dict().items()}
    state = tiny.weights(shapes)
    load(model, state)
    sound = tiny.weight("sound", [1, 2, 4000]) * 30
    states = model(sound)[1]
    from transformers import Wav2Vec2Config
    from transformers import Wav2Vec2Model as Theirs
    theirs = Theirs(Wav2Vec2Config(hidden_size=WIDTH, num_hidden_layers=LAYERS, num_attention_heads=WIDTH // 64, intermediate_size=4 * WIDTH,
                                   conv_dim=(CONV,) * 7, conv_bias=large, feat_extract_norm="layer" if large else "group",
                                   do_stable_layer_norm=large))
    load(theirs, state)
    mono = sound.mean(1)
    if large:
        mono = (mono - mono.mean()) / torch.sqrt(mono.var() + 1e-7)
    other = theirs(mono, output_hidden_states=True).hidden_states
    for ours, one in zip(states, other):
        assert torch.allclose(ours, one, atol=1e-4), (ours - one).abs().max()
    comfy_env.save(name, {f"states/{i}": one for i, one in enumerate(states)}, tiny.manifest(shapes))


def make_resampled():
    """resampled: torchaudio's resample to what the encoder hears."""
    import torchaudio
    sound = tiny.weight("sound", [1, 2, 3000]) * 30
    comfy_env.save("resampled", {str(rate): torchaudio.functional.resample(sound, rate, 16000)[:, :, :1200].contiguous()
                                 for rate in (8000, 22050, 44100, 48000)}, {})


if __name__ == "__main__":
    make_resampled()
    make("wav2vec2", True)
    make("wav2vec2_base", False)
