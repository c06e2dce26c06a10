"""`python -m skserve serve`, `train` or `selftest`: the words that it is started with."""

from __future__ import annotations

import argparse
import atexit
import gc
import os
import signal
import sys
import traceback
from collections.abc import Mapping, MutableMapping, Sequence
from pathlib import Path
from typing import NoReturn

# Process 1 never gets a signal that it neither handles nor blocks: `train` takes it up later.
if sys.argv[1:2] == ["train"]:
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})

from skserve.config import NATIVE_THREADS, Config
from skserve.errors import StartError


def main(argv: Sequence[str], environ: MutableMapping[str, str]) -> int:
    """Run one word and return the exit status."""
    parser = argparse.ArgumentParser(
        prog="skserve", description="Train and serve scikit-learn models."
    )
    words = parser.add_subparsers(dest="word", required=True, metavar="serve|train|selftest")
    serve = words.add_parser("serve", help="answer /ping and /invocations")
    serve.add_argument("--model-dir", type=Path, help="folder of the model (default /opt/ml/model)")
    serve.add_argument("--port", type=int, help="port to listen on (default 8080)")
    selftest = words.add_parser("selftest", help="serve a model and walk the contract from outside")
    selftest.add_argument("--model-dir", type=Path, help="folder of the model")
    selftest.add_argument("--json", action="store_true", help="print JSON instead of a table")
    selftest.add_argument("--rows", type=Path, help="a body that the model takes")
    selftest.add_argument("--expect", type=Path, help="the answer to those rows")
    selftest.add_argument("--multi-model", action="store_true", help="call it among many, too")
    selftest.add_argument("--seconds", type=float, default=2.0, help="of each load (default 2)")
    words.add_parser("train", help="run the training job below /opt/ml")
    words.add_parser("fit")  # what train runs as its child where there is no script
    given = parser.parse_args(argv)
    try:
        if given.word in ("train", "fit"):
            return _train(given.word, environ)
        config = Config.from_env(
            environ, model_dir=given.model_dir, port=getattr(given, "port", None)
        )
        started_with = dict(environ)  # what the selftest's own server is to be started with
        # Before numpy is imported: its libraries read these once. See `server` for why one.
        environ.update(dict.fromkeys(NATIVE_THREADS, "1"))
        environ.setdefault("SM_MODEL_DIR", str(config.model_dir))  # AWS's scripts read it
        if os.geteuid() == 0 and config.user != "root":
            environ["HOME"] = "/tmp"  # root is given up before anything is read
        if given.word == "selftest":
            return _selftest(given, config, started_with)
        gc.disable()  # what is imported stays: to look for garbage among it takes 0.1 s of a start
        from skserve.serving import server

        server.serve(config)
    except StartError as error:
        print(f"skserve: {error}", file=sys.__stderr__)  # no line of the log
        return 2 if given.word == "selftest" else 1


def _train(word: str, environ: MutableMapping[str, str]) -> int:
    from skserve.training import supervise

    try:
        config = Config.from_env(environ)
    except StartError as error:  # SageMaker's users see the failure file, not this process's stderr
        return supervise.refuse(str(error))
    if word == "train":
        return supervise.train(config, environ)
    from skserve.training import fit  # it will import scikit-learn, which the parent never needs

    return fit.fit(config)


def _selftest(given: argparse.Namespace, config: Config, environ: Mapping[str, str]) -> int:
    from skserve.selftest import run
    from skserve.selftest.walk import Given

    asked = Given(config.model_dir, given.rows, given.expect, given.multi_model, given.seconds)
    return run.run(asked, config, environ, given.json)


def end(status: int) -> NoReturn:
    """End the process now: Python itself would wait for every thread that a script has left."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    try:
        end(main(sys.argv[1:], os.environ))
    except SystemExit as ending:  # gunicorn's master and workers, in order
        atexit._run_exitfuncs()
        end(ending.code if isinstance(ending.code, int) else int(ending.code is not None))
    except BaseException:
        traceback.print_exc()
        end(1)
