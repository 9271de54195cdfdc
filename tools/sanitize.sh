#!/usr/bin/env bash
# The tests of the folders that read strangers' files (weights, pictures, prompts) under AddressSanitizer and
# UndefinedBehaviorSanitizer. SANITIZE=all builds every folder so.
set -euo pipefail
cd "$(dirname "$0")/.."
build=build/sanitize
[ -f "$build/build.ninja" ] ||
  cmake -S . -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=RelWithDebInfo -DDISTORCH_SANITIZE=ON >/dev/null
folders=(formats tokenizers media)
if [ "${SANITIZE:-}" = all ]; then
  ninja -C "$build"
  ctest --test-dir "$build" --output-on-failure
  exit
fi
ninja -C "$build" "${folders[@]/%/_test}"
pattern=$(IFS='|'; echo "^(${folders[*]})\$")
ctest --test-dir "$build" --output-on-failure -R "$pattern"
