#!/usr/bin/env bash
# What tests/serve/sdk_test.py needs: PyPI's comfy-sdk, into .deps/sdk (30 MB). Where it cannot be had the test is skipped.
set -euo pipefail
cd "$(dirname "$0")/.."
sdk_version=0.5.0

[ "$(cat .deps/sdk.version 2>/dev/null)" = "$sdk_version" ] && exit 0
mkdir -p .deps
printf 'setup: fetching comfy-sdk %s\n' "$sdk_version"
rm -rf .deps/sdk
if python3 -m venv .deps/sdk && .deps/sdk/bin/python -m pip --disable-pip-version-check -q install "comfy-sdk==$sdk_version"; then
  printf '%s\n' "$sdk_version" >.deps/sdk.version
else
  printf 'setup: no comfy-sdk: its test is skipped\n'
fi
