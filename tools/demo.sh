#!/usr/bin/env bash
# Runs the demo workflow with the demo model, its UNet split over a compute device, a donor and RAM; prints the
# placement tables, the time per step and the path of the picture. Without a GPU two accelerators are simulated
# (rigs/demo.yaml): the numbers in the picture are real, only the devices are not.
set -euo pipefail
cd "$(dirname "$0")/.."
program=${1:-build/release/bin/distorch}
run=("$program" run assets/demo/workflow.json --models assets/demo/models --output output)
if "$program" devices --json --log-level error | grep -q '"kind": "cuda"'; then
  run+=(--device-map cuda:1=cuda:0)
else
  echo "demo: no GPU here, two accelerators are simulated"
  run+=(--rig rigs/demo.yaml --device-map cuda:0=sim:0 --device-map cuda:1=sim:1)
fi
# Threads that wait should sleep: this machine may be busy with a build.
picture=$(OMP_WAIT_POLICY=${OMP_WAIT_POLICY:-passive} "${run[@]}" "${@:2}" | tail -n 1)
echo "demo: the picture is $picture"
