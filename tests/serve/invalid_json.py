"""Bodies that are no JSON, are not the JSON that is wanted, or are a good prompt with something strange beside it."""
import json

_IMAGE = {"class_type": "EmptyImage", "inputs": {"width": 16, "height": 16, "batch_size": 1, "color": 0}}
_SAVE = {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}}
_GOOD = {"1": _IMAGE, "2": _SAVE}
_STRANGE = [None, True, False, 0, -1, 1.5, 1e308, 2 ** 63, 2 ** 64 - 1, -2 ** 63, "", "x", "\0", "\U0001f600" * 100, "a" * 300,
            [], [[]], ["x"], [None], {}, {"a": {}}, {"": None}]

NO_JSON = [b"", b" ", b"{", b"}", b"[", b"]", b'"', b"{]", b"nul", b"truex", b"tru", b"-", b"01", b"1.", b".5", b"1e", b"+1", b"0x10",
           b"1e999999", b"-1e999999", b"NaN", b"-Infinity", b"1 2", b"{} {}", b"{}x", b"[1,]", b'{"a":1,}', b"{'a':1}", b"{a:1}", b'{"a"}',
           b'{"a":}', b'{"a" 1}', b'{"prompt":{}', b'"\\x"', b'"\\u12"', b'"\\ud800"', b'"\\udc00\\ud800"', b'"a\nb"', b'"\x00"', b"\x00",
           b"\xff\xfe{\x00}\x00", b"\xef\xbb\xbf{}", b"\xef\xbb\xbf", b'{"\xff":1}', b'"\xc0\x80"', b'"\xed\xa0\x80"', b'"\xf5\x80\x80\x80"',
           b"/* c */{}", b"{}//c", b"<html></html>", b"[" * 100000, b'{"a":' * 100000, b"[" * 255 + b"]" * 255, b'{"a":1,"a":2}',
           b'{"prompt":{},"prompt":[]}', b"9" * 10000, b'"' + b"a" * 100000 + b'"', b"[" + b"0," * 50000 + b"0]",
           b"{" + b",".join(b'"%d":0' % i for i in range(30000)) + b"}"]


def _bodies():
    yield from NO_JSON
    for value in _STRANGE:
        yield json.dumps(value).encode()
        for key in ("prompt", "delete", "clear", "job_ids", "prompt_id", "unload_models", "free_memory", "enabled", "clientId", "username"):
            yield json.dumps({key: value}).encode()
        for key in ("prompt_id", "number", "front", "client_id", "extra_data", "partial_execution_targets", "id"):
            yield json.dumps({"prompt": _GOOD, key: value}).encode()
        for key in ("client_id", "extra_pnginfo", "create_time", "preview_method", "workflow", "comfy_usage_source"):
            yield json.dumps({"prompt": _GOOD, "extra_data": {key: value}}).encode()
        yield json.dumps({"prompt": _GOOD, "extra_data": {"extra_pnginfo": {"workflow": value}}}).encode()
        yield json.dumps({"prompt": {"1": value}}).encode()
        yield json.dumps({"prompt": {**_GOOD, "3": value}}).encode()
        for key in ("class_type", "inputs", "_meta", "is_changed"):
            yield json.dumps({"prompt": {"1": {**_IMAGE, key: value}, "2": _SAVE}}).encode()
            yield json.dumps({"prompt": {"1": _IMAGE, "2": {**_SAVE, key: value}}}).encode()
        yield json.dumps({"prompt": {"1": {**_IMAGE, "inputs": {**_IMAGE["inputs"], "color": value}}, "2": _SAVE}}).encode()
        for link in (value, [value, 0], ["1", value], ["1", 0, value], [["1", 0], value]):
            yield json.dumps({"prompt": {"1": _IMAGE, "2": {**_SAVE, "inputs": {"images": link}}}}).encode()
    circle = {"1": {"class_type": "ImageInvert", "inputs": {"image": ["1", 0]}}, "2": _SAVE}
    yield json.dumps({"prompt": circle}).encode()
    chain = {"0": _IMAGE, **{str(i): {"class_type": "ImageInvert", "inputs": {"image": [str(i - 1), 0]}} for i in range(1, 5000)}}
    yield json.dumps({"prompt": {**chain, "end": {"class_type": "PreviewImage", "inputs": {"images": ["end2", 0]}},
                                 "end2": {"class_type": "ImageInvert", "inputs": {"image": ["end", 0]}}}}).encode()
    yield json.dumps({"prompt": {**chain, "bad": {"class_type": "PreviewImage", "inputs": {"images": ["4999", 7]}}}}).encode()


BODIES = list(dict.fromkeys(_bodies()))
