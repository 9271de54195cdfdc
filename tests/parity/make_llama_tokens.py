"""llama_tokens.json: ids of Llama 3's tokenizer for the prompts of long_tokens.json. `python make_llama_tokens.py tokenizer.model`, the file that
tools/setup.sh fetches, as the library `tokenizers` runs it: the merges, the words and the special tokens of llava-llama-3-8b's tokenizer.json."""
import base64
import json
import os
import struct
import sys

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers.convert_slow_tokenizer import bytes_to_unicode

HERE = os.path.dirname(os.path.abspath(__file__))
WORDS = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
SPECIAL = (["<|begin_of_text|>", "<|end_of_text|>"] + [f"<|reserved_special_token_{i}|>" for i in range(4)] + ["<|start_header_id|>", "<|end_header_id|>"] +
           ["<|reserved_special_token_4|>", "<|eot_id|>"] + [f"<|reserved_special_token_{i}|>" for i in range(5, 251)] + ["<unk>", "<image>", "<pad>"])
MORE = ["<|start_header_id|>user<|end_header_id|>\n\na cat<|eot_id|>", "12345678 1 22 333 4444 55,000.75", "<image>\nx<pad><unk>", "İstanbul'S 'ſ I'LL é e\u0301",
        "<|reserved_special_token_17|><|reserved_special_token_250|><|nothing|>", "a\n\n\nb  \n c\t\t", "日本語テキスト 👩‍👩‍👧", ""]


def fnv(ids):
    value = 0xcbf29ce484222325
    for byte in b"".join(struct.pack("<i", i) for i in ids):
        value = (value ^ byte) * 0x100000001b3 % (1 << 64)
    return f"{value:016x}"


def halves(token, ranks):
    """The two tokens that earlier merges leave of a token's bytes."""
    parts, limit = [bytes([b]) for b in token], ranks[token]
    while len(parts) > 2:
        best = min(range(len(parts) - 1), key=lambda i: ranks.get(parts[i] + parts[i + 1], limit))
        if ranks.get(parts[best] + parts[best + 1], limit) >= limit:
            return None
        parts[best:best + 2] = [parts[best] + parts[best + 1]]
    return parts


def main():
    with open(sys.argv[1], "rb") as file:
        ranks = {base64.b64decode(token): int(rank) for token, rank in (line.split() for line in file if line.strip())}
    spell = bytes_to_unicode()
    spelled = {token: "".join(spell[b] for b in token) for token in ranks}
    pairs = [halves(token, ranks) for token in ranks if len(token) > 1]
    merges = [(spelled[a], spelled[b]) for a, b in filter(None, pairs)]
    model = Tokenizer(models.BPE({spelled[t]: r for t, r in ranks.items()}, merges, ignore_merges=True))
    model.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(WORDS), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    model.decoder = decoders.ByteLevel()
    model.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in SPECIAL])
    assert model.token_to_id("<pad>") == 128258 and model.token_to_id("user") == 882, model.token_to_id("<pad>")
    with open(os.path.join(HERE, "long_tokens.json"), encoding="utf-8") as file:
        prompts = [row[0] for row in json.load(file)["prompts"]]
    encode = lambda text: model.encode(text, add_special_tokens=False).ids
    facts = {"hashes": [fnv(encode(p)) for p in prompts], "cases": [{"text": t, "ids": encode(t)} for t in MORE]}
    with open(os.path.join(HERE, "llama_tokens.json"), "w", encoding="utf-8") as file:
        json.dump(facts, file, ensure_ascii=True)
        file.write("\n")


main()
