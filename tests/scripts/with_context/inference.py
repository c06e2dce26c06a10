"""Every function takes the request's context: some need it, some have a default for it.

It needs a classifier in model.joblib. The custom attributes choose the answer: "proba" asks for
probabilities. The reply says under its own media type where the model came from.
"""

import json
import os

import joblib

ATTRIBUTES = "X-Amzn-SageMaker-Custom-Attributes"


def model_fn(model_dir, context=None):
    if context is not None:
        model_dir = context.system_properties.get("model_dir") or model_dir
    return joblib.load(os.path.join(model_dir, "model.joblib"))


def input_fn(request_body, content_type, context):
    attributes = context.get_request_header(0, ATTRIBUTES)
    return {"rows": json.loads(request_body), "attributes": attributes}


def predict_fn(data, model, context):
    method = model.predict_proba if "proba" in (data["attributes"] or "") else model.predict
    return {
        "predictions": method(data["rows"]).tolist(),
        "model_dir": context.system_properties.get("model_dir"),
        "attributes": context.get_request_header(0, ATTRIBUTES.lower()),
    }


def output_fn(prediction, accept, context=None):
    context.set_response_content_type(0, "application/vnd.example+json")
    return json.dumps(prediction)
