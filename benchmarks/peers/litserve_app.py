"""LitServe: two API processes, two inference workers."""

import os
from typing import Any

import litserve
import numpy as np
from predictor import Predictor


class Api(litserve.LitAPI):
    def setup(self, device: str) -> None:
        self._predict = Predictor()

    def decode_request(self, request):  # LitServe gives another meaning to an annotation
        return np.asarray(request["input"])

    def predict(self, x: np.ndarray) -> np.ndarray:
        return self._predict(x)

    def encode_response(self, output: np.ndarray) -> dict[str, Any]:
        return {"output": output.tolist()}


if __name__ == "__main__":
    server = litserve.LitServer(Api(), accelerator="cpu", workers_per_device=2)
    server.run(
        port=int(os.environ["BENCH_PORT"]),
        host="127.0.0.1",
        num_api_servers=2,
        generate_client_file=False,
        log_level="warning",
        access_log=False,
    )
