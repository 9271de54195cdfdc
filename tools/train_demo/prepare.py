#!/usr/bin/env python3
"""Collects what training needs into one small folder: pictures, names, vocabulary. Needs fontTools.

Pictures are the font's own PNG strikes (136x128, not decoded here), names come from Unicode's
emoji-test.txt, keywords from CLDR's English annotations, the CLIP byte-pair vocabulary from a file.
"""

import argparse
import json
import shutil
import xml.etree.ElementTree as xml
import zipfile
from pathlib import Path

from fontTools.ttLib import TTFont

SELECTOR = 0xFE0F  # "show as emoji": the font does not use it in ligatures


def read_names(path):
    """(code points, name, group, subgroup) of each fully qualified emoji without skin tone."""
    group = subgroup = ""
    for line in Path(path).read_text(encoding="utf-8").splitlines():
        if line.startswith("# group:"):
            group = line.split(":", 1)[1].strip()
        elif line.startswith("# subgroup:"):
            subgroup = line.split(":", 1)[1].strip()
        elif "; fully-qualified" in line:
            codes, rest = line.split(";", 1)
            name = rest.split("#", 1)[1].strip().split(" ", 2)[2]  # after picture and version
            if "skin tone" not in name:
                yield [int(code, 16) for code in codes.split()], name, group, subgroup


def read_keywords(paths):
    """Emoji text without selectors -> list of keywords."""
    keywords = {}
    for path in paths:
        for entry in xml.parse(path).iter("annotation"):
            if entry.get("type") is None and entry.text:
                keywords[entry.get("cp")] = [word.strip() for word in entry.text.split("|")]
    return keywords


class Glyphs:
    """Finds the picture of a code point sequence: character map, then ligatures."""

    def __init__(self, path):
        font = TTFont(path)
        self.cmap = font.getBestCmap()
        self.pictures = {name: glyph for strike in font["CBDT"].strikeData
                         for name, glyph in strike.items()}
        self.ligatures = {}
        for lookup in font["GSUB"].table.LookupList.Lookup:
            for table in lookup.SubTable:
                for first, entries in getattr(table, "ligatures", {}).items():
                    for entry in entries:
                        key = (first, *entry.Component)
                        self.ligatures.setdefault(key, entry.LigGlyph)

    def png(self, codes):
        codes = [code for code in codes if code != SELECTOR]
        names = tuple(self.cmap.get(code) for code in codes)
        glyph = names[0] if len(names) == 1 else self.ligatures.get(names)
        picture = self.pictures.get(glyph)
        return bytes(picture.imageData) if picture else None


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--font", default="/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf")
    parser.add_argument("--names", default="/usr/share/unicode/emoji/emoji-test.txt")
    parser.add_argument("--cldr", default="/usr/share/unicode/cldr/common",
                        help="folder with annotations/en.xml; without it there are no keywords")
    parser.add_argument("--bpe", help="bpe_simple_vocab_16e6.txt.gz, or a wheel that holds one")
    parser.add_argument("--cache", type=Path, default=Path(".train_demo"))
    options = parser.parse_args()

    options.cache.mkdir(parents=True, exist_ok=True)
    if options.bpe:
        target = options.cache / "bpe_simple_vocab_16e6.txt.gz"
        if options.bpe.endswith(".whl"):
            with zipfile.ZipFile(options.bpe) as wheel:
                name = next(n for n in wheel.namelist() if n.endswith(target.name))
                target.write_bytes(wheel.read(name))
        else:
            shutil.copy(options.bpe, target)

    folders = ("annotations", "annotationsDerived")
    files = [Path(options.cldr) / folder / "en.xml" for folder in folders]
    keywords = read_keywords(path for path in files if path.exists())
    glyphs, entries, missing = Glyphs(options.font), [], 0
    with zipfile.ZipFile(options.cache / "emoji.zip", "w", zipfile.ZIP_STORED) as out:
        for codes, name, group, subgroup in read_names(options.names):
            png = glyphs.png(codes)
            if png is None:
                missing += 1
                continue
            text = "".join(chr(code) for code in codes if code != SELECTOR)
            file = "-".join(f"{code:x}" for code in codes) + ".png"
            out.writestr(zipfile.ZipInfo(file), png)
            entries.append(dict(file=file, name=name, group=group, subgroup=subgroup,
                                keywords=keywords.get(text, [])))
        listing = json.dumps(entries, ensure_ascii=False, indent=0)
        out.writestr(zipfile.ZipInfo("emoji.json"), listing)
    print(f"{len(entries)} emoji, {missing} without a picture, "
          f"{sum(bool(e['keywords']) for e in entries)} with keywords -> {options.cache}")


if __name__ == "__main__":
    main()
