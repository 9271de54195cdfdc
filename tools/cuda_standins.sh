#!/usr/bin/env bash
# Lets Python import the CUDA build of torch without NVIDIA's libraries (about 3 GB), on a machine that has no GPU to use
# them: one small library under all their names defines every function that torch links to and never calls on a CPU. A
# call ends the process. Nothing of distorch needs it; the peers of `make bench` do, and ctest's cuda_module, which loads
# libdistorch_cuda.so behind torch's CUDA library.
#   tools/cuda_standins.sh TORCH_LIB_FOLDER OUT_FOLDER      then: LD_LIBRARY_PATH=OUT_FOLDER python -c 'import torch'
set -euo pipefail
export LC_ALL=C
torch=$1
out=$2
users=("$torch"/libtorch_cuda.so "$torch"/libtorch_nvshmem.so "$torch"/libtorch_python.so)
absent='lib(cublas|cublasLt|cudnn|cufft|cufile|curand|cusparse|cusparseLt|nccl|nvshmem_host)\.so\.'
functions='^(cublas|cudnn|cufft|cuFile|cusparse|curand|nccl|nvshmem)'

mkdir -p "$out"
temporary=$(mktemp -d)
trap 'rm -rf "$temporary"' EXIT
nm -D --undefined-only "${users[@]}" | awk '{print $NF}' | sort -u | grep -E "$functions" >"$temporary/wanted"
sed 's/@.*//' "$temporary/wanted" | sort -u | sed 's/.*/void &(void) { __builtin_trap(); }/' >"$temporary/standin.c"
# The loader also asks for the version names that torch was linked with.
awk -F@ 'NF > 1 {names[$2] = names[$2] " " $1 ";"} END {for (v in names) print v " {" names[v] " };"}' \
  "$temporary/wanted" >"$temporary/versions"
cc -shared -fPIC -w -Wl,--version-script="$temporary/versions" -o "$out/standin.so" "$temporary/standin.c"
readelf -d "${users[@]}" | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p' | sort -u | grep -E "^$absent" |
  while read -r name; do ln -sf standin.so "$out/$name"; done
