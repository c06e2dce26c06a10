"""The handler of Multi Model Server: JSON rows in, JSON numbers out."""

import json
from typing import Any

import numpy as np
from predictor import Predictor

predict = None


def handle(data: list[dict[str, Any]], context: Any) -> list[str] | None:
    global predict
    if predict is None:
        predict = Predictor()
    if data is None:  # the call with which a worker is made ready
        return None
    rows = data[0].get("body", data[0].get("data"))
    if isinstance(rows, (bytes, bytearray, str)):
        rows = json.loads(rows)
    context.set_response_content_type(0, "application/json")
    return [json.dumps(predict(np.asarray(rows)).tolist())]
