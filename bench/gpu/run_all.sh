#!/usr/bin/env bash
# Everything that is measured on a real accelerator, most important first, within LIMIT seconds. Nothing is compiled:
# tools/pack_gpu.sh made .gpu/ on the machine that builds. Results: $OUT (default build/gpu): gpu.md, gpu.json, log.txt, rig.yaml.
#   bench/gpu/run_all.sh            the real thing, cuda:0
#   TINY=1 bench/gpu/run_all.sh     the same steps at toy sizes on the simulated accelerator, to test this script
# With a second accelerator: allocations and streaming from its memory too; DONORS_ONLY=1 streams from there alone.
# PARTS picks some: "correct streaming opening sd15 peers compile", and further networks at full size: "sdxl flux qwen_image sd35";
# "wan hunyuan_video": networks of videos, whose steps take seconds: about 200 s each, most of it steps (fewer are timed).
# filled_flux (filled_MODEL): through the engine while another process holds all but FREE (23 20 14 8 4) GB, at SIZES (512,1024,2048) px;
# FILLED_FORM=packed does so with the model in that form of distorch convert too, at FORM_SIZES (512,1024);
# EACH=20 times so many more steps one by one and traces two (trace_filled_*.json in more.tgz).
# cards_sdxl, cards_qwen_image: positive and negative on two cards at once, against one; cards_flux: one model over two cards of CARD_FREE
# (14) GB each, which others hold the rest of. product_flux: `distorch run` on whole FLUX, cold and warm, FREE as for filled_flux.
# KERNELS=1 tells which kernels the networks' steps consist of (kernels_*.json in more.tgz), and streams nothing.
# "products" times single layers in every form of weights (PRODUCT_FORMS) and compares them with the decoded weight.
# FORMS names forms of distorch convert (int8 Q8_0 ...) in which the networks run as well.
# COMPILE names the network that torch.compile is timed on (sd15).
cd "$(dirname "$0")/../.." || exit 1
LIMIT=${LIMIT:-540}
PARTS=${PARTS:-correct streaming opening sd15 peers compile}
OUT=${OUT:-build/gpu}
WORK=${WORK:-/tmp/distorch_gpu}
HERE=bench/gpu
BIN=${BIN:-.gpu/bin}
PYTHON=${PYTHON:-python3}
mkdir -p "$OUT" "$WORK"
OUT=$(realpath "$OUT")
LOG=$OUT/log.txt
: >"$LOG"

