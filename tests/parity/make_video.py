"""video_*.mp4/.webm and video.safetensors: clips written by ComfyUI's own classes, and what they give when they are read.

    COMFYUI_DIR=<checkout of 0.3.64> python make_video.py

video_saved.mp4: VideoFromComponents.save_to (H.264, AAC, prompt and workflow). video_saved.webm: as SaveWEBM writes with PyAV.
video_combined.mp4: as VideoHelperSuite calls the ffmpeg program (BT.709, the workflow in the comment). video_turned.mp4: the first one
with a display matrix of 90 degrees. The dump holds the frames of each as PyAV decodes them, uint8, and a part of the waveform.
"""
import json
import os
import subprocess
import sys
from fractions import Fraction

import numpy as np
import torch
from safetensors.torch import save_file

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.environ["COMFYUI_DIR"])
os.chdir(HERE)

import av  # noqa: E402
from comfy_api.latest._input_impl.video_types import VideoFromComponents, VideoFromFile  # noqa: E402
from comfy_api.latest._util import VideoComponents  # noqa: E402

WIDTH, HEIGHT, FRAMES, RATE = 32, 24, 6, 16
PROMPT = {"1": {"class_type": "LoadVideo", "inputs": {"file": "grün = # ; \\ \"x\""}}}
WORKFLOW = {"nodes": [{"id": 1, "type": "Note", "text": "line\nbreak"}]}


def frames():
    y, x = torch.meshgrid(torch.arange(HEIGHT), torch.arange(WIDTH), indexing="ij")
    return torch.stack([torch.stack([(40 + 5 * x) / 255.0, (60 + 6 * y) / 255.0, torch.full_like(x, 30 + 30 * i) / 255.0], -1)
                        for i in range(FRAMES)])


def waveform():
    t = torch.arange(int(44100 * FRAMES / RATE)) / 44100.0
    return torch.stack([0.5 * torch.sin(2 * np.pi * 220 * t), 0.25 * torch.sin(2 * np.pi * 440 * t)])[None]


def save_mp4():
    parts = VideoComponents(images=frames(), audio={"waveform": waveform(), "sample_rate": 44100}, frame_rate=Fraction(RATE))
    VideoFromComponents(parts).save_to("video_saved.mp4", metadata={"workflow": WORKFLOW, "prompt": PROMPT})


def save_webm():
    container = av.open("video_saved.webm", mode="w")
    container.metadata["prompt"] = json.dumps(PROMPT)
    container.metadata["workflow"] = json.dumps(WORKFLOW)
    stream = container.add_stream("libvpx-vp9", rate=Fraction(RATE * 1000, 1000))
    stream.width, stream.height, stream.pix_fmt, stream.bit_rate, stream.options = WIDTH, HEIGHT, "yuv420p", 0, {"crf": "32"}
    for image in frames():
        frame = av.VideoFrame.from_ndarray((image * 255).to(torch.uint8).numpy(), format="rgb24")
        for packet in stream.encode(frame):
            container.mux(packet)
    container.mux(stream.encode())
    container.close()


def save_combined():
    comment = json.dumps({"prompt": json.dumps(PROMPT), "workflow": WORKFLOW})
    for mark in "\\;#=\n":
        comment = comment.replace(mark, "\\" + mark)
    with open("comment.txt", "w", encoding="utf-8") as f:
        f.write(";FFMETADATA1\ncomment=" + comment)
    raw = (frames() * 255 + 0.5).to(torch.uint8).numpy().tobytes()
    subprocess.run(["ffmpeg", "-v", "error", "-i", "comment.txt", "-f", "rawvideo", "-pix_fmt", "rgb24", "-color_range", "pc",
                    "-colorspace", "rgb", "-color_primaries", "bt709", "-color_trc", "bt709", "-s", f"{WIDTH}x{HEIGHT}", "-r", str(RATE),
                    "-i", "-", "-y", "-c:v", "libx264", "-pix_fmt", "yuv420p", "-crf", "19", "-vf", "scale=out_color_matrix=bt709",
                    "-color_range", "tv", "-colorspace", "bt709", "-color_primaries", "bt709", "-color_trc", "bt709",
                    "video_combined.mp4"], input=raw, check=True)
    os.remove("comment.txt")
    subprocess.run(["ffmpeg", "-v", "error", "-y", "-i", "video_saved.mp4", "-map_metadata", "-1", "-an", "-c", "copy", "-metadata:s:v",
                    "rotate=90", "video_turned.mp4"], check=True)


def decoded(name):
    """Turned as ComfyUI 0.33 turns frames."""
    with av.open(name) as container:
        return torch.stack([torch.from_numpy(np.rot90(f.to_ndarray(format="rgb24"), k=round(f.rotation // 90)).copy())
                            for f in container.decode(video=0)])


save_mp4()
save_webm()
save_combined()
tensors = {name: decoded(name) for name in ("video_saved.mp4", "video_saved.webm", "video_combined.mp4", "video_turned.mp4")}
tensors["frames"] = (frames() * 255).to(torch.uint8)
tensors["waveform"] = VideoFromFile("video_saved.mp4").get_components().audio["waveform"][0, :, 4000:8000].contiguous()
save_file({k: v.contiguous() for k, v in tensors.items()}, "video.safetensors")
with open("video.json", "w", encoding="utf-8") as f:
    json.dump({"av": av.__version__, "prompt": PROMPT, "workflow": WORKFLOW, "rate": RATE}, f)
