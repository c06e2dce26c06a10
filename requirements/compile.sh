#!/usr/bin/env bash
# Compile the .in files beside this script, those of AWS's clients in clients/ and those of the peers of
# the benchmarks, into locks: exact versions, with the hashes of every wheel.
#
# usage: compile.sh [--upgrade]
#
# Without --upgrade a version that is already locked stays, if the .in file still allows it.
# Each lock holds for all its Pythons and platforms at once; where a library has dropped an old
# Python, a line with a marker gives that Python the last version it can have.
# At the end each lock is checked: every package has a wheel for each Python named here, on both
# kinds of machine that the image is built for. Needs uv on PATH, and reaches the package index.
set -Eeuo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")"

# The Pythons of each lock. The first is the one that the versions are chosen from.
declare -A pythons=(
  [serve-1.3]="3.11 3.12"
  [serve-1.4]="3.11 3.12"
  [serve-1.5]="3.11 3.12 3.13"
  [serve-1.6]="3.11 3.12 3.13"
  [serve-1.7]="3.11 3.12 3.13 3.14"
  [serve-1.8]="3.11 3.12 3.13 3.14"
  [serve-1.9]="3.11 3.12 3.13 3.14"
  [parquet]="3.11 3.12 3.13 3.14"
  [dev]="3.11 3.12 3.13 3.14"
  [deploy]="3.11 3.12 3.13 3.14"
  [bench]="3.11 3.12 3.13 3.14"
  [fuzz]="3.11 3.12 3.13 3.14"
)
# The servers that make bench-peers measures, each in an environment of its own, from a lock in
# benchmarks/peers/requirements. They run on one Python, and some of what they need comes as source
# only, so their wheels are not checked.
peers=(aws mms mlserver mlflow bentoml litserve kserve fastapi mlcc)
# AWS's clients that the soak of `make cloud` tries, each in an environment of its own, too.
clients=(sdk-2 sdk-3 cli)
platforms=(x86_64-manylinux_2_28 aarch64-manylinux_2_28)

usage() {
  echo "usage: compile.sh [--upgrade]" >&2
  exit 1
}

compile() {
  local name=$1
  shift
  # Without this copy uv would not see which versions are locked now.
  if [[ -f $name.txt ]]; then cp "$name.txt" "$scratch/$name.txt"; fi
  uv pip compile --quiet --no-config --universal --generate-hashes --no-header \
    --python-version "${pythons[$name]%% *}" --output-file "$scratch/$name.txt" "$@" "$name.in"
  {
    echo "# Made by requirements/compile.sh from $name.in, for Python ${pythons[$name]// /, }. Do not edit."
    cat "$scratch/$name.txt"
  } >"$name.txt"
}

check_wheels() {
  local name=$1 python platform
  for python in ${pythons[$name]}; do
    for platform in "${platforms[@]}"; do
      # Offline: compiling has just read all that the index says about these packages.
      uv pip compile --offline --quiet --no-config --no-deps --only-binary :all: \
        --python-version "$python" --python-platform "$platform" "$name.txt" >/dev/null
    done
  done
}

upgrade=()
case $#:${1-} in
  0:) ;;
  1:--upgrade) upgrade=(--upgrade) ;;
  *) usage ;;
esac

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

# These last: they take the versions of serve-1.9 and parquet, and all but dev those of dev.
for name in serve-1.{3..9} parquet dev deploy bench fuzz; do
  echo "$name" >&2
  compile "$name" "${upgrade[@]}"
  check_wheels "$name"
done

cd clients
for name in "${clients[@]}"; do
  echo "$name" >&2
  pythons[$name]=3.11
  compile "$name" --no-annotate "${upgrade[@]}"
done
cd ..

# Each peer loads the model that ours loads, so what a model is made of has our versions.
grep -E '^(scikit-learn|numpy|scipy|joblib|threadpoolctl)==' serve-1.9.txt | sed 's| [\]$||' \
  >"$scratch/model.txt"
cd ../benchmarks/peers/requirements
for name in "${peers[@]}"; do
  echo "$name" >&2
  pythons[$name]=3.11
  override=()
  if [[ -f $name.override ]]; then override=(--overrides "$name.override"); fi
  compile "$name" --no-annotate --constraints "$scratch/model.txt" "${upgrade[@]}" "${override[@]}"
done
