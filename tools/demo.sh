#!/usr/bin/env bash
# Runs the demo workflow with the demo model; its table, time per step and the path of the picture are printed.
set -euo pipefail
cd "$(dirname "$0")/.."
exec "${1:-build/release/bin/distorch}" run assets/demo/workflow.json --models assets/demo/models --output output "${@:2}"
