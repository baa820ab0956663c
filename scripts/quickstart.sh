#!/usr/bin/env bash
# From a checkout to a first model: installs seqtext into .venv, trains a tagger on the embedded sample, scores it and
# tags a sentence. Needs Python 3.11 or newer; another than python3 with PYTHON=/path/to/python scripts/quickstart.sh.
set -euo pipefail

source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
environment
cd "$root"
seqtext() {
  echo "\$ .venv/bin/seqtext $*" >&2
  "$venv/bin/python" -m seqtext "$@"
}

run=runs/quickstart
rm -rf "$run"
seqtext train ner --out "$run"
seqtext evaluate "$run"
echo "Angela Merkel flew from Berlin to Washington ." | seqtext predict "$run" -
echo "next: source .venv/bin/activate, and the seqtext command is at hand" >&2
