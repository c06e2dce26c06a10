"""Save the model as MLflow wants it: its scikit-learn flavor, or a pyfunc for `kneighbors`.

usage: mlflow_app.py FOLDER
"""

import os
import sys
from pathlib import Path
from typing import Any

import joblib
import mlflow.pyfunc
import mlflow.sklearn
import numpy as np


class Neighbours(mlflow.pyfunc.PythonModel):
    """The index stays in the file it is in: MLflow would copy it otherwise."""

    def load_context(self, context: Any) -> None:
        self._model = joblib.load(os.environ["BENCH_MODEL"])

    def predict(self, context: Any, model_input: np.ndarray, params: Any = None) -> np.ndarray:
        return np.hstack(self._model.kneighbors(np.asarray(model_input)))


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    model = joblib.load(os.environ["BENCH_MODEL"])
    if hasattr(model, "predict"):
        mlflow.sklearn.save_model(model, folder, serialization_format="pickle")
    else:
        mlflow.pyfunc.save_model(folder, python_model=Neighbours())
