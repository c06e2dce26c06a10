#!/usr/bin/env bash
# Do on this machine what batch transform does: see the top of batch.py, and docs/60-batch.md.
#
# usage: batch_local.sh [OPTION]... MODEL INPUT... OUTPUT_FOLDER     (--help lists the options)
set -Eeuo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}" exec python3 -m local_test.batch "$@"
