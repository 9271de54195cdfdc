#!/usr/bin/env bash
# Collects what bench/gpu/run_all.sh needs on a machine where nothing can be built or installed: stripped programs, the libraries
# that are not torch's, the vocabulary. Result: .gpu/ (ignored by git).
#   tools/pack_gpu.sh [BUILD_FOLDER]
set -euo pipefail
cd "$(dirname "$0")/.."
build=${1:-build/release}
rm -rf .gpu
mkdir -p .gpu/bin .gpu/lib .gpu/tokenizers
programs=("$build/bin/distorch" "$build"/bin/bench_gpu_{streaming,opening,network,filled,cards,calibrate,packed_products,int8_product}
          "$build"/distorch/{device/device_test,quant/quant_test,streaming/streaming_test,nodes/nodes_test})
for program in "${programs[@]}"; do
  strip -o ".gpu/bin/$(basename "$program")" "$program"
done
# Found by the programs in lib beside their folder.
strip -o .gpu/lib/libdistorch_cuda.so "$build/lib/libdistorch_cuda.so"
cp .deps/tokenizers/clip/* .gpu/tokenizers/
for kind in t5 qwen; do
  [ ! -d ".deps/tokenizers/$kind" ] || cp -r ".deps/tokenizers/$kind" .gpu/tokenizers/
done
# Everything the programs link to, apart from torch's own libraries and those that every system has.
ldd .gpu/bin/* | awk '/=> \//{print $1, $3}' | sort -u | while read -r name path; do
  case "$name" in
    libtorch* | libc10* | libgomp* | libcud* | libcup* | libnv*) ;;
    libc.so* | libm.so* | libdl.so* | libpthread.so* | librt.so* | libutil.so* | libstdc++.so* | libgcc_s.so* | ld-linux*) ;;
    *) cp -L "$path" ".gpu/lib/$name" ;;
  esac
done
du -sh .gpu | cut -f1
ls .gpu/bin .gpu/lib
