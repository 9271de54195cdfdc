#!/usr/bin/env bash
# Installs what building and running distorch needs, and nothing twice:
#   1. Debian/Ubuntu packages (through root or sudo),
#   2. libtorch 2.11 from the PyPI wheel into .deps/ (or TORCH_DIR=... : a torch 2.11 package folder that exists already),
#   3. vocabularies into .deps/tokenizers/: CLIP's from the PyPI package open_clip_torch, Qwen's from dashscope, Llama 3's from llama-models, T5's from the
#      sources of stable-diffusion-cpp-python (46 MB; no smaller package carries it). Where T5's cannot be had, everything but
#      T5 works: put a tokenizer.json or spiece.model into models/tokenizers/t5/.
#   4. what `distorch serve` shows, from PyPI: ComfyUI's web page into .deps/page (29 MB to fetch), the help texts of nodes into
#      .deps/docs (24 MB), the workflow templates into .deps/templates (4 MB; with TEMPLATE_PICTURES=1 their pictures too, 0.5 GB).
#      Where they cannot be had the server runs without them.
# Safe to run again: every step first looks whether its result is there.
set -euo pipefail
cd "$(dirname "$0")/.."

torch_version=2.11.0
cuda_runtime_version=13.0.96
cuda_cupti_version=13.0.85
cuda_crt_version=13.0.88
open_clip_version=2.32.0
dashscope_version=1.25.2
llama_models_version=0.3.0
t5_source_version=0.2.0
page_version=1.58.1
docs_version=0.5.15
templates_version=0.11.97
t5_sha256=fe2ebbbbde2985be723e0ce18217853e4020c5e9d35bd07be2c27ab9d3ead57a
packages=(
  build-essential cmake ninja-build ccache pkg-config python3-venv python3-pip unzip
  nlohmann-json3-dev libcli11-dev libspdlog-dev libfmt-dev libyaml-cpp-dev libhwy-dev
  libutf8proc-dev libsentencepiece-dev libboost-dev libssl-dev libsqlite3-dev zlib1g-dev libxxhash-dev
  libpng-dev libjpeg-dev libwebp-dev libgif-dev libtiff-dev libavif-dev
  libavformat-dev libavcodec-dev libavutil-dev libswscale-dev libswresample-dev
  doctest-dev librapidcheck-dev libbenchmark-dev
)

fail() { printf 'setup: %s\n' "$*" >&2; exit 1; }
say() { printf 'setup: %s\n' "$*"; }

install_packages() {
  local missing=() name
  command -v dpkg-query >/dev/null || fail "this is not a Debian or Ubuntu system; install by hand: ${packages[*]}"
  for name in "$@"; do
    dpkg-query -W -f '${Status}' "$name" 2>/dev/null | grep -q 'ok installed' || missing+=("$name")
  done
  [ ${#missing[@]} -eq 0 ] && return
  local root=()
  if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null || fail "these packages are missing and neither root nor sudo is at hand: ${missing[*]}"
    root=(sudo)
  fi
  say "installing packages: ${missing[*]}"
  "${root[@]}" apt-get update -qq || fail "apt-get update failed; is the network there?"
  "${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null ||
    fail "apt-get could not install: ${missing[*]}"
}

# What libtorch_cpu needs beside itself on a machine without a GPU; with an NVIDIA driver pip resolves all dependencies.
install_torch() {
  if [ -n "${TORCH_DIR:-}" ]; then
    [ -f "$TORCH_DIR/lib/libtorch_cpu.so" ] || fail "TORCH_DIR=$TORCH_DIR holds no lib/libtorch_cpu.so"
    grep -qs "2\.11" "$TORCH_DIR/version.py" || fail "TORCH_DIR=$TORCH_DIR is not torch 2.11 (see its version.py)"
    mkdir -p .deps && ln -sfn "$TORCH_DIR" .deps/torch
    compgen -G "$TORCH_DIR/../nvidia/*/include/crt/host_config.h" >/dev/null || [ ! -f "$TORCH_DIR/lib/libtorch_cuda.so" ] ||
      say "no cuda_runtime_api.h and crt/host_config.h beside $TORCH_DIR (packages nvidia-cuda-runtime and nvidia-cuda-crt): the build" \
        "has NVIDIA devices only where /usr/local/cuda or CUDA_HOME has them"
    return
  fi
  [ -f .deps/torch/lib/libtorch_cpu.so ] && return
  python3 -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 14))' ||
    fail "python3 is $(python3 -V); torch $torch_version has wheels for 3.10 to 3.14 (or set TORCH_DIR)"
  say "fetching torch $torch_version (about 0.5 GB, once)"
  rm -rf .deps/venv
  python3 -m venv .deps/venv || fail "python3 -m venv failed; install python3-venv"
  local pip=(.deps/venv/bin/python -m pip --disable-pip-version-check -q install)
  if [ -e /proc/driver/nvidia/version ]; then
    "${pip[@]}" "torch==$torch_version" || fail "pip could not install torch $torch_version with its CUDA libraries"
  else
    "${pip[@]}" --no-deps "torch==$torch_version" "nvidia-cuda-runtime==$cuda_runtime_version" "nvidia-cuda-cupti==$cuda_cupti_version" ||
      fail "pip could not install torch $torch_version"
  fi
  local folder
  folder=$(cd .deps && ls -d venv/lib/python3*/site-packages/torch)
  ln -sfn "$folder" .deps/torch
}

