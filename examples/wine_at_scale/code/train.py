"""The wine recommender as a script for AWS's scikit-learn image: it trains, and it serves.

On SageMaker the script is run with its hyperparameters as arguments; in an endpoint only the
functions are called. `--data s3://...` reads the embeddings with s3fs instead of the channel; add
s3fs to a requirements.txt beside this file for that.
"""

import argparse
import io
import json
import os

import joblib
import numpy as np
from sklearn.neighbors import NearestNeighbors


def model_fn(model_dir):
    return joblib.load(os.path.join(model_dir, "model.joblib"))


def input_fn(request_body, request_content_type):
    if request_content_type == "application/json":
        return np.array(json.loads(request_body), dtype=np.float64)
    if request_content_type == "application/x-npy":
        return np.load(io.BytesIO(request_body), allow_pickle=False)
    raise ValueError("Send application/json or application/x-npy.")


def predict_fn(input_data, model):
    """Return distances and indices of the ten nearest wines: (rows, 2, 10)."""
    distances, indices = model.kneighbors(input_data)
    return np.stack([distances, indices], axis=1)


def output_fn(prediction, accept):
    stream = io.BytesIO()
    np.save(stream, prediction)
    return stream.getvalue(), "application/x-npy"


def load_wines(where):
    if where.startswith("s3://"):
        import s3fs

        with s3fs.S3FileSystem().open(where, "rb") as file:
            return np.load(file)
    return np.load(os.path.join(where, "wines.npy"))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--n_neighbors", type=int, default=10)
    parser.add_argument("--algorithm", type=str, default="auto")
    parser.add_argument("--data", type=str, default=os.environ.get("SM_CHANNEL_TRAIN"))
    parser.add_argument("--model-dir", type=str, default=os.environ.get("SM_MODEL_DIR"))
    args = parser.parse_args()

    wines = load_wines(args.data)
    print(f"wines={len(wines)}; columns={wines.shape[1]};", flush=True)
    model = NearestNeighbors(n_neighbors=args.n_neighbors, algorithm=args.algorithm)
    model.fit(wines)
    joblib.dump(model, os.path.join(args.model_dir, "model.joblib"))
