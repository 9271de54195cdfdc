"""PyPI's comfy-sdk, unmodified, against a running `distorch serve`: assets, jobs, their events, cancelling, a restart.

    python sdk_test.py PROGRAM
"""
import asyncio
import copy
import io
import json
import os
import sys
import tempfile
import urllib.request

from client import CHECKOUT, Server, wait_for

SKIPPED = 77
try:
    import comfy_sdk
    from comfy_sdk import exceptions
    from comfy_sdk.events import OutputReady, Preview, Progress, StatusChange
except ImportError:
    print("skipped: there is no comfy-sdk (tools/setup_clients.sh)")
    sys.exit(SKIPPED)

with open(os.path.join(CHECKOUT, "tests", "cli", "prompts", "picture.json"), encoding="utf-8") as _file:
    PICTURE = json.load(_file)
COPY = {"1": {"class_type": "LoadImage", "inputs": {"image": "small.png"}},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "copy"}}}


def client_of(server):
    os.environ.update(COMFY_BASE_URL=server.url(), NO_PROXY="127.0.0.1", no_proxy="127.0.0.1")
    os.environ.pop("COMFY_API_KEY", None)
    return comfy_sdk.Comfy()


def graph(client, template, **inputs):
    """inputs: "5.steps"=3 and so on."""
    workflow = client.workflows.from_json(copy.deepcopy(template))
    for place, value in inputs.items():
        node, name = place.split(".")
        workflow.set_input(node, name, value)
    return workflow


def check_run(client):
    """The events in their order, the outputs, the picture, the graph."""
    job = client.submit(graph(client, PICTURE, **{"5.steps": 600, "5.seed": 11}), metadata={"client": "test", "run": "1"})
    events = list(job.events())
    kinds = [type(event) for event in events]
    assert kinds[0] is StatusChange and kinds[-1] is StatusChange, kinds
    assert events[-1].status == "succeeded", events[-1]
    assert kinds.count(OutputReady) == 1 and kinds.index(OutputReady) < len(kinds) - 1, kinds
    steps = [event for event in events if isinstance(event, Progress) and event.steps == 600]
    assert steps and all(0 <= event.value <= 1 and event.nodes_total == 7 for event in steps), events
    previews = [event for event in events if isinstance(event, Preview)]
    assert all(event.node_id == "5" and event.data.startswith(b"\xff\xd8") for event in previews), previews
    job.result()
    output, = job.outputs
    assert (output.type, output.node_id, output.job_id, output.content_type) == ("image", "7", job.id, "image/png")
    data = output.to_bytes()
    assert data.startswith(b"\x89PNG") and len(data) == output.size_bytes
    assert output.to_bytes(range=(1, 3)) == b"PNG"
    whole = io.BytesIO()
    assert output.to_stream(whole) == len(data) and whole.getvalue() == data
    with urllib.request.urlopen(output.get_download_url().url) as answer:
        assert answer.read() == data
    assert job.get_workflow().format == "api" and job.get_workflow().graph["5"]["inputs"]["steps"] == 600
    assert job.metadata == {"client": "test", "run": "1"}
    assert client.jobs.get(job.id).status == "succeeded"
    return job, data


def check_assets(client, server, data):
    """A picture is stored once, found again by its content, and loaded by a graph; so is an output."""
    asset = client.assets.from_bytes(data, filename="given.png")
    job = client.run(graph(client, COPY, **{"1.image": asset}), timeout=60)
    assert asset.created_new is True and asset.id, asset
    assert job.get_workflow().graph["1"]["inputs"]["image"] == "given.png"
    assert len(job.outputs) == 1
    again = client.assets.from_bytes(data, filename="other.png")
    again.commit()
    assert again.created_new is False and again.id == asset.id
    assert not os.path.exists(os.path.join(server.folder, "input", "other.png"))
    path = os.path.join(server.folder, "down.png")
    job.outputs[0].to_file(path)
    with open(path, "rb") as f:
        assert f.read().startswith(b"\x89PNG")
    reference = {"__type": "core/ASSET", "info": {"id": job.outputs[0].id}}
    second = client.run(graph(client, COPY, **{"1.image": reference, "2.filename_prefix": "again"}), timeout=60)
    assert len(second.outputs) == 1
    asset.delete()
    refused(exceptions.MissingAsset, lambda: client.submit(graph(client, COPY, **{"1.image": {
        "__type": "core/ASSET", "info": {"id": again.id}}})))


def refused(kind, work):
    try:
        work()
    except kind as error:
        return error
    raise AssertionError(f"no {kind.__name__}")


def check_refusals(client):
    error = refused(exceptions.InvalidWorkflow, lambda: client.submit(graph(client, PICTURE, **{"5.steps": "many"})))
    assert "5" in error.details["node_errors"], error.details
    refused(exceptions.NotFound, lambda: client.jobs.get("00000000-0000-4000-8000-000000000000"))
    workflow = graph(client, PICTURE, **{"5.seed": 12})
    client.submit(workflow, idempotency_key="once").wait(timeout=60)
    refused(exceptions.IdempotencyKeyReuse, lambda: client.submit(workflow, idempotency_key="once"))


def check_cancel(client):
    long = client.submit(graph(client, PICTURE, **{"5.steps": 10000, "5.seed": 13}))
    waiting = client.submit(graph(client, PICTURE, **{"5.seed": 14}))
    wait_for(lambda: long.refresh().status == "running")
    assert waiting.refresh().status == "queued"
    assert waiting.cancel().status == "canceled"
    assert long.cancel().status in ("canceling", "canceled")
    assert long.wait(timeout=60).status == "canceled"
    refused(exceptions.JobFailed, waiting.result)
    listed = {summary.id: summary for summary in client.list_jobs(limit=2)}
    assert listed[long.id].status == listed[waiting.id].status == "canceled", listed
    assert all(summary.create_time for summary in listed.values())


async def check_async(job_id):
    async with comfy_sdk.AsyncComfy() as client:
        workflow = graph(client, PICTURE, **{"5.seed": 15})
        job = await client.submit(workflow)
        last = None
        async for event in job.events():
            last = event
        assert last.status == "succeeded", last
        await job.result()
        assert (await job.outputs[0].to_bytes()).startswith(b"\x89PNG")
        found = [summary.id async for summary in client.list_jobs(metadata={"client": "test"})]
        assert found == [job_id], found


def check_restart(client, server, job, data):
    """Jobs, outputs, assets and keys outlive kill -9."""
    asset = client.assets.from_bytes(b"some bytes", filename="notes.txt")
    asset.commit()
    server.kill()
    server.start()
    client.close()
    client = client_of(server)
    again = client.jobs.get(job.id)
    assert again.status == "succeeded" and again.outputs[0].to_bytes() == data
    known = client.assets.from_bytes(b"some bytes", filename="elsewhere.txt")
    assert known.commit() == asset.id and known.created_new is False
    refused(exceptions.IdempotencyKeyReuse, lambda: client.submit(graph(client, PICTURE), idempotency_key="once"))
    with urllib.request.urlopen(known.get_download_url().url) as answer:
        assert answer.read() == b"some bytes"
    client.close()


def main():
    program = os.path.abspath(sys.argv[1])
    with tempfile.TemporaryDirectory(prefix="distorch_sdk_") as folder:
        server = Server(program, folder).start()
        try:
            client = client_of(server)
            job, data = check_run(client)
            check_assets(client, server, data)
            check_refusals(client)
            check_cancel(client)
            asyncio.run(check_async(job.id))
            check_restart(client, server, job, data)
        except BaseException:
            print(server.said())
            raise
        finally:
            server.kill()


main()