# The headers that the module for NVIDIA devices is compiled against: those of the CUDA that torch was built with. Torch's own
# dependencies lack a part of them.
install_cuda_headers() {
  local site=.deps/venv/lib/python3*/site-packages
  [ -z "${TORCH_DIR:-}" ] && compgen -G "$site/torch/lib/libtorch_cuda.so" >/dev/null || return 0
  compgen -G "$site/nvidia_cuda_crt-$cuda_crt_version.dist-info" >/dev/null &&
    compgen -G "$site/nvidia_cuda_runtime-$cuda_runtime_version.dist-info" >/dev/null && return
  say "fetching the headers of CUDA $cuda_crt_version"
  .deps/venv/bin/python -m pip --disable-pip-version-check -q install --no-deps "nvidia-cuda-runtime==$cuda_runtime_version" \
    "nvidia-cuda-crt==$cuda_crt_version" || fail "pip could not install nvidia-cuda-runtime and nvidia-cuda-crt"
}

# fetch_vocabulary NAME PACKAGE VERSION FILE-IN-WHEEL TARGET: that file of the wheel becomes .deps/tokenizers/TARGET.
fetch_vocabulary() {
  local name=$1 package=$2 version=$3 inside=$4 target=.deps/tokenizers/$5 temporary
  [ -f "$target" ] && return
  temporary=$(mktemp -d)
  say "fetching the $name vocabulary ($package $version)"
  python3 -m pip --disable-pip-version-check -q download --no-deps -d "$temporary" "$package==$version" ||
    fail "pip could not fetch $package $version"
  unzip -q -o -j "$temporary"/*.whl "$inside" -d "$temporary" || fail "$package $version has no $inside"
  mkdir -p "$(dirname "$target")"
  mv "$temporary/$(basename "$inside")" "$target"
  rm -rf "$temporary"
}

# The file is an array of bytes in a C++ header there.
install_t5_tokenizer() {
  local target=.deps/tokenizers/t5/tokenizer.json
  [ -f "$target" ] && return
  local temporary
  temporary=$(mktemp -d)
  say "fetching the T5 vocabulary (stable-diffusion-cpp-python $t5_source_version, 46 MB)"
  if python3 -m pip --disable-pip-version-check -q download --no-deps --no-binary :all: -d "$temporary" \
      "stable-diffusion-cpp-python==$t5_source_version" >/dev/null &&
      tar xzf "$temporary"/stable_diffusion_cpp_python-*.tar.gz -C "$temporary" --wildcards --strip-components=3 '*/vocab.hpp' &&
      python3 - "$temporary" "$t5_sha256" <<'PYTHON'
import hashlib, pathlib, re, sys
folder = pathlib.Path(sys.argv[1])
text = (folder / "vocab.hpp").read_text()
array = text[text.index("t5_tokenizer_json_str[]"):]
data = bytes(int(byte, 16) for byte in re.findall(r"0x([0-9a-fA-F]{2})", array[:array.index("}")]))
if hashlib.sha256(data).hexdigest() != sys.argv[2]:
    sys.exit("the T5 vocabulary is not the one that is expected")
(folder / "tokenizer.json").write_bytes(data)
PYTHON
  then
    mkdir -p "$(dirname "$target")"
    mv "$temporary/tokenizer.json" "$target"
  else
    say "no T5 vocabulary (SD3 and FLUX need it): put the tokenizer.json or spiece.model of any T5 v1.1 into models/tokenizers/t5/"
  fi
  rm -rf "$temporary"
}

