"""Pictures, captions and tokens of the demo model, from the folder that prepare.py made."""

import gzip
import html
import io
import json
import random
import re
import zipfile
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image

SIZE = 128
START, END = 49406, 49407
LENGTH = 77
ANY_WORD = -1  # in a caption: training puts a random token here, so that unknown words do no harm

# ------------------------------------------------------------------------------------ tokenizer

# Letters as runs, digits one by one, everything else as runs: CLIP's split.
SPLIT = re.compile(r"'s|'t|'re|'ve|'m|'ll|'d|[^\W\d_]+|\d|(?:[^\s\w]|_)+", re.IGNORECASE)


def byte_symbols():
    """Byte -> printable character: bytes that print stay, the others move above U+00FF."""
    keep = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    moved = [byte for byte in range(256) if byte not in keep]
    symbols = {byte: chr(byte) for byte in keep}
    symbols.update({byte: chr(256 + index) for index, byte in enumerate(moved)})
    return symbols, keep + moved


class Tokenizer:
    """CLIP's byte-pair tokenizer; ids as in SD 1.x."""

    def __init__(self, path):
        lines = gzip.open(path, "rt", encoding="utf-8").read().split("\n")
        merges = [tuple(line.split()) for line in lines[1:49152 - 256 - 2 + 1]]
        self.symbols, order = byte_symbols()
        letters = [self.symbols[byte] for byte in order]
        words = letters + [letter + "</w>" for letter in letters] + ["".join(m) for m in merges]
        self.ids = {word: index for index, word in enumerate(words)}
        self.ranks = {merge: rank for rank, merge in enumerate(merges)}
        self.word = lru_cache(maxsize=65536)(self._word)

    def _word(self, text):
        parts = list(text[:-1]) + [text[-1] + "</w>"]
        while len(parts) > 1:
            pairs = list(zip(parts, parts[1:]))
            best = min(pairs, key=lambda pair: self.ranks.get(pair, 1 << 30))
            if best not in self.ranks:
                break
            merged, index = [], 0
            while index < len(parts):
                if tuple(parts[index:index + 2]) == best:
                    merged.append(parts[index] + parts[index + 1])
                    index += 2
                else:
                    merged.append(parts[index])
                    index += 1
            parts = merged
        return [self.ids[part] for part in parts]

    def tokens(self, text):
        """Token ids of the text, without start, end and padding."""
        ids = []
        for word in SPLIT.findall(html.unescape(text).strip().lower()):
            ids += self.word("".join(self.symbols[byte] for byte in word.encode("utf-8")))
        return ids

    @staticmethod
    def pad(ids):
        ids = ids[:LENGTH - 2]
        return [START, *ids] + [END] * (LENGTH - 1 - len(ids))

    def __call__(self, texts):
        return torch.tensor([self.pad(self.tokens(text)) for text in texts])


# ------------------------------------------------------------------------------------- captions

PHRASES = ("{} emoji", "an emoji of {}", "{}, emoji", "a picture of {}", "a drawing of {}",
           "a {}", "{} icon", "emoji: {}", "{} on a white background")
NAMED = {"red heart", "smiling face with sunglasses", "pizza"}


def plain_name(name):
    """Short names are nearly prompts already; typographic quotes become typewriter ones."""
    return name.lower().replace("\u2019", "'").replace("\u201c", '"').replace("\u201d", '"')


def caption(entry, rng):
    """One random caption as a list of words; ANY_WORD stands for a random token."""
    name = plain_name(entry["name"])
    keywords = [plain_name(word) for word in entry["keywords"] if plain_name(word) != name]
    draw = rng.random()
    if draw < 0.40:
        text = name
    elif draw < 0.62:
        text = rng.choice(PHRASES).format(name)
    elif draw < 0.75 and keywords:
        text = ", ".join([name, *rng.sample(keywords, min(len(keywords), rng.randint(1, 3)))])
    elif draw < 0.88 and keywords:
        text = " ".join(rng.sample(keywords, min(len(keywords), rng.randint(1, 4))))
    else:
        words = name.split()
        text = " ".join(w for w in words if len(words) < 3 or rng.random() > 0.25) or name
    words = text.split()
    if rng.random() < 0.25:
        for _ in range(rng.randint(1, 3)):
            words.insert(rng.randint(0, len(words)), ANY_WORD)
    return words


def caption_bank(entries, tokenizer, variants, seed):
    """Tokens [emoji, variants, 77] (int32) with ANY_WORD where a random token belongs."""
    rng = random.Random(seed)
    bank = np.empty((len(entries), variants, LENGTH), np.int32)
    for row, entry in enumerate(entries):
        for column in range(variants):
            ids = []
            for word in caption(entry, rng):
                ids += [word] if word == ANY_WORD else tokenizer.tokens(word)
            bank[row, column] = tokenizer.pad(ids)
    return torch.from_numpy(bank)


def weight(entry):
    """How often an emoji is drawn: near-duplicates seldom, everyday things often."""
    name, group, sub = entry["name"], entry["group"], entry["subgroup"]
    if name in NAMED:
        return 4.0
    if sub in ("country-flag", "subdivision-flag"):
        return 0.15
    if sub == "family":
        return 0.15
    if group == "People & Body" and re.match(r"(man|woman|men|women)\b", name):
        return 0.3
    if re.search(r"o\u2019clock|-thirty", name):
        return 0.4
    if group == "Symbols":
        return 0.6
    if sub == "heart" or group == "Food & Drink":
        return 1.5
    if sub.startswith(("face-", "cat-face", "animal-", "plant-")):
        return 1.3
    return 1.0


# ------------------------------------------------------------------------------------- pictures


def on_white(png, side=118):
    """Font strike -> uint8 [128, 128, 3], centred on white with a small margin."""
    picture = Image.open(io.BytesIO(png)).convert("RGBA")
    scale = side / max(picture.size)
    shape = tuple(round(edge * scale) for edge in picture.size)
    # Shrinking colour and coverage together needs colour that is already multiplied by coverage.
    small = np.asarray(picture.convert("RGBa").resize(shape, Image.Resampling.LANCZOS))
    small = small.astype(np.float32)
    blended = small[..., :3] + 255 - small[..., 3:]
    canvas = np.full((SIZE, SIZE, 3), 255, np.uint8)
    top, left = (SIZE - shape[1]) // 2, (SIZE - shape[0]) // 2
    canvas[top:top + shape[1], left:left + shape[0]] = blended.clip(0, 255).round()
    return canvas


class Emoji:
    """`entries` (name, group, ...), `pictures` uint8 [N, 3, 128, 128], `weights`, `tokenizer`."""

    def __init__(self, cache, limit=None):
        cache = Path(cache)
        with zipfile.ZipFile(cache / "emoji.zip") as pack:
            entries = json.loads(pack.read("emoji.json"))
            if limit:  # a small set for trying the code: the named ones and the first others
                entries.sort(key=lambda entry: entry["name"] not in NAMED)
                entries = entries[:limit]
            pictures = np.stack([on_white(pack.read(entry["file"])) for entry in entries])
        self.entries = entries
        self.pictures = torch.from_numpy(pictures).permute(0, 3, 1, 2).contiguous()
        self.weights = torch.tensor([weight(entry) for entry in entries])
        self.tokenizer = Tokenizer(cache / "bpe_simple_vocab_16e6.txt.gz")
