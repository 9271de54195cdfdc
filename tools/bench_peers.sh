#!/usr/bin/env bash
# Measures Python peers beside our programs (bench/peers/), with the first of these that there is:
#   BENCH_PYTHON=...        a Python that has torch, diffusers and transformers
#   BENCH_FETCH_TORCH=1     makes .deps/bench-venv once: fetches the whole torch wheel with its CUDA libraries (about 3 GB),
#                           because Python cannot import the small part that setup.sh fetches where there is no GPU
#   .deps/bench-venv        of an earlier run, or made with setup.sh's torch where Python can import that
#   tools/bench_peers.sh [BUILD_FOLDER] [OUT_FOLDER]
set -euo pipefail
cd "$(dirname "$0")/.."
build=${1:-build/release}
out=${2:-build/bench}

torch_version=2.11.0
diffusers_version=0.35.2
transformers_version=4.57.6
venv=.deps/bench-venv

packages_of_setup() { dirname "$(readlink -f .deps/torch)"; }
can_import() { PYTHONPATH=${2:-} "$1" -c "import ${3:-torch}" >/dev/null 2>&1; }

make_venv() {
  local pip=("$venv/bin/python" -m pip --disable-pip-version-check -q install) site
  echo "bench: making $venv for the peers"
  rm -rf "$venv"
  python3 -m venv "$venv"
  if [ -n "${BENCH_FETCH_TORCH:-}" ]; then
    "${pip[@]}" "torch==$torch_version"
  else
    site=$("$venv/bin/python" -c 'import site; print(site.getsitepackages()[0])')
    packages_of_setup > "$site/torch_of_setup.pth"
  fi
  # Without their dependencies: those could bring another torch.
  "${pip[@]}" --no-deps "diffusers==$diffusers_version" "transformers==$transformers_version"
  "${pip[@]}" typing_extensions filelock sympy networkx jinja2 fsspec numpy pillow regex requests httpx pyyaml tqdm packaging \
    importlib_metadata safetensors "huggingface_hub<1" "tokenizers>=0.22,<0.23"
}

python=${BENCH_PYTHON:-$venv/bin/python}
if ! can_import "$python" "" "torch, diffusers, transformers"; then
  if [ -n "${BENCH_PYTHON:-}" ]; then
    echo "bench: BENCH_PYTHON=$python lacks torch, diffusers or transformers" >&2
    exit 1
  elif [ -n "${BENCH_FETCH_TORCH:-}" ] || can_import python3 "$(packages_of_setup)"; then
    make_venv
  else
    echo "bench: no peers measured: set BENCH_PYTHON to a Python with torch, diffusers and transformers, or BENCH_FETCH_TORCH=1"
    exit 0
  fi
fi

printf '\n== peers\n'
"$python" bench/peers/startup.py --ours "$build/bin/distorch" --out "$out"
"$python" bench/peers/unet_step.py --ours "$build/bin/bench_unet_step" --out "$out"
