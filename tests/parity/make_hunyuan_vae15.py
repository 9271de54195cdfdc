"""hunyuan_vae15.*: ComfyUI 0.33's autoencoder of HunyuanVideo 1.5 with a sixteenth of the channels, whole and in tiles.

COMFYUI_DIR: ComfyUI 0.33."""
import torch

import comfy_env

comfy_env.import_comfy()

import comfy.sd  # noqa: E402

import tiny_models as tiny  # noqa: E402

CHANNELS = [8, 16, 32, 64, 64]
REAL = comfy.sd.AutoencodingEngine


def narrow(**kwargs):
    for part in ("encoder_config", "decoder_config"):
        kwargs[part]["params"]["block_out_channels"] = CHANNELS
    return REAL(**kwargs)


def shapes_of():
    params = {"block_out_channels": CHANNELS, "in_channels": 3, "out_channels": 3, "num_res_blocks": 2, "ffactor_spatial": 16, "ffactor_temporal": 4,
              "downsample_match_channel": True, "upsample_match_channel": True, "z_channels": 32}
    model = REAL(regularizer_config={"target": "comfy.ldm.models.autoencoder.EmptyRegularizer"},
                 encoder_config={"target": "comfy.ldm.hunyuan_video.vae_refiner.Encoder", "params": params},
                 decoder_config={"target": "comfy.ldm.hunyuan_video.vae_refiner.Decoder", "params": params})
    return {n: list(p.shape) for n, p in model.state_dict().items()}


def load():
    """The VAE as ComfyUI loads it from a file, and the shapes of the tensors in that."""
    comfy.sd.AutoencodingEngine = narrow
    shapes = shapes_of()
    return comfy.sd.VAE(sd=tiny.weights(shapes), dtype=torch.float32), shapes


def main():
    vae, shapes = load()
    model = vae.first_stage_model.float()
    large, frames = tiny.weight("large", [1, 32, 4, 3, 2]), tiny.weight("frames", [13, 48, 32, 3])
    with torch.inference_mode():
        out = {f"encode/{count}": model.encode(tiny.weight(f"clip {count}", [1, 3, count, 32, 48])) for count in (1, 6, 13)}
        out |= {f"decode/{count}": model.decode(tiny.weight(f"latent {count}", [1, 32, count, 2, 1]))[:, :, :, ::3, ::2] for count in (1, 2, 4)}
        out |= {"decode/tiled": vae.decode_tiled(large, tile_x=2, tile_y=2, overlap=1, tile_t=3, overlap_t=2)[:, :, ::5, ::5],
                "encode/tiled": vae.encode_tiled(frames, tile_x=32, tile_y=32, overlap=16, tile_t=9, overlap_t=5)}
    # What ComfyUI's blocks have for a noise level is never used, and published files lack it.
    comfy_env.save("hunyuan_vae15", out, tiny.manifest({n: s for n, s in shapes.items() if ".temb_proj." not in n}))


if __name__ == "__main__":
    main()