# fetch_folder NAME VERSION PACKAGE FOLDER-IN-WHEEL: that folder of the wheel becomes .deps/NAME. A file beside it says which
# version it is; another version takes its place.
fetch_folder() {
  local name=$1 version=$2 package=$3 inside=$4 temporary
  [ "$(cat ".deps/$name.version" 2>/dev/null)" = "$version" ] && [ -d ".deps/$name" ] && return
  temporary=$(mktemp -d -p .deps)
  say "fetching $package $version"
  if python3 -m pip --disable-pip-version-check -q download --no-deps --only-binary :all: -d "$temporary" \
      "$package==$version" >/dev/null && unzip -q -o "$temporary"/*.whl "$inside/*" -x '*.map' -d "$temporary" 2>/dev/null; then
    rm -rf ".deps/$name"
    mv "$temporary/$inside" ".deps/$name"
    printf '%s\n' "$version" >".deps/$name.version"
  else
    say "no $package $version: the server runs without it"
  fi
  rm -rf "$temporary"
}

# The parts of the templates' package are named with their versions in its description.
install_templates() {
  local wanted="$templates_version${TEMPLATE_PICTURES:+ with pictures}" temporary parts part
  case "$(cat .deps/templates.version 2>/dev/null)" in "$wanted" | "$templates_version with pictures") return ;; esac
  temporary=$(mktemp -d -p .deps)
  local pip=(python3 -m pip --disable-pip-version-check -q download --no-deps --only-binary :all:)
  say "fetching comfyui-workflow-templates $wanted"
  if "${pip[@]}" -d "$temporary" "comfyui-workflow-templates==$templates_version" >/dev/null; then
    parts=$(unzip -p "$temporary"/*.whl '*/METADATA' |
      sed -n 's/^Requires-Dist: \(comfyui-workflow-templates-[a-z0-9-]*==[0-9.]*\)$/\1/p')
    mkdir -p "$temporary/parts" "$temporary/templates"
    for part in $parts; do
      case "$part" in
        *-json==*) ;;
        *-media-*) [ -n "${TEMPLATE_PICTURES:-}" ] || continue ;;
        *) continue ;;
      esac
      "${pip[@]}" -d "$temporary/parts" "$part" >/dev/null || { say "no $part"; rm -rf "$temporary"; return; }
    done
    for part in "$temporary"/parts/*.whl; do
      unzip -q -o -j "$part" '*/templates/*' -d "$temporary/templates"
    done
    rm -rf .deps/templates
    mv "$temporary/templates" .deps/templates
    printf '%s\n' "$wanted" >.deps/templates.version
  else
    say "no workflow templates: the server runs without them"
  fi
  rm -rf "$temporary"
}

install_packages "${packages[@]}" "$@"
install_torch
install_cuda_headers
fetch_vocabulary CLIP open_clip_torch "$open_clip_version" open_clip/bpe_simple_vocab_16e6.txt.gz clip/bpe_simple_vocab_16e6.txt.gz
fetch_vocabulary Qwen dashscope "$dashscope_version" dashscope/resources/qwen.tiktoken qwen/qwen.tiktoken
fetch_vocabulary "Llama 3" llama-models "$llama_models_version" llama_models/llama3/tokenizer.model llama3/tokenizer.model
install_t5_tokenizer
fetch_folder page "$page_version" comfyui-frontend-package comfyui_frontend_package/static
fetch_folder docs "$docs_version" comfyui-embedded-docs comfyui_embedded_docs/docs
install_templates
