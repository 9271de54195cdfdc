"""long_tokens.json: 1,000 prompts of every script and kind with what T5TokenizerFast and Qwen2Tokenizer (transformers), loaded
with the files that ComfyUI ships, make of them: number of tokens and FNV-1a (64 bits) over the ids as little-endian int32.
Also whole prompts through ComfyUI's SDTokenizer of FLUX (T5) with weights, ids and weights written out."""
import json
import os
import random

import comfy_env

comfy_env.import_comfy()

import comfy.text_encoders.flux
from transformers import Qwen2Tokenizer, T5TokenizerFast

FOLDER = os.path.join(os.path.dirname(comfy.text_encoders.flux.__file__))

SCRIPTS = {
    "latin": "the quick brown fox jumps over a lazy dog, Photo of An OLD castle; it's WE'LL they'd don't 1girl 8k 35mm f/1.8".split(),
    "accents": "Grüße naïve café señor Ærøskøbing łódź žluťoučký İstanbul ışık Ångström Ḿ ǆ ŉ ﬁne ß ſpecial 'ſ".split(),
    "greek": "Ελλάδα ΣΙΣΥΦΟΣ ὕδωρ λόγος".split(), "cyrillic": "Привет мир ёлка Ђорђе їжак".split(),
    "hebrew": "שלום עולם בְּרֵאשִׁית".split(), "arabic": "مرحبا بالعالم السَّلَامُ ۱۲۳ ٤٥٦".split(),
    "indic": "नमस्ते दुनिया क्षत्रिय தமிழ் বাংলা ਪੰਜਾਬੀ తెలుగు ಕನ್ನಡ മലയാളം ක්‍ෂ १२३".split(), "thai": "สวัสดีชาวโลก ผู้หญิง ລາວ မြန်မာ ភាសាខ្មែរ བོད་ཡིག".split(),
    "cjk": "一只猫在草地上 日本語のテキスト カタカナ ﾊﾝｶｸ 漢字 한국어 문장 中文，标点。「引用」 ㈱ ㍿ ① 𠮷野家".split(),
    "others": "ქართული Հայերեն አማርኛ ᏣᎳᎩ ᐃᓄᒃᑎᑐᑦ ⵜⴰⵎⴰⵣⵉⵖⵜ ᚠᚢᚦ 𐌰𐌱 𝔘𝔫𝔦 𝐛𝐨𝐥𝐝 ⠃⠗⠇".split(),
    "emoji": "😀 😂😂 👨‍👩‍👧 ❤️ 🇩🇪🇫🇷 👍🏽 🏳️‍🌈 1️⃣ ☃ ⚡️ ✨🌸✨ 🐱cat".split(),
    "signs": "— … “q” ‘s’ «g» © ™ € ½ ² x³ Ⅻ → ∑ ≠ \\ / # @ & % $ ^ ~ ` | = + * _ <> [] {} ?! ;: .. ...".split(),
    "marks": ["e\u0301", "a\u0308o\u0308", "\u0301", "n\u0303n\u0303", "Z\u0351\u0360a\u0300\u0315", "q\u0307\u0323", "\u1e9b\u0323", "ő\u0301"],
    "blanks": [" ", "  ", "   ", "\n", "\n\n", "\r\n", "\t", " \n ", "\u00a0", "\u3000", "\u2003", "\u2028", "\u200b", "\ufeff", "\u00ad", "\u200d", "\x0b", "\x7f", "\x85", " \t \n\n x"],
    "special": ["<pad>", "</s>", "<unk>", "<extra_id_0>", "<extra_id_42>", "<extra_id_100>", "<|im_start|>", "<|im_end|>", "<|endoftext|>", "<|vision_start|><|image_pad|><|vision_end|>",
                "<|im_start", "<think>", "</think>", "<", "<<pad>>", "▁", "▁x", "＜pad＞", "<s>", "\ufffd"],
    "weights": ["(cat:1.3)", "((dog))", "\\(paren\\)", "[a|b]", "<lora:x:0.8>", "embedding:foo", "BREAK", "{a|b}", "__wild__", "(x", "y)", ":1.2"],
    "long": ["pneumonoultramicroscopicsilicovolcanoconiosis", "x" * 60, "ab" * 30, "1234567890" * 4, "!" * 40, "的" * 30, "=" * 33, "0.0001", "1e-5", "a_b_c", "CamelCaseWords", "http://example.com/a?b=c&d=%20"],
    "templates": ["<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n", "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n",
                  "<|im_start|>system\nDescribe the picture by its colours:<|im_end|>\n<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>{}<|im_end|>\n<|im_start|>assistant\n"],
}
# Code points of these ranges, picked at random.
RANGES = [(0x20, 0x7e), (0xa0, 0x17f), (0x370, 0x3ff), (0x400, 0x4ff), (0x5d0, 0x5ea), (0x620, 0x64a), (0x904, 0x939), (0xe01, 0xe3a), (0x1e00, 0x1eff), (0x2010, 0x2027), (0x2190, 0x21ff),
          (0x2460, 0x24ff), (0x2600, 0x26ff), (0x3041, 0x30ff), (0x3200, 0x32fe), (0x4e00, 0x9fff), (0xac00, 0xd7a3), (0xff01, 0xffbe), (0x1d400, 0x1d454), (0x1f300, 0x1f64f), (0x300, 0x34e), (0xf900, 0xfa6d)]


