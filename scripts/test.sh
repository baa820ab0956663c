#!/usr/bin/env bash
# Installs seqtext with what its tests need into .venv and runs all tests, the slow ones too. Options go to pytest:
# scripts/test.sh -m "not slow" tests/nn
set -euo pipefail

source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
environment dev,tensorboard
cd "$root"
exec "$venv/bin/python" -m pytest "$@"
