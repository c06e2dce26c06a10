#!/usr/bin/env bash
# Build the image, push it where SageMaker can use it, and look at what arrived.
#
# usage: build_and_push.sh [options] [-- docker build options]
#   --platform linux/amd64|linux/arm64   default linux/amd64; arm64 is for Graviton instances only
#   --repository NAME                    default skserve
#   --account ID  --region R  --profile P   of ECR; default: those of the credentials
#   --registry HOST[:PORT]               any other registry, instead of ECR
#   --keep N                             a new ECR repository keeps the newest N images, and all
#                                        that models of this account and region are pinned to
#   --kms-key KEY                        encrypts a new ECR repository
#   --repository-tag KEY=VALUE           a tag of the ECR repository; may be given again
#   --share ACCOUNT                      another account that may pull from ECR; may be given again
#   --tag TAG                            instead of VERSION-COMMIT
#   --dry-run                            say what would be done
# Example: build_and_push.sh --region eu-west-1 -- --build-arg SKLEARN=1.5
#
# stdout is the image's URI by digest and nothing else, so this works:
#   python deploy.py --image "$(./build_and_push.sh)"
# PYTHON names the Python to use, which has requirements/deploy.txt installed; default python3.
# Exit codes: 0 done, 1 failed, 2 wrong usage, 3 SageMaker would refuse the image.
set -Eeuo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")"

usage() {
  sed -n '2,/^set /{ /^#/ s/^# \{0,1\}//p; }' "${BASH_SOURCE[0]##*/}" >&2
  exit 2
}

say() { echo "$*" >&2; }

# A reason and a way out; the exit code comes first.
fail() {
  local code=$1
  shift
  say "error: $1"
  [[ -z ${2-} ]] || say "way out: $2"
  exit "$code"
}

platform=linux/amd64 repository=skserve registry='' tag='' dry_run='' account=''
aws=() with=() build=()
while (($#)); do
  case $1 in
    --platform | --repository | --registry | --tag | --account | --region | --profile | \
      --keep | --kms-key | --repository-tag | --share)
      (($# > 1)) || usage
      case $1 in
        --platform) platform=$2 ;;
        --repository) repository=$2 ;;
        --registry) registry=$2 ;;
        --tag) tag=$2 ;;
        --account) account=$2 aws+=("$1" "$2") ;;
        --region | --profile) aws+=("$1" "$2") ;;
        --keep | --kms-key | --repository-tag | --share) with+=("$1" "$2") ;;
      esac
      shift 2
      ;;
    --dry-run) dry_run=yes && shift ;;
    --) shift && build=("$@") && break ;;
    *) usage ;;
  esac
