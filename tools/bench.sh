#!/usr/bin/env bash
# Runs every benchmark program; each writes build/bench/<name>.json, a list of {name, ours, peer, unit, ratio}.
set -euo pipefail
cd "$(dirname "$0")/.."
build=${1:-build/release}
mkdir -p build/bench
for program in "$build"/bin/bench_*; do
  [ -x "$program" ] || continue
  printf '\n== %s\n' "$(basename "$program")"
  "$program" --out build/bench || printf 'bench: %s failed\n' "$(basename "$program")" >&2
done
tools/bench_peers.sh "$build"
