#!/usr/bin/env bash
# Loads the module behind torch's CUDA library with every function bound, as the program does where there is a driver, on a
# machine that has none: stand-ins take the place of NVIDIA's libraries.
#   cuda_module_loads.sh TORCH_LIB_FOLDER MODULE
set -euo pipefail
here=$(dirname "$0")
standins=$(mktemp -d)
trap 'rm -rf "$standins"' EXIT
"$here/../../tools/cuda_standins.sh" "$1" "$standins"
LD_LIBRARY_PATH=$standins python3 - "$1/libtorch_cuda.so" "$2" <<'PYTHON'
import ctypes, os, sys
ctypes.CDLL(sys.argv[1], os.RTLD_NOW | os.RTLD_GLOBAL)
function = ctypes.CDLL(sys.argv[2], os.RTLD_NOW | os.RTLD_LOCAL).distorch_cuda_module
function.restype = ctypes.c_void_p
entry = function()
print("interface", ctypes.c_int.from_address(entry).value, "torch", ctypes.c_char_p.from_address(entry + 8).value.decode())
PYTHON
