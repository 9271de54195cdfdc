"""comfy-script: its runtime makes functions of /object_info, queues a workflow, waits, and gets the image.

    python with_comfy_script.py PROGRAM
"""
from client_case import run_case, saved


def case(server):
    import comfy_script.runtime as runtime

    runtime.load(server.url())
    from comfy_script.runtime import nodes

    with runtime.Workflow(wait=True):
        model, clip, vae = nodes.CheckpointLoaderSimple("emoji.safetensors")
        positive = nodes.CLIPTextEncode("a red heart", clip)
        negative = nodes.CLIPTextEncode("", clip)
        latent = nodes.EmptyLatentImage(64, 64, 1)
        latent = nodes.KSampler(model, 7, 2, 2.0, "euler", "normal", positive, negative, latent, 1)
        image = nodes.SaveImage(nodes.VAEDecode(latent, vae), "script")
    picture = image.wait()[0]
    assert picture.size == (64, 64), picture
    assert saved(server) == ["script_00001_.png"], saved(server)

    runtime.queue.cancel_all()
    assert server.json("/queue") == {"queue_running": [], "queue_pending": []}


run_case(case, "comfy_script", "nest_asyncio2", "aiohttp", "PIL")
