#!/bin/sh
# Builds one preset of CMakePresets.json: tools/build.sh release|debug|asan [jobs]
#
# `release` goes into flashpoint/ itself. The others must not overwrite it, so they get a stage: links to
# this tree's Python packages beside their own extension module, to be put first on sys.path.
set -eu
cd "$(dirname "$0")/.."
preset=$1
dir=build/$preset

log=$(mktemp)
trap 'rm -f "$log"' EXIT
if [ ! -f "$dir/build.ninja" ]; then
  cmake --preset "$preset" > "$log" 2>&1 || { cat "$log" >&2; exit 1; }
fi
cmake --build --preset "$preset" --parallel "${2:-2}"

if [ "$preset" != release ]; then
  stage=$dir/stage
  mkdir -p "$stage/flashpoint"
  for name in tools benchmarks; do ln -sfn "$PWD/$name" "$stage/$name"; done
  for file in flashpoint/*; do
    case $file in
      *.so | */__pycache__) ;;
      *) ln -sfn "$PWD/$file" "$stage/$file" ;;
    esac
  done
fi
