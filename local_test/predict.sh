#!/usr/bin/env bash
# Send a payload to a server, a process or a container alike, and print the answer.
#
# usage: predict.sh PAYLOAD [ACCEPT [URL]]     the content type follows from the payload's name
set -Eeuo pipefail

if [[ $# -lt 1 || $# -gt 3 || ! -f ${1:-} ]]; then
  echo "usage: predict.sh PAYLOAD [ACCEPT [URL]]" >&2
  exit 1
fi
case $1 in
  *.csv) type=text/csv ;;
  *.json) type=application/json ;;
  *.jsonl) type=application/jsonlines ;;
  *.npy) type=application/x-npy ;;
  *) echo "predict.sh: $1 ends in none of .csv .json .jsonl .npy" >&2; exit 1 ;;
esac

curl --silent --show-error --fail-with-body --max-time 70 \
  -H "Content-Type: $type" -H "Accept: ${2:-application/json}" \
  --data-binary "@$1" "${3:-http://127.0.0.1:8080}/invocations"
