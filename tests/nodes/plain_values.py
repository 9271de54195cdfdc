"""Nodes that compute with texts, numbers, latents, masks and pictures, against plain Python.

    python plain_values.py PROGRAM

Every value is worked out here by loops over lists, by Python's own `str`, `re` and `eval`, and compared with what
`distorch run` makes of a workflow with that node (node_runs.py).
"""
import math
import random
import re
import struct
import sys

from node_runs import Workflow, made


def texts(w):
    samples = ["", "a", "Hello World", "  padded\t\n", "it's ßtraße ǆ", "ÀÉ ñ", "aXbXc", "x" * 50, "日本 語", "ﬁn İx ΑΣ"]
    for text in samples:
        w.expect_text(w.node("StringLength", string=text), str(len(text)), f"length of {text!r}")
        for mode, wanted in (("UPPERCASE", text.upper()), ("lowercase", text.lower()), ("Capitalize", text.capitalize()),
                             ("Title Case", text.title())):
            w.expect_text(w.node("CaseConverter", string=text, mode=mode), wanted, f"{mode} of {text!r}")
        for mode, wanted in (("Both", text.strip()), ("Left", text.lstrip()), ("Right", text.rstrip())):
            w.expect_text(w.node("StringTrim", string=text, mode=mode), wanted, f"{mode} trim of {text!r}")
        for start, end in ((0, 3), (1, -1), (-3, 99), (3, 1), (-99, 2), (0, 0)):
            w.expect_text(w.node("StringSubstring", string=text, start=start, end=end), text[start:end],
                          f"{text!r}[{start}:{end}]")
        for find, put in (("X", "--"), ("", "."), ("l", ""), ("zz", "y"), ("xx", "x")):
            w.expect_text(w.node("StringReplace", string=text, find=find, replace=put), text.replace(find, put),
                          f"{text!r}.replace({find!r}, {put!r})")
        for other in ("", "h", "World", "X"):
            for exact in (True, False):
                a, b = (text, other) if exact else (text.lower(), other.lower())
                w.expect_text(w.node("StringContains", string=text, substring=other, case_sensitive=exact), str(b in a),
                              f"{other!r} in {text!r}, {exact}")
                for mode, holds in (("Starts With", a.startswith(b)), ("Ends With", a.endswith(b)), ("Equal", a == b)):
                    w.expect_text(w.node("StringCompare", string_a=text, string_b=other, mode=mode, case_sensitive=exact),
                                  str(holds), f"{text!r} {mode} {other!r}, {exact}")
        w.expect_text(w.node("StringConcatenate", string_a=text, string_b="b", delimiter=", "), text + ", b",
                      f"{text!r} and b")


def expressions(w):
    """Regular expressions against `re`."""
    patterns = [r"a+", r"(\w)(\d)", r"^b.*$", r"[^a-c]+", r"x?", r"(?P<n>\d+)-(?P=n)", r"\bin\b", r"a{2,3}?", r"(a|ab)(c|bcd)",
                r"(?<=b)c", r"c(?!d)", r"\s+", r"(?:ab)*", r"[A-Z]", r".", "é", r"\W", r"(b)|(c)"]
    strings = ["", "aaa abc", "b1\nb2\nc3", "12-12 3-4", "in inn IN", "abcd", "É é", "AbCabc\tx"]
    for pattern in patterns:
        for text in strings:
            for ignore, lines, dot in ((True, False, False), (False, True, False), (False, False, True)):
                flags = (re.IGNORECASE if ignore else 0) | (re.MULTILINE if lines else 0) | (re.DOTALL if dot else 0)
                compiled = re.compile(pattern, flags)
                options = {"case_insensitive": ignore, "multiline": lines, "dotall": dot}
                what = f"{pattern!r} in {text!r}, {int(flags)}"
                found = compiled.search(text)
                w.expect_text(w.node("RegexMatch", string=text, regex_pattern=pattern, **options), str(bool(found)), what)
                every = ["" if found.group(1) is None else found.group(1) if compiled.groups else found.group(0)
                         for found in compiled.finditer(text)] if compiled.groups else compiled.findall(text)
                w.expect_text(w.node("RegexExtract", string=text, regex_pattern=pattern, mode="All Matches", group_index=1,
                                     **options), "\n".join(every), f"all of {what}")
                w.expect_text(w.node("RegexReplace", string=text, regex_pattern=pattern, replace="<\\g<0>>", count=2, **options),
                              compiled.sub("<\\g<0>>", text, count=2), f"two of {what} replaced")


