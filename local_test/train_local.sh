#!/usr/bin/env bash
# Run a training job from the image, as SageMaker would: a folder laid out like /opt/ml in, the
# model and the report in the same folder out.
#
# usage: train_local.sh FOLDER [IMAGE [DOCKER OPTION...]]     local_test/test_dir is such a folder
#
# --user       what is written belongs to you, not to root
# --stop-timeout   docker stop waits 120 s, as SageMaker does, for a model to be saved
set -Eeuo pipefail

if [[ $# -lt 1 || ! -d ${1:-}/input ]]; then
  echo "usage: train_local.sh FOLDER [IMAGE [DOCKER OPTION...]]   FOLDER/input must exist" >&2
  exit 1
fi
folder=$(cd "$1" && pwd)

exec docker run --rm --stop-timeout 120 --user "$(id -u):$(id -g)" \
  -v "$folder:/opt/ml" "${@:3}" "${2:-skserve:1.9}" train
