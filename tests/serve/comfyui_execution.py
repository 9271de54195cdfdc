"""ComfyUI's own tests of execution against a server of ours with native test nodes (tests/serve/nodes).

    python comfyui_execution.py PROGRAM [--comfyui CHECKOUT] [--python PYTHON] [pytest's options]

CHECKOUT defaults to $COMFYUI_CHECKOUT; without one the tests are skipped. PYTHON ($COMFYUI_PYTHON, else this one) needs pytest,
websocket-client, pillow, numpy and torch. The tests start `python main.py ...` through PATH: there a `python` of ours translates the
options and becomes PROGRAM. Prints a table of what passed; docs/server.md has one.
"""
import argparse
import collections
import os
import socket
import subprocess
import sys
import tempfile
import xml.etree.ElementTree

SKIPPED = 77
FILES = ["test_execution.py", "test_async_nodes.py", "test_progress_isolation.py", "test_public_api.py"]
# The first argument is main.py; ours has other names for two options and no need of the others.
STAND_IN = """#!/bin/bash
shift
folder=$(mktemp -d {folder}/server_XXXXXX)
words=()
while [ $# -gt 0 ]; do
  case $1 in
    --output-directory) words+=(--output "$2"); shift 2 ;;
    --extra-model-paths-config) shift 2 ;;
    --cpu) shift ;;
    *) words+=("$1"); shift ;;
  esac
done
cd "$folder" && mkdir models
export CUDA_VISIBLE_DEVICES= OMP_WAIT_POLICY=passive
exec {program} serve --models models "${{words[@]}}" >> {folder}/log 2>&1
"""


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def run_tests(options, folder, more):
    os.mkdir(os.path.join(folder, "bin"))
    stand_in = os.path.join(folder, "bin", "python")
    with open(stand_in, "w", encoding="utf-8") as f:
        f.write(STAND_IN.format(folder=folder, program=os.path.abspath(options.program)))
    os.chmod(stand_in, 0o755)
    tests = [os.path.join("tests", "execution", name) for name in FILES]
    tests = [name for name in tests if os.path.exists(os.path.join(options.comfyui, name))]
    report = os.path.join(folder, "report.xml")
    environment = dict(os.environ, PATH=os.path.join(folder, "bin") + os.pathsep + os.environ["PATH"],
                       PYTHONDONTWRITEBYTECODE="1")
    subprocess.run([options.python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--junitxml", report, "--port",
                    str(free_port()), "--output_dir", os.path.join(folder, "output"), *more, *tests],
                   cwd=options.comfyui, env=environment, check=False)
    return xml.etree.ElementTree.parse(report).getroot()


def table(report):
    """{(file, parameters of the server): [passed, failed]}, with the names of what failed."""
    counts, failed = collections.OrderedDict(), []
    for case in report.iter("testcase"):
        name, _, parameters = case.get("name").partition("[")
        server = next((word for word in parameters.rstrip("]").split("-") if "server" in word), "")
        bad = any(case.find(kind) is not None for kind in ("failure", "error"))
        counts.setdefault((case.get("classname").split(".")[-1], server), [0, 0])[bad] += 1
        if bad:
            failed.append(f"{name}[{parameters}")
    return counts, failed


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("program")
    parser.add_argument("--comfyui", default=os.environ.get("COMFYUI_CHECKOUT"))
    parser.add_argument("--python", default=os.environ.get("COMFYUI_PYTHON", sys.executable))
    options, more = parser.parse_known_args()
    if not options.comfyui:
        print("skipped: $COMFYUI_CHECKOUT names no checkout of ComfyUI")
        return SKIPPED
    with tempfile.TemporaryDirectory(prefix="distorch_execution_") as folder:
        counts, failed = table(run_tests(options, folder, more))
        for (group, server), (good, bad) in counts.items():
            print(f"{group:24} {server:10} {good:4} passed {bad:4} failed")
        for name in failed:
            print("failed:", name)
        if failed:
            with open(os.path.join(folder, "log"), encoding="utf-8") as log:
                print(log.read()[-20000:])
    return 1 if failed or not counts else 0


sys.exit(main())
