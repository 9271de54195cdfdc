#!/usr/bin/env bash
# Tests under sanitizers, built without optimising much: each kind in a folder of its own.
#   tools/sanitize.sh                          both kinds, each over the folders below (CI runs a part: .ci/run)
#   tools/sanitize.sh address [folder...]      AddressSanitizer and UndefinedBehaviorSanitizer
#   tools/sanitize.sh thread [folder...]       ThreadSanitizer
# Memory is looked at where files of strangers are read and where bytes are moved, threads where there are some; other folders on request.
set -euo pipefail
cd "$(dirname "$0")/.."
address_folders=(formats tokenizers media quant weights device streaming server)
thread_folders=(device weights streaming)

# Threads that wait for work sleep. Of what may fail in a prompt every seventh thing does (tests/support/poison.h).
export OMP_WAIT_POLICY=passive DISTORCH_POISON_STRIDE=7

run() {  # <kind> <sanitizers> <folders...>
  local build=build/sanitize-$1 sanitizers=$2
  shift 2
  [ -f "$build/build.ninja" ] ||
    cmake -S . -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=None -DCMAKE_CXX_FLAGS="-O1 -g1 -DNDEBUG" \
      "-DDISTORCH_SANITIZE=$sanitizers" >/dev/null
  local folders=()
  for folder in "$@"; do
    [ -d "tests/$folder" ] && folders+=("$folder")
  done
  ninja -C "$build" "${folders[@]/%/_test}"
  local pattern
  pattern=$(IFS='|'; echo "^(${folders[*]})(_any_device)?\$")
  ctest --test-dir "$build" --output-on-failure -R "$pattern"
}

# tools/lsan.supp says what is never freed on purpose.
address() {
  LSAN_OPTIONS="suppressions=$PWD/tools/lsan.supp:print_suppressions=0" run address address,undefined "$@"
}

# Not formats: its tests cut files short under their mappings, and the sanitizer keeps SIGBUS from the handler.
# OpenMP's own waiting is invisible to the sanitizer, so its threads stay away; libtorch is not built with it, so
# only what our code does is looked at (tools/tsan.supp says what has to be left out all the same).
thread() {
  OMP_NUM_THREADS=1 TSAN_OPTIONS="ignore_noninstrumented_modules=1 halt_on_error=0 suppressions=$PWD/tools/tsan.supp" \
    run thread thread "$@"
}

case "${1:-}" in
  address | thread)
    kind=$1
    shift
    if [ "$kind" = address ]; then address "${@:-${address_folders[@]}}"; else thread "${@:-${thread_folders[@]}}"; fi
    ;;
  "")
    address "${address_folders[@]}"
    thread "${thread_folders[@]}"
    ;;
  *)
    echo "usage: tools/sanitize.sh [address|thread [folder...]]" >&2
    exit 2
    ;;
esac
