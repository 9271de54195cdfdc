"""How prompts are executed, from outside: a server with small nodes (tests/serve/nodes), once for each way to keep results.

    python execution_test.py PROGRAM      (distorch_test_server)
"""
import json
import os
import struct
import sys
import tempfile
import urllib.parse
import urllib.request
import zlib

from client import Server, Socket, wait_for

SIDE = 16


def link(name, slot=0):
    return [name, slot]


def node(kind, **inputs):
    return {"class_type": kind, "inputs": inputs}


def sized(kind, **inputs):
    return node(kind, height=SIDE, width=SIDE, batch_size=1, **inputs)


def image(content):
    return sized("StubImage", content=content)


def mask(value):
    return sized("StubMask", value=value)


def save(name, slot=0, prefix="t"):
    return node("SaveImage", images=link(name, slot), filename_prefix=prefix)


def brightness(png):
    """(darkest, brightest) byte of a PNG of 8-bit RGB."""
    data, at, size = b"", 8, None
    while at < len(png):
        length, kind = struct.unpack(">I4s", png[at:at + 8])
        if kind == b"IHDR":
            size = struct.unpack(">II", png[at + 8:at + 16])
        if kind == b"IDAT":
            data += png[at + 8:at + 8 + length]
        at += length + 12
    raw, stride = zlib.decompress(data), size[0] * 3
    above, low, high = bytes(stride), 255, 0
    for row in range(size[1]):
        start = row * (stride + 1)
        line = bytearray(raw[start + 1:start + 1 + stride])
        for i in range(stride):
            a, b = (line[i - 3] if i >= 3 else 0), above[i]
            c = above[i - 3] if i >= 3 else 0
            pick = min((a, b, c), key=lambda x: abs(a + b - c - x))
            line[i] = (line[i] + (0, a, b, (a + b) // 2, pick)[raw[start]]) & 255
        low, high, above = min(low, *line), max(high, *line), line
    return low, high


class Result:
    def __init__(self, messages, entry):
        self.messages, self.entry = messages, entry
        self.ran = {m["data"]["node"] for m in messages if m["type"] == "executing"} - {None}
        self.cached = {node for m in messages if m["type"] == "execution_cached" for node in m["data"]["nodes"]}
        self.error = next((m["data"] for m in messages if m["type"] == "execution_error"), None)


class Client:
    count = 0

    def __init__(self, server):
        Client.count += 1
        self.server, self.name = server, f"client{Client.count}"
        self.socket = Socket(server.port, self.name)
        # Who is told how long the queue is hears of prompts from then on.
        self.seen = [self.socket.message()]
        assert self.seen[0]["type"] == "status", self.seen

    def post(self, prompt, **more):
        return self.server.ask("/prompt", {"prompt": prompt, "client_id": self.name, **more})

    def run(self, prompt, **more):
        status, text = self.post(prompt, **more)
        assert status == 200, text
        prompt_id = json.loads(text)["prompt_id"]
        self.seen += self.socket.until_end(prompt_id)
        messages = [m for m in self.seen if m.get("data", {}).get("prompt_id") == prompt_id]
        return Result(messages, self.server.json(f"/history/{prompt_id}")[prompt_id])

    def refused(self, prompt, **more):
        status, text = self.post(prompt, **more)
        assert status == 400, text
        return json.loads(text)

    def pictures(self, result, output):
        found = []
        for picture in result.entry["outputs"][output]["images"]:
            with urllib.request.urlopen(self.server.url() + "/view?" + urllib.parse.urlencode(picture), timeout=60) as answer:
                found.append(brightness(answer.read()))
        return found


def mix(value, second="WHITE"):
    return {"a": image("BLACK"), "b": image(second), "m": mask(value),
            "mix": node("TestLazyMixImages", image1=link("a"), image2=link("b"), mask=link("m")), "out": save("mix")}


def check_lazy(client, mode):
    result = client.run(mix(0.0))
    assert {"a", "m", "mix", "out"} <= result.ran and "b" not in result.ran, result.ran
    assert client.pictures(result, "out") == [(0, 0)]
    result = client.run(mix(0.5, "NOISE"))
    assert {"b", "mix"} <= result.ran
    again = client.run(mix(0.5, "NOISE"))
    changed = client.run(mix(0.25, "NOISE"))
    if mode == "none":
        assert again.ran == set(mix(0)) and {"a", "b"} <= changed.ran
    else:
        assert not again.ran and again.cached == set(mix(0)), (again.ran, again.cached)
        assert changed.ran == {"m", "mix", "out"}, changed.ran


def check_lru(client, mode):
    """What a prompt in between has no use for stays only where the last ones are kept."""
    client.run(mix(0.75))
    client.run({"x": image("WHITE"), "out": save("x")})
    ran = client.run(mix(0.75)).ran
    assert ran == (set() if mode == "lru" else set(mix(0)) - ({"b"} if mode == "classic" else set())), (mode, ran)


def check_change_keys(client, mode):
    prompt = {"out": save("c"), "c": node("TestCustomIsChanged", image=link("i"), should_change=False), "i": image("BLACK")}
    assert "c" in client.run(prompt).ran
    assert ("c" in client.run(prompt).ran) == (mode == "none")
    prompt["c"]["inputs"]["should_change"] = True
    assert "c" in client.run(prompt).ran and "c" in client.run(prompt).ran
    prompt = {"i": sized("StubConstantImage", value=0.5), "t": node("TestIsChangedWithConstants", image=link("i"), value=0.5),
              "out": save("t")}
    result = client.run(prompt)
    assert client.pictures(result, "out") == [(63, 63)]
    assert ("t" in client.run(prompt).ran) == (mode == "none")


def check_lists(client):
    prompt = {"v": node("TestMakeListNode", value1=0.0, value2=0.5, value3=1.0), "m": mask(link("v")),
              "a": image("BLACK"), "b": image("WHITE"),
              "mix": node("TestLazyMixImages", image1=link("a"), image2=link("b"), mask=link("m")),
              "one": node("RebatchImages", images=link("mix"), batch_size=3), "out": save("one")}
    assert client.pictures(client.run(prompt), "out") == [(0, 0), (127, 127), (255, 255)]
    prompt = {"a": image("BLACK"), "b": image("WHITE"), "n": node("TestMakeListNode", value1=1, value2=2, value3=3),
              "list": node("TestMakeListNode", value1=link("a"), value2=link("b"), value3=link("a")),
              "is2": node("TestIntConditions", a=link("n"), b=2, operation="=="),
              "block": node("TestExecutionBlocker", input=link("list"), block=link("is2"), verbose=False),
              "again": node("TestMakeListNode", value1=link("block")), "out": save("again")}
    assert client.pictures(client.run(prompt), "out") == [(0, 0), (0, 0)]
    prompt = {"n": node("TestMakeListNode", value1=0.25, value2=0.5, value3=1.0),
              "pile": node("TestListToAccumulationNode", list=link("n")),
              "more": node("TestAccumulateNode", to_add=0.75, accumulation=link("pile")),
              "tail": node("TestAccumulationTailNode", accumulation=link("more")),
              "each": node("TestAccumulationToListNode", accumulation=link("tail")),
              "i": sized("StubConstantImage", value=link("each")), "out": save("i"),
              "last": sized("StubConstantImage", value=link("tail", 1)), "out2": save("last")}
    result = client.run(prompt)
    assert client.pictures(result, "out") == [(63, 63), (127, 127), (255, 255)]
    assert client.pictures(result, "out2") == [(191, 191)]


def check_undeclared(client):
    prompt = {"a": image("BLACK"), "b": image("WHITE"), "out": save("mean"),
              "mean": node("TestVariadicAverage", input1=link("a"), input2=link("b"), input3=link("a"), input4=link("a"))}
    assert client.pictures(client.run(prompt), "out") == [(63, 63)]


def check_loops(client):
    prompt = {"a": image("BLACK"), "b": image("WHITE"),
              "fresh": node("TestCustomIsChanged", should_change=True, image=link("b")),
              "open": node("TestForLoopOpen", remaining=1, initial_value1=link("fresh")),
              "mean": node("TestVariadicAverage", input1=link("a"), input2=link("open", 2)),
              "close": node("TestForLoopClose", flow_control=link("open"), initial_value1=link("mean")), "out": save("close")}
    for rounds in range(1, 5):
        prompt["open"]["inputs"]["remaining"] = rounds
        result = client.run(prompt)
        assert client.pictures(result, "out") == [(255 // 2 ** rounds,) * 2], rounds
        assert "fresh" in result.ran
        shown = [m["data"]["display_node"] for m in result.messages if m["type"] == "executing" and m["data"]["node"]]
        assert set(shown) <= set(prompt), shown


def check_expansion(client):
    prompt = {"v": node("TestMakeListNode", value1=0.1, value2=0.2, value3=0.3),
              "x": node("TestMixedExpansionReturns", input1=link("v")), "out": save("x"), "white": save("x", 1)}
    result = client.run(prompt)
    assert client.pictures(result, "out") == [(25, 25), (51, 51), (76, 76)]
    assert client.pictures(result, "white") == [(255, 255)] * 3
    prompt = {"a": image("BLACK"), "maker": node("TestDynamicDependencyCycle", input1=link("a"), input2=link("a")),
              "out": save("maker")}
    result = client.run(prompt)
    assert result.error["node_id"] == "maker" and "cycle" in result.error["exception_message"], result.error


def check_validation(client):
    def custom(number, **inputs):
        return {"v": node(f"TestCustomValidation{number}", **inputs), "out": save("v"), "f": node("StubFloat", value=0.5),
                "i": node("StubInt", value=5), "m": mask(0.5)}
    for wrong in (custom(1, input1=5, input2=3.0), custom(1, input1="foo", input2=3.0), custom(1, input1=link("i"), input2=3.0),
                  custom(1, input1=link("m"), input2=3.0), custom(2, input1=link("i"), input2=3.0),
                  custom(3, input1=link("i"), input2=3.0), custom(4, input1=link("i"), input2=3.0),
                  custom(5, input1=0.0, input2=7.0)):
        refusal = client.refused(wrong)
        assert list(refusal["node_errors"]) == ["v"], refusal
        assert refusal["node_errors"]["v"]["dependent_outputs"] == ["out"]
    for good in (custom(1, input1=0.5, input2=0.5), custom(2, input1=link("f"), input2=0.5), custom(4, input1=link("f"), input2=0.5),
                 custom(5, input1=0.0, input2=5.0)):
        assert not client.run(good).error
    assert client.refused({"a": image("BLACK")})["error"]["type"] == "prompt_no_outputs"
    circle = mix(0.5)
    circle["a"] = node("TestVariadicAverage", input1=link("mix"))
    assert client.refused(circle)["node_errors"]
    # One output that cannot run does not keep the other from it.
    half = {"a": image("BLACK"), "bad": save("gone"), "good": save("a")}
    status, text = client.post(half)
    assert status == 200 and list(json.loads(text)["node_errors"]) == ["bad"], text
    client.socket.until_end(json.loads(text)["prompt_id"])
    half["gone"] = image("WHITE")
    result = client.run(half)
    assert client.pictures(result, "bad") == [(255, 255)]


def check_partial(client, mode):
    # Of a size that no prompt before has asked for, so that nothing of it is kept.
    fresh = node("StubImage", content="NOISE", height=24, width=24, batch_size=1)
    prompt = {"a": image("BLACK"), "b": fresh, "x": save("a"), "y": save("b"),
              "through": node("TestOutputNodeWithSocketOutput", image=link("a"), value=2.0), "z": save("through")}
    result = client.run(prompt, partial_execution_targets=["y"])
    assert result.ran == {"b", "y"} and list(result.entry["outputs"]) == ["y"], result.ran
    result = client.run(prompt, partial_execution_targets=["z"])
    assert result.ran - {"a"} == {"through", "z"} and list(result.entry["outputs"]) == ["z"], result.ran
    # What was computed for other outputs is still there.
    result = client.run(prompt, partial_execution_targets=["y"])
    assert result.ran == ({"b", "y"} if mode == "none" else set()), result.ran
    client.refused(prompt, partial_execution_targets=[])


def check_failures(client):
    for kind, inputs in (("TestSyncError", {}), ("TestAsyncError", {"error_after": 0.01})):
        prompt = {"a": image("BLACK"), "bad": node(kind, value=link("a"), **inputs), "out": save("bad"),
                  "slow": node("TestSleep", value=link("a"), seconds=600.0), "out2": save("slow")}
        result = client.run(prompt)
        assert result.error["node_id"] == "bad" and result.error["prompt_id"] and "as a test wants it" in \
            result.error["exception_message"], result.error
        assert result.entry["status"]["status_str"] == "error"
    assert not client.run({"a": image("WHITE"), "out": save("a")}).error


def check_background(client):
    """Nodes that wait do so at the same time: the first of each is told before any of them is done."""
    prompt = {"a": image("BLACK")}
    for i in range(3):
        prompt[f"s{i}"] = node("TestSleep", value=link("a"), seconds=0.5 + i / 10)
        prompt[f"o{i}"] = save(f"s{i}")
    messages = client.run(prompt).messages
    first = {f"s{i}": next(k for k, m in enumerate(messages) if m["type"] == "progress" and m["data"]["node"] == f"s{i}")
             for i in range(3)}
    done = next(k for k, m in enumerate(messages) if m["type"] == "executing" and m["data"]["node"] in ("o0", "o1", "o2"))
    assert max(first.values()) < done, (first, done)
    made = {"a": image("BLACK"), "w": image("WHITE"), "out": save("p"),
            "p": node("TestParallelSleep", image1=link("a"), image2=link("w"), image3=link("w"), sleep1=0.1, sleep2=0.1,
                      sleep3=0.1)}
    assert client.pictures(client.run(made), "out") == [(170, 170)]


def sleeper(seconds=600.0, content="BLACK"):
    return {"a": image(content), "s": node("TestSleep", value=link("a"), seconds=seconds), "out": save("s")}


def check_order(server, client):
    """Smallest number first, `front` before all; the next one is planned meanwhile; other clients hear nothing of it."""
    other = Client(server)
    client.post(sleeper(), prompt_id="long")
    wait_for(lambda: [q[1] for q in server.json("/queue")["queue_running"]] == ["long"], server)
    for name, more in (("late", {"number": 1e6}), ("middle", {}), ("first", {"front": True})):
        status, text = client.post({"a": image("WHITE"), "out": save("a", prefix=name)}, prompt_id=name, **more)
        assert status == 200, text
    waiting = sorted(server.json("/queue")["queue_pending"], key=lambda q: q[0])
    assert [q[1] for q in waiting] == ["first", "middle", "late"], waiting
    known = wait_for(lambda: next((k for k in [server.json("/distorch/plan")["next"]] if k and k["state"] == "planned"), None),
                     server)
    assert known["prompt_id"] == "first" and known["plan"] == {"seconds": 0, "nodes": {"a": None, "out": None}, "models": []}, known
    pending = server.json("/api/jobs?status=pending&sort_order=asc")
    assert {job["id"] for job in pending["jobs"]} == {"first", "middle", "late"}
    assert [job["id"] for job in server.json("/api/jobs?status=in_progress")["jobs"]] == ["long"]
    server.ask("/interrupt", {"prompt_id": "long"})
    wait_for(lambda: "late" in server.json("/history"), server)
    ended = [key for key in server.json("/history") if key in ("first", "middle", "late", "long")]
    assert ended == ["long", "first", "middle", "late"], ended
    client.socket.until_end("late")
    mine = other.run({"a": image("NOISE"), "out": save("a", prefix="mine")})
    assert "out" in mine.ran and mine.ran <= {"a", "out"}, mine.ran
    strangers = [m for m in other.seen if m.get("data", {}).get("prompt_id") in ("long", "first", "middle", "late")]
    assert not [m for m in strangers if m["type"] != "execution_interrupted"], strangers


def check_jobs(server, client):
    for i in range(4):
        client.run({"a": image("WHITE"), "out": save("a", prefix=f"job{i}")}, prompt_id=f"job{i}")
    done = server.json("/api/jobs?status=completed&sort_order=desc&limit=2")
    assert [job["id"] for job in done["jobs"]] == ["job3", "job2"], done
    assert all({"id", "status", "create_time", "outputs_count", "preview_output"} <= set(job) for job in done["jobs"])
    assert {"filename", "nodeId", "mediaType"} <= set(done["jobs"][0]["preview_output"])
    rest = server.json("/api/jobs?status=completed&sort_order=desc&limit=2&offset=2")
    assert [job["id"] for job in rest["jobs"]] == ["job1", "job0"], rest
    times = [job["create_time"] for job in server.json("/api/jobs?sort_order=asc")["jobs"]]
    assert times == sorted(times)
    assert {job["status"] for job in server.json("/api/jobs?status=cancelled,failed")["jobs"]} == {"cancelled", "failed"}
    assert "outputs" in server.json("/api/jobs/job2") and server.ask("/api/jobs/none")[0] == 404
    # Outputs answered from the cache are outputs, also where no client listens.
    server.json("/prompt", {"prompt": {"a": image("WHITE"), "out": save("a", prefix="job3")}, "prompt_id": "quiet"})
    wait_for(lambda: server.json("/api/jobs/quiet")["status"] == "completed", server)
    assert list(server.json("/api/jobs/quiet")["outputs"]) == ["out"]


def check_history(server):
    everything = list(server.json("/history"))
    assert list(server.json("/history?offset=0")) == everything
    assert len(server.json("/history?offset=2")) == len(everything) - 2
    first, second = (set(server.json(f"/history?max_items=2&offset={i}")) for i in (0, 2))
    assert len(first) == len(second) == 2 and not first & second
    assert server.json(f"/history?offset={len(everything)}") == {}


def check(program, mode, options):
    with tempfile.TemporaryDirectory(prefix="distorch_execution_") as folder:
        server = Server(program, folder, *options).start()
        try:
            client = Client(server)
            check_lazy(client, mode)
            check_lru(client, mode)
            check_change_keys(client, mode)
            check_lists(client)
            check_undeclared(client)
            check_loops(client)
            check_expansion(client)
            check_validation(client)
            check_partial(client, mode)
            check_failures(client)
            check_background(client)
            check_order(server, client)
            check_jobs(server, client)
            check_history(server)
        except BaseException:
            print(f"with --cache-{mode}:\n{server.said()}", file=sys.stderr)
            raise
        finally:
            server.kill()


def main():
    program = os.path.abspath(sys.argv[1])
    for mode, options in (("classic", []), ("lru", ["--cache-lru", "100"]), ("none", ["--cache-none"])):
        check(program, mode, options)


main()
