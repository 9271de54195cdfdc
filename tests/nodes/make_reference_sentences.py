"""reference_sentences.txt: which sentences our tooltips and descriptions must not repeat.

    python make_reference_sentences.py COMFYUI

COMFYUI is a checkout of ComfyUI 0.3.64. The file holds no words, only the 64-bit FNV-1a hash of every sentence of more than three words
in its nodes' tooltips and descriptions, in lower case, one space between words, without the mark at its end. catalog_test.cpp makes
the same of ours.
"""
import ast
import glob
import os
import sys

NAMES = {"tooltip", "description", "DESCRIPTION", "OUTPUT_TOOLTIPS"}


def texts_of(value):
    return [node.value for node in ast.walk(value) if isinstance(node, ast.Constant) and isinstance(node.value, str)]


def prose(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.keyword) and node.arg in NAMES:
            yield from texts_of(node.value)
        elif isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id in NAMES for t in node.targets):
            yield from texts_of(node.value)
        elif isinstance(node, ast.Dict):
            for key, value in zip(node.keys, node.values):
                if isinstance(key, ast.Constant) and key.value in NAMES:
                    yield from texts_of(value)


def sentences(text):
    words = []
    for word in text.split():
        last = word[-1] in ".:!"
        words.append(word[:-1] if last else word)
        if last:
            yield words
            words = []
    yield words


def fnv1a(text):
    value = 0xCBF29CE484222325
    for byte in text.encode():
        value = (value ^ byte) * 0x100000001B3 % 2**64
    return value


def lower(text):  # as the C locale does it
    return "".join(c.lower() if c.isascii() else c for c in text)


files = [os.path.join(sys.argv[1], "nodes.py"), *glob.glob(os.path.join(sys.argv[1], "comfy_extras", "*.py"))]
found = set()
for name in files:
    with open(name, encoding="utf-8") as f:
        for text in prose(ast.parse(f.read())):
            found |= {fnv1a(lower(" ".join(words))) for words in sentences(text) if len(words) > 3}
with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "reference_sentences.txt"), "w") as f:
    f.writelines(f"{value:016x}\n" for value in sorted(found))
