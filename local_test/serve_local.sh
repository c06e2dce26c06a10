#!/usr/bin/env bash
# Serve a model folder from the image, as SageMaker would, on a port of this machine.
#
# usage: serve_local.sh [--exec] MODEL_FOLDER [IMAGE [PORT]]
#
# --exec      compiled packages of a requirements.txt may run: it mounts /tmp with exec
# --rm        nothing is left behind
# --read-only, --tmpfs /tmp   only /tmp is written, so only /tmp has to be writable
# -v ...:ro   the model is mounted where SageMaker unpacks it, read-only as there
set -Eeuo pipefail

tmp=/tmp
if [[ ${1:-} == --exec ]]; then
  tmp=/tmp:exec
  shift
fi
if [[ $# -lt 1 || $# -gt 3 || ! -d ${1:-} ]]; then
  echo "usage: serve_local.sh [--exec] MODEL_FOLDER [IMAGE [PORT]]" >&2
  exit 1
fi
model=$(cd "$1" && pwd)

exec docker run --rm --read-only --tmpfs "$tmp" -p "127.0.0.1:${3:-8080}:8080" \
  -v "$model:/opt/ml/model:ro" "${2:-skserve:1.9}" serve
