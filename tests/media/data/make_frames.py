"""Writes small pictures of the formats that hold several frames or pages, and of BMP, and frames.json, which says what
ComfyUI's LoadImage gives for each: every frame, RGB or RGBA.

python3 make_frames.py (needs Pillow with AVIF, numpy)
"""
import json
import pathlib
import random
import struct

import numpy
from PIL import Image, ImageOps, ImageSequence

here = pathlib.Path(__file__).parent
rng = numpy.random.default_rng(11)
W, H = 9, 5
y, x = numpy.mgrid[0:H, 0:W]
smooth = numpy.stack([x * 27, y * 50, (x + y) * 18], -1).astype(numpy.uint8)
alpha = ((x * 31 + y * 57) % 256).astype(numpy.uint8)
noise = rng.integers(0, 256, (H, W, 3), dtype=numpy.uint8)
rgb = Image.fromarray(noise)
rgba = Image.fromarray(numpy.dstack([noise, alpha]))
gray = Image.fromarray(noise[..., 0])
expected = {}


def note(name, tolerance=0):
    frames = []
    for frame in ImageSequence.Iterator(Image.open(here / name)):
        frame = ImageOps.exif_transpose(frame)
        pixels = numpy.array(frame.convert("RGB"))
        if "A" in frame.getbands():
            pixels = numpy.dstack([pixels, numpy.array(frame.getchannel("A"))])
        elif frame.mode == "P" and "transparency" in frame.info:
            pixels = numpy.dstack([pixels, numpy.array(frame.convert("RGBA").getchannel("A"))])
        if not frames or pixels.shape[:2] == frames[0].shape[:2]:
            frames.append(pixels)
    expected[name] = {"width": frames[0].shape[1], "height": frames[0].shape[0], "tolerance": tolerance,
                      "channels": [f.shape[2] for f in frames], "frames": [f.tobytes().hex() for f in frames]}


def save(image, name, tolerance=0, **options):
    image.save(here / name, **options)
    note(name, tolerance)


def write(name, data, tolerance=0):
    (here / name).write_bytes(data)
    note(name, tolerance)


# BMP. Pillow writes the plain ones.
save(rgb, "rgb.bmp")
save(rgba, "padded.bmp")  # the fourth byte counts for nothing
save(gray, "gray.bmp")
save(gray.convert("1"), "one_bit.bmp")
save(rgb.quantize(16), "palette.bmp")


