#!/usr/bin/env bash
# clang-format of one pinned version over all sources: --fix rewrites, --check fails where something would change.
set -euo pipefail
cd "$(dirname "$0")/.."
version=18.1.8
tool=.deps/format/bin/clang-format
if [ ! -x "$tool" ] || ! "$tool" --version | grep -q "$version"; then
  rm -rf .deps/format
  python3 -m venv .deps/format
  .deps/format/bin/python -m pip --disable-pip-version-check -q install "clang-format==$version"
fi
mapfile -t files < <(git ls-files --cached --others --exclude-standard '*.h' '*.cpp')
case "${1:---check}" in
  --fix) "$tool" -i "${files[@]}" ;;
  --check) "$tool" --dry-run -Werror "${files[@]}" && echo "format: ${#files[@]} files are as clang-format $version wants them" ;;
  *) echo "usage: tools/format.sh --fix | --check" >&2; exit 2 ;;
esac
