"""Arguments come by position: no name here is the documented one, and two are another's.

predict_fn takes the data first and transform_fn the model first, so a script has both orders; the
helper here is called as transform_fn would be. It needs any estimator with `predict`.
"""

import json
import os

import joblib


def model_fn(artifacts):
    return joblib.load(os.path.join(artifacts, "model.joblib"))


def input_fn(accept, model):
    """Take the body and its content type, whatever they are called."""
    return {"rows": json.loads(accept), "read_as": model}


def predict_fn(model, data):
    """Take the data first: here it goes by the name of `model`, and the estimator by `data`."""
    return run(data, model["rows"], model["read_as"], None)


def output_fn(request_body, content_type):
    """Take the prediction and the accepted type."""
    return json.dumps({**request_body, "written_as": content_type})


def run(estimator, rows, content_type, _accept):
    """Predict, with the model first."""
    return {"predictions": estimator.predict(rows).tolist(), "read_as": content_type}
