"""comfy-api-simplified: runs prompts and gets their pictures from the history and over the socket.

    python with_api_simplified.py PROGRAM
"""
import os

from client_case import CHECKOUT, check_png, picture, run_case, saved


def case(server):
    from comfy_api_simplified import ComfyApiError, ComfyApiWrapper, ComfyWorkflowWrapper

    api = ComfyApiWrapper(server.url())
    workflow = ComfyWorkflowWrapper(picture())
    workflow.set_node_param("KSampler", "steps", 3)
    # It takes every binary frame for a result, so there may be no previews among them.
    images = api.queue_and_wait_images(workflow, "SaveImage")
    assert list(images) == ["client_00001_.png"], list(images)
    check_png(images["client_00001_.png"])

    # It opens its socket after it has posted the prompt, which therefore takes a second or two.
    for seed in (2, 3):
        prompt = picture(steps=200, seed=seed, saver="SaveImageWebsocket")
        images = api.queue_and_wait_images(prompt, "SaveImageWebsocket")
        assert list(images) == ["0"], list(images)
        check_png(images["0"])
    assert saved(server) == ["client_00001_.png"], saved(server)

    assert api.get_queue() == {"queue_running": [], "queue_pending": []}
    assert "KSampler" in api.get_object_info() and list(api.get_object_info("SaveImage")) == ["SaveImage"]
    assert api.get_system_stats()["devices"][0]["type"] == "cpu"
    assert api.get_embeddings() == []
    api.interrupt()
    uploaded = api.upload_image(os.path.join(CHECKOUT, "tests", "parity", "inputs", "small.png"), "up")
    assert uploaded == {"name": "small.png", "subfolder": "up", "type": "input"}, uploaded
    try:
        api.queue_prompt(picture(steps="many"))
        raise AssertionError("a wrong prompt was taken")
    except ComfyApiError as error:
        assert "400" in str(error), error


run_case(case, "comfy_api_simplified")
