#!/usr/bin/env bash
# Measures Python peers beside our programs (bench/peers/), with
#   BENCH_PYTHON=...        a Python that has torch, diffusers and transformers, or else
#   .deps/bench-venv        made once (0.4 GB): diffusers and transformers on top of setup.sh's torch. Without a GPU that
#                           torch lacks NVIDIA's libraries; tools/cuda_standins.sh makes Python import it all the same.
#   tools/bench_peers.sh [BUILD_FOLDER] [OUT_FOLDER]
# Exits with 3, saying why, where no peer can be measured.
set -euo pipefail
cd "$(dirname "$0")/.."
build=${1:-build/release}
out=${2:-build/bench}

diffusers_version=0.35.2
transformers_version=4.57.6
venv=$PWD/.deps/bench-venv
wanted="torch, diffusers, transformers"

no_peers() {
  echo "bench: peers NOT measured: $*" >&2
  echo "bench: (BENCH_PYTHON=/path/to/python chooses a Python that has $wanted)" >&2
  exit 3
}
can_import() { "$1" -c "import $2"; }

make_venv() {
  local pip=("$venv/bin/python" -m pip --disable-pip-version-check -q install) site
  echo "bench: making $venv for the peers (once)"
  rm -rf "$venv"
  python3 -m venv "$venv" || return
  # Without their dependencies, which could bring another torch and its 3 GB; then what they import.
  "${pip[@]}" --no-deps "diffusers==$diffusers_version" "transformers==$transformers_version" || return
  "${pip[@]}" typing_extensions filelock sympy networkx jinja2 fsspec numpy pillow regex requests httpx pyyaml tqdm packaging \
    importlib_metadata safetensors "huggingface_hub<1" "tokenizers>=0.22,<0.23" || return
  # setup.sh brings NVIDIA's libraries only where there is a driver.
  [ -e /proc/driver/nvidia/version ] || tools/cuda_standins.sh .deps/torch/lib "$venv/standins" || return
  site=$("$venv/bin/python" -c 'import site; print(site.getsitepackages()[0])')
  dirname "$(readlink -f .deps/torch)" >"$site/torch_of_setup.pth"
}

if [ -n "${BENCH_PYTHON:-}" ]; then
  python=$BENCH_PYTHON
else
  python=$venv/bin/python
  export LD_LIBRARY_PATH=$venv/standins${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
  can_import "$python" "$wanted" >/dev/null 2>&1 || make_venv || no_peers "$venv could not be made; see above"
fi
can_import "$python" "$wanted" || no_peers "$python cannot import $wanted; see above"

printf '\n== peers\n'
"$python" bench/peers/startup.py --ours "$build/bin/distorch" --out "$out"
"$python" bench/peers/unet_step.py --ours "$build/bin/bench_unet_step" --out "$out"
"$build/bin/bench_unet_step" --model sdxl --out "$out"
"$python" bench/peers/unet_step.py --ours "$build/bin/bench_unet_step" --model sdxl --out "$out"
"$python" bench/peers/block_step.py --ours "$build/bin/bench_block_step" --out "$out"
"$python" bench/peers/vae_decode.py --ours "$build/bin/bench_vae_decode" --out "$out"
