"""The plain style of the documentation: four functions, the toolkit's decoder and encoder.

It needs a classifier in model.joblib. CSV and npy hold the rows; JSON may also be
{"instances": rows}. The answer is encoded as Accept asks.
"""

import json
import logging
import os

import joblib
import numpy as np

from sagemaker_inference import (
    content_types,
    decoder,
    default_inference_handler,
    encoder,
    errors,
    utils,
)

logger = logging.getLogger(__name__)
logger.setLevel(logging.DEBUG)


def model_fn(model_dir):
    clf = joblib.load(os.path.join(model_dir, "model.joblib"))
    return clf


def input_fn(request_body, request_content_type):
    if request_content_type == content_types.JSON:
        payload = json.loads(request_body)
        rows = payload["instances"] if isinstance(payload, dict) else payload
        return np.array(rows).reshape(len(rows), -1)
    array = decoder.decode(request_body, request_content_type)
    return array.reshape(1, -1) if array.ndim == 1 else array


def predict_fn(input_data, model):
    logger.info("predicting %d rows", len(input_data))
    return model.predict(input_data)


def output_fn(prediction, content_type):
    for accepted in utils.parse_accept(content_type):
        if accepted in encoder.SUPPORTED_CONTENT_TYPES:
            encoded = encoder.encode(prediction, accepted)
            if accepted == content_types.CSV:
                encoded = encoded.encode("utf-8")
            return encoded, accepted
    raise errors.UnsupportedFormatError(content_type)
