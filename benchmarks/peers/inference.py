"""The user's script for AWS's container: it has no default model_fn."""

from pathlib import Path
from typing import Any

import numpy as np
from predictor import Predictor


def model_fn(model_dir: str) -> Predictor:
    return Predictor(str(Path(model_dir, "model.joblib")))


def predict_fn(data: np.ndarray, model: Predictor) -> Any:
    return model(data)
