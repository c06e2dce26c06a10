"""transform_fn beside input_fn: which one reads the body is anyone's guess, so it must not load."""

import json
import os

import joblib


def model_fn(model_dir):
    return joblib.load(os.path.join(model_dir, "model.joblib"))


def input_fn(request_body, request_content_type):
    return json.loads(request_body)


def transform_fn(model, request_body, content_type, accept_type):
    return json.dumps(model.predict(json.loads(request_body)).tolist()), accept_type
