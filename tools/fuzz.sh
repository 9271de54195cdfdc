#!/usr/bin/env bash
# Fuzz targets, all or those that are named, for FUZZ_SECONDS (default 60) each, beginning with tests/fuzz/corpus/; a crash
# leaves its input in build/fuzz/crashes/ and is told at the end.
#   tools/fuzz.sh [NAME...]
set -euo pipefail
cd "$(dirname "$0")/.."
tools/setup.sh clang >/dev/null
tools/setup.sh "libclang-rt-$(clang -dumpversion | cut -d. -f1)-dev" >/dev/null
build=build/fuzz
# function: the module of video is another library, whose functions' types clang cannot compare.
[ -f "$build/build.ninja" ] ||
  cmake -S . -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=RelWithDebInfo -DCMAKE_CXX_COMPILER=clang++ \
    -DDISTORCH_FUZZ=ON -DDISTORCH_SANITIZE=address,undefined -DCMAKE_CXX_FLAGS=-fno-sanitize=function >/dev/null
targets=("${@/%/_fuzz}")
[ $# -gt 0 ] || targets=(fuzzers)
ninja -C "$build" "${targets[@]}"
[ $# -gt 0 ] || mapfile -t targets < <(cd "$build/bin" && ls -- *_fuzz)
mkdir -p "$build/crashes"
failed=()
for name in "${targets[@]}"; do
  corpora=("$build/corpus/$name")
  mkdir -p "${corpora[0]}"
  seeds=tests/fuzz/corpus/${name%_fuzz}
  [ -d "$seeds" ] && corpora+=("$seeds")
  printf '== %s\n' "$name"
  "$build/bin/$name" -max_total_time="${FUZZ_SECONDS:-60}" -rss_limit_mb=2048 -print_final_stats=0 \
    -artifact_prefix="$build/crashes/$name-" "${corpora[@]}" 2>&1 | tail -n "${FUZZ_LINES:-3}" || failed+=("$name")
done
[ ${#failed[@]} -eq 0 ] && exit
echo "fuzz: failed: ${failed[*]}" >&2
exit 1
