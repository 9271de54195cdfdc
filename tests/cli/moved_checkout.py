"""A checkout that was moved, with its build folder and .deps/, must still run.

    python moved_checkout.py PROGRAM BUILD_FOLDER
"""
import os
import shutil
import subprocess
import sys
import tempfile

program, build = map(os.path.abspath, sys.argv[1:3])
source = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
dynamic = subprocess.run(["readelf", "-d", program], capture_output=True, text=True, check=True).stdout
paths = [path for line in dynamic.splitlines() if "RUNPATH" in line or "RPATH" in line
         for path in line.split("[")[1].split("]")[0].split(":")]
torch = os.readlink(os.path.join(build, "torch"))
print("run path:", paths, "torch:", torch)
assert paths and all(path.startswith("$ORIGIN") for path in paths), "an absolute run path"
inside = os.path.relpath(build, source)
if os.path.isabs(torch) or inside.startswith(".."):
    print("torch (TORCH_DIR) or the build folder lies outside of the checkout: there is nothing to move")
    sys.exit(0)
with tempfile.TemporaryDirectory(prefix="distorch_moved_") as folder:
    checkout = os.path.join(folder, "elsewhere")
    new_build = os.path.join(checkout, inside)
    new_program = os.path.join(new_build, os.path.relpath(program, build))
    os.makedirs(os.path.dirname(new_program))
    shutil.copy(program, new_program)
    os.symlink(torch, os.path.join(new_build, "torch"))
    old_deps = os.path.normpath(os.path.join(build, torch, ".."))
    os.symlink(old_deps, os.path.normpath(os.path.join(new_build, torch, "..")))
    # The linker's own answer first: every library is found below the new place.
    found = subprocess.run(["ldd", new_program], capture_output=True, text=True, check=True).stdout
    line = next(line for line in found.splitlines() if "libtorch_cpu" in line)
    assert os.path.normpath(line.split("=>")[1].split(" (")[0].strip()).startswith(checkout), line
    said = subprocess.run([new_program, "--version"], capture_output=True, text=True, check=True).stdout
    assert said.startswith("distorch "), said
