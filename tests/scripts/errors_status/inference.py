"""Fails as the body asks: a JSON string names the way. Any other body is echoed.

It needs no model. Expected: toolkit 422 "msg", generic 400, format 415, accept 406 (raised in
output_fn), decode 400, werkzeug 400, response 418, value and missing 500 without a traceback.
"""

import json

from werkzeug.exceptions import BadRequest

from sagemaker_containers.beta.framework import worker
from sagemaker_inference import content_types, decoder, errors


def model_fn(model_dir):
    return "no model"


def input_fn(request_body, request_content_type):
    wish = json.loads(request_body)
    if wish == "toolkit":
        raise errors.BaseInferenceToolkitError(422, "msg", "phrase")
    if wish == "generic":
        raise errors.GenericInferenceToolkitError(status_code=400, message="3 features, not 4")
    if wish == "format":
        raise errors.UnsupportedFormatError(request_content_type)
    if wish == "decode":
        return decoder.decode(b"not an array", content_types.NPY)
    if wish == "werkzeug":
        raise BadRequest("no such column")
    if wish == "value":
        raise ValueError("secret internals")
    if wish == "missing":
        raise KeyError("secret internals")
    return wish


def predict_fn(input_data, model):
    return input_data


def output_fn(prediction, accept):
    if prediction == "accept":
        raise errors.UnsupportedFormatError(accept)
    if prediction == "response":
        return worker.Response(json.dumps({"error": "teapot"}), status=418, mimetype=accept)
    return worker.Response(json.dumps(prediction))
