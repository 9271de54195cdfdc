#!/usr/bin/env bash
# Clients of ComfyUI's API that the tests run unmodified, from PyPI into .deps/clients (0.4 GB). Where they cannot be had those
# tests are skipped. Of comfy-script only what its runtime imports is installed beside it.
set -euo pipefail
cd "$(dirname "$0")/.."
packages=(
  comfy_api_simplified==1.6.0 comfy-cli==1.23.0 comfy-script==0.6.1 websocket-client==1.9.2
  aenum==3.1.17 aiohttp==3.14.5 dynaconf==3.3.5 nest-asyncio2==1.7.4 networkx==3.6.1 pillow==13.0.0 tqdm==4.70.1
  wrapt==1.17.3 yarl==1.25.1
)

[ "$(cat .deps/clients.version 2>/dev/null)" = "${packages[*]}" ] && exit 0
printf 'setup: fetching the clients of the tests (%s ...)\n' "${packages[*]:0:3}"
mkdir -p .deps
rm -rf .deps/clients
if python3 -m venv .deps/clients &&
    .deps/clients/bin/python -m pip --disable-pip-version-check -q install "${packages[@]}"; then
  printf '%s\n' "${packages[*]}" >.deps/clients.version
else
  printf 'setup: no clients: their tests are skipped\n'
fi