def bmp(name, bits, pixels, compression=0, height=H, masks=(), palette=b"", header=40, width=W):
    info = struct.pack("<IiiHHIIiiII", header, width, height, 1, bits, compression, len(pixels), 0, 0, len(palette) // 4, 0)
    info += b"".join(struct.pack("<I", m) for m in masks)
    info = info.ljust(header, b"\0") if header > 40 else info
    start = 14 + len(info) + len(palette)
    write(name, b"BM" + struct.pack("<IHHI", start + len(pixels), 0, 0, start) + info + palette + pixels)


def rows(values, kind):
    size = numpy.dtype(kind).itemsize
    return b"".join(r.astype(kind).tobytes().ljust((W * size + 3) // 4 * 4, b"\0") for r in values)


words = rng.integers(0, 65536, (H, W))
bmp("five_bits.bmp", 16, rows(words & 0x7FFF, "<u2"))
bmp("six_bits.bmp", 16, rows(words, "<u2"), compression=3, masks=(0xF800, 0x7E0, 0x1F))
bmp("from_top.bmp", 24, b"".join(r.tobytes().ljust(28, b"\0") for r in noise[..., ::-1]), height=-H)
wide = rng.integers(0, 2**32, (H, W))
bmp("alpha.bmp", 32, rows(wide, "<u4"), compression=3, masks=(0xFF0000, 0xFF00, 0xFF, 0xFF000000), header=108)
bmp("other_order.bmp", 32, rows(wide, "<u4"), compression=3, masks=(0xFF000000, 0xFF0000, 0xFF00))
colours = bytes(rng.integers(0, 256, 16 * 4, dtype=numpy.uint8))
runs8 = b"\x04\x03\x00\x05\x01\x02\x03\x04\x05\x00\x00\x00" + b"\x09\x07\x00\x00" + b"\x02\x01\x00\x02\x03\x01\x01\x0b\x00\x00" + b"\x09\x06\x00\x00\x00\x01"
bmp("runs8.bmp", 8, runs8, compression=1, palette=colours)
runs4 = b"\x05\x3a\x00\x04\x12\x34\x00\x00" + b"\x09\x7b\x00\x00" + b"\x00\x03\x56\x70\x06\xc0\x00\x00" + b"\x09\x11\x00\x00" + b"\x09\x2f\x00\x01"
bmp("runs4.bmp", 4, runs4, compression=2, palette=colours)

# TIFF.
save(gray.convert("1"), "one_bit.tif", compression="group4")
save(gray, "gray.tif", compression="packbits")
save(rgb.quantize(16), "palette.tif", compression="tiff_deflate")
save(rgb, "rgb.tif", compression="tiff_lzw")
save(rgba, "rgba.tif")
save(Image.fromarray(numpy.dstack([noise[..., 0], alpha])), "gray_alpha.tif")
save(rgb.convert("CMYK"), "cmyk.tif")
save(Image.fromarray(smooth), "jpeg.tif", compression="jpeg", quality=95, tolerance=2)
save(rgb, "pages.tif", save_all=True, append_images=[Image.fromarray(255 - noise), Image.fromarray(noise[:3]), Image.fromarray(smooth)])
for orientation in (3, 6, 7):
    exif = Image.Exif()
    exif[0x0112] = orientation
    save(rgb, f"turned{orientation}.tif", exif=exif)


def tiff(name, order, tags, parts):
    """One page, uncompressed; parts (strips or tiles) first, offsets filled in."""
    data, places = b"", []
    for part in parts:
        places.append(8 + len(data))
        data += part
    tiled = 322 in tags
    tags = {**tags, 324 if tiled else 273: places, 325 if tiled else 279: [len(p) for p in parts]}
    start = 8 + len(data) + len(data) % 2
    entries, extra = b"", b""
    extra_at = start + 2 + 12 * len(tags) + 4
    for tag in sorted(tags):
        values = tags[tag]
        body = struct.pack(f"{order}{len(values)}I", *values)
        if len(body) > 4:
            field = struct.pack(order + "I", extra_at + len(extra))
            extra += body
        else:
            field = body
        entries += struct.pack(order + "HHI", tag, 4, len(values)) + field
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", start)
    write(name, head + data + b"\0" * (len(data) % 2) + struct.pack(order + "H", len(tags)) + entries + b"\0" * 4 + extra)


def plain(samples, bits, photometric, **more):
    return {256: [W], 257: [H], 258: [bits] * samples, 259: [1], 262: [photometric], 277: [samples], 278: [H], **more}


deep = rng.integers(0, 65536, (H, W, 4), dtype=numpy.uint16)
tiff("rgb16.tif", "<", plain(3, 16, 2), [deep[..., :3].astype("<u2").tobytes()])
tiff("rgba16_big.tif", ">", plain(4, 16, 2, **{}) | {338: [2]}, [deep.astype(">u2").tobytes()])
tiff("white_is_0.tif", "<", plain(1, 8, 0), [noise[..., 0].tobytes()])
tiff("two_bits.tif", "<", plain(1, 2, 1), [rng.integers(0, 256, (H, 3), dtype=numpy.uint8).tobytes()])
tiff("premultiplied.tif", "<", plain(4, 8, 2) | {338: [1]},
     [numpy.dstack([(noise.astype(int) * alpha[..., None] // 255).astype(numpy.uint8), alpha]).tobytes()])
tiff("padded.tif", "<", plain(4, 8, 2) | {338: [0]}, [numpy.dstack([noise, alpha]).tobytes()])
tiff("planes.tif", "<", plain(3, 8, 2) | {284: [2]}, [noise[..., i].tobytes() for i in range(3)])
strips = plain(3, 8, 2) | {278: [2]}
tiff("strips.tif", "<", strips, [noise[i:i + 2].tobytes() for i in range(0, H, 2)])

# GIF: random frames of every kind, as raw as the format allows; every colour is a code of its own.
def gif_data(values, bits):
    clear, size, out, filled, held = 1 << bits, bits + 1, bytearray(), 0, 0

    def put(code):
        nonlocal filled, held
        held |= code << filled
        filled += size
        while filled >= 8:
            out.append(held & 255)
            held >>= 8
            filled -= 8
    for i, value in enumerate(values):
        if i % (clear - 2) == 0:
            put(clear)
        put(value)
    put(clear + 1)
    if filled:
        out.append(held & 255)
    blocks = [bytes(out[i:i + 255]) for i in range(0, len(out), 255)]
    return bytes([bits]) + b"".join(bytes([len(b)]) + b for b in blocks) + b"\0"


def gif(name, seed, disposals, transparent, local, grays=False):
    pick = random.Random(seed)

    def palette():
        return b"".join(bytes([i] * 3) if grays else bytes(pick.randint(0, 255) for _ in range(3)) for i in range(4))
    data = b"GIF89a" + struct.pack("<HH", W, H) + bytes([0x81, pick.randint(0, 3), 0]) + palette()
    for k, disposal in enumerate(disposals):
        see_through = pick.random() < transparent if k else transparent > 0
        data += b"!\xf9\x04" + bytes([disposal << 2 | see_through, 1, 0, pick.randint(0, 3), 0])
        w, h = pick.randint(2, W), pick.randint(2, H)
        left, top = pick.randint(0, W - w), pick.randint(0, H - h)
        own = pick.random() < local
        data += b"," + struct.pack("<4H", left, top, w, h) + bytes([(0x81 if own else 0) | (0x40 if pick.random() < 0.4 else 0)])
        data += (palette() if own else b"") + gif_data([pick.randint(0, 3) for _ in range(w * h)], 2)
    write(name, data + b";")


save(rgb.quantize(16), "still.gif")
gif("stays.gif", 1, [1, 0, 1, 1], 0, 0.5)
gif("cleared.gif", 2, [2, 2, 2, 0, 2], 0, 0.3)
gif("cleared_see_through.gif", 3, [2, 2, 0, 2], 1, 0)
gif("taken_back.gif", 4, [1, 3, 3, 0, 1], 0.5, 0.5)
gif("first_taken_back.gif", 5, [3, 1, 2, 3, 1], 0.7, 0)
gif("grays.gif", 6, [1, 2, 1], 0.5, 0, grays=True)

# Animated PNG and WebP, AVIF.
frames = [Image.fromarray(numpy.dstack([numpy.roll(noise, i, 1), numpy.roll(alpha, i, 0)])) for i in range(4)]
patch = Image.new("RGBA", (W, H))
patch.paste(Image.fromarray(numpy.dstack([noise, alpha])[1:4, 2:7]), (2, 1))
save(frames[0], "over.apng.png", save_all=True, append_images=[patch, frames[2], patch], disposal=[0, 0, 1, 0], blend=[0, 1, 1, 1])
save(frames[0], "replaced.apng.png", save_all=True, append_images=frames[1:], disposal=[1, 2, 1, 0], blend=0)
save(rgb, "opaque.apng.png", save_all=True, append_images=[Image.fromarray(255 - noise), Image.fromarray(smooth)])
save(rgb, "still_first.apng.png", save_all=True, default_image=True, append_images=[Image.fromarray(255 - noise), Image.fromarray(smooth)])
save(rgb.quantize(16), "palette.apng.png", save_all=True, append_images=[rgb.transpose(0).quantize(palette=rgb.quantize(16))])
save(frames[0], "frames.webp", save_all=True, append_images=frames[1:], lossless=True, exact=True)
save(Image.fromarray(smooth), "still.avif", quality=100, subsampling="4:4:4", tolerance=3)
save(Image.fromarray(numpy.dstack([smooth, alpha])), "alpha.avif", quality=100, subsampling="4:4:4", tolerance=3)
save(Image.fromarray(smooth), "frames.avif", save_all=True, append_images=[Image.fromarray(255 - smooth)], quality=100, subsampling="4:4:4", tolerance=3)
for orientation in range(2, 9):
    exif = Image.Exif()
    exif[0x0112] = orientation
    save(Image.fromarray(smooth), f"turned{orientation}.avif", quality=100, subsampling="4:4:4", exif=exif, tolerance=3)

(here / "frames.json").write_text(json.dumps(expected, indent=0))
