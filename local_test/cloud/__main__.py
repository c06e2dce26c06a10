"""`python -m local_test.cloud`: start a cloud, print what leads to it, end it with Ctrl-C."""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import logging
import os
import signal
import sys
import threading
from pathlib import Path

_DOCKERLESS = (
    "{reason}, and endpoints and jobs are containers: start it, or run what needs none: `make "
    "serve MODEL=folder`, or `make cloud CLOUD=--no-containers` for everything of the account "
    "but endpoints and jobs."
)
_EXPORTS = """\
export AWS_ENDPOINT_URL=http://127.0.0.1:{port}
export AWS_DEFAULT_REGION={region}
export AWS_ACCESS_KEY_ID=local AWS_SECRET_ACCESS_KEY=local"""

_RUNS = "A local SageMaker runs until Ctrl-C; every container of it ends with it."
_NEXT = """\
Its account has the execution role skserve. Put the exports into another shell, and there:
  ./build_and_push.sh
  python deploy.py                      # endpoint.toml: the iris example, or yours
  python deploy.py invoke --data 5.1,3.5,1.4,0.2
  python deploy.py delete --yes"""

_NO_CONTAINERS = (
    "It has no containers: endpoints fail, jobs are refused, and no image can be pushed."
)


def main() -> int:
    parser = argparse.ArgumentParser(prog="make cloud", description=__doc__)
    parser.add_argument("--port", type=int, default=5099)
    parser.add_argument("--docker-port", type=int, default=5098, help="for DOCKER_HOST")
    parser.add_argument("--region", default="eu-west-1")
    parser.add_argument("--folder", type=Path, default=Path("build/cloud"), help="what is kept")
    parser.add_argument(
        "--speed", type=float, default=60, help="how much faster waits are than AWS's"
    )
    parser.add_argument(
        "--startup-seconds", type=float, default=60, help="until the first good ping"
    )
    parser.add_argument("--no-containers", action="store_true", help="no endpoints and no jobs")
    options = parser.parse_args()
    # botocore in this process must not be led to a cloud by the variables of its user.
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        del os.environ[name]
    # Nor is the engine behind the port that an earlier cloud here told this shell to use.
    if os.environ.get("DOCKER_HOST") == f"tcp://127.0.0.1:{options.docker_port}":
        del os.environ["DOCKER_HOST"]
    # Imported late: it takes a second, and --help should not.
    from .cloud import Cloud
    from .engine import Engine, EngineError
    from .speed import Speed

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    folder = options.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    lock = (folder.parent / f"{folder.name}.lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        print(f"error: another local cloud uses {folder}; give --folder", file=sys.stderr)
        return 1
    engine = None
    if not options.no_containers:
        engine = Engine(hashlib.sha256(str(folder).encode()).hexdigest()[:12])
        try:
            engine.ask("GET", "/version")
        except EngineError as error:
            print(f"error: {_DOCKERLESS.format(reason=error)}", file=sys.stderr)
            return 1
    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    cloud = Cloud(folder, options.region, Speed(options.speed, options.startup_seconds), engine)
    try:
        found = cloud.start(options.port, options.docker_port)
    except (OSError, SystemExit):  # what an earlier process left stays for the next
        print(f"error: the ports {options.port} and {options.docker_port} must be free; "
              "give others with --port and --docker-port", file=sys.stderr)  # fmt: skip
        return 1
    try:
        print(_EXPORTS.format(port=cloud.port, region=options.region))
        if engine is not None:
            print(f"export DOCKER_HOST=tcp://127.0.0.1:{cloud.docker_port}")
        if sys.prefix != sys.base_prefix:  # its Python has what the commands below need
            print(f"export PATH={sys.prefix}/bin:$PATH")
        if found:
            print("Took up what an earlier process left.", file=sys.stderr)
        sys.stdout.flush()
        print(_RUNS, _NEXT if engine else _NO_CONTAINERS, sep="\n", file=sys.stderr, flush=True)
        while not stopped.wait(3600):
            pass
        print("Removing the containers ...", file=sys.stderr, flush=True)
    finally:
        cloud.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
