#!/usr/bin/env bash
# Include order, then clang-tidy (the checks of .clang-tidy) over the folders of distorch/ without libtorch, whose headers take it some
# twenty seconds a file; LINT=all looks at everything. Files are read in the company in which they are compiled (cmake/unity.py).
set -euo pipefail
cd "$(dirname "$0")/.."
python3 tools/check_layers.py
tools/setup.sh clang clang-tidy >/dev/null
build=build/lint
cmake -S . -B "$build" -G Ninja -DCMAKE_CXX_COMPILER=clang++ -DCMAKE_DISABLE_PRECOMPILE_HEADERS=ON >/dev/null
plain=(base formats graph placement tokenizers media)
[ "${LINT:-}" != all ] || mapfile -t plain < <(cd distorch && printf '%s\n' */ | tr -d /)
mapfile -t files < <(python3 - "$build/compile_commands.json" "${plain[@]}" <<'END'
import json
import sys

for entry in json.load(open(sys.argv[1])):
    if any(f"/distorch_{folder}.dir/" in entry["command"] for folder in sys.argv[2:]):
        print(entry["file"])
END
)
printf '%s\n' "${files[@]}" | xargs -P "$(nproc)" -n 1 clang-tidy -p "$build" --quiet 2>/dev/null
echo "lint: ${plain[*]} are clean"