def prompts():
    r = random.Random(12)
    out = ["", " ", "  ", "a", " a", "a ", "a  b", "a photo of a cat", "A Photo,  of a\ncat.\n\n", "x " * 300]
    kinds = [k for k in SCRIPTS if k != "templates"]
    out += [w for k in kinds for w in SCRIPTS[k]]
    while len(out) < 1000:
        kind = len(out) % 4
        if kind == 0:
            words = r.choices(SCRIPTS[r.choice(kinds)], k=r.randint(2, 14))
        elif kind == 1:
            words = [r.choice(SCRIPTS[r.choice(kinds)]) for _ in range(r.randint(2, 16))]
        elif kind == 2:
            low, high = r.choice(RANGES)
            words = ["".join(chr(r.randint(low, high)) for _ in range(r.randint(1, 6))) for _ in range(r.randint(1, 8))]
        else:
            words = ["".join(chr(r.randint(*r.choice(RANGES))) for _ in range(r.randint(1, 24)))]
        text = r.choice([" ", " ", "", ", ", "\n", "  "]).join(words)
        if len(out) % 9 == 0:
            text = r.choice(SCRIPTS["templates"]).format(text.replace("{", "").replace("}", ""))
        out.append(text)
    return out


def fnv(ids):
    h = 0xcbf29ce484222325
    for i in ids:
        for b in int(i).to_bytes(4, "little"):
            h = (h ^ b) * 0x100000001b3 & 0xffffffffffffffff
    return f"{h:016x}"


def main():
    t5 = T5TokenizerFast.from_pretrained(os.path.join(FOLDER, "t5_tokenizer"))
    qwen = Qwen2Tokenizer.from_pretrained(os.path.join(FOLDER, "qwen25_tokenizer"))
    # Newer files than ComfyUI 0.3.64's name these four so; older ones give the numbers to signs nobody writes.
    from transformers import AddedToken
    names = {151665: "<tool_response>", 151666: "</tool_response>", 151667: "<think>", 151668: "</think>"}
    for number, name in names.items():
        old = qwen.added_tokens_decoder[number].content
        del qwen._added_tokens_decoder[number]
        qwen._added_tokens_encoder.pop(old)
        qwen._added_tokens_decoder[number] = AddedToken(name, normalized=False, special=False)
        qwen._added_tokens_encoder[name] = number
    qwen.tokens_trie = type(qwen.tokens_trie)()
    qwen._update_trie()
    rows = []
    for text in prompts():
        a, b = t5(text)["input_ids"][:-1], qwen(text)["input_ids"]
        rows.append([text, len(a), fnv(a), len(b), fnv(b)])
    flux = comfy.text_encoders.flux.T5XXLTokenizer()
    weighted = []
    for text in ["", "a (cat:1.3) on a ((mat)), \\(really\\)", "one  (two\nthree:0.5) four", "(é:2)(ö) x" + " word" * 270]:
        tokens = flux.tokenize_with_weights(text)
        assert len(tokens) == 1
        ids = tokens[0]
        count = len(ids)
        while ids and ids[-1] == (0, 1.0):
            ids = ids[:-1]
        weighted.append({"prompt": text, "length": count, "ids": [int(i) for i, _ in ids], "weights": [w for _, w in ids]})
    path = os.path.join(comfy_env.HERE, "long_tokens.json")
    with open(path, "w", encoding="utf-8") as f:
        f.write('{"prompts": [\n' + ",\n".join(json.dumps(r, separators=(",", ":")) for r in rows) + '\n],\n"weighted": ' + json.dumps(weighted, separators=(",", ":")) + "}\n")
    print(len(rows), os.path.getsize(path))


if __name__ == "__main__":
    main()
