#!/usr/bin/env bash
# python.sh NAME SCRIPT [ARGUMENT...]: runs a test's script with the Python that tools/setup_*.sh installed into .deps/NAME, or
# with the system's where that is not there; the script then says what is missing. Looked up when the test runs: the build may
# have been configured before.
set -euo pipefail
python=$(dirname "$0")/../../.deps/$1/bin/python
[ -x "$python" ] || python=python3
shift
exec "$python" "$@"