def numbers(w):
    def value(expression, a, b, c):
        given = {"sum": lambda *x: sum(x[0] if len(x) == 1 and isinstance(x[0], list) else x), "min": min, "max": max,
                 "abs": abs, "round": round, "pow": pow, "sqrt": math.sqrt, "ceil": math.ceil, "floor": math.floor,
                 "log": math.log, "log2": math.log2, "sin": math.sin, "cos": math.cos, "int": int, "float": float}
        return eval(expression, {"__builtins__": {}}, {**given, "a": a, "b": b, "c": c})  # pylint: disable=eval-used

    sources = ["a + b * c", "(a + b) * c", "a - b - c", "-a ** 2", "2 ** 3 ** 2", "a // b", "a % b", "-a // b", "-a % b", "a / b",
               "a & 6 | b ^ c", "a << 2 >> 1", "~a", "a < b < c", "a < b > c", "a == 7 and b or c", "not a", "a if b > c else c",
               "max(a, b, c)", "min(a, b, c)", "abs(-a)", "round(a / b)", "round(b / 2)", "round(a / b, 2)", "sqrt(a)", "pow(a, 2)",
               "ceil(a / b)", "floor(-a / b)", "log(a)", "log2(8)", "sin(a) + cos(b)", "int(-a / b)", "float(a)", "a and 0 or 5",
               "a != b", "1e3 + .5", "a * -b", "a - -b", "2 if a else 3", "a >= 7 > b"]
    for a, b, c in ((7, 2, 3), (7.5, 2.0, -3.0), (1, 4, 9)):
        for source in sources:
            try:
                wanted = value(source, a, b, c)
            except TypeError:
                continue  # bits of a float
            node = w.node("ComfyMathExpression", expression=source, values__a=constant(w, a), values__b=constant(w, b),
                          values__c=constant(w, c))
            what = f"{source} of {a}, {b}, {c}"
            w.expect_text([node[0], 1], str(int(wanted)), what + " as a whole number")
            w.expect_text([node[0], 2], str(bool(wanted)), what + " as a truth")
    for text, real, whole in (("12", 12.0, 12), (" -7\n", -7.0, -7), ("2.9", 2.9, 2), ("-2.9", -2.9, -2), ("1e3", 1000.0, 1000),
                              ("9007199254740993", 9007199254740992.0, 9007199254740993)):
        node = w.node("ComfyNumberConvert", value=w.node("PrimitiveString", value=text))
        w.expect_text([node[0], 0], str(real), f"the number {text!r}")
        w.expect_text([node[0], 1], str(whole), f"the whole number {text!r}")
    shapes = {"1:1 (Square)": (1, 1), "2:3 (Portrait Photo)": (2, 3), "16:9 (Widescreen)": (16, 9), "21:9 (Ultrawide)": (21, 9)}
    for name, (width, height) in shapes.items():
        for pixels in (0.1, 1.0, 4.0):
            for multiple in (8, 64):
                node = w.node("ResolutionSelector", aspect_ratio=name, megapixels=pixels, multiple=multiple)
                scale = math.sqrt(pixels * 1024 * 1024 / (width * height))
                for out, side in ((0, width), (1, height)):
                    w.expect_text([node[0], out], str(round(side * scale / multiple) * multiple), f"{name} of {pixels}, {multiple}")


def constant(w, value):
    return w.node("PrimitiveInt" if isinstance(value, int) else "PrimitiveFloat", value=value)


