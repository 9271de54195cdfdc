#!/usr/bin/env bash
# Clients of ComfyUI's API that the tests run unmodified, from PyPI: those of tests/clients into .deps/clients (0.4 GB), comfy-sdk for
# tests/serve/sdk_test.py into .deps/sdk (30 MB). Where they cannot be had their tests are skipped. Of comfy-script only what its
# runtime imports is installed beside it.
set -euo pipefail
cd "$(dirname "$0")/.."

fetch() {  # <folder> <packages...>
  local folder=.deps/$1
  shift
  [ "$(cat "$folder.version" 2>/dev/null)" = "$*" ] && return
  printf 'setup: fetching the clients of the tests (%s ...)\n' "${*:1:3}"
  mkdir -p .deps
  rm -rf "$folder"
  if python3 -m venv "$folder" && "$folder/bin/python" -m pip --disable-pip-version-check -q install "$@"; then
    printf '%s\n' "$*" >"$folder.version"
  else
    printf 'setup: no %s: their tests are skipped\n' "$1"
  fi
}

fetch clients \
  comfy_api_simplified==1.6.0 comfy-cli==1.23.0 comfy-script==0.6.1 websocket-client==1.9.2 \
  aenum==3.1.17 aiohttp==3.14.5 dynaconf==3.3.5 nest-asyncio2==1.7.4 networkx==3.6.1 pillow==13.0.0 tqdm==4.70.1 \
  wrapt==1.17.3 yarl==1.25.1
fetch sdk comfy-sdk==0.5.0
