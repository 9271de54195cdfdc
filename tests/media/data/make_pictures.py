"""Writes small pictures with Pillow and pictures.json, which says what ComfyUI's LoadImage sees in each.

python3 make_pictures.py (needs Pillow, numpy)
"""
import io
import json
import pathlib
import struct
import zlib

import numpy
from PIL import Image, ImageOps, PngImagePlugin

here = pathlib.Path(__file__).parent
rng = numpy.random.default_rng(5)
W, H = 13, 7
y, x = numpy.mgrid[0:H, 0:W]
smooth = numpy.stack([x * 19, y * 36, (x + y) * 13], -1).astype(numpy.uint8)
alpha = ((x * 31 + y * 17) % 256).astype(numpy.uint8)
noise = rng.integers(0, 256, (H, W, 3), dtype=numpy.uint8)
rgb = Image.fromarray(noise)
rgba = Image.fromarray(numpy.dstack([noise, alpha]))
gray = Image.fromarray(noise[..., 0])
expected = {}


def note(name, tolerance=0):
    image = ImageOps.exif_transpose(Image.open(here / name))
    colours = numpy.array(image.convert("RGB"))
    if "A" in image.getbands():
        colours = numpy.dstack([colours, numpy.array(image.getchannel("A"))])
    elif image.mode == "P" and "transparency" in image.info:
        colours = numpy.dstack([colours, numpy.array(image.convert("RGBA").getchannel("A"))])
    expected[name] = {"width": image.width, "height": image.height, "channels": colours.shape[2],
                      "tolerance": tolerance, "pixels": colours.tobytes().hex()}


def save(image, name, tolerance=0, **options):
    image.save(here / name, **options)
    note(name, tolerance)


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def raw_png(name, depth, colour, rows, extra=b"", interlace=0):
    """What Pillow cannot write: 16-bit colour, interlacing."""
    header = struct.pack(">IIBBBBB", W, H, depth, colour, 0, 0, interlace)
    (here / name).write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + extra + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))
    note(name)


def adam7(pixels):
    out = b""
    for x0, y0, dx, dy in [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]:
        for row in pixels[y0::dy]:
            part = row[x0::dx]
            if len(part):
                out += b"\0" + part.tobytes()
    return out


save(rgb, "rgb.png")
save(rgba, "rgba.png")
save(gray, "gray.png")
save(Image.fromarray(numpy.dstack([noise[..., 0], alpha])), "gray_alpha.png")
save(gray.convert("1"), "one_bit.png")
save(rgb.quantize(16), "palette4.png")
save(rgb.quantize(200), "palette8.png")
save(rgb.quantize(16), "palette_transparent.png", transparency=3)
save(rgb, "rgb_key_colour.png", transparency=tuple(int(v) for v in noise[2, 3]))
save(gray, "gray_key_colour.png", transparency=int(noise[1, 1, 0]))
wide = rng.integers(0, 65536, (H, W, 4), dtype=numpy.uint16)
raw_png("rgb16.png", 16, 2, b"".join(b"\0" + r.astype(">u2").tobytes() for r in wide[..., :3]))
raw_png("rgba16.png", 16, 6, b"".join(b"\0" + r.astype(">u2").tobytes() for r in wide))
raw_png("interlaced.png", 8, 2, adam7(noise), interlace=1)
raw_png("gray2.png", 2, 0, b"".join(b"\0" + bytes(sum(((r[4 * i + k] if 4 * i + k < W else 0) & 3) << (6 - 2 * k) for k in range(4)) for i in range(4)) for r in x.astype(int).tolist()))

save(Image.fromarray(smooth), "smooth.jpg", quality=90, tolerance=1)
save(Image.fromarray(smooth[..., 0]), "gray.jpg", quality=90, tolerance=1)
save(Image.fromarray(smooth), "progressive.jpg", quality=80, progressive=True, tolerance=1)
save(Image.fromarray(smooth).convert("CMYK"), "cmyk.jpg", quality=95, tolerance=1)
save(rgba, "lossless.webp", lossless=True, exact=True)
save(rgb, "lossless_rgb.webp", lossless=True)
save(Image.fromarray(smooth), "lossy.webp", quality=80, tolerance=2)
frames = [Image.fromarray(numpy.roll(smooth, i, 1)) for i in range(3)]
save(frames[0], "animated.webp", save_all=True, append_images=frames[1:], lossless=True)
for orientation in range(1, 9):
    exif = Image.Exif()
    exif[0x0112] = orientation
    save(rgb, f"turned{orientation}.png", exif=exif)
exif = Image.Exif()
exif[0x0112] = 6
save(Image.fromarray(smooth), "turned6.jpg", quality=90, exif=exif, tolerance=1)
save(rgb, "turned6.webp", lossless=True, exif=exif)

# Texts as ComfyUI writes them, and the other kinds of text chunks.
texts = PngImagePlugin.PngInfo()
texts.add_text("prompt", json.dumps({"3": {"class_type": "KSampler", "inputs": {"text": "\u2603 snow"}}}))
texts.add_text("workflow", json.dumps({"nodes": []}))
texts.add_text("squeezed", "z" * 5000, zip=True)
texts.add_itxt("wide", "\u2603 \u00e4", "en", "weit")
texts.add_itxt("wide squeezed", "\u2603" * 300, zip=True)
texts.add(b"tEXt", b"latin\0" + "caf\u00e9".encode("latin-1"))
rgb.save(here / "texts.png", pnginfo=texts)
for suffix in ("webp", "jpg"):
    exif = Image.Exif()
    exif[0x0110] = "prompt:" + json.dumps({"1": {"class_type": "X"}})
    exif[0x010F] = "workflow:" + json.dumps({"nodes": [1]})
    rgb.save(here / f"texts.{suffix}", exif=exif)

(here / "pictures.json").write_text(json.dumps(expected, indent=0))
