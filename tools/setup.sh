#!/bin/sh
# Prepares a development environment: compiler and headers by apt, .venv with the pinned requirements.
# Costs nothing when everything is there; needs root or sudo only if a system package is missing.
#
#   tools/setup.sh          what building and testing need
#   tools/setup.sh lint     clang-tidy as well
set -eu
cd "$(dirname "$0")/.."

fail() { printf '[make setup] %s\n' "$*" >&2; exit 1; }
have() { command -v "$1" >/dev/null 2>&1; }

# A CPython 3.11 that can build: with venv, pip's bootstrap and headers.
usable() {
  "$1" - >/dev/null 2>&1 <<'PY'
import os, sys, sysconfig, ensurepip, venv
assert sys.implementation.name == "cpython" and sys.version_info[:2] == (3, 11)
assert os.path.exists(os.path.join(sysconfig.get_paths()["include"], "Python.h"))
PY
}
find_python() {
  for candidate in python3.11 python3; do
    if have "$candidate" && usable "$candidate"; then printf '%s\n' "$candidate"; return; fi
  done
}

missing=
have g++ || missing="$missing g++"
have ccache || missing="$missing ccache"
[ -f "$(cc -print-file-name=libsqlite3.a 2>/dev/null || true)" ] || missing="$missing libsqlite3-dev"
have clang-format || missing="$missing clang-format"
[ -f /usr/lib/llvm-19/lib/libLLVMOrcJIT.a ] || have llvm-config-19 || missing="$missing llvm-19-dev"
{ [ -f /usr/include/zstd.h ] && [ -f /usr/include/zlib.h ]; } || missing="$missing libzstd-dev zlib1g-dev"
have redis-server || missing="$missing redis-server"  # tests of the shared store start one
if [ "${1:-}" = lint ]; then have clang-tidy || missing="$missing clang-tidy"; fi
[ -x .venv/bin/python ] || [ -n "$(find_python)" ] || missing="$missing python3.11 python3.11-venv python3.11-dev"

if [ -n "$missing" ]; then
  have apt-get || fail "these are missing and there is no apt-get to install them:$missing"
  sudo=
  if [ "$(id -u)" != 0 ]; then
    have sudo || fail "these are missing; run as root, with sudo, or install them yourself:$missing"
    sudo=sudo
  fi
  $sudo apt-get update -qq
  # shellcheck disable=SC2086  (a list of words)
  $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing ||
    fail "apt-get could not install:$missing
Debian 12 has them all. Elsewhere install them by other means and put python3.11 on PATH."
fi

if [ ! -x .venv/bin/python ]; then
  python=$(find_python)
  [ -n "$python" ] || fail "no CPython 3.11 with venv and headers found (tried python3.11 and python3).
Flashpoint reads CPython's own frames and supports 3.11 only. Install it (Debian 12: python3.11
python3.11-venv python3.11-dev) or put it on PATH as python3.11, then run 'make setup' again."
  "$python" -m venv .venv
fi
usable .venv/bin/python || fail ".venv is not a CPython 3.11 with headers: move it away and run 'make setup' again."

# The stamp is a copy of what was installed, so that a changed pin is noticed whatever the file times are.
stamp=.venv/.requirements
if ! cmp -s requirements-dev.txt "$stamp"; then
  .venv/bin/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
  cp requirements-dev.txt "$stamp"
fi

# `import flashpoint` in .venv means this tree. An environment that several trees share (a link) is left alone.
if [ ! -L .venv ]; then
  pth=$(.venv/bin/python -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')/flashpoint-dev.pth
  [ "$(cat "$pth" 2>/dev/null)" = "$PWD" ] || pwd > "$pth"
fi