done
[[ $platform == linux/amd64 || $platform == linux/arm64 ]] || usage
[[ -z $account || $account =~ ^[0-9]{12}$ ]] || fail 2 "--account $account is not twelve digits"
[[ -z $registry || ${#with[@]} == 0 ]] ||
  fail 2 "${with[0]} is for a repository in ECR, and --registry names another registry"
architecture=${platform#linux/}
python=${PYTHON:-python3}
"$python" -c 'import boto3, click' 2>/dev/null ||
  fail 2 "$python lacks what this script needs" "pip install --require-hashes -r requirements/deploy.txt"

registry_words() { "$python" -m deployment.registry "${aws[@]}" "$@"; }

# What goes into the image, for a name that changes with it even before it is committed.
content() {
  if git rev-parse --git-dir >/dev/null 2>&1; then
    git ls-files -z --cached --others --exclude-standard -- container requirements Dockerfile .dockerignore
  else
    find container requirements Dockerfile .dockerignore -type f -not -name '*.pyc' -print0
  fi | sort -z | while IFS= read -r -d '' file; do
    [[ ! -f $file ]] || sha256sum -- "$file"
  done | sha256sum | cut -c 1-12
}

version=$(sed -n 's/^version = "\(.*\)"$/\1/p' pyproject.toml | head -n 1)
commit=$(git rev-parse --short=12 --verify --quiet HEAD 2>/dev/null || echo nocommit)
dirty=''
if [[ $commit == nocommit ]] ||
  [[ -n $(git status --porcelain -- container requirements Dockerfile .dockerignore) ]]; then
  dirty=-$(content)
fi
# Build options and the platform make another image of the same files.
variant=''
[[ $architecture == amd64 ]] || variant=-$architecture
[[ ${#build[@]} == 0 ]] || variant+=-$(printf '%s\0' "${build[@]}" | sha256sum | cut -c 1-6)
tag=${tag:-${version:-0}-$commit$dirty$variant}
[[ $tag =~ ^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$ ]] || fail 2 "$tag is no tag"

# One process opens ECR: it makes the repository, looks for the tag and logs Docker in, so that
# credentials with MFA ask for one code. That costs seconds, and fails before minutes of building.
ecr='' held=''
if [[ -z $registry ]]; then
  ecr=yes
  if [[ -n $dry_run ]]; then
    registry=$(registry_words host)
  else
    opened=$(registry_words open "$repository" "$tag" --architecture "$architecture" "${with[@]}") || exit $?
    { read -r registry && read -r held; } <<<"$opened" || true
  fi
fi
reference=$registry/$repository:$tag

# Print the URI by digest of what the registry holds, if it holds it; refuse what is no good.
verified() {
  local digest
  digest=$(registry_words verify "$reference" --architecture "$architecture") || exit $?
  [[ -z $digest ]] || echo "$registry/$repository@$digest"
}

# One image, Docker's own manifest, no attestations: SageMaker takes no OCI manifest and no index.
# The classic builder makes nothing else. BuildKit must be told, and hands the image to the engine.
build_image() {
  local arguments=(
    --platform "$platform" --tag "$reference"
    --build-arg "VERSION=${version:-dev}" --build-arg "REVISION=$commit$dirty" "${build[@]}" .
  )
  if docker buildx version >/dev/null 2>&1; then
    run docker buildx build --provenance=false --sbom=false \
      --output "type=docker,name=$reference,oci-mediatypes=false" "${arguments[@]}"
  else
    run env DOCKER_BUILDKIT=0 docker build "${arguments[@]}"
  fi
}

# Talk goes to stderr, whatever a program thinks.
run() {
  say "+ $*"
  [[ -n $dry_run ]] || "$@" >&2
}

# Looked at before the push: an immutable tag that holds the wrong image is taken for good.
check_local() {
  local found
  found=$(docker image inspect --format '{{.Architecture}}' "$reference")
  [[ $found == "$architecture" ]] || fail 3 \
    "the image built is linux/$found, not $platform; on SageMaker it would end with 'exec format error'" \
    "the base image here may be for linux/$found: docker pull --platform $platform BASE, or build on such a machine"
}

if [[ -z $dry_run ]]; then
  if [[ -n $ecr ]]; then
    uri=${held:+$registry/$repository@$held}
  else
    uri=$(verified) || exit $?
  fi
  if [[ -n $uri ]]; then
    say "$reference exists and is good; nothing is built or pushed"
    echo "$uri"
    exit 0
  fi
elif [[ -n $ecr ]]; then
  say "+ make the repository $repository if it is missing (scan on push, immutable tags)"
  say "+ docker login --username AWS $registry"
fi

build_image
[[ -n $dry_run ]] || check_local
run docker push "$reference"
if [[ -n $dry_run ]]; then
  say "+ verify $reference: Docker v2 manifest, linux/$architecture"
  exit 0
fi
# What is in the image, beside the release: copied, because another platform's image may not run.
mkdir -p build
made=$(docker create --platform "$platform" "$reference" serve)
docker cp --quiet "$made:/opt/skserve/sbom.json" "build/sbom-$tag.json" >&2 ||
  say "the image has no sbom.json"
docker rm "$made" >/dev/null
uri=$(verified) || exit $?
[[ -n $uri ]] || fail 1 "$reference was pushed, and the registry does not have it"
say "pushed and verified: $reference"
echo "$uri"
