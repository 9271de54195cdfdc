#!/usr/bin/env bash
# Runs every benchmark program; each writes <folder>/<name>.json, a list of {name, ours, peer, unit, ratio}.
# Those for GPUs have a script of their own (bench/gpu/).
#   tools/bench.sh [BUILD_FOLDER]
set -euo pipefail
cd "$(dirname "$0")/.."
build=${1:-build/release}
out=build/bench
mkdir -p "$out"
status=0
for program in "$build"/bin/bench_*; do
  case $(basename "$program") in bench_gpu_*) continue ;; esac
  [ -x "$program" ] || continue
  printf '\n== %s\n' "$(basename "$program")"
  "$program" --out "$out" || { printf 'bench: %s failed\n' "$(basename "$program")" >&2; status=1; }
done
tools/bench_peers.sh "$build" "$out" || status=1
exit $status
