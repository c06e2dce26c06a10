"""Do on this machine what SageMaker's batch transform does with files.

The model is served by the image as batch transform would, or is a server that runs already; what is
done with the files is in cloud/batch_files.py, which the local cloud's transform jobs use, too.

Python's standard library is all that is needed. Run as: python3 -m local_test.batch
"""

from __future__ import annotations

import argparse
import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from local_test.cloud.batch_files import MB, Job, Options, Plan
from local_test.cloud.batch_server import Failed, Server


@contextlib.contextmanager
def serving(model: str, options: argparse.Namespace) -> Iterator[str]:
    """Yield the URL of a server of `model`: a folder for the image, or a URL already."""
    if model.startswith("http://"):
        yield model
        return
    if not Path(model).is_dir():
        raise Failed(f"{model} is neither a folder nor an http:// URL.")
    environ = ["SAGEMAKER_BATCH=true", *options.env]
    if options.payload_mb is not None:
        environ.append(f"SAGEMAKER_MAX_PAYLOAD_IN_MB={int(options.payload_mb)}")
    if options.concurrent:
        environ.append(f"SAGEMAKER_MAX_CONCURRENT_TRANSFORMS={options.concurrent}")
    if options.single:
        environ.append("SAGEMAKER_BATCH_STRATEGY=SINGLE_RECORD")
    command = ["docker", "run", "--detach", "--read-only", "--tmpfs", "/tmp"]
    command += [
        "--publish",
        "127.0.0.1::8080",
        "--volume",
        f"{Path(model).resolve()}:/opt/ml/model:ro",
    ]
    command += [word for one in environ for word in ("--env", one)]
    name = run([*command, options.image, "serve"])
    try:
        yield "http://" + run(["docker", "port", name, "8080"]).splitlines()[0]
    except Failed:
        subprocess.run(["docker", "logs", "--tail", "3", name], stdout=sys.stderr, check=False)
        raise
    finally:
        subprocess.run(["docker", "rm", "--force", name], capture_output=True, check=False)


def run(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Failed(done.stderr.strip())
    return done.stdout.strip()


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="batch_local.sh", description=__doc__.split("\n\n")[0])
    add = parser.add_argument
    add("model", help="a folder for the image to serve, or the http:// URL of a server")
    add("inputs", nargs="+", type=Path, metavar="INPUT", help="files; NAME gives NAME.out")
    add("output", type=Path, metavar="OUTPUT_FOLDER")
    add("--image", default="skserve:1.9")
    add("--env", action="append", default=[], metavar="NAME=VALUE", help="for the container")
    add("--content-type", help="of the input; known by its name otherwise")
    add("--accept", help="of the output; that of the input otherwise")
    add("--join", action="store_true", help="put each record before its answer")
    add("--single", action="store_true", help="one record a call (SingleRecord)")
    add("--payload-mb", type=float, help="largest mini-batch; 0 sends whole files in chunks")
    add("--concurrent", type=int, help="calls at once (MaxConcurrentTransforms)")
    add("--input-filter", default="$", help="a JSONPath: what of a record the model gets")
    add("--output-filter", default="$", help="a JSONPath: what of an answer is kept")
    add("--retries", type=int, default=3)
    add("--timeout", type=float, default=600, help="seconds a call may take")
    options = parser.parse_args(argv)
    wanted = Options(
        options.content_type, options.accept, join=options.join, single=options.single,
        payload_mb=options.payload_mb, concurrent=options.concurrent, retries=options.retries,
        timeout=options.timeout, input_filter=options.input_filter,
        output_filter=options.output_filter,
    )  # fmt: skip
    try:
        options.output.mkdir(parents=True, exist_ok=True)
        with serving(options.model, options) as url:
            server = Server(url, options.timeout)
            server.wait()
            plan = Plan.of(server, wanted)
            payload = f"{plan.payload / MB:g} MB" if plan.payload else "whole files in chunks"
            print(f"{plan.concurrent} calls at once, {payload}", file=sys.stderr)
            job = Job(server, plan, wanted, sum(path.stat().st_size for path in options.inputs))
            for path in options.inputs:
                job.transform(path, options.output / (path.name + ".out"))
            print(job.progress.summary(len(options.inputs)), file=sys.stderr)
    except (Failed, OSError, ValueError) as error:
        print(f"batch_local.sh: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
