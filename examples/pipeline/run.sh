#!/usr/bin/env bash
# Two containers of this image as an inference pipeline: a scaler, then a classifier. The same rows
# go to one container with the whole Pipeline, and the answers are compared.
#
# usage: run.sh [IMAGE]
set -Eeuo pipefail

image=${1:-skserve:1.9}
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
chmod 755 "$work"
network=skserve-pipeline-$$

clean() {
  docker rm --force "$network"-{scaler,classifier,whole} > /dev/null 2>&1 || true
  docker network rm "$network" > /dev/null 2>&1 || true
  docker run --rm -v "$work:/work" --entrypoint sh "$image" -c 'rm -rf /work/*' || true
  rmdir "$work"
}
trap clean EXIT

# Each container is told its port, and its format where a call asks for none, as CreateModel would.
serve() {
  docker run --detach --name "$network-$1" --network "$network" --network-alias "$1" \
    --read-only --tmpfs /tmp -e "SAGEMAKER_BIND_TO_PORT=$2" \
    -e SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT=text/csv \
    -v "$work/$1:/opt/ml/model:ro" "$image" serve > /dev/null
}

# A client on the same network; nothing is published on this machine.
send() {
  docker run --rm --interactive --network "$network" -v "$here/chain.py:/chain.py:ro" \
    --entrypoint python "$image" /chain.py "$@" < "$here/rows.csv"
}

docker run --rm -v "$here/train.py:/train.py:ro" -v "$work:/out" \
  --entrypoint python "$image" /train.py /out
docker network create "$network" > /dev/null
serve scaler 8081
serve classifier 8082
serve whole 8083

chained=$(send http://scaler:8081 http://classifier:8082)
whole=$(send http://whole:8083)
echo "scaler, then classifier: ${chained//$'\n'/ }"
echo "the whole pipeline:      ${whole//$'\n'/ }"
[[ -n $chained && $chained == "$whole" ]]
