#!/usr/bin/env bash
# Measures Python peers beside our programs (bench/peers/). Takes BENCH_PYTHON where it is set (a Python that has torch,
# diffusers and transformers); else makes .deps/bench-venv once, with the torch that setup.sh fetched.
#   tools/bench_peers.sh [BUILD_FOLDER] [OUT_FOLDER]
set -euo pipefail
cd "$(dirname "$0")/.."
build=${1:-build/release}
out=${2:-build/bench}

diffusers_version=0.35.2
transformers_version=4.57.6

make_venv() {
  local venv=.deps/bench-venv site
  [ -f "$venv/ready" ] && return
  [ -f .deps/torch/__init__.py ] || { echo "bench: .deps/torch is not there (run make build)" >&2; return 1; }
  echo "bench: making $venv for the peers (once, about 100 MB)"
  rm -rf "$venv"
  python3 -m venv "$venv"
  local pip=("$venv/bin/python" -m pip --disable-pip-version-check -q install)
  # Without their dependencies: those would bring a second torch with all of CUDA.
  "${pip[@]}" --no-deps "diffusers==$diffusers_version" "transformers==$transformers_version"
  "${pip[@]}" typing_extensions filelock sympy networkx jinja2 fsspec numpy pillow regex requests httpx pyyaml tqdm packaging \
    importlib_metadata safetensors "huggingface_hub<1" "tokenizers>=0.22,<0.23"
  site=$("$venv/bin/python" -c 'import site; print(site.getsitepackages()[0])')
  # Only torch and what its wheel brought: the link's folder may hold other packages.
  dirname "$(readlink -f .deps/torch)" > "$site/torch_of_setup.pth"
  touch "$venv/ready"
}

if [ -z "${BENCH_PYTHON:-}" ]; then
  make_venv || { echo "bench: no peers to compare with" >&2; exit 0; }
  BENCH_PYTHON=.deps/bench-venv/bin/python
fi
"$BENCH_PYTHON" -c 'import torch, diffusers, transformers' || { echo "bench: $BENCH_PYTHON lacks torch, diffusers or transformers" >&2; exit 1; }

printf '\n== peers\n'
"$BENCH_PYTHON" bench/peers/startup.py --ours "$build/bin/distorch" --out "$out"
"$BENCH_PYTHON" bench/peers/unet_step.py --ours "$build/bin/bench_unet_step" --out "$out"
