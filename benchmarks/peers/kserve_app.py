"""KServe's own server with a custom model, on the V1 protocol, its logs off."""

import logging
import os
from typing import Any

import kserve
import numpy as np
from kserve.protocol.rest.multiprocess.server import RESTServerProcess
from predictor import Predictor


class Model(kserve.Model):
    def __init__(self) -> None:
        super().__init__("model")
        self._predict = Predictor()
        self.ready = True

    async def predict(self, payload: dict[str, Any], headers: Any = None, **_: Any) -> Any:
        return {"predictions": self._predict(np.asarray(payload["instances"])).tolist()}


logging.getLogger("uvicorn.access").setLevel(logging.WARNING)

if __name__ == "__main__":
    # Its supervisor kills a worker that has not started within 5 s, which on a busy machine is all.
    RESTServerProcess.is_alive.__defaults__ = (60,)
    kserve.ModelServer(
        http_port=int(os.environ["BENCH_PORT"]),
        workers=2,
        enable_grpc=False,
        enable_latency_logging=False,
    ).start([Model()])
