#!/usr/bin/env bash
# Every fuzz target for FUZZ_SECONDS (default 60) each; a crash leaves its input in build/fuzz/crashes/.
set -euo pipefail
cd "$(dirname "$0")/.."
tools/setup.sh clang >/dev/null
tools/setup.sh "libclang-rt-$(clang -dumpversion | cut -d. -f1)-dev" >/dev/null
build=build/fuzz
[ -f "$build/build.ninja" ] ||
  cmake -S . -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=RelWithDebInfo -DCMAKE_CXX_COMPILER=clang++ \
    -DDISTORCH_FUZZ=ON -DDISTORCH_SANITIZE=address,undefined >/dev/null
ninja -C "$build" fuzzers
mkdir -p "$build/crashes"
for program in "$build"/bin/*_fuzz; do
  name=$(basename "$program")
  corpus="$build/corpus/$name"
  mkdir -p "$corpus"
  printf '== %s\n' "$name"
  "$program" -max_total_time="${FUZZ_SECONDS:-60}" -rss_limit_mb=2048 -print_final_stats=0 \
    -artifact_prefix="$build/crashes/$name-" "$corpus" 2>&1 | tail -n 3
done
