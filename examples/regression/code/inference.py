"""The four functions of AWS's scikit-learn container, as its documentation shows them."""

import io
import json
import os

import joblib
import numpy as np


def model_fn(model_dir):
    return joblib.load(os.path.join(model_dir, "model.joblib"))


def input_fn(request_body, request_content_type):
    if request_content_type == "text/csv":
        return np.loadtxt(io.StringIO(request_body), delimiter=",", ndmin=2)
    if request_content_type == "application/json":
        return np.array(json.loads(request_body)["patients"], dtype=float)
    if request_content_type == "application/x-npy":
        return np.load(io.BytesIO(request_body), allow_pickle=False)
    raise ValueError(f"{request_content_type} is not supported by this script")


def predict_fn(input_data, model):
    return model.predict(input_data)


def output_fn(prediction, accept):
    if accept == "application/json":
        return json.dumps({"progression": [round(float(value), 1) for value in prediction]}), accept
    return "\n".join(f"{value:.1f}" for value in prediction) + "\n", "text/csv"
