"""clip_tokens.*: ComfyUI's prompt parser and CLIP tokenizer on prompts of every kind."""
import json
import os

import comfy_env

comfy_env.import_comfy()
try:
    import ftfy  # noqa: F401
    raise SystemExit("uninstall ftfy: transformers would clean text with it, a stock ComfyUI does not")
except ImportError:
    pass
import torch
import safetensors.torch
from comfy import sd1_clip
from comfy.text_encoders import sd2_clip

PROMPTS = [
    "", " ", "a photo of a cat", "A Photo Of A CAT", "  many   spaces  ", "line one\nline two\n\nline four", "tab\tseparated",
    "red heart", "pizza", "smiling face with sunglasses",
    "(cat)", "((cat))", "(((cat)))", "(cat:1.3)", "(cat:0.5) dog", "((cat:1.3))", "((cat:1.3) dog:0.8)", "(a (b:1.5) c)",
    "(a, (b, (c:2.0):1.5):0.7)", "[cat]", "[[cat]]", "(cat:)", "(cat:abc)", "(:1.3)", "(cat:1.3:1.4)", "(cat: 1.25 )", "(cat:-1.0)",
    "(cat:1e-1)", "(cat:.5)", "(cat:1_0)", "(cat:inf)", "(cat:nan)", "()", "(())", "( )", "(cat", "cat)", "cat) and (dog", "((cat) dog", "a (b) c) d (e",
    "(cat)(dog:1.2)", "word(cat)word", "\\(cat\\)", "\\(cat:1.3\\)", "(cat \\(feline\\):1.2)", "\\\\(cat)", "back\\slash", "\\",
    "don't can't we've I'll you're he'd she's rock'n'roll", "it\u2019s a curly quote", "DON'T SHOUT",
    "1 22 333 4444 2024 3.14 1,000,000 4k 8K", "hello-world under_score semi;colon a/b #tag @user 100% $5 a+b=c", "!!! ... ??? :-) <3 ~~ ^^ ``",
    "&amp; &lt;b&gt; &quot;quoted&quot; &#39;", "&amp;amp; nested", "<b>bold</b>", "<|startoftext|> hi", "<|endoftext|> hi", "a <|endoftext|>b",
    "caf\u00e9 na\u00efve \u00fcber stra\u00dfe \u00c5ngstr\u00f6m", "cafe\u0301 decomposed", "\u65e5\u672c\u8a9e \u306e \u30c6\u30ad\u30b9\u30c8", "\u4e2d\u6587\u63d0\u793a\u8bcd",
    "\u041f\u0440\u0438\u0432\u0435\u0442 \u043c\u0438\u0440", "\u0645\u0631\u062d\u0628\u0627", "\u0928\u092e\u0938\u094d\u0924\u0947", "\ud55c\uad6d\uc5b4", "\u0130stanbul \u0131\u015f\u0131k \u03a3\u0399\u03a3\u03a5\u03a6\u039f\u03a3", "\ufb01ne \u2460 \u00bd \u216b \u00b2 x\u00b3",
    "\U0001F600", "\U0001F468\u200d\U0001F469\u200d\U0001F467", "\u2764\ufe0f heart", "\U0001F1E9\U0001F1EA flag", "cat\U0001F431cat", "non\u00a0breaking\u3000ideographic\u2003em", "zero\u200bwidth \ufeffbom", "\u0000nul\u0001one", "\u00ad soft", "\ufffd",
    "mid\u2014dash \u2026 \u201cquotes\u201d", "a BREAK b", "cat AND dog", "cat | dog", "<lora:name:0.8> cat", "{a|b} choice", "__wild__",
    "masterpiece, best quality, ultra-detailed, (8k wallpaper:1.2), extremely detailed CG",
    "pneumonoultramicroscopicsilicovolcanoconiosis", "x" * 100, "supercalifragilisticexpialidocious " * 6,
    "one two three four five six seven eight nine ten " * 8, "word " * 75, "word " * 76, "word " * 74, "word " * 150 + "end",
    "word " * 73 + "pneumonoultramicroscopicsilicovolcanoconiosis tail", "word " * 70 + "(" + "heavy " * 10 + ":1.4) tail",
    "word " * 72 + "(qwrtpsdfgh zxcvbnm:1.1) tail", ", ".join(f"item {i}" for i in range(60)),
    "embedding:tiny", "a embedding:tiny b", "a, embedding:tiny, b", "(embedding:tiny:1.3) cat", "embedding:tiny.safetensors", "embedding:tiny,", "embedding:tiny,,, x",
    "embedding:absent cat", "cat embedding:absent", "embedding:tiny embedding:tiny2", "embedding:tinyembedding:tiny", "xembedding:tiny", "a\nembedding:tiny\nb", "embedding:tiny2 (x:1.2)",
    "word " * 73 + "embedding:tiny tail", "word " * 73 + "embedding:big tail", "embedding:sub/deep x", "embedding:one x", "embedding:../tiny x", "embedding:TINY x", "EMBEDDING:tiny",
    "embedding:tiny:0.5", "( embedding:tiny :1.2)", "embedding:", "a embedding: b",
]


