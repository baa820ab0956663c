# Sourced by the other scripts: makes .venv and installs seqtext there.
#
#   environment [EXTRAS]    EXTRAS such as dev,tensorboard; python then stands in "$venv/bin/python"
#
# A second call with the same pyproject.toml installs nothing and takes a moment. $PYTHON names the Python that makes
# .venv (python3 by default). Needs nothing but Python 3.11 or newer with venv and pip.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv=$root/.venv

environment() {
  local extras=${1:-} python=$venv/bin/python stamp=$venv/seqtext-installed wanted
  if [[ ! -x $python ]]; then
    _make_venv
  fi
  _check_version "$python" "remove $venv, so that it is made anew"
  wanted=$("$python" -c 'import hashlib, sys; print(hashlib.sha256(open(sys.argv[1], "rb").read()).hexdigest())' \
    "$root/pyproject.toml")
  # No extras at all are part of any others.
  if [[ -f $stamp ]] && { [[ $(<"$stamp") == "$wanted $extras" ]] ||
    [[ -z $extras && $(<"$stamp") == "$wanted "* ]]; }; then
    return
  fi
  rm -f "$stamp"
  echo "installing seqtext${extras:+[$extras]} into $venv ..." >&2
  if ! "$python" -m pip --version >/dev/null 2>&1; then
    echo "$venv has no pip: it was left half-made or comes from another tool; remove it and run this again" >&2
    exit 2
  fi
  # Torch comes first, at the release that the README's figures were measured with. Left to the range that seqtext
  # allows, pip would take the newest build of it; asked for one release, it takes that release's CPU-only build
  # wherever one is on offer, which is gigabytes smaller. Afterwards the requirement is met and pip leaves torch alone.
  if ! "$python" -c '
import torch
release = tuple(map(int, torch.__version__.split("+")[0].split(".")[:2]))
assert (2, 9) <= release < (2, 14)' 2>/dev/null; then
    _pip "$python" "torch==2.13.0"
  fi
  _pip "$python" --editable "$root${extras:+[$extras]}"
  echo "$wanted $extras" >"$stamp"
}

_make_venv() {
  local python=${PYTHON:-python3}
  if ! command -v "$python" >/dev/null; then
    echo "$python: not found; install Python 3.11 or newer, or name it: PYTHON=/path/to/python3.12 $0" >&2
    exit 2
  fi
  _check_version "$python" "name a newer one: PYTHON=/path/to/python3.12 $0"
  if ! "$python" -m venv "$venv"; then
    rm -rf "$venv"
    echo "$python could not make $venv; on Debian and Ubuntu its venv module is the package python3-venv" >&2
    exit 2
  fi
}

_check_version() {
  if ! "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    echo "$1 is $("$1" --version 2>&1), and seqtext needs Python 3.11 or newer; $2" >&2
    exit 2
  fi
}

_pip() {
  local python=$1
  shift
  "$python" -m pip install --quiet --disable-pip-version-check "$@"
}
