#!/usr/bin/env bash
# Runs every benchmark program; each writes <folder>/<name>.json, a list of {name, ours, peer, unit, ratio}. Says at the end
# what failed and what was left out. Those for GPUs have a script of their own (bench/gpu/).
#   tools/bench.sh [BUILD_FOLDER]
set -euo pipefail
cd "$(dirname "$0")/.."
build=${1:-build/release}
out=build/bench
mkdir -p "$out"
failed=()
left_out=()
for program in "$build"/bin/bench_*; do
  name=$(basename "$program")
  case $name in bench_gpu_*) continue ;; esac
  [ -x "$program" ] || continue
  printf '\n== %s\n' "$name"
  "$program" --out "$out" || failed+=("$name")
done
# The page is loaded in a browser where tools/setup_browser.sh installed one. COMFYUI=.../main.py with COMFYUI_PYTHON=... is the
# server beside ours.
printf '\n== server_load\n'
python=.deps/browser/bin/python
[ -x "$python" ] || python=python3
peer=()
[ -n "${COMFYUI:-}" ] && peer=(--peer "${COMFYUI_PYTHON:-python3}" --peer-main "$COMFYUI")
"$python" bench/server_load.py --ours "$build/bin/distorch" --out "$out" "${peer[@]}" || failed+=(server_load)
code=0
tools/bench_peers.sh "$build" "$out" || code=$?
case $code in
  0) ;;
  3) left_out+=("peers (why: above)") ;;
  *) failed+=(peers) ;;
esac

printf '\nbench: results are in %s/*.json\n' "$out"
for what in "${left_out[@]}"; do echo "bench: left out: $what"; done
[ ${#failed[@]} -eq 0 ] && exit
printf 'bench: failed: %s\n' "${failed[*]}" >&2
exit 1
