#!/usr/bin/env bash
# Include order, then clang-tidy over the sources of distorch/ (the checks of .clang-tidy). The folders without
# libtorch are looked at whole; of the others the files changed since the last landing, because ATen's headers take
# clang-tidy some twenty seconds a file. LINT=all looks at everything.
set -euo pipefail
cd "$(dirname "$0")/.."
python3 tools/check_layers.py
tools/setup.sh clang clang-tidy >/dev/null
build=build/lint
[ -f "$build/compile_commands.json" ] ||
  cmake -S . -B "$build" -G Ninja -DCMAKE_CXX_COMPILER=clang++ -DCMAKE_DISABLE_PRECOMPILE_HEADERS=ON >/dev/null
plain=(base formats graph placement tokenizers media)
mapfile -t files < <(for folder in "${plain[@]}"; do git ls-files "distorch/$folder/*.cpp"; done)
if [ "${LINT:-}" = all ]; then
  mapfile -t files < <(git ls-files 'distorch/*.cpp')
fi
printf '%s\n' "${files[@]}" | xargs -P "$(nproc)" -n 4 clang-tidy -p "$build" --quiet 2>/dev/null
echo "lint: ${#files[@]} files are clean"