def latents(w):
    chance = random.Random(1)

    def any_latent(*shape):
        grid = made(shape, lambda *_: struct.unpack("f", struct.pack("f", chance.uniform(-3, 3)))[0])
        return grid, w.latent(grid)

    shape = (2, 3, 9, 10)
    a, one = any_latent(*shape)
    b, two = any_latent(*shape)
    w.expect_latent(w.node("LatentAdd", samples1=one, samples2=two), made(shape, lambda *i: a[i] + b[i]), "sum")
    w.expect_latent(w.node("LatentSubtract", samples1=one, samples2=two), made(shape, lambda *i: a[i] - b[i]), "difference")
    w.expect_latent(w.node("LatentMultiply", samples=one, multiplier=-0.25), made(shape, lambda *i: a[i] * -0.25), "product")
    for factor in (0.0, 0.25, 1.0):
        w.expect_latent(w.node("LatentBlend", samples1=one, samples2=two, blend_factor=factor),
                        made(shape, lambda *i: a[i] * factor + b[i] * (1 - factor)), f"blend {factor}")

    def length(grid, n, y, x):
        return math.sqrt(sum(grid[n, c, y, x] ** 2 for c in range(3)))

    def interpolated(n, c, y, x):
        la, lb = length(a, n, y, x), length(b, n, y, x)
        way = [a[n, k, y, x] / la * 0.75 + b[n, k, y, x] / lb * 0.25 for k in range(3)]
        return way[c] / math.sqrt(sum(part ** 2 for part in way)) * (la * 0.75 + lb * 0.25)

    w.expect_latent(w.node("LatentInterpolate", samples1=one, samples2=two, ratio=0.75), made(shape, interpolated), "interpolation")
    # A batch of one repeats for the other's items.
    single, alone = any_latent(1, 3, 9, 10)
    w.expect_latent(w.node("LatentAdd", samples1=one, samples2=alone), made(shape, lambda n, *i: a[(n, *i)] + single[(0, *i)]),
                    "sum with a batch of one")
    for dim, axis in (("x", 3), ("y", 2), ("t", 1)):
        size = shape[axis]
        longer = tuple(2 * n if k == axis else n for k, n in enumerate(shape))

        def joined(first, second, size=size, axis=axis):
            def at(*index):
                rest = list(index)
                grid = first if rest[axis] < size else second
                rest[axis] %= size
                return grid[tuple(rest)]
            return at

        w.expect_latent(w.node("LatentConcat", samples1=one, samples2=two, dim=dim), made(longer, joined(a, b)), f"joined along {dim}")
        w.expect_latent(w.node("LatentConcat", samples1=one, samples2=two, dim="-" + dim), made(longer, joined(b, a)),
                        f"joined along -{dim}")
        for index, amount in ((0, 1), (2, 5), (-1, 3), (-2, 1), (99, 4), (-99, 2)):
            start = min(index, size - 1) if index >= 0 else max(0, size + index)
            kept = min(amount, size - start)
            cut = tuple(kept if k == axis else n for k, n in enumerate(shape))

            def moved(*index, start=start, axis=axis):
                return a[tuple(n + start if k == axis else n for k, n in enumerate(index))]

            w.expect_latent(w.node("LatentCut", samples=one, dim=dim, index=index, amount=amount), made(cut, moved),
                            f"cut along {dim} at {index}, {amount}")
    for dim, axis in (("x", 3), ("y", 2)):
        for size in (1, 4, 9, 99):
            size_here = min(size, shape[axis])
            pieces = shape[axis] // size_here
            batch = tuple(shape[0] * pieces if k == 0 else size_here if k == axis else n for k, n in enumerate(shape))

            def piece(n, *rest, axis=axis, size_here=size_here, pieces=pieces):
                index = [n // pieces, *rest]
                index[axis] += n % pieces * size_here
                return a[tuple(index)]

            w.expect_latent(w.node("LatentCutToBatch", samples=one, dim=dim, slice_size=size), made(batch, piece),
                            f"cut to a batch along {dim} by {size}")
    h, v = shape[2], shape[3]
    w.expect_latent(w.node("LatentFlip", samples=one, flip_method="x-axis: vertically"),
                    made(shape, lambda n, c, y, x: a[n, c, h - 1 - y, x]), "upside down")
    w.expect_latent(w.node("LatentFlip", samples=one, flip_method="y-axis: horizontally"),
                    made(shape, lambda n, c, y, x: a[n, c, y, v - 1 - x]), "left to right")
    turned = (2, 3, v, h)
    w.expect_latent(w.node("LatentRotate", samples=one, rotation="90 degrees"),
                    made(turned, lambda n, c, y, x: a[n, c, h - 1 - x, y]), "a quarter to the right")
    w.expect_latent(w.node("LatentRotate", samples=one, rotation="180 degrees"),
                    made(shape, lambda n, c, y, x: a[n, c, h - 1 - y, v - 1 - x]), "half around")
    w.expect_latent(w.node("LatentRotate", samples=one, rotation="270 degrees"),
                    made(turned, lambda n, c, y, x: a[n, c, x, v - 1 - y]), "a quarter to the left")
    w.expect_latent(w.node("LatentRotate", samples=one, rotation="none"), a, "not turned")
    for x, y in ((0, 0), (8, 8), (16, 0), (8192, 8192)):
        left, top = min(x // 8, v - 8), min(y // 8, h - 8)
        w.expect_latent(w.node("LatentCrop", samples=one, width=64, height=64, x=x, y=y),
                        made((2, 3, 8, 8), lambda n, c, j, i: a[n, c, j + top, i + left]), f"cropped at {x}, {y}")
    for first, count in ((0, 1), (1, 5), (9, 1)):
        start = min(first, 1)
        kept = min(count, 2 - start)
        w.expect_latent(w.node("LatentFromBatch", samples=one, batch_index=first, length=count),
                        made((kept, *shape[1:]), lambda n, *i: a[(n + start, *i)]), f"{count} of the batch from {first}")
    w.expect_latent(w.node("RepeatLatentBatch", samples=one, amount=3), made((6, *shape[1:]), lambda n, *i: a[(n % 2, *i)]), "repeated")
    w.expect_latent(w.node("LatentBatch", samples1=one, samples2=two),
                    made((4, *shape[1:]), lambda n, *i: a[(n, *i)] if n < 2 else b[(n - 2, *i)]), "batch of both")
    small, over = any_latent(2, 3, 4, 5)
    for x, y in ((0, 0), (16, 8), (64, 56), (800, 0)):
        left, top = x // 8, y // 8

        def laid(n, c, j, i, left=left, top=top):
            inside = top <= j < top + 4 and left <= i < left + 5
            return small[n, c, j - top, i - left] if inside else a[n, c, j, i]

        w.expect_latent(w.node("LatentCompositeMasked", destination=one, source=over, x=x, y=y, resize_source=False), made(shape, laid),
                        f"laid over at {x}, {y}")
        w.expect_latent(w.node("LatentComposite", samples_to=one, samples_from=over, x=x, y=y, feather=0), made(shape, laid),
                        f"composite at {x}, {y}")

    def feathered(n, c, j, i):
        if not (2 <= j < 6 and 3 <= i < 8):
            return a[n, c, j, i]
        weight = 1.0
        # Two cells: a half and the whole, from each of the four sides.
        for away in (j - 2, 5 - j, i - 3, 7 - i):
            weight *= min(1.0, (away + 1) / 2)
        return small[n, c, j - 2, i - 3] * weight + a[n, c, j, i] * (1 - weight)

    w.expect_latent(w.node("LatentComposite", samples_to=one, samples_from=over, x=24, y=16, feather=16), made(shape, feathered),
                    "feathered composite")


def masks(w):
    chance = random.Random(2)
    height, width = 9, 12
    shape = (height, width)
    a8 = made(shape, lambda *_: chance.randrange(256))
    b8 = made((4, 5), lambda *_: chance.randrange(256))
    a, b = made(shape, lambda *i: a8[i] / 255), made((4, 5), lambda *i: b8[i] / 255)
    one, two = w.mask(a8), w.mask(b8)
    w.expect_mask(one, a, "mask as it is")
    w.expect_mask(w.node("InvertMask", mask=one), made(shape, lambda *i: 1 - a[i]), "inverted")
    for level in (0.0, 0.5, 1.0):
        w.expect_mask(w.node("ThresholdMask", mask=one, value=level), made(shape, lambda *i: float(a[i] > level)), f"above {level}")
    w.expect_mask(w.node("CropMask", mask=one, x=3, y=2, width=4, height=99), made((7, 4), lambda y, x: a[y + 2, x + 3]), "cropped")
    rules = {"multiply": lambda p, q: p * q, "add": lambda p, q: p + q, "subtract": lambda p, q: p - q,
             "and": lambda p, q: float(round(p) and round(q)), "or": lambda p, q: float(round(p) or round(q)),
             "xor": lambda p, q: float(bool(round(p)) != bool(round(q)))}
    for name, rule in rules.items():
        for left, top in ((0, 0), (4, 3), (10, 7), (12, 0)):
            def combined(y, x, rule=rule, left=left, top=top):
                inside = top <= y < top + 4 and left <= x < left + 5
                value = rule(a[y, x], b[y - top, x - left]) if inside else a[y, x]
                return min(1.0, max(0.0, value))

            w.expect_mask(w.node("MaskComposite", destination=one, source=two, x=left, y=top, operation=name), made(shape, combined),
                          f"{name} at {left}, {top}")
    for steps in (-2, -1, 0, 1, 3):
        for tapered in (True, False):
            def grown(y, x, steps=steps, tapered=tapered):
                near = [a[j, i] for j in range(height) for i in range(width)
                        if (abs(j - y) + abs(i - x) if tapered else max(abs(j - y), abs(i - x))) <= abs(steps)]
                return max(near) if steps >= 0 else min(near)

            w.expect_mask(w.node("GrowMask", mask=one, expand=steps, tapered_corners=tapered), made(shape, grown),
                          f"grown by {steps}, {tapered}")
    full = w.node("SolidMask", value=1.0, width=width, height=height)
    w.expect_mask(w.node("FeatherMask", mask=full, left=4, top=0, right=0, bottom=0),
                  made(shape, lambda y, x: min(1.0, (x + 1) / 4)), "feathered from the left")
    w.expect_mask(w.node("FeatherMask", mask=full, left=0, top=3, right=0, bottom=0),
                  made(shape, lambda y, x: min(1.0, (y + 1) / 3)), "feathered from above")
    picture = made((height, width, 3), lambda *_: chance.choice((0, 17, 255)))
    colour = picture[4, 5, 0] << 16 | picture[4, 5, 1] << 8 | picture[4, 5, 2]
    link = w.picture(picture)
    w.expect_mask(w.node("ImageColorToMask", image=link, color=colour),
                  made(shape, lambda y, x: float(all(picture[y, x, c] == picture[4, 5, c] for c in range(3)))), "where a colour is")
    for index, name in enumerate(("red", "green", "blue")):
        w.expect_mask(w.node("ImageToMask", image=link, channel=name), made(shape, lambda y, x: picture[y, x, index] / 255), name)


def pictures(w):
    chance = random.Random(3)
    height, width = 8, 11
    shape = (height, width, 3)
    a, b = (made(shape, lambda *_: chance.randrange(256)) for _ in range(2))
    one, two = w.picture(a), w.picture(b)
    w.expect_picture(one, a, "as it is")
    w.expect_picture(w.node("ImageInvert", image=one), made(shape, lambda *i: 255 - a[i]), "inverted")
    w.expect_picture(w.node("ImageFlip", image=one, flip_method="x-axis: vertically"),
                     made(shape, lambda y, x, c: a[height - 1 - y, x, c]), "upside down")
    w.expect_picture(w.node("ImageFlip", image=one, flip_method="y-axis: horizontally"),
                     made(shape, lambda y, x, c: a[y, width - 1 - x, c]), "left to right")
    w.expect_picture(w.node("ImageRotate", image=one, rotation="90 degrees"),
                     made((width, height, 3), lambda y, x, c: a[height - 1 - x, y, c]), "a quarter to the right")
    w.expect_picture(w.node("ImageRotate", image=one, rotation="270 degrees"),
                     made((width, height, 3), lambda y, x, c: a[x, width - 1 - y, c]), "a quarter to the left")
    for left, top in ((0, 0), (3, 2), (9, 7), (99, 99)):
        x0, y0 = min(left, width - 1), min(top, height - 1)
        w.expect_picture(w.node("ImageCrop", image=one, width=4, height=3, x=left, y=top),
                         made((min(3, height - y0), min(4, width - x0), 3), lambda y, x, c: a[y + y0, x + x0, c]), f"crop {left}, {top}")
    colours = {"white": (255, 255, 255), "black": (0, 0, 0), "red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}
    for colour, stripe in colours.items():
        # An odd width of the stripe is made even.
        def stitched(y, x, c, stripe=stripe):
            return a[y, x, c] if x < width else stripe[c] if x < width + 4 else b[y, x - width - 4, c]

        w.expect_picture(w.node("ImageStitch", image1=one, image2=two, direction="right", match_image_size=False, spacing_width=3,
                                spacing_color=colour), made((height, 2 * width + 4, 3), stitched), f"beside, {colour}")
    w.expect_picture(w.node("ImageStitch", image1=one, image2=two, direction="up", match_image_size=False, spacing_width=0,
                            spacing_color="white"),
                     made((2 * height, width, 3), lambda y, x, c: (b if y < height else a)[y % height, x, c]), "above")

    def outside(y, x):
        return not (2 <= y < 2 + height and 8 <= x < 8 + width)

    padded = w.node("ImagePadForOutpaint", image=one, left=8, top=2, right=0, bottom=8, feathering=3)
    size = (height + 10, width + 8)
    w.expect_picture(padded, made((*size, 3), lambda y, x, c: 127.5 if outside(y, x) else a[y - 2, x - 8, c]), "padded")

    def repainted(y, x):
        if outside(y, x):
            return 1.0
        away = min(y - 2, height - (y - 2), x - 8)
        return max(0, 3 - away) ** 2 / 9

    w.expect_mask([padded[0], 1], made(size, repainted), "what is repainted of the padded")
    rules = {"normal": lambda p, q: q, "multiply": lambda p, q: p * q, "screen": lambda p, q: 1 - (1 - p) * (1 - q),
             "overlay": lambda p, q: 2 * p * q if p <= 0.5 else 1 - 2 * (1 - p) * (1 - q), "difference": lambda p, q: p - q}
    for name, rule in rules.items():
        for factor in (0.0, 0.5, 1.0):
            def blended(*index, rule=rule, factor=factor):
                p, q = a[index] / 255, b[index] / 255
                return min(1.0, max(0.0, p * (1 - factor) + rule(p, q) * factor)) * 255

            w.expect_picture(w.node("ImageBlend", image1=one, image2=two, blend_factor=factor, blend_mode=name), made(shape, blended),
                             f"{name}, {factor}")
    small = made((3, 4, 3), lambda *_: chance.randrange(256))
    over = w.picture(small)
    for left, top in ((0, 0), (5, 4), (9, 6), (11, 0)):
        def laid(y, x, c, left=left, top=top):
            return small[y - top, x - left, c] if top <= y < top + 3 and left <= x < left + 4 else a[y, x, c]

        w.expect_picture(w.node("ImageCompositeMasked", destination=one, source=over, x=left, y=top, resize_source=False),
                         made(shape, laid), f"laid over at {left}, {top}")
    # Whole pixels become blocks of pixels, and the middle of blocks comes back.
    w.expect_picture(w.node("ImageScale", image=one, upscale_method="nearest-exact", width=3 * width, height=2 * height, crop="disabled"),
                     made((2 * height, 3 * width, 3), lambda y, x, c: a[y // 2, x // 3, c]), "larger by nearest")
    even = made((8, 12, 3), lambda *_: chance.randrange(256))
    w.expect_picture(w.node("ImageScale", image=w.picture(even), upscale_method="area", width=4, height=4, crop="disabled"),
                     made((4, 4, 3), lambda y, x, c: sum(even[2 * y + j, 3 * x + i, c] for j in (0, 1) for i in (0, 1, 2)) / 6),
                     "smaller by area")
    compositing(w, chance)


def compositing(w, chance):
    """Porter and Duff's operators by their table of shares; masks are what is transparent."""
    shape = (6, 7)
    colours = [made((*shape, 3), lambda *_: chance.randrange(256)) for _ in range(2)]
    clear = [made(shape, lambda *_: chance.choice((0, 0, 100, 255, 255))) for _ in range(2)]
    links = [w.picture(grid) for grid in colours] + [w.mask(grid) for grid in clear]
    shares = {
        "CLEAR": lambda s, d: (0, 0), "SRC": lambda s, d: (1, 0), "DST": lambda s, d: (0, 1), "SRC_OVER": lambda s, d: (1, 1 - s),
        "DST_OVER": lambda s, d: (1 - d, 1), "SRC_IN": lambda s, d: (d, 0), "DST_IN": lambda s, d: (0, s),
        "SRC_OUT": lambda s, d: (1 - d, 0), "DST_OUT": lambda s, d: (0, 1 - s), "SRC_ATOP": lambda s, d: (d, 1 - s),
        "DST_ATOP": lambda s, d: (1 - d, s), "XOR": lambda s, d: (1 - d, 1 - s),
    }
    for name, share in shares.items():
        def alphas(y, x, share=share):
            source, destination = (1 - grid[y, x] / 255 for grid in clear)
            of_source, of_destination = share(source, destination)
            return source * of_source, destination * of_destination

        def colour(y, x, c, alphas=alphas):
            source, destination = alphas(y, x)
            if source + destination <= 1e-5:
                return 0
            return (source * colours[0][y, x, c] + destination * colours[1][y, x, c]) / (source + destination)

        node = w.node("PorterDuffImageComposite", source=links[0], source_alpha=links[2], destination=links[1],
                      destination_alpha=links[3], mode=name)
        w.expect_picture(node, made((*shape, 3), colour), name)
        w.expect_mask([node[0], 1], made(shape, lambda y, x: 1 - sum(alphas(y, x))), f"what {name} leaves clear")


def filters(w):
    chance = random.Random(4)
    height, width = 8, 9
    shape = (height, width, 3)
    a = made(shape, lambda *_: chance.randrange(256))
    one = w.picture(a)

    def highest(grid, size, sign):
        reach = size // 2

        def value(y, x, c):
            near = [grid[j, i, c] for j in range(max(0, y - reach), min(height, y + reach + 1))
                    for i in range(max(0, x - reach), min(width, x + reach + 1))]
            return max(near) if sign > 0 else min(near)
        return made(shape, value)

    def clipped(value):
        return min(255, max(0, value))

    for size in (3, 5, 15):
        big, small = highest(a, size, 1), highest(a, size, -1)
        opened, closed = highest(small, size, 1), highest(big, size, -1)
        results = {"dilate": big, "erode": small, "open": opened, "close": closed,
                   "gradient": made(shape, lambda *i, p=big, q=small: p[i] - q[i]),
                   "top_hat": made(shape, lambda *i, p=opened: clipped(a[i] - p[i])),
                   "bottom_hat": made(shape, lambda *i, p=closed: clipped(p[i] - a[i]))}
        for name, wanted in results.items():
            w.expect_picture(w.node("Morphology", image=one, operation=name, kernel_size=size), wanted, f"{name} of {size}")

    def window(radius, sigma):
        line = [-1 + 2 * i / (2 * radius) for i in range(2 * radius + 1)]
        bell = {(j, i): math.exp(-(line[j] ** 2 + line[i] ** 2) / (2 * sigma * sigma))
                for j in range(2 * radius + 1) for i in range(2 * radius + 1)}
        total = sum(bell.values())
        return {key: value / total for key, value in bell.items()}

    def convolved(radius, kernel):
        def mirrored(at, size):
            at = abs(at)
            return at if at < size else 2 * (size - 1) - at

        return made(shape, lambda y, x, c: clipped(sum(
            weight * a[mirrored(y + j - radius, height), mirrored(x + i - radius, width), c] for (j, i), weight in kernel.items())))

    for radius, sigma in ((1, 1.0), (3, 0.4)):
        w.expect_picture(w.node("ImageBlur", image=one, blur_radius=radius, sigma=sigma), convolved(radius, window(radius, sigma)),
                         f"blurred by {radius}, {sigma}")
        for alpha in (0.0, 0.05):
            kernel = {key: -10 * alpha * value for key, value in window(radius, sigma).items()}
            kernel[radius, radius] += 1 - sum(kernel.values())
            w.expect_picture(w.node("ImageSharpen", image=one, sharpen_radius=radius, sigma=sigma, alpha=alpha),
                             convolved(radius, kernel), f"sharpened by {radius}, {sigma}, {alpha}")

    def light(y, x):
        return 0.299 * a[y, x, 0] + 0.587 * a[y, x, 1] + 0.114 * a[y, x, 2]

    planes = w.node("ImageRGBToYUV", image=one)
    w.expect_picture(planes, made(shape, lambda y, x, c: light(y, x)), "Y")
    w.expect_picture([planes[0], 1], made(shape, lambda y, x, c: clipped((a[y, x, 2] - light(y, x)) * 0.564 + 127.5)), "U")
    w.expect_picture([planes[0], 2], made(shape, lambda y, x, c: clipped((a[y, x, 0] - light(y, x)) * 0.713 + 127.5)), "V")
    w.expect_picture(w.node("ImageYUVToRGB", Y=planes, U=[planes[0], 1], V=[planes[0], 2]), a, "there and back")
    seeded = w.node("ImageAddNoise", image=one, seed=5, strength=0.0)
    w.expect_picture(seeded, a, "noise of strength 0")


def batches(w):
    chance = random.Random(5)
    shape = (6, 5, 3)
    grids = [made(shape, lambda *_: chance.randrange(256)) for _ in range(4)]
    links = [w.picture(grid) for grid in grids]
    two = w.node("ImageBatch", image1=links[0], image2=links[1])
    four = w.node("ImageBatch", image1=two, image2=w.node("ImageBatch", image1=links[2], image2=links[3]))
    w.expect_picture(four, grids, "four in a batch")
    for first, count in ((0, 1), (1, 2), (2, 9), (99, 1)):
        start = min(first, 3)
        w.expect_picture(w.node("ImageFromBatch", image=four, batch_index=first, length=count), grids[start:start + count],
                         f"{count} from {first}")
    w.expect_picture(w.node("RepeatImageBatch", image=two, amount=3), grids[:2] * 3, "two repeated three times")
    for out, wanted in enumerate((5, 6, 4)):
        w.expect_text([w.node("GetImageSize", image=four)[0], out], str(wanted), f"size {out} of the batch")
    w.expect_picture(w.node("ImageInvert", image=four), [made(shape, lambda *i, g=grid: 255 - g[i]) for grid in grids], "all inverted")
    # The second batch is shorter: its last picture repeats.
    stitched = w.node("ImageStitch", image1=four, image2=two, direction="down", match_image_size=False, spacing_width=0,
                      spacing_color="white")
    w.expect_picture(stitched, [made((12, 5, 3), lambda y, x, c, k=k: (grids[k] if y < 6 else grids[min(k, 1)])[y % 6, x, c])
                                for k in range(4)], "four above two")
    for colour in (0, 0xFF8000, 0x010203, 0xFFFFFF):
        rgb = (colour >> 16, colour >> 8 & 255, colour & 255)
        w.expect_picture(w.node("EmptyImage", width=3, height=2, batch_size=2, color=colour),
                         [made((2, 3, 3), lambda y, x, c, rgb=rgb: rgb[c])] * 2, f"of colour {colour:06x}")
    alpha = made((6, 5), lambda *_: chance.randrange(256))
    joined = w.node("JoinImageWithAlpha", image=links[0], alpha=w.mask(alpha))
    w.expect_picture(joined, made((6, 5, 4), lambda y, x, c: grids[0][y, x, c] if c < 3 else 255 - alpha[y, x]), "with alpha")
    split = w.node("SplitImageWithAlpha", image=joined)
    w.expect_picture(split, grids[0], "split again")
    w.expect_mask([split[0], 1], made((6, 5), lambda y, x: alpha[y, x] / 255), "its alpha")
    w.expect_mask([w.node("SplitImageWithAlpha", image=links[0])[0], 1], made((6, 5), lambda y, x: 0.0), "no alpha")


def sizes(w):
    """Sizes that nodes work out, by the width and height of what they give."""
    wide = w.node("EmptyImage", width=600, height=200, batch_size=1, color=0)
    tall = w.node("EmptyImage", width=150, height=400, batch_size=1, color=0)

    def expect(link, width, height, what):
        measured = w.node("GetImageSize", image=link)
        w.expect_text(measured, str(width), f"width, {what}")
        w.expect_text([measured[0], 1], str(height), f"height, {what}")

    for link, width, height in ((wide, 600, 200), (tall, 150, 400)):
        for want_width, want_height in ((0, 0), (300, 0), (0, 77), (31, 17)):
            node = w.node("ImageScale", image=link, upscale_method="area", width=want_width, height=want_height, crop="disabled")
            if want_width == want_height == 0:
                expect(node, width, height, "not scaled")
            elif want_width == 0:
                expect(node, max(1, round(width * want_height / height)), want_height, f"scaled to height {want_height}")
            elif want_height == 0:
                expect(node, want_width, max(1, round(height * want_width / width)), f"scaled to width {want_width}")
            else:
                expect(node, want_width, want_height, "scaled to both")
        for by in (0.01, 0.505, 2.0):
            expect(w.node("ImageScaleBy", image=link, upscale_method="nearest-exact", scale_by=by), round(width * by), round(height * by),
                   f"scaled by {by}")
        for largest in (50, 777):
            scale = largest / max(width, height)
            expect(w.node("ImageScaleToMaxDimension", image=link, upscale_method="area", largest_size=largest), round(width * scale),
                   round(height * scale), f"largest side {largest}")
        for millions in (0.01, 0.25):
            scale = math.sqrt(millions * 1024 * 1024 / (width * height))
            expect(w.node("ImageScaleToTotalPixels", image=link, upscale_method="area", megapixels=millions), round(width * scale),
                   round(height * scale), f"{millions} million pixels")
        expect(w.node("ResizeAndPadImage", image=link, target_width=64, target_height=48, padding_color="white", interpolation="area"),
               64, 48, "padded")
        expect(w.node("ImageRotate", image=link, rotation="90 degrees"), height, width, "turned")
    for kind, channels, cell in (("EmptyLatentImage", 4, 8), ("EmptySD3LatentImage", 16, 8), ("EmptyFlux2LatentImage", 128, 16)):
        for width, height, count in ((64, 128, 1), (96, 80, 3)):
            w.expect_latent(w.node(kind, width=width, height=height, batch_size=count),
                            made((count, channels, height // cell, width // cell), lambda *_: 0.0), f"{kind} {width}x{height}")
    blank = w.node("EmptyLatentImage", width=128, height=64, batch_size=1)
    for width, height, wanted in ((0, 0, (8, 16)), (256, 0, (16, 32)), (0, 128, (16, 32)), (72, 80, (10, 9)), (64, 8, (8, 8))):
        w.expect_latent(w.node("LatentUpscale", samples=blank, upscale_method="nearest-exact", width=width, height=height, crop="disabled"),
                        made((1, 4, *wanted), lambda *_: 0.0), f"latent scaled to {width}x{height}")


def refusals(w):
    """What nodes say to inputs that they cannot compute with: (node, the whole sentence)."""
    image = w.node("EmptyImage", width=16, height=8, batch_size=1, color=255)
    latent = w.node("EmptyLatentImage", width=64, height=64, batch_size=1)
    wide_latent = w.node("EmptyLatentImage", width=64, height=128, batch_size=1)
    other = w.node("EmptySD3LatentImage", width=64, height=64, batch_size=1)
    mask = w.node("SolidMask", value=0.5, width=16, height=8)
    clear = w.node("JoinImageWithAlpha", image=image, alpha=mask)
    kinds = "the latents are of different kinds: they have 4 and 16 channels"
    radius = "the radius is not smaller than the picture's width and height"
    rows = [
        (w.node("LatentAdd", samples1=latent, samples2=other), kinds),
        (w.node("LatentBatch", samples1=latent, samples2=other), kinds),
        (w.node("LatentCompositeMasked", destination=latent, source=other, x=0, y=0, resize_source=False), kinds),
        (w.node("LatentConcat", samples1=latent, samples2=wide_latent, dim="x"),
         "the latents differ in another size than the one they are joined along"),
        (w.node("LatentUpscaleBy", samples=latent, upscale_method="area", scale_by=0.01), "resize: a picture of 0x0 cannot be made"),
        (w.node("ImageScaleToMaxDimension", image=image, upscale_method="area", largest_size=1), "resize: a picture of 1x0 cannot be made"),
        (w.node("ImageBlur", image=image, blur_radius=8, sigma=1.0), radius),
        (w.node("ImageSharpen", image=image, sharpen_radius=31, sigma=1.0, alpha=1.0), radius),
        (w.node("Canny", image=image, low_threshold=0.6, high_threshold=0.5),
         "low_threshold is above high_threshold; it has to be the smaller one"),
        (w.node("CropMask", mask=mask, x=16, y=0, width=4, height=4), "the part that is cut out lies outside the mask"),
        (w.node("CropMask", mask=mask, x=0, y=8, width=4, height=4), "the part that is cut out lies outside the mask"),
        (w.node("ImageToMask", image=image, channel="alpha"), "the image has no channel 'alpha'"),
        (w.node("PorterDuffImageComposite", source=image, source_alpha=mask, destination=clear, destination_alpha=mask, mode="ADD"),
         "source and destination have different numbers of channels; SplitImageWithAlpha takes alpha off an image"),
    ]
    # Without numbers, with too few dimensions and with too many.
    for shape in ((0, 4, 8, 8), (1, 4, 0, 8), (4, 8, 8), (1, 4, 1, 2, 2, 1)):
        link = w.latent(made(shape, lambda *_: 0.0))
        name = w.prompt[link[0]]["inputs"]["latent"]
        rows.append((link, f"input/{name}: holds no latent of batch, channels, (frames,) height and width, each at least 1"))
    beyond = "expression: an integer does not fit into 64 bits"
    for source, sentence in (
            ("a // 0", "expression: a division by zero"), ("a % 0", "expression: a division by zero"),
            ("b", "expression: 'b' is no value here (there are: a)"), ("a +", "expression: a number is missing at character 4 of 'a +'"),
            ("(a", "expression: a closing bracket is missing at character 3 of '(a'"), ("9223372036854775807 + a", beyond),
            ("int(1e30)", beyond), ("a << 70", beyond), ("a << -1", "expression: a shift by less than nothing"),
            ("sqrt(-a)", "expression: a square root of a negative number"), ("log(0)", "expression: a logarithm of what is not above zero"),
            ("a a", "expression: something that does not belong there at character 3 of 'a a'"),
            ("1e308*10", "the expression's value is not finite"), ("min()", "expression: 'min' does not take 0 values")):
        rows.append((w.node("ComfyMathExpression", expression=source, values__a=constant(w, 1)), sentence))
    for text, sentence in (("twelve", "'twelve' is no number"), ("", "'' is no number"), ("1 2", "'1 2' is no number"),
                           ("0x10", "'0x10' is no number"), ("1e30", "1e+30 does not fit into a whole number of 64 bits")):
        rows.append((w.node("ComfyNumberConvert", value=w.node("PrimitiveString", value=text)), sentence))
    for pattern, put, sentence in (
            ("(a", "", "regular expression: a bracket is not closed (at character 2)"),
            ("*a", "", "regular expression: nothing to repeat (at character 0)"),
            ("[a", "", "regular expression: a class of characters is not closed (at character 2)"),
            ("[z-a]", "", "regular expression: a bad range of characters (at character 4)"),
            ("a", "\\5", "replacement: it names a group that the pattern does not have"),
            ("a", "\\g<n>", "replacement: it names a group that the pattern does not have")):
        rows.append((w.node("RegexReplace", string="abc", regex_pattern=pattern, replace=put), sentence))
    return rows


def main():
    workflow = Workflow(sys.argv[1])
    rows = refusals(workflow)
    faults = [f"{said!r}, not {wanted!r}" for link, wanted in rows if (said := workflow.refusal(link)) != wanted]
    print(f"refusals: {len(rows)}, {len(faults)} wrong", *faults, sep="\n  ")
    failed = bool(faults)
    for group in (texts, expressions, numbers, latents, masks, pictures, filters, batches, sizes):
        workflow = Workflow(sys.argv[1])
        group(workflow)
        faults = workflow.run()
        print(f"{group.__name__}: {len(workflow.expected)} values, {len(faults)} wrong")
        for fault in faults[:20]:
            print("  " + fault)
        failed = failed or bool(faults)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