def write_embeddings(folder):
    """Small textual inversion files of every layout the loader knows in .safetensors."""
    os.makedirs(os.path.join(folder, "sub"), exist_ok=True)
    def values(n, seed):
        g = torch.Generator().manual_seed(seed)
        return torch.randn(n, 768, generator=g).half() * 0.05
    save = lambda name, tensors: safetensors.torch.save_file(tensors, os.path.join(folder, name))
    save("tiny.safetensors", {"emb_params": values(2, 1)})
    save("tiny2.safetensors", {"clip_g": values(1, 2).repeat(1, 2)[:, :1280].contiguous(), "clip_l": values(3, 3)})
    save("big.safetensors", {"emb_params": values(10, 4)})
    save("one.safetensors", {"emb_params": values(1, 5)[0].contiguous()})
    save("sub/deep.safetensors", {"emb_params": values(1, 6)})


def plain(chunks):
    """Vectors of an embedding become ["e", first value, last value]."""
    def item(token, weight, word):
        if torch.is_tensor(token):
            return [["e", float(token[0]), float(token[-1])], weight, word]
        return [int(token), weight, word]
    # nan and inf are written as strings: JSON has none.
    fix = lambda w: w if w == w and abs(w) != float("inf") else str(w)
    return [[[i[0], fix(i[1]), i[2]] for i in (item(*x) for x in chunk)] for chunk in chunks]


def packed(chunks):
    """Runs of equal (id, weight, word) at the end of a chunk are written once with a count."""
    out = []
    for chunk in plain(chunks):
        tail = 0
        while tail + 1 < len(chunk) and chunk[-1 - tail] == chunk[-2 - tail]:
            tail += 1
        row = {"tokens": chunk[:len(chunk) - tail]}
        if tail:
            row["repeat_last"] = tail
        out.append(row)
    return out


def main():
    folder = os.path.join(comfy_env.HERE, "embeddings")
    write_embeddings(folder)
    l = sd1_clip.SD1Tokenizer(embedding_directory=folder)
    h = sd2_clip.SD2Tokenizer(embedding_directory=folder)
    cases = []
    for prompt in PROMPTS:
        case = {"prompt": prompt}
        for name, tokenizer in (("l", l), ("h", h)):
            if name == "h" and "embedding:" in prompt and "absent" not in prompt:
                continue
            try:
                case[name] = packed(tokenizer.tokenize_with_weights(prompt, return_word_ids=True)[name])
            except Exception as error:
                case[name + "_error"] = type(error).__name__
        cases.append(case)
    with open(os.path.join(comfy_env.HERE, "clip_tokens.json"), "w", encoding="utf-8") as f:
        f.write('{"cases": [\n' + ",\n".join(json.dumps(c, separators=(",", ":")) for c in cases) + "\n]}\n")
    print(len(cases), "prompts", os.path.getsize(os.path.join(comfy_env.HERE, "clip_tokens.json")))
    print([(c["prompt"][:30], c.get("l_error"), c.get("h_error")) for c in cases if "l_error" in c or "h_error" in c])


if __name__ == "__main__":
    main()
