#!/usr/bin/env bash
# Watch a local container in the terminal: rate, errors, p50 and p99 of each stage, memory, workers.
#
# usage: watch.sh [--once] [URL]     the default URL is http://127.0.0.1:8080; Ctrl-C ends it
#
# It reads /metrics once a second. Python needs rich, which requirements/deploy.txt has.
set -Eeuo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
python=$here/../.venv/bin/python
[[ -x $python ]] || python=python3
exec "$python" "$here/watch.py" "$@"
