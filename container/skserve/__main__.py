"""`python -m skserve serve`, or `train`: the words that SageMaker and people start it with."""

from __future__ import annotations

import argparse
import atexit
import os
import signal
import sys
import traceback
from collections.abc import MutableMapping, Sequence
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
    words = parser.add_subparsers(dest="word", required=True, metavar="serve|train")
    serve = words.add_parser("serve", help="answer /ping and /invocations")
    serve.add_argument("--model-dir", type=Path, help="folder of the model (default /opt/ml/model)")
    serve.add_argument("--port", type=int, help="port to listen on (default 8080)")
    words.add_parser("train", help="run the training job below /opt/ml")
    words.add_parser("fit")  # what train runs as its child where there is no script
    given = parser.parse_args(argv)
    try:
        if given.word != "serve":
            return _train(given.word, environ)
        config = Config.from_env(environ, model_dir=given.model_dir, port=given.port)
        # Before numpy is imported: its libraries read these once. See `server` for why one.
        environ.update(dict.fromkeys(NATIVE_THREADS, "1"))
        environ.setdefault("SM_MODEL_DIR", str(config.model_dir))  # AWS's scripts read it
        if os.geteuid() == 0 and config.user != "root":
            environ["HOME"] = "/tmp"  # root is given up before anything is read
        from skserve.serving import server

        server.serve(config)
    except StartError as error:
        print(f"skserve: {error}", file=sys.__stderr__)  # no line of the log
        return 1


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