if compgen -G ".whl/*.whl" >/dev/null && [ -z "${TINY:-}" ]; then
  $PYTHON -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --upgrade --target /tmp/site .whl/*.whl 2>&1 | tee -a "$LOG"
  export PYTHONPATH=/tmp/site
fi
TORCH=$($PYTHON -c 'import os, torch; print(os.path.dirname(torch.__file__))')
export PYTHONUNBUFFERED=1 XDG_CACHE_HOME=$WORK/cache
if [ -n "${TINY:-}" ]; then
  DEVICE=sim:0
  OURS=(--tiny 1 --rig rigs/h200.yaml --budget 20e6)
  THEIRS=(--tiny --device cpu)
  PICTURES=(--rig rigs/h200.yaml --jobs 1 --limit 200)
  FOLDERS=("$WORK")
else
  DEVICE=cuda:0 OURS=() THEIRS=() PICTURES=()
  FOLDERS=(/dev/shm /tmp)
fi

TOKENIZERS=.gpu/tokenizers
[ -d "$TOKENIZERS" ] || TOKENIZERS=.deps/tokenizers/clip

say() { printf '\n== %s (at %d s)\n' "$*" "$SECONDS" | tee -a "$LOG"; }
wants() { case " $PARTS " in *" $1 "*) return 0 ;; esac; return 1; }
# try LIMIT COMMAND...: at most that long and never beyond the end of the whole; a failure is told and does not stop the rest.
try() {
  local seconds=$1 left=$((LIMIT - 12 - SECONDS))
  shift
  [ "$seconds" -gt "$left" ] && seconds=$left
  if [ "$seconds" -lt 5 ]; then echo "no time left for: $*" | tee -a "$LOG"; return 1; fi
  timeout -k 5 "$seconds" "$@" >>"$LOG" 2>&1
  local code=$?
  [ $code -ne 0 ] && echo "FAILED ($code) after $SECONDS s: ${*:1:3}" | tee -a "$LOG"
  return $code
}
ours() { local seconds=$1 name=$2; shift 2; try "$seconds" env LD_LIBRARY_PATH="$TORCH/lib:$PWD/.gpu/lib" "$BIN/$name" "$@"; }
# pictures LABEL SECONDS OPTIONS...: one workflow in every allocation mode
pictures() {
  local label=$1 seconds=$2
  shift 2
  rm -f "$WORK/placements_$label.json"
  try "$seconds" $PYTHON $HERE/placements.py --label "$label" --distorch "$BIN/distorch" --out "$WORK" \
    --library-path "$TORCH/lib:$PWD/.gpu/lib" --tokenizers "$TOKENIZERS" --device $DEVICE "${PICTURES[@]}" "$@"
  grep -a "^$label" "$LOG" | grep -av "equal to the resident run"
}
# network MODEL SECONDS SECONDS: diffusers' time and ours for one network
NETWORKS=${NETWORKS:-/dev/shm}
network() {
  try "$2" $PYTHON $HERE/peer_network.py "$1" "$NETWORKS/$1" ${KERNELS:+--kernels "$WORK"} "${THEIRS[@]}" && wants "$1" &&
    ours "$3" bench_gpu_network --folder "$NETWORKS/$1" --label "$1" --device $DEVICE --out "$WORK" ${BOTH:+--both "$BOTH"} ${KERNELS:+--kernels 1} "${OURS[@]}"
  mkdir -p "$WORK/$1" && cp "$NETWORKS/$1/peer.json" "$WORK/$1/"
  local form packed
  for form in ${FORMS:-}; do
    packed=$NETWORKS/$1_$form.safetensors
    case "$form" in Q*) packed=${packed%.safetensors}.gguf ;; esac
    say "$1 as $form"
    ours 120 distorch convert "$NETWORKS/$1/weights.safetensors" "$packed" --type "$form" &&
      ours "$3" bench_gpu_network --folder "$NETWORKS/$1" --weights "$packed" --form "$form" --label "$1_$form" --device $DEVICE --out "$WORK" --both 0 "${OURS[@]}"
    rm -f "$packed"
    collect
  done
  if wants "filled_$1"; then filled "$1"; fi
  if wants "cards_$1"; then cards "$1"; fi
  if wants "product_$1"; then product "$1"; fi
  [ "$1" = "${COMPILE:-sd15}" ] || rm -rf "${NETWORKS:?}/$1"
  collect
}
collect() {
  $PYTHON $HERE/summary.py "$WORK" "$OUT" >"$WORK/table.txt" 2>>"$LOG"
  [ -f "$WORK/rig.yaml" ] && cp "$WORK/rig.yaml" "$OUT/"
  (cd "$WORK" && tar -czf "$OUT/more.tgz" $(ls demo.png sd15.png streaming_facts.json calibration_*.json trace_*.json kernels_*.json 2>/dev/null))
}

if wants correct; then
  say "correctness on $DEVICE"
  export DISTORCH_TEST_DEVICE=$DEVICE DISTORCH_SOURCE_DIR=$PWD DISTORCH_TOKENIZERS=$PWD/$TOKENIZERS
  # Of the nodes only what takes its device from here; the rest of their tests is about files.
  for test in device_test streaming_test "nodes_test --test-case=any*device:*"; do
    if ours 100 $test; then grep -a "test cases:" "$LOG" | tail -1; else tail -30 "$LOG"; fi
  done
  unset DISTORCH_TEST_DEVICE DISTORCH_SOURCE_DIR DISTORCH_TOKENIZERS
  pictures demo $((${TINY:-0} ? 300 : 100)) --models assets/demo/models --checkpoint distorch-emoji-v1.safetensors
  # The demo's workflow on a model of SD 1.5's size: few steps and a small picture, for the CPU's sake.
  SIDE=${TINY:+64}
  SIDE=${SIDE:-256}
  try 60 $PYTHON $HERE/make_checkpoint.py "$WORK/models/checkpoints/sd15.safetensors" ${TINY:+--tiny} &&
    pictures sd15 150 --models "$WORK/models" --checkpoint sd15.safetensors --budget-mib 1500 --set KSampler.steps=3 \
      --set EmptyLatentImage.width=$SIDE --set EmptyLatentImage.height=$SIDE
  rm -f "$WORK/models/checkpoints/sd15.safetensors"
  collect
fi
if wants streaming || wants opening || wants ways || wants peers; then
  say "weights"
  try 90 $PYTHON $HERE/make_weights.py "${FOLDERS[@]}" ${TINY:+--tiny}
  tail -3 "$LOG"
  FILE=$(tail -1 "$LOG")
  cat "$FILE" >/dev/null # a virtual machine's pages are slow to read for the first time after they were written
fi
if wants ways; then
  say "ways of uploading"
  ours 60 bench_gpu_opening --file "$FILE" --device $DEVICE --out "$WORK" --ways 1 "${OURS[@]}"
  cp "$WORK/opening.json" "$WORK/ways.json"
  collect
fi
if wants streaming; then
  say "streaming"
  ours 330 bench_gpu_streaming --file "$FILE" --device $DEVICE --out "$WORK" --seconds ${STREAMING_SECONDS:-260} \
    ${DONORS_ONLY:+--donors-only 1} "${OURS[@]}"
  collect
fi
LINK=$($PYTHON -c "import json; print(json.load(open('$WORK/streaming_facts.json'))['link_bytes_per_s'])" 2>/dev/null || echo 55.5e9)
if wants opening; then
  say "opening"
  ours 50 bench_gpu_opening --file "$FILE" --device $DEVICE --out "$WORK" --link "$LINK" "${OURS[@]}"
  try 60 $PYTHON $HERE/peer_opening.py "$FILE" --out "$WORK" --ours "$WORK/opening.json" "${THEIRS[@]}"
  collect
fi
if wants sd15; then
  say "SD 1.5"
  network sd15 70 150
fi
# hold BYTES DEVICE: another process keeps all but so much of a card until `free_held` ends it and has seen it go.
HELD=()
FILLED_FORM=${FILLED_FORM:-}
hold() {
  local said=$WORK/held_${2/:/_} wait FD
  : >"$said"
  exec {FD}> >(exec $PYTHON $HERE/hold.py "$1" "$2" >"$said" 2>>"$LOG")
  HELD+=("$FD:$!")
  for wait in {1..120}; do [ -s "$said" ] && break; sleep 0.5; done
  echo "$2: $(cat "$said")" >>"$LOG"
}
free_held() {
  local one fd wait
  # All are told before one is waited for: a later one keeps an earlier one's end open.
  for one in "${HELD[@]}"; do
    fd=${one%:*}
    exec {fd}>&-
  done
  for one in "${HELD[@]}"; do
    for wait in {1..120}; do kill -0 "${one#*:}" 2>/dev/null || break; sleep 0.5; done
  done
  HELD=()
}
# filled MODEL: through the engine, with another process holding all but so much of the card; as FILLED_FORM too.
filled() {
  local folder=$NETWORKS/$1 sizes=${SIZES:-512,1024,2048} free packed=$NETWORKS/$1_$FILLED_FORM.safetensors
  [ -n "${TINY:-}" ] && sizes=512,1024
  local plain=(--folder "$folder" --label "$1" --device $DEVICE --out "$WORK" ${EACH:+--each "$EACH"} "${OURS[@]}")
  ours 120 bench_gpu_filled "${plain[@]}" --sizes $sizes --resident 1 || return
  # The first of two options with one name counts.
  local form=(--label "$1_$FILLED_FORM" --weights "$packed" --form "$FILLED_FORM" --sizes "${FORM_SIZES:-512,1024}" "${plain[@]}")
  if [ -n "$FILLED_FORM" ]; then
    ours 120 distorch convert "$folder/weights.safetensors" "$packed" --type "$FILLED_FORM" && ours 120 bench_gpu_filled "${form[@]}" --resident 1 || return
  fi
  for free in ${FREE:-23 20 14 8 4}; do
    say "$1 with $free GB free"
    [ -z "${TINY:-}" ] && hold "${free}e9" "$DEVICE"
    ours 100 bench_gpu_filled "${plain[@]}" --sizes $sizes
    [ -n "$FILLED_FORM" ] && ours 100 bench_gpu_filled "${form[@]}"
    free_held
    collect
  done
  rm -f "$packed"
}
# cards MODEL: on two cards.
CARDS=${CARDS:-cuda:0,cuda:1}
[ -n "${TINY:-}" ] && CARDS=sim:0,sim:1
cards() {
  local options=(--folder "$NETWORKS/$1" --label "$1" --devices "$CARDS" --out "$WORK") theirs=() card
  case "$1" in sdxl) options+=(--pooled 1280) ;; flux) options+=(--pooled 768 --tokens 512) ;; *) options+=(--tokens 512) ;; esac
  # Of the simulated machines one with two cards.
  [ -n "${TINY:-}" ] && theirs=(--rig rigs/8gpu.yaml --side 256)
  if [ "$1" != flux ]; then
    say "$1 on two cards: positive and negative at once"
    ours 200 bench_gpu_cards --mode split "${options[@]}" "${theirs[@]}"
  else
    say "$1 over two cards with ${CARD_FREE:-14} GB free each"
    if [ -z "${TINY:-}" ]; then
      for card in ${CARDS//,/ }; do hold "${CARD_FREE:-14}e9" "$card"; done
    fi
    ours 200 bench_gpu_cards --mode spread "${options[@]}" "${theirs[@]}"
    free_held
  fi
  grep -aE "predicted not to pay|a step; without" "$LOG" | tail -2
  collect
}
# product MODEL: the program itself, for each amount of free memory and with the whole card.
product() {
  local free options=()
  [ -n "${TINY:-}" ] && options=(--tiny --side 64 -- --rig rigs/h200.yaml --tokenizers "$TOKENIZERS")
  [ -z "${TINY:-}" ] && options=(-- --tokenizers "$TOKENIZERS")
  for free in all ${PRODUCT_FREE:-23 14}; do
    say "$1 through distorch run, $free GB free"
    [ -z "${TINY:-}" ] && [ "$free" != all ] && hold "${free}e9" "$DEVICE"
    try 200 env LD_LIBRARY_PATH="$TORCH/lib:$PWD/.gpu/lib" $PYTHON $HERE/product.py "$NETWORKS/$1/weights.safetensors" "$NETWORKS/product" \
      --distorch "$BIN/distorch" --out "$WORK" --label "$1_$free" "${options[@]}"
    free_held
    collect
  done
  rm -rf "${NETWORKS:?}/product"
}
for MODEL in sdxl flux qwen_image sd35 wan hunyuan_video; do
  if wants $MODEL || wants filled_$MODEL || wants cards_$MODEL || wants product_$MODEL; then
    say "$MODEL"
    network $MODEL 150 240
  fi
done
if wants products; then
  for FORM in ${PRODUCT_FORMS:-fp8 fp8_input_scale fp8_fast fp8_decoded fp8_by_row e5m2 Q8_0 Q4_K packed nvfp4 mxfp8 int8 int8_convrot decodes}; do
    say "linear layers as $FORM"
    ours 60 bench_gpu_packed_products --form "$FORM" --device $DEVICE --out "$WORK" ${KERNELS:+--kernels 1} "${OURS[@]}"
  done
  grep -aE "^(WRONG|FAILED)" "$LOG"
  collect
fi
if wants peers; then
  say "peers of streaming"
  try 130 $PYTHON $HERE/peer_streaming.py "$FILE" --out "$WORK" --facts "$WORK/streaming_facts.json" --seconds 100 "${THEIRS[@]}"
  collect
fi
if wants compile; then
  say "torch.compile"
  MODEL=${COMPILE:-sd15}
  [ -f "$NETWORKS/$MODEL/weights.safetensors" ] || try 150 $PYTHON $HERE/peer_network.py $MODEL "$NETWORKS/$MODEL" "${THEIRS[@]}"
  EACH=$(((LIMIT - SECONDS - 30) / 2)) # of each of two sizes
  [ $EACH -gt 240 ] && EACH=240
  [ $EACH -lt 30 ] && echo "no time left for: torch.compile" | tee -a "$LOG"
  [ $EACH -ge 30 ] && try $((2 * EACH + 15)) $PYTHON $HERE/peer_network.py $MODEL "$NETWORKS/$MODEL" --compile $EACH ${KERNELS:+--kernels "$WORK"} "${THEIRS[@]}"
  mkdir -p "$WORK/$MODEL" && cp "$NETWORKS/$MODEL/peer.json" "$WORK/$MODEL/"
  rm -rf "${NETWORKS:?}/$MODEL"
  grep -a "^torch.compile" "$LOG"
  collect
fi
case "${FILE:-}" in */distorch_weights.safetensors) rm -f "$FILE" ;; esac
say "done"
grep -aE "FAILED|NOT BIT|no time left|left out|did not finish" "$LOG" | grep -av "\[warning\]" | sort -u | head -20
cat "$WORK/table.txt"
