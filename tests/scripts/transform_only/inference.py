"""One transform_fn for the whole request, which answers a body with its content type.

It needs any estimator with `predict` in model.joblib. A body of CSV arrives as str, JSON as str,
anything else as bytes; the answer names the type it saw.
"""

import json
import os
from io import StringIO

import joblib
import pandas as pd


def model_fn(model_dir):
    return joblib.load(os.path.join(model_dir, "model.joblib"))


def transform_fn(model, request_body, content_type, accept_type="application/json"):
    if content_type == "text/csv":
        data = pd.read_csv(StringIO(request_body), header=None).to_numpy()
    elif content_type == "application/json":
        data = json.loads(request_body)
    else:
        raise ValueError(f"{content_type} input content type not supported.")

    predictions = model.predict(data)
    if accept_type == "text/csv":
        return "\n".join(str(value) for value in predictions.tolist()) + "\n", "text/csv"
    answer = {"predictions": predictions.tolist(), "body_type": type(request_body).__name__}
    return json.dumps(answer), "application/json"
