"""The featuriser of an inference pipeline, in the manner of AWS's abalone example.

As a script it trains: `--train` holds headerless CSV files of eight columns and the label.
Served, it answers the features, with the label in front if the request had one.
"""

import argparse
import json
import os
from io import StringIO

import joblib
import numpy as np
import pandas as pd
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from sagemaker_containers.beta.framework import (
    content_types,
    encoders,
    env,
    modules,
    transformer,
    worker,
)

numeric_columns = [
    "length",
    "diameter",
    "height",
    "whole_weight",
    "shucked_weight",
    "viscera_weight",
    "shell_weight",
]
feature_columns_names = ["sex", *numeric_columns]
label_column = "rings"

if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--output-data-dir", type=str, default=os.environ["SM_OUTPUT_DATA_DIR"])
    parser.add_argument("--model-dir", type=str, default=os.environ["SM_MODEL_DIR"])
    parser.add_argument("--train", type=str, default=os.environ["SM_CHANNEL_TRAIN"])
    args = parser.parse_args()

    input_files = [os.path.join(args.train, file) for file in os.listdir(args.train)]
    if len(input_files) == 0:
        raise ValueError(f"There are no files in {args.train}.")
    raw_data = [
        pd.read_csv(file, header=None, names=[*feature_columns_names, label_column])
        for file in input_files
    ]
    concat_data = pd.concat(raw_data)
    concat_data.drop(label_column, axis=1, inplace=True)

    preprocessor = ColumnTransformer(
        transformers=[
            (
                "num",
                make_pipeline(SimpleImputer(strategy="median"), StandardScaler()),
                numeric_columns,
            ),
            ("cat", OneHotEncoder(handle_unknown="ignore"), ["sex"]),
        ],
        sparse_threshold=0,
    )
    preprocessor.fit(concat_data)
    joblib.dump(preprocessor, os.path.join(args.model_dir, "model.joblib"))
    print("saved model!")


def input_fn(input_data, content_type):
    """Parse CSV, with or without the label column."""
    if content_type == "text/csv":
        df = pd.read_csv(StringIO(input_data), header=None)
        if len(df.columns) == len(feature_columns_names) + 1:
            df.columns = [*feature_columns_names, label_column]
        elif len(df.columns) == len(feature_columns_names):
            df.columns = feature_columns_names
        return df
    else:
        raise ValueError(f"{content_type} not supported by script!")


def output_fn(prediction, accept):
    """Answer in the type that the next container of the pipeline accepts."""
    if accept == "application/json":
        instances = []
        for row in prediction.tolist():
            instances.append({"features": row})
        json_output = {"instances": instances}
        return worker.Response(json.dumps(json_output), mimetype=accept)
    elif accept == "text/csv":
        # Older copies pass `accept` twice; it is ignored the first time.
        return worker.Response(encoders.encode(prediction, accept), accept, mimetype=accept)
    else:
        # RuntimeException is Java's: as published, this is a NameError, so a 500.
        raise RuntimeException(f"{accept} is not supported by this script.")


def predict_fn(input_data, model):
    """Transform instead of predict; put the label back in front."""
    features = model.transform(input_data)
    if label_column in input_data:
        return np.insert(features, 0, input_data[label_column], axis=1)
    else:
        return features


def model_fn(model_dir):
    """Load the fitted preprocessor."""
    preprocessor = joblib.load(os.path.join(model_dir, "model.joblib"))
    return preprocessor
