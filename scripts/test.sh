#!/usr/bin/env bash
# Installs seqtext with what its tests need into .venv and runs all tests, the slow ones too. Options go to pytest:
# scripts/test.sh -m "not slow" tests/nn
set -euo pipefail

source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
environment dev,tensorboard
cd "$root"
# One thread: the tests' models are too small for more to help, and threads that wait for each other waste the cores
# of a machine that does other work as well.
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
# A worker a core, each with whole files, whose tests share what they have trained; `-n 0` after it for none.
exec "$venv/bin/python" -m pytest -n auto --dist loadfile --no-loadscope-reorder "$@"
