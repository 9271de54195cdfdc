"""object_info_hyvideo.json: the signatures of the nodes of the HunyuanVideoWrapper and of ComfyUI-MultiGPU's variants of them that distorch has.

    python make_object_info_hyvideo.py WRAPPER.json

WRAPPER.json is an answer of GET /object_info with the pack (May 2025) and MultiGPU (August 2025) on a machine without models and accelerators.
"""
import json
import os
import sys

LEFT_OUT = {"HyVideoInverseSampler", "HyVideoReSampler", "HyVideoPromptMixSampler", "HyVideoLatentPreview"}
PROSE = {"description", "tooltip", "output_tooltips"}


def without_prose(value):
    if isinstance(value, dict):
        return {key: without_prose(entry) for key, entry in value.items() if key not in PROSE}
    return [without_prose(entry) for entry in value] if isinstance(value, list) else value


def main():
    with open(sys.argv[1], encoding="utf-8") as f:
        everything = json.load(f)
    names = [name for name in everything if name not in LEFT_OUT]
    target = os.path.join(os.path.dirname(os.path.abspath(__file__)), "object_info_hyvideo.json")
    with open(target, "w", encoding="utf-8") as f:
        f.write("{\n" + ",\n".join(f"{json.dumps(n)}: {json.dumps(without_prose(everything[n]))}" for n in names) + "\n}\n")


main()
