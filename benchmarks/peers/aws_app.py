"""The serving that AWS's scikit-learn image is made of: sagemaker-containers around user functions.

The library starts nginx and gunicorn with gevent. Two things are mended as in AWS's own image and
one so that it can run beside others: Python 3.10 moved `collections.Mapping`, and nginx's
configuration goes into the folder that the environment names instead of /etc.
"""

import collections
import collections.abc
import importlib
import os
from pathlib import Path
from typing import Any

collections.Mapping = collections.abc.Mapping  # type: ignore[attr-defined]

from sagemaker_containers import _server  # type: ignore[attr-defined] # noqa: E402
from sagemaker_containers.beta.framework import (  # noqa: E402
    encoders,
    env,
    transformer,
    worker,
)

_app: Any = None


def main(environ: Any, start_response: Any) -> Any:
    """The WSGI application: made by the first request of each worker, as in AWS's container."""
    global _app
    if _app is None:
        serving = env.ServingEnv()
        script = importlib.import_module(serving.module_name)  # which it has installed
        line = transformer.Transformer(
            model_fn=script.model_fn,
            input_fn=encoders.decode,  # the image's own makes float32 of it, and other answers
            predict_fn=script.predict_fn,
            output_fn=lambda prediction, accept: worker.Response(
                encoders.encode(prediction, accept), mimetype=accept
            ),
        )
        line.initialize()
        _app = worker.Worker(  # type: ignore[attr-defined]
            transform_fn=line.transform, module_name=serving.module_name
        )
    return _app(environ, start_response)


if __name__ == "__main__":
    _server.nginx_config_file = str(Path(os.environ["SAGEMAKER_BASE_DIR"], "nginx.conf"))
    _server.start("aws_app:main")
