#!/usr/bin/env bash
# What the browser tests need beside tools/setup.sh: Debian's chromium and, into .deps/browser, PyPI's playwright, which drives it.
# Where they cannot be had the tests are skipped.
set -euo pipefail
cd "$(dirname "$0")/.."
playwright_version=1.65.2

command -v chromium >/dev/null || command -v chromium-browser >/dev/null || tools/setup.sh chromium fonts-dejavu-core || true
[ "$(cat .deps/browser.version 2>/dev/null)" = "$playwright_version" ] && exit 0
printf 'setup: fetching playwright %s (46 MB)\n' "$playwright_version"
rm -rf .deps/browser
if python3 -m venv .deps/browser &&
    .deps/browser/bin/python -m pip --disable-pip-version-check -q install "playwright==$playwright_version"; then
  printf '%s\n' "$playwright_version" >.deps/browser.version
else
  printf 'setup: no playwright: the browser tests are skipped\n'
fi
