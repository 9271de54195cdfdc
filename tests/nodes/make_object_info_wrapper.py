"""object_info_wrapper.json: the signatures of the nodes of the WanVideoWrapper, of their MultiGPU variants and of KJNodes that distorch has.

    python make_object_info_wrapper.py WRAPPER.json OLDER.json HELPERS.json

The three are answers of GET /object_info with these packs on a machine without models and accelerators: of October 2025, of August 2025 (the
second loader), of KJNodes. Ours differ where a workflow made with one version has to run beside those of another: what came later is
optional, and what went is still taken.
"""
import json
import os
import sys

WRAPPER = ["WanVideoModelLoader", "WanVideoVAELoader", "WanVideoTinyVAELoader", "LoadWanVideoT5TextEncoder", "LoadWanVideoClipTextEncoder", "WanVideoBlockSwap",
           "WanVideoTextEncode", "WanVideoTextEncodeSingle", "WanVideoTextEncodeCached", "WanVideoImageToVideoEncode", "WanVideoClipVisionEncode",
           "WanVideoDecode", "WanVideoEncode", "WanVideoVACEEncode", "WanVideoSampler", "WanVideoControlnetLoader",
           "WanVideoUni3C_ControlnetLoader", "DownloadAndLoadWav2VecModel", "Wav2VecModelLoader", "FantasyTalkingModelLoader"]
NODES = [*WRAPPER, *(n + "MultiGPU" for n in WRAPPER), "WanVideoSetBlockSwap", "WanVideoVRAMManagement", "WanVideoTorchCompileSettings",
         "WanVideoLoraSelect", "WanVideoLoraSelectMulti", "WanVideoSetLoRAs", "WanVideoTextEmbedBridge", "WanVideoEmptyEmbeds",
         "WanVideoAddExtraLatent", "WanVideoControlEmbeds", "WanVideoControlnet", "WanVideoUni3C_embeds", "WanVideoLatentReScale", "WanVideoTeaCache", "WanVideoMagCache", "WanVideoEasyCache",
         "WanVideoSLG", "WanVideoEnhanceAVideo", "WanVideoContextOptions", "WanVideoLoopArgs", "WanVideoExperimentalArgs", "WanVideoScheduler",
         "CreateCFGScheduleFloatList", "FantasyTalkingWav2VecEmbeds"]
HELPERS = ["GetImageSizeAndCount", "INTConstant", "ImageResizeKJ", "ImageResizeKJv2"]
DEVICE = [["cpu"], {"default": "cpu"}]
PROSE = {"description", "tooltip", "output_tooltips"}


def without_prose(value):
    if isinstance(value, dict):
        return {key: without_prose(entry) for key, entry in value.items() if key not in PROSE}
    return [without_prose(entry) for entry in value] if isinstance(value, list) else value


def make_optional(node, *names):
    """Required inputs that are optional here, before the other optional ones."""
    inputs, order = node["input"], node["input_order"]
    moved = {n: inputs["required"].pop(n) for n in names}
    inputs["optional"] = {**moved, **inputs.get("optional", {})}
    order["required"] = list(inputs["required"])
    order["optional"] = list(inputs["optional"])


def add_optional(node, **inputs):
    node["input"].setdefault("optional", {}).update(inputs)
    node["input_order"]["optional"] = list(node["input"]["optional"])


def main():
    everything = {}
    for path in (sys.argv[2], sys.argv[1], sys.argv[3]):
        with open(path, encoding="utf-8") as f:
            everything.update(json.load(f))
    model = everything["WanVideoModelLoaderMultiGPU"]
    make_optional(model, "load_device", "compute_device")
    add_optional(model, device=DEVICE)
    second = json.loads(json.dumps(model))
    second["name"] = second["display_name"] = "WanVideoModelLoaderMultiGPU_2"
    everything["WanVideoModelLoaderMultiGPU_2"] = second
    add_optional(everything["WanVideoVAELoaderMultiGPU"], device=DEVICE)
    for name in ("WanVideoTextEncodeMultiGPU", "WanVideoTextEncodeSingleMultiGPU"):
        add_optional(everything[name], device=[[], {"default": "default"}])
    for name in ("WanVideoDecodeMultiGPU", "WanVideoEncodeMultiGPU", "WanVideoVACEEncodeMultiGPU", "WanVideoClipVisionEncodeMultiGPU"):
        make_optional(everything[name], "load_device")
    make_optional(everything["WanVideoSamplerMultiGPU"], "compute_device")
    for name in ("WanVideoSampler", "WanVideoSamplerMultiGPU"):
        add_optional(everything[name], teacache_args=["CACHEARGS"])
    later = list(everything["WanVideoExperimentalArgs"]["input"]["required"])[9:]
    make_optional(everything["WanVideoExperimentalArgs"], *later)
    scheduler = everything["WanVideoScheduler"]
    scheduler["output"] = [o if isinstance(o, str) else "COMBO" for o in scheduler["output"]]
    names = NODES + ["WanVideoModelLoaderMultiGPU_2"] + HELPERS
    target = os.path.join(os.path.dirname(os.path.abspath(__file__)), "object_info_wrapper.json")
    with open(target, "w", encoding="utf-8") as f:
        f.write("{\n" + ",\n".join(f"{json.dumps(n)}: {json.dumps(without_prose(everything[n]))}" for n in names) + "\n}\n")


main()
