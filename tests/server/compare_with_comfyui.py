#!/usr/bin/env python3
"""Asks a ComfyUI server and ours the same things and compares status, content type and the shape of JSON answers. Run by hand:

    python3 tests/server/compare_with_comfyui.py --reference http://127.0.0.1:8499 --ours http://127.0.0.1:8188

Both servers should be fresh: without models, outputs or user files. Only the standard library is used. What differs on purpose is in
EXPECTED below, each with its reason. Exit status 1 where anything else differs. The requests write a few small files (names begin with
"compare_") into both servers' input and user folders, and remove those of the user again.
"""
import argparse
import json
import struct
import sys
import urllib.error
import urllib.request
import zlib

BOUNDARY = "compare-boundary"


def png(width=4, height=3, alpha=True):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    pixel = b"\x10\x80\xf0\x40" if alpha else b"\x10\x80\xf0"
    rows = b"".join(b"\0" + pixel * width for _ in range(height))
    head = struct.pack(">IIBBBBB", width, height, 8, 6 if alpha else 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def form(fields, files):
    body = b""
    for name, value in fields.items():
        body += f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
    for name, (filename, content) in files.items():
        body += f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"; filename="{filename}"\r\n'.encode()
        body += b"Content-Type: application/octet-stream\r\n\r\n" + content + b"\r\n"
    return body + f"--{BOUNDARY}--\r\n".encode()


def upload(fields, content, filename="compare_a.png"):
    return form(fields, {"image": (filename, content)}), {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}


def requests():
    """(method, address, body, headers), in an order in which later ones may use what earlier ones stored."""
    for address in [
        "/users", "/api/users", "/settings", "/settings/compare.none", "/features", "/system_stats", "/embeddings", "/models",
        "/models/checkpoints", "/models/loras", "/models/compare_none", "/models/unet", "/experiment/models",
        "/experiment/models/checkpoints", "/experiment/models/compare_none", "/experiment/models/preview/checkpoints/0/none.safetensors",
        "/experiment/models/preview/checkpoints/99/none.safetensors", "/experiment/models/preview/checkpoints/x/none.safetensors",
        "/experiment/models/preview/checkpoints/0/..%2F..%2Fx", "/i18n", "/extensions", "/node_replacements", "/global_subgraphs/none",
        "/internal/folder_paths", "/internal/files/input", "/internal/files/output", "/internal/files/temp", "/internal/files/user",
        "/internal/logs", "/internal/logs/raw", "/api/internal/logs", "/object_info/KSampler", "/object_info/CompareNone",
        "/object_info/SaveImage", "/object_info/APG", "/object_info/ImageCropV2",
        "/view_metadata/checkpoints?filename=none.safetensors", "/view_metadata/checkpoints?filename=none.ckpt",
        "/view_metadata/checkpoints", "/queue", "/history", "/history/none", "/prompt", "/api/jobs", "/api/jobs/none", "/jobs",
        "/workflow_templates", "/compare_none", "/api/compare_none",
        "/userdata", "/userdata?dir=", "/userdata?dir=compare_none", "/userdata?dir=../..", "/v2/userdata", "/v2/userdata?path=compare_none",
        "/v2/userdata?path=../..", "/userdata/compare_none.json", "/userdata/..%2F..%2Fx.json", "/userdata/%2e%2e%2fx.json",
        "/view", "/view?filename=", "/view?filename=compare_none.png", "/view?filename=a&type=compare", "/view?filename=../a.png",
        "/view?filename=/etc/passwd", "/view?filename=a.png&subfolder=../..", "/view?filename=a.png&subfolder=/etc",
    ]:
        yield "GET", address, None, {}
    yield "DELETE", "/users", None, {}
    for address, body in [
        ("/settings/compare.a", b'"x"'), ("/settings", b'{"compare.b": {"c": [1, 2.5, null]}}'),
        ("/userdata/compare_d%2Fa%20b.json?overwrite=false&full_info=true", b"{}"),
        ("/userdata/compare_d%2Fa%20b.json?overwrite=false", b"{}"), ("/userdata/compare_d%2Fa%20b.json", b"[]"),
        ("/userdata/compare_d%2Fa%20b.json/move/compare_d%2Fc.json?overwrite=false", b""),
        ("/userdata/compare_d%2Fa%20b.json/move/compare_d%2Fc.json", b""),
        ("/userdata/compare_d%2Fc.json/move/compare_d%2Fc2.json?full_info=true", b""),
        ("/userdata/compare_d%2Fp.html", b"<script></script>"), ("/userdata/..%2F..%2Fcompare.json", b"{}"),
        ("/upload/image", b""), ("/free", b'{"unload_models": false}'), ("/queue", b'{"clear": true}'), ("/interrupt", b""),
        ("/history", b'{"clear": true}'), ("/prompt", b"{}"),
        ("/prompt", b'{"prompt": {}}'), ("/prompt", b'{"prompt": {"1": {"inputs": {}}}}'), ("/prompt", b'{"prompt": {"1": {"class_type": "CompareNone", "inputs": {}}}}'),
    ]:
        yield "POST", address, body, {"Content-Type": "application/json"}
    yield "PATCH", "/internal/logs/subscribe", b'{"enabled": true, "clientId": "compare"}', {}
    for fields, content, name in [
        ({}, png(), "compare_a.png"), ({}, png(), "compare_a.png"), ({}, png(5), "compare_a.png"),
        ({"overwrite": "true"}, png(), "compare_a.png"), ({"subfolder": "compare_s", "type": "temp"}, b"text", "compare_t.txt"),
        ({"subfolder": "../.."}, png(), "compare_a.png"), ({}, png(), "../../compare_a.png"),
        ({}, b"<svg xmlns='http://www.w3.org/2000/svg'/>", "compare_s.svg"), ({}, b"<script></script>", "compare_p.html"),
    ]:
        yield "POST", "/upload/image", *upload(fields, content, name)
    original = json.dumps({"filename": "compare_a.png", "type": "input"})
    for reference in [original, json.dumps({"filename": "compare_a.png", "subfolder": "../..", "type": "input"})]:
        yield "POST", "/upload/mask", *upload({"original_ref": reference}, png(), "compare_m.png")
    for address in [
        "/settings", "/settings/compare.b", "/userdata?dir=compare_d", "/userdata?dir=compare_d&full_info=true",
        "/userdata?dir=compare_d&recurse=true&split=true", "/v2/userdata?path=compare_d", "/userdata/compare_d%2Fc2.json",
        "/userdata/compare_d%2Fp.html", "/internal/files/input", "/view?filename=compare_a.png&type=input",
        "/view?filename=compare_a.png%20[input]", "/view?filename=compare_a.png&type=input&channel=rgb",
        "/view?filename=compare_a.png&type=input&channel=a", "/view?filename=compare_a.png&type=input&preview=webp;90",
        "/view?filename=compare_a.png&type=input&preview=jpeg", "/view?filename=compare_a.png&type=input&preview=jpeg&channel=rgba",
        "/view?filename=compare_a.png&type=input&preview=webp&channel=rgb", "/view?filename=compare_t.txt&type=temp&subfolder=compare_s",
        "/view?filename=compare_s.svg&type=input", "/view?filename=compare_p.html&type=input",
    ]:
        yield "GET", address, None, {}
    for name in ["c2.json", "p.html", "none.json"]:
        yield "DELETE", f"/userdata/compare_d%2F{name}", None, {}


# (method, address, how a difference begins, why). Bodies of refusals are never compared: ours always say what is wrong.
EXPECTED = [
    ("GET", "/features", ".supports_model_type_tags", "announces tags of assets, which we do not have"),
    ("GET", "/system_stats", ".system.", "versions of Python packages"),
    ("GET", "/node_replacements", ".", "both list what their own node types replace"),
    ("GET", "/internal/files/", "status 200 instead of 500", "a folder that is not there yet holds nothing"),
    ("POST", "/upload/image", "status 400 instead of 500", "a body that is no form is refused"),
    ("POST", "/upload/mask", "status 403 instead of 200", "the reference says that it stored a file, and did not"),
    ("GET", "/userdata/", "Content-Disposition", "names the file, too"),
    ("POST", "/prompt", "status 400 instead of 500", "a body without a prompt is refused"),
]


def is_expected(method, address, difference):
    return any(
        method == known_method and address.startswith(known) and difference.startswith(start)
        for known_method, known, start, _ in EXPECTED
    )


def ask(server, method, address, body, headers):
    request = urllib.request.Request(server + address.replace(" ", "%20"), data=body, method=method, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, answer.headers, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read()
    except urllib.error.URLError as error:
        sys.exit(f"{server}: {error.reason}")


def shape(value, path=""):
    """Types by place; of lists the first element stands for all. Numbers are one type: 1.0 and 1 mean the same to a page."""
    kinds = {bool: "boolean", int: "number", float: "number", str: "text", type(None): "null", list: "list", dict: "object"}
    found = {path or ".": kinds[type(value)]}
    if isinstance(value, dict):
        for key, item in value.items():
            found.update(shape(item, f"{path}.{key}"))
    if isinstance(value, list) and value:
        found.update(shape(value[0], f"{path}[]"))
    return found


def differences(reference, ours):
    (their_status, their_headers, their_body), (status, headers, body) = reference, ours
    if their_status != status:
        yield f"status {status} instead of {their_status}"
    if their_status >= 400 or status >= 400:
        return
    for name in ["Content-Type", "Content-Disposition", "X-Content-Type-Options"]:
        if their_headers.get(name) != headers.get(name) and (name != "X-Content-Type-Options" or their_headers.get(name)):
            yield f"{name} {headers.get(name)!r} instead of {their_headers.get(name)!r}"
    if "json" not in (their_headers.get("Content-Type") or ""):
        if bool(their_body) != bool(body):
            yield f"{len(body)} bytes instead of {len(their_body)}"
        return
    theirs, mine = shape(json.loads(their_body)), shape(json.loads(body))
    empty = [place for found in (theirs, mine) for place, kind in found.items() if kind == "list" and place.lstrip(".") + "[]" not in
             {other.lstrip(".") for other in found}]
    for place in sorted(theirs.keys() | mine.keys()):
        below_empty = any(place.lstrip(".").startswith(list_place.lstrip(".") + "[]") for list_place in empty)
        if theirs.get(place) != mine.get(place) and not below_empty:
            yield f"{place}: {mine.get(place, 'absent')} instead of {theirs.get(place, 'absent')}"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--reference", required=True)
    parser.add_argument("--ours", required=True)
    parser.add_argument("--verbose", action="store_true", help="also say what is equal, and what differs on purpose")
    options = parser.parse_args()
    equal = expected = 0
    wrong = []
    for method, address, body, headers in requests():
        answers = [ask(server, method, address, body, headers) for server in (options.reference, options.ours)]
        found = list(differences(*answers))
        unexpected = [line for line in found if not is_expected(method, address, line)]
        if unexpected:
            wrong.append((method, address, unexpected))
        elif found:
            expected += 1
        else:
            equal += 1
        if options.verbose:
            print(method, address, answers[0][0], "; ".join(found) or "equal")
    for method, address, found in wrong:
        print(f"{method} {address}")
        for line in found[:12]:
            print(f"    {line}")
        if len(found) > 12:
            print(f"    ... and {len(found) - 12} more")
    print(f"{equal} equal, {expected} differ on purpose, {len(wrong)} differ")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
